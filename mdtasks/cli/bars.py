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
    from mdtasks.domain.reading import Reading
    from mdtasks.flows.reading import Part, Shelf

FORMATS: Final = ("table", "csv", "json", "arrow", "parquet")
_BINARY: Final = ("arrow", "parquet")
#: What a file of a format is called, where it is not called as the format.
_SUFFIXES: Final = {"arrows": "arrow"}
HOURS: Final = ("regular", "all")
FILLS: Final = ("none", "no_trade")
#: The values of ``Adjust``.
ADJUST: Final = ("none", "split", "total")
#: What reads from a pipe may take so long for a piece, seconds.
_PATIENCE_S: Final = 3600
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
  mdtasks bars AAPL --interval 1d --start 2016-01-01 --adjust total

A bar is stamped with the start of its interval, in UTC. A date alone is 00:00 UTC. Prices are raw, as the provider
gave them, unless --adjust says otherwise, and written so that they read back as the same numbers. In a pipe the format
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
    read.add_argument("--as-of", metavar="TIME", help="as it was known at this time, revisions undone")
    hours = "all (the default), or regular: only the intervals of the exchange's sessions"
    read.add_argument("--session", choices=HOURS, default="all", metavar="HOURS", help=hours)
    fill = "no_trade: a row for each interval that is known to be without a trade (default: none)"
    read.add_argument("--fill", choices=FILLS, default="none", metavar="FILL", help=fill)
    adjust = "split, or total for dividends too, by the actions known then (default: none, as the provider gave them)"
    read.add_argument("--adjust", choices=ADJUST, default="none", metavar="A", help=adjust)
    read.add_argument("--output", metavar="FILE", help="write to a file, whole or not at all")
    read.add_argument("--all", action="store_true", help=f"the whole table, not only its last {_SHOWN} bars")
    explain(read, _BARS)


def bars(args: argparse.Namespace) -> int:
    """Read the bars of one symbol and write them in a format."""
    from mdtasks.cli import bar_formats
    from mdtasks.cli.opened import calendars_of, opened_database
    from mdtasks.domain.reading import BarRows
    from mdtasks.flows import bar_formats as formats
    from mdtasks.flows.reading import Shelf, opened

    chosen, asked = _format(args), _asked(args)
    to_file = args.output not in (None, "-")
    with opened_database(args) as database:
        shelf = Shelf(database, calendars_of(args, database))
        # A pager may keep it waiting.
        with opened(asked, shelf, datetime.now(UTC), idle_s=_PATIENCE_S) as found:
            (part,) = found.parts
            shown = (None if args.all else _SHOWN) if chosen == "table" else 0
            rows = bar_formats.Counted(found.batches(), shown)
            if chosen == "table":
                for _ in rows:
                    pass
            else:
                shape = formats.Shape(asked.interval, part.member.symbol, _about(asked, part))
                with bar_formats.whole_file(Path(args.output)) if to_file else nullcontext(sys.stdout.buffer) as stream:
                    for chunk in formats.FORMATS[chosen].encode(rows, shape):
                        stream.write(chunk)
                    stream.flush()
        if chosen == "table" and rows.count:
            bar_formats.write_table(BarRows.concat(rows.held), asked.interval)
        if chosen == "table" or to_file or not rows.count:
            _say_what_was_shown(_Shown(asked, part, rows.count, sum(map(len, rows.held)) or rows.count), shelf)
    return 0


@dataclass(frozen=True, slots=True)
class _Shown:
    """What was found of a question, and how many rows of it were shown."""

    asked: Reading
    part: Part
    found: int
    shown: int

    @property
    def symbol(self) -> str:
        return self.part.member.symbol


def _asked(args: argparse.Namespace) -> Reading:
    """The question. Raises InvalidRequestError."""
    from mdtasks.domain.adjustment import Adjust
    from mdtasks.domain.jobs import Interval
    from mdtasks.domain.reading import Fill, Hours, Reading

    symbol, *others = symbols_of([args.symbol])
    if others:
        raise InvalidRequestError(
            f"{len(others) + 1} symbols: give one at a time", field="symbol", hint="a loop reads several"
        )
    window = asked_window(args, sessions=_SESSIONS)
    as_of = None if args.as_of is None else time_of(args.as_of, "as_of")
    how = (Hours(args.session), Fill(args.fill), Adjust(args.adjust))
    return Reading((symbol,), Interval(args.interval), window, as_of, *how)


