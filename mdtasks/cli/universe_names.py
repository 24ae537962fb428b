"""``mdtasks universe rename, delist, symbols``: what instruments are called, and when their lives end."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, explain, symbols_of
from mdtasks.cli.universe_versions import day_of

_EXAMPLES: Final = """
examples:
  mdtasks universe rename FB META --on 2022-06-09     the same instrument, with all its bars
  mdtasks universe delist WM --on 2008-09-26          the first day on which it no longer traded
  mdtasks universe add WM --mic XNYS --from 2009-08-05   another company takes the ticker
  mdtasks universe symbols WM                         who bore it when
  mdtasks universe symbols WM --on 2007-01-03

A listing whose source has ids of its own (LEAN, the vendors, a CSV with a column id) tells of renamings by itself.
"""


def add_names(below: Commands) -> None:
    """Add the commands of names to ``mdtasks universe``."""
    other = below.add("rename", rename, "Let an instrument bear another symbol from a day on", json=True)
    other.add_argument("old", metavar="OLD")
    other.add_argument("new", metavar="NEW")
    other.add_argument("--on", metavar="DAY", help="the first day of the new one (default: today)")
    end = below.add("delist", delist, "Say when a symbol no longer trades; nothing is expected of it since", json=True)
    end.add_argument("symbol", metavar="SYMBOL")
    when = end.add_mutually_exclusive_group(required=True)
    when.add_argument("--on", metavar="DAY", help="the first day on which it no longer trades")
    when.add_argument("--undo", action="store_true", help="it trades on")
    who = below.add("symbols", symbols, "Show who bore a symbol when, and what those bore else", json=True)
    who.add_argument("symbol", metavar="SYMBOL")
    who.add_argument("--on", metavar="DAY", help="only who bore it that day")
    for parser in (other, end, who):
        explain(parser, _EXAMPLES)


def rename(args: argparse.Namespace) -> None:
    """Rename an instrument."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_tree
    from mdtasks.flows import universe_symbols as flow

    now = datetime.now(UTC)
    on = now.date() if args.on is None else day_of(args.on, "on")
    old, new = (symbols_of([word])[0] for word in (args.old, args.new))
    with opened_database(args) as database:
        done = flow.rename((old, new), on, actor(), database, now)
    if args.json:
        print_json(json_tree(done.as_dict()))
    else:
        print(f"{done.old} is {done.new} since {done.on}")


def delist(args: argparse.Namespace) -> None:
    """Say when a life ended, or that it did not."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.flows import universe_symbols as flow

    symbol = symbols_of([args.symbol])[0]
    with opened_database(args) as database:
        one = flow.delist(symbol, None if args.undo else day_of(args.on, "on"), actor(), database)
    if args.json:
        print_json({"ok": True, "symbol": symbol, "instrument": one.id, "delisted_on": one.delisted_on})
    else:
        print(
            f"{symbol} trades on" if one.delisted_on is None else f"{symbol} no longer trades since {one.delisted_on}"
        )


def symbols(args: argparse.Namespace) -> None:
    """Show who bore a symbol."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import show_table
    from mdtasks.flows import universe_symbols as flow

    symbol = symbols_of([args.symbol])[0]
    with opened_database(args) as database:
        found = flow.history(symbol, database) if args.on is None else flow.on(symbol, day_of(args.on, "on"), database)
    names = ("instrument_id", "symbol", "valid_from", "valid_to", "mic", "tier", "listed_from", "delisted_on")
    if args.json:
        print_json([{name: getattr(each, name) for name in names} for each in found])
        return
    headers = ("instrument", "symbol", "from", "until", "exchange", "tier", "listed", "delisted")
    show_table(headers, [(str(each.instrument_id), *(getattr(each, name) for name in names[1:])) for each in found])
    if args.on is None:
        say("until: the first day on which it was no longer borne; a dash: still")
