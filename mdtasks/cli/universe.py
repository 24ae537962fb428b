"""``mdtasks universe``: which symbols there are, where they trade, what they were called, and how much they matter."""

from __future__ import annotations

import argparse

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, add_kind, add_tier, explain, symbols_of, time_of
from mdtasks.cli.universe_again import add_again
from mdtasks.cli.universe_names import add_names
from mdtasks.cli.universe_versions import add_versions, day_of
from mdtasks.domain.errors import InvalidRequestError

_EXAMPLES = """
examples:
  mdtasks universe add AAPL MSFT --mic XNYS --tier T0
  mdtasks universe add BTC-USD --mic 24/7
  mdtasks universe add @sp500.txt --mic XNYS
  mdtasks universe set-tier NVDA --tier T0
  mdtasks universe list --tier T0 --names | mdtasks backfill - --sessions 5
"""


def add_parser(commands: Commands) -> None:
    """Add ``universe ...``."""
    below = commands.group("universe", "The symbols to keep complete, and the universe's versions: add, refresh, …")
    new = below.add("add", add_symbols, "Add symbols of an exchange", json=True)
    new.add_argument("symbols", nargs="+", metavar="SYMBOL", help="a name, @FILE, or - for standard input")
    new.add_argument(
        "--mic", required=True, metavar="MIC", help="the exchange, such as XNYS or XLON; 24/7: never closes"
    )
    add_kind(new)
    add_tier(new, "T0 matters most (default: T1)")
    new.add_argument("--from", dest="listed_from", metavar="DAY", help="the first day on which it traded")
    new.add_argument("--until", dest="delisted_on", metavar="DAY", help="the first day on which it no longer trades")
    explain(new, _EXAMPLES)
    show = below.add("list", list_symbols, "List the symbols", json=True)
    add_tier(show, "of one tier only")
    show.add_argument("--names", action="store_true", help="the symbols alone, one a line, for another command")
    show.add_argument("--as-of", metavar="TIME", help="whom the universe followed then, called and listed as then")
    explain(show, _EXAMPLES)
    move = below.add("set-tier", set_tier, "Move symbols to a tier", json=True)
    move.add_argument("symbols", nargs="+", metavar="SYMBOL", help="a name, @FILE, or - for standard input")
    add_tier(move, "the tier to move them to", required=True)
    explain(move, _EXAMPLES)
    add_names(below)
    add_versions(below)
    add_again(below)


def add_symbols(args: argparse.Namespace) -> int:
    """Add symbols. Safe to repeat: what is there stays as it is."""
    from mdtasks.cli.opened import calendars_of, opened_database
    from mdtasks.cli.output import plural
    from mdtasks.domain.jobs import Tier
    from mdtasks.store.reference import Instrument, add_instruments

    mic = calendars_of(args).get(args.mic).mic
    if mic != args.mic.upper() and not args.json:
        say(f"{args.mic} keeps the hours of {mic}: stored as {mic}")
    kind = args.kind or ("crypto" if mic == "24/7" else "equity")
    tier = Tier(args.tier or "T1")
    listed, delisted = (
        None if text is None else day_of(text, field)
        for text, field in ((args.listed_from, "from"), (args.delisted_on, "until"))
    )
    if listed and delisted and listed >= delisted:
        raise InvalidRequestError(
            f"until {delisted} is not after {listed}", field="until", hint="the first day on which it no longer trades"
        )
    wanted = [Instrument(symbol, mic, kind, tier, listed, delisted) for symbol in symbols_of(args.symbols)]
    with opened_database(args) as database, database.transaction() as connection:
        counts = add_instruments(connection, wanted)
    if args.json:
        print_json({"added": counts.added, "known": counts.known, "mic": mic, "kind": kind, "tier": tier})
        return 0
    known = (
        f"; {plural(counts.known, 'symbol was', 'symbols were')} there already and stayed as before"
        if counts.known
        else ""
    )
    print(f"{plural(counts.added, 'symbol')} added on {mic} in {tier}{known}")
    if counts.added:
        say(f"`mdtasks backfill {wanted[0].symbol} --sessions 5` fetches its bars")
    return 0


def list_symbols(args: argparse.Namespace) -> int:
    """List the universe."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import show_table
    from mdtasks.domain.jobs import Tier
    from mdtasks.flows.as_of import await_changes
    from mdtasks.store.reference import instruments

    as_of = None if args.as_of is None else time_of(args.as_of, "as_of")
    with opened_database(args) as database:
        if as_of is not None:
            await_changes(database, as_of)
        with database.transaction() as connection:
            found = instruments(connection, None if args.tier is None else Tier(args.tier), as_of)
    if args.json:
        names = ("symbol", "mic", "kind", "tier", "listed_from", "delisted_on")
        print_json([{name: getattr(each, name) for name in names} for each in found])
    elif args.names:
        for each in found:
            print(each.symbol)
    elif found:
        headers = ("symbol", "exchange", "kind", "tier", "listed", "delisted")
        rows = [(each.symbol, each.mic, each.kind, each.tier, each.listed_from, each.delisted_on) for each in found]
        show_table(headers, rows)
    elif as_of is not None:
        say(f"the universe followed nobody as of {as_of:%Y-%m-%d %H:%M:%S} UTC")
    else:
        say("no symbols; `mdtasks universe add AAPL --mic XNYS` adds one")
    return 0


def set_tier(args: argparse.Namespace) -> int:
    """Move symbols to a tier; nothing moves when one of them is unknown."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import plural
    from mdtasks.domain.jobs import Tier
    from mdtasks.store import reference

    symbols = symbols_of(args.symbols)
    with opened_database(args) as database, database.transaction() as connection:
        moved = reference.set_tier(connection, symbols, Tier(args.tier), actor())
    if args.json:
        print_json({"moved": moved, "tier": args.tier})
    else:
        there = f"; {plural(len(symbols) - moved, 'was', 'were')} there already" if moved < len(symbols) else ""
        print(f"{plural(moved, 'symbol')} moved to {args.tier}{there}")
    return 0
