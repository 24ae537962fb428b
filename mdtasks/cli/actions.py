"""``mdtasks actions``: splits, dividends and what else happens to companies."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, explain, symbols_of, time_of
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mdtasks.domain.actions import Told
    from mdtasks.flows.action_records import Change, Listed
    from mdtasks.flows.deps import Deps
    from mdtasks.providers.base import Provider

_EXAMPLES: Final = """
examples:
  mdtasks actions list AAPL
  mdtasks actions list AAPL --as-of 2026-11-02T21:00Z --history
  mdtasks actions import splits.csv
  mdtasks actions import AAPL.csv --symbol AAPL
  mdtasks actions refresh --source yfinance
  mdtasks actions add AAPL 2014-06-09 split 7:1 --reason "8-K of 2014-06-06"
  mdtasks actions withdraw AAPL 2014-06-06 split --reason "a day early"

DAY is the ex-date: the session from which on prices are without it. VALUE is of a split 4:1 or 1:10, of a dividend cash
for a share as it was then, of a stock_dividend new shares for each held, of a spin_off the part of a share's worth that
stays, where it is known; a rename takes --new-symbol instead, a delisting nothing. What a person tells is believed
before all others; to withdraw a split that nobody told of settles a jump of the price that was none. Nothing is
overwritten.
"""


def add_parser(commands: Commands) -> None:
    """Add ``actions list``, ``import``, ``refresh``, ``add`` and ``withdraw``."""
    below = commands.group("actions", "Splits, dividends, renames: list, import, refresh, add, withdraw")
    show = below.add("list", list_actions, "List the corporate actions of a symbol", json=True)
    show.add_argument("symbol", metavar="SYMBOL")
    show.add_argument("--as-of", metavar="TIME", help="as they were known at this time")
    show.add_argument("--history", action="store_true", help="every statement, superseded and withdrawn ones too")
    read = below.add("import", import_file, "Read actions from a CSV file, all or none", json=True)
    read.add_argument("file", metavar="FILE", help="columns ex_date,kind,value[,symbol,currency,new_symbol,…]")
    read.add_argument("--symbol", metavar="SYMBOL", help="of a file without a column symbol")
    read.add_argument("--source", default="file", metavar="NAME", help="who tells it, for the record (default: file)")
    ask = below.add("refresh", refresh, "Ask providers about actions now", json=True)
    ask.add_argument("symbols", nargs="*", metavar="SYMBOL", help="a name, @FILE, or - (default: all that are due)")
    ask.add_argument("--source", metavar="P", help="of one provider, of all symbols, due or not")
    new = below.add("add", add, "Tell of an action", json=True)
    back = below.add("withdraw", withdraw, "Tell that there was no such action", json=True)
    for parser in (new, back):
        parser.add_argument("symbol", metavar="SYMBOL")
        parser.add_argument("ex_date", metavar="DAY", help="the ex-date, such as 2014-06-09")
        parser.add_argument("kind", metavar="KIND", help="split, dividend, stock_dividend, spin_off, rename, delisting")
        parser.add_argument("--new-symbol", default="", metavar="SYMBOL", help="of a rename, or the company spun off")
        parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for the record")
    new.add_argument("value", nargs="?", default="", metavar="VALUE")
    new.add_argument("--currency", default="", metavar="C", help="of a dividend, such as USD (default: the prices')")
    for parser in (show, read, ask, new, back):
        explain(parser, _EXAMPLES)


def list_actions(args: argparse.Namespace) -> int:
    """List what stands, or every statement."""
    from mdtasks.cli.opened import calendars_of, opened_database
    from mdtasks.flows.action_records import listed

    symbol = symbols_of([args.symbol])[0]
    as_of = None if args.as_of is None else time_of(args.as_of, "as_of")
    with opened_database(args) as database:
        found = listed(database, symbol, calendars_of(args, database), datetime.now(UTC), as_of)
    if args.json:
        print_json(found.as_dict(history=args.history))
        return 0
    _show(found, history=args.history)
    return 0


def _show(found: Listed, *, history: bool) -> None:
    from mdtasks.cli.output import show_table

    if history and found.history:
        rows = [
            (each.known_at, *_cells(each), each.source, "withdrawn" if each.withdrawn else "told", each.reason)
            for each in found.history
        ]
        show_table(("known (UTC)", "ex-date", "kind", "value", "source", "said", "reason"), rows)
    elif found.stands:
        headers = ("ex-date", "kind", "value", "source", "known (UTC)", "in force")
        show_table(headers, [(*_cells(each), each.source, each.known_at, begun) for each, begun in found.stands])
    else:
        say(f"no corporate actions of {found.symbol} are known" + (" as of then" if found.as_of else ""))
    for each in found.answered:
        span = f"answered for {each.days.first} to {each.days.last}" if each.days else "never answered"
        last = f"asked last on {each.asked_at:%Y-%m-%d %H:%M} UTC"
        say(f"{each.source} {span}, {last}" + (f": {each.error}" if each.error else ""))
    if not found.answered:
        say(f"no provider was asked yet: `mdtasks actions refresh {found.symbol}` asks, `mdtasks actions import` reads")


def _cells(each: Told) -> tuple[object, ...]:
    action = each.action
    value = action.symbol if action.value is None else action.value
    money = f"{value:g} {action.currency}" if action.currency and isinstance(value, float) else value
    return str(action.ex_date), action.kind.value, money


def import_file(args: argparse.Namespace) -> int:
    """Read a file: safe to repeat."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.action_files import read_actions_file
    from mdtasks.flows.action_records import source_name, tell

    symbol = None if args.symbol is None else symbols_of([args.symbol])[0]
    source = source_name(args.source)
    given = read_actions_file(Path(args.file).expanduser(), symbol)
    with opened_deps(args) as deps:
        change = _followed(tell(deps.database, given, source, actor(), providers=_of_days(deps)), deps)
    return _said(args, {"read": len(given), **change})