def _about(asked: Reading, part: Part) -> dict[str, object]:
    """What a JSON document says before its bars."""
    return {
        "symbol": part.member.symbol,
        "interval": asked.interval.value,
        "start": part.window.start,
        "end": part.window.end,
        "as_of": asked.as_of,
        "session": asked.hours.value,
        "fill": asked.fill.value,
        "adjust": asked.adjust.value,
    }


def _format(args: argparse.Namespace) -> str:
    """The format that was asked for, or fits. Raises InvalidRequestError for a binary one on a terminal."""
    suffix = Path(args.output or "").suffix.removeprefix(".").lower()
    if args.json and args.format not in (None, "json"):
        raise InvalidRequestError(
            f"--json and --format {args.format} exclude one another", field="format", hint="leave one of them out"
        )
    to_terminal = args.output is None and sys.stdout.isatty()
    chosen: str = "json" if args.json else args.format or _SUFFIXES.get(suffix, suffix)
    if chosen not in ("", *FORMATS):
        raise InvalidRequestError(
            f"the name of {args.output} tells no format",
            field="output",
            hint="end it in .csv, .json, .arrows or .parquet, or give --format",
        )
    if chosen in _BINARY and to_terminal:
        raise InvalidRequestError(
            f"{chosen} is binary: it is not for a terminal", field="format", hint="give --output FILE, or a pipe"
        )
    if chosen == "table" and args.output is not None:
        raise InvalidRequestError("a table is not for a file", field="format", hint="csv, json, arrow and parquet are")
    return chosen or ("table" if to_terminal else "csv")


def _say_what_was_shown(shown: _Shown, shelf: Shelf) -> None:
    """Say where the data came from, or where data would be when there is none."""
    window = shown.part.window
    span = f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC"
    if shown.shown < shown.found:
        say(f"the last {shown.shown:,} of {shown.found:,} bars from {span}; --all shows every one")
    elif shown.found:
        say(f"{shown.found:,} bars from {span}")
    else:
        say(f"no {shown.asked.interval} bars of {shown.symbol} from {span}")
        say(f"hint: {_where_there_are_bars(shown, shelf)}")


def _where_there_are_bars(shown: _Shown, shelf: Shelf) -> str:
    """What is stored of the symbol in place of what was asked for, and what to type to see it."""
    from mdtasks.flows.reading import opened
    from mdtasks.store import bar_reports

    asked, member = shown.asked, shown.part.member
    of_it = f"{member.symbol} --interval {asked.interval}"
    if asked.as_of is not None:
        with opened(replace(asked, as_of=None), shelf, datetime.now(UTC)) as later:
            known_later = sum(map(len, later.batches()))
        if known_later:
            return (
                f"{known_later:,} are known now, but none was as of {asked.as_of:%Y-%m-%d %H:%M:%S} UTC: "
                "leave --as-of out, or give a later one"
            )
    with shelf.database.transaction() as connection:
        count = bar_reports.bar_counts(connection, [member.id], asked.interval).get(member.id)
        stored = count or bar_reports.stored_series(connection, member.id)
    if not stored:
        return f"nothing is stored of {member.symbol}: `mdtasks backfill {of_it} --sessions {_SESSIONS}` fetches some"
    if not isinstance(stored, list):
        span = f"{stored.first_at:%Y-%m-%d %H:%M} to {stored.last_at:%Y-%m-%d %H:%M} UTC"
        return f"{stored.bars:,} are stored from {span}: `mdtasks bars {of_it} --start {stored.last_at:%Y-%m-%d}`"
    known = ", ".join(f"{each.interval} ({each.first_at:%Y-%m-%d} to {each.last_at:%Y-%m-%d})" for each in stored)
    one = stored[0]
    return (
        f"stored are {known}: `mdtasks bars {member.symbol} --interval {one.interval} --start {one.last_at:%Y-%m-%d}`; "
        f"`mdtasks backfill {of_it} --sessions {_SESSIONS}` fetches {asked.interval}"
    )
