"""``mdtasks bars``: what is stored."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mdtasks.cli.frame import Commands, say
from mdtasks.cli.inputs import add_interval, add_window, asked_window, explain, symbols_of, time_of
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.cli.bar_formats import Found
    from mdtasks.domain.sessions import Calendars
    from mdtasks.store.bar_reports import BarCount, Series

FORMATS: Final = ("table", "csv", "json", "parquet")
#: The values of ``Adjust``.
ADJUST: Final = ("none", "split", "total")
#: Bars that a table shows when it is not told to show all.
_SHOWN: Final = 20
#: The last sessions that are shown when no window is given.
_SESSIONS: Final = 5

_BARS = """
examples:
  mdtasks bars AAPL
  mdtasks bars AAPL --interval 1d --start 2019-11-01 --end 2019-12-01 --all
  mdtasks bars BTC-USD --sessions 1 --format csv > btc.csv
  mdtasks bars AAPL --start 2026-01-01 --output aapl.parquet
  mdtasks bars AAPL --start 2026-11-02 --end 2026-11-03 --as-of 2026-11-02T21:00Z --json

  mdtasks bars AAPL --interval 1d --start 2014-01-01 --adjust total

A bar is stamped with the start of its interval, in UTC. A date alone is 00:00 UTC. Prices are raw, as the provider
gave them, unless --adjust asks for more, and written so that they read back as the same numbers. In a pipe the format
is csv.
"""


def add_parser(commands: Commands) -> None:
    """Add ``bars``."""
    read = commands.add("bars", bars, "Show or export the bars of a symbol", json=True)
    read.add_argument("symbol", metavar="SYMBOL")
    add_interval(read)
    add_window(read, default=f" (default: {_SESSIONS}, when there is no --start)")
    formats = f"{', '.join(FORMATS)} (default: table on a terminal, csv in a pipe, or by the name of --output)"
    read.add_argument("--format", choices=FORMATS, metavar="F", help=formats)
    read.add_argument(
        "--adjust", choices=ADJUST, default="none", metavar="A", help="none, split, or total: for dividends too"
    )
    read.add_argument("--as-of", metavar="TIME", help="as it was known at this time, revisions undone")
    read.add_argument("--output", metavar="FILE", help="write to a file, whole or not at all")
    read.add_argument("--all", action="store_true", help=f"the whole table, not only its last {_SHOWN} bars")
    explain(read, _BARS)


def bars(args: argparse.Namespace) -> int:
    """Read the bars of one symbol and write them in a format."""
    from mdtasks.cli import bar_formats

    chosen = _format(args)
    found, stored = _read(args)
    if chosen == "table":
        shown = found if args.all else found.last(_SHOWN)
        if len(found):
            bar_formats.write_table(shown)
        _say_what_was_shown(shown, found, stored)
        return 0
    to_file = args.output not in (None, "-")
    with bar_formats.whole_file(Path(args.output)) if to_file else nullcontext(sys.stdout.buffer) as stream:
        bar_formats.WRITERS[chosen](found, stream)
        stream.flush()
    if to_file or not len(found):
        _say_what_was_shown(found, found, stored)
    return 0


def _format(args: argparse.Namespace) -> str:
    """The format that was asked for, or fits. Raises InvalidRequestError for a binary one on a terminal."""
    suffix = Path(args.output or "").suffix.removeprefix(".").lower()
    if args.json and args.format not in (None, "json"):
        raise InvalidRequestError(
            f"--json and --format {args.format} exclude one another", field="format", hint="leave one of them out"
        )
    to_terminal = args.output is None and sys.stdout.isatty()
    chosen: str = "json" if args.json else args.format or suffix
    if chosen not in ("", *FORMATS):
        raise InvalidRequestError(
            f"the name of {args.output} tells no format",
            field="output",
            hint="end it in .csv, .json or .parquet, or give --format",
        )
    if chosen == "parquet" and to_terminal:
        raise InvalidRequestError(
            "parquet is binary: it is not for a terminal", field="format", hint="give --output FILE, or a pipe"
        )
    if chosen == "table" and args.output is not None:
        raise InvalidRequestError("a table is not for a file", field="format", hint="csv, json and parquet are")
    return chosen or ("table" if to_terminal else "csv")


@dataclass(frozen=True, slots=True)
class _Here:
    """What adjusting needs of a process."""

    calendars: Calendars


def _read(args: argparse.Namespace) -> tuple[Found, BarCount | list[Series]]:
    """The bars asked for; where there are none, how many there are at other times, or else of other intervals."""
    from mdtasks.cli.bar_formats import Found
    from mdtasks.cli.opened import calendars_of, opened_database
    from mdtasks.domain.adjustment import Adjust
    from mdtasks.domain.jobs import Interval
    from mdtasks.flows.adjusting import adjusted
    from mdtasks.store import bar_reports, reference
    from mdtasks.store import bars as store_bars

    symbol, *others = symbols_of([args.symbol])
    if others:
        raise InvalidRequestError(
            f"{len(others) + 1} symbols: give one at a time", field="symbol", hint="a loop reads several"
        )
    asked, interval = asked_window(args, sessions=_SESSIONS), Interval(args.interval)
    as_of = None if args.as_of is None else time_of(args.as_of, "as-of")
    with opened_database(args) as database, database.transaction() as connection:
        member = reference.resolve(connection, [symbol])[symbol]
        here = _Here(calendars_of(args, database))
        window = asked.on(here.calendars.get(member.mic), interval, datetime.now(UTC))
        stored = store_bars.read_bars(connection, member.id, interval, window, as_of)
        stored = adjusted(here, connection, member, interval, stored, Adjust(args.adjust), as_of)
        found = Found(symbol, interval, window, as_of, stored, args.adjust)
        if len(found):
            return found, []
        if as_of is not None:
            found = replace(found, known_later=len(store_bars.read_bars(connection, member.id, interval, window)))
        count = bar_reports.bar_counts(connection, [member.id], interval).get(member.id)
        return found, count or bar_reports.stored_series(connection, member.id)


def _say_what_was_shown(shown: Found, found: Found, stored: BarCount | list[Series]) -> None:
    """Say where the data came from, or where data would be when there is none."""
    span = f"{found.window.start:%Y-%m-%d %H:%M} to {found.window.end:%Y-%m-%d %H:%M} UTC"
    if len(shown) < len(found):
        say(f"the last {len(shown):,} of {len(found):,} bars from {span}; --all shows every one")
    elif len(found):
        say(f"{len(found):,} bars from {span}")
    else:
        say(f"no {found.interval} bars of {found.symbol} from {span}")
        say(f"hint: {_where_there_are_bars(found, stored)}")


def _where_there_are_bars(found: Found, stored: BarCount | list[Series]) -> str:
    """What is stored of the symbol in place of what was asked for, and what to type to see it."""
    of_it = f"{found.symbol} --interval {found.interval}"
    if found.known_later:
        return (
            f"{found.known_later:,} are known now, but none was as of {found.as_of:%Y-%m-%d %H:%M:%S} UTC: "
            "leave --as-of out, or give a later one"
        )
    if not stored:
        return f"nothing is stored of {found.symbol}: `mdtasks backfill {of_it} --sessions {_SESSIONS}` fetches some"
    if not isinstance(stored, list):
        span = f"{stored.first_at:%Y-%m-%d %H:%M} to {stored.last_at:%Y-%m-%d %H:%M} UTC"
        return f"{stored.bars:,} are stored from {span}: `mdtasks bars {of_it} --start {stored.last_at:%Y-%m-%d}`"
    known = ", ".join(f"{each.interval} ({each.first_at:%Y-%m-%d} to {each.last_at:%Y-%m-%d})" for each in stored)
    one = stored[0]
    return (
        f"stored are {known}: `mdtasks bars {found.symbol} --interval {one.interval} --start {one.last_at:%Y-%m-%d}`; "
        f"`mdtasks backfill {of_it} --sessions {_SESSIONS}` fetches {found.interval}"
    )