def refresh(args: argparse.Namespace) -> int:
    """Ask providers now. Exits with 1 when nobody answered for some."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows import actions

    symbols = symbols_of(args.symbols) if args.symbols else ()
    with opened_deps(args) as deps:
        done = actions.refresh(deps, datetime.now(UTC), actions.Which(symbols, args.source))
    _said(args, done.as_dict())
    if not args.json:
        for name, error in done.errors.items():
            say(f"{name}: {error}")
    return 1 if done.unanswered else 0


def add(args: argparse.Namespace) -> int:
    """Tell of one action."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.domain.actions import PERSON
    from mdtasks.flows.action_files import action_of
    from mdtasks.flows.action_records import tell

    names = ("ex_date", "kind", "value", "currency", "new_symbol")
    action, symbol = action_of({name: getattr(args, name) for name in names}), symbols_of([args.symbol])[0]
    with opened_deps(args) as deps:
        told = tell(deps.database, [(symbol, action)], PERSON, actor(), _reason(args), providers=_of_days(deps))
        change = _followed(told, deps)
    return _said(args, change)


def withdraw(args: argparse.Namespace) -> int:
    """Tell that there was none."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows import action_records
    from mdtasks.flows.action_files import key_of

    symbol = symbols_of([args.symbol])[0]
    key = key_of(args.ex_date, args.kind, args.new_symbol)
    with opened_deps(args) as deps:
        told = action_records.withdraw(deps.database, symbol, key, actor(), _reason(args), providers=_of_days(deps))
        change = _followed(told, deps)
    return _said(args, change)


def _of_days(deps: Deps) -> Sequence[Provider]:
    """Who may be asked for daily bars: what does not fit may come from another."""
    from mdtasks.domain.jobs import Interval

    return deps.registry.order(Interval.D1)


def _followed(change: Change, deps: Deps) -> dict[str, Any]:
    """What was put on record, and which names and lives followed it at once."""
    from mdtasks.flows.action_names import follow

    followed = follow(deps.database, change.about, deps.calendars, datetime.now(UTC), actor())
    return {**change.as_dict(), **followed.as_dict()}


def _reason(args: argparse.Namespace) -> str:
    said: str = args.reason.strip()
    if not said:
        raise InvalidRequestError("reason is empty: say why", field="reason", hint="for example: 8-K of 2014-06-06")
    return said


def _said(args: argparse.Namespace, counts: Mapping[str, Any]) -> int:
    from mdtasks.cli.output import plural

    if args.json:
        print_json(dict(counts))
        return 0
    said = [f"{counts[name]:,} {name}" for name in _COUNTS if counts.get(name)]
    print(", ".join(said) or "nothing to ask: all were asked about today")
    if counts["suspect"]:
        days = plural(counts["suspect"], "day does", "days do")
        say(f"{days} not fit the bars: `mdtasks dlq list` and `mdtasks quarantine` show them")
    for each in counts.get("doubts", ()):
        say(f"the bars say otherwise: {each}")
    if counts["names"] or counts["lives"]:
        names, lives = (
            plural(counts["names"], "instrument bears", "instruments bear"),
            plural(counts["lives"], "life", "lives"),
        )
        say(f"{names} other symbols, now or then, and {lives} ended or did not after all: `mdtasks universe symbols`")
    for each in counts["unclear"]:
        say(f"not followed: {each}")
    return 0


_COUNTS: Final = ("read", "answered", "unanswered", "added", "corrected", "withdrawn", "suspect", "resolved")
