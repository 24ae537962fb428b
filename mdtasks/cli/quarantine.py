"""``mdtasks quarantine``: the bars that broke a rule and were kept out of the store, as they came."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import add_interval, count_of, explain, since_of, symbols_of

_VALUES: Final = ("open", "high", "low", "close", "volume")

_EXAMPLES: Final = """
examples:
  mdtasks quarantine
  mdtasks quarantine AAPL --interval 1m --json
  mdtasks quarantine --provider files --since 2h

A bar that breaks a rule (a high below the low, off the grid, not finite, ...) is not stored: it is kept here, and its
time stays a gap until a right one comes. One that comes again is kept once, with the job that brought it first.
"""


def add_parser(commands: Commands) -> None:
    """Add ``quarantine``."""
    show = commands.add("quarantine", quarantine, "Show bars that broke a rule and were not stored", json=True)
    show.add_argument("symbols", nargs="*", metavar="SYMBOL", help="a name, @FILE, or - (default: all)")
    add_interval(show, default=None)
    show.add_argument("--provider", metavar="NAME", help="of one provider only")
    show.add_argument("--since", metavar="TIME", help="seen since a time, or since 30m, 2h, 3d ago")
    show.add_argument(
        "--limit", type=count_of("bars", 1_000_000), default=50, metavar="N", help="at most N (default: 50)"
    )
    explain(show, _EXAMPLES)


def quarantine(args: argparse.Namespace) -> int:
    """List quarantined bars, those seen last first."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_table
    from mdtasks.domain.jobs import Interval
    from mdtasks.store import bar_reports, reference

    which = bar_reports.QuarantineFilter(
        symbols=symbols_of(args.symbols) if args.symbols else (),
        interval=None if args.interval is None else Interval(args.interval),
        provider=args.provider,
        since=None if args.since is None else since_of(args.since, datetime.now(UTC)),
    )
    with opened_database(args) as database, database.transaction() as connection:
        reference.resolve(connection, which.symbols)  # an unknown one is refused, not empty
        rows = bar_reports.quarantined(connection, which, args.limit)
    if args.json:
        print_json([json_row(row) for row in rows])
    elif rows:
        headers = ("symbol", "int", "ts (UTC)", "reason", "provider", *_VALUES, "seen (UTC)", "job")
        show_table(headers, [_cells(row) for row in rows])
        if len(rows) == args.limit:
            say(f"the {args.limit} seen last; --limit shows more")
    else:
        say("no quarantined bars" + (" like that" if which != bar_reports.QuarantineFilter() else ""))
    return 0


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    about = (row["symbol"], row["interval"], row["ts"], row["reason"], row["provider"])
    return (*about, *(row["bar"].get(name) for name in _VALUES), row["seen_at"], row["job_id"])
