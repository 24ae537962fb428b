"""``mdtasks retention``: what is kept for how long, what would go, what tables hold; ``retention run``: let it go."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import count_of, explain

if TYPE_CHECKING:
    from mdtasks.flows.retention_shown import Survey

_EXAMPLES: Final = """
examples:
  mdtasks retention
  mdtasks retention --dry-run
  mdtasks retention run --rounds 100

The policy says how long what is kept (retention.bars_1m_days and so on; null: for ever). Housekeeping deletes what is
older, a little every minute. Bars and quotes go by whole months, so up to a month later than the policy says. Nothing
looks or asks for bars before "kept from".
"""
_RUN: Final = """
examples:
  mdtasks retention run
  mdtasks retention run --rounds 1000 --json

Does now what housekeeping would do in its next rounds, by the policy as it is. What somebody works with waits.
"""


def add_parser(commands: Commands) -> None:
    """Add ``retention`` and ``retention run``."""
    look = commands.add("retention", retention, "Show what is kept for how long, and what each table holds", json=True)
    look.add_argument("--dry-run", action="store_true", help="count what would go now; large months take seconds")
    explain(look, _EXAMPLES)
    run = commands.add("retention run", run_now, "Delete now what is kept no longer", json=True)
    run.add_argument(
        "--rounds", type=count_of("rounds", 100_000), default=10, metavar="N", help="at most N (default: 10)"
    )
    explain(run, _RUN)


def retention(args: argparse.Namespace) -> int:
    """Show the rules and the tables; with ``--dry-run`` what would go."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.retention_shown import survey

    with opened_deps(args) as deps:
        found = survey(deps, datetime.now(UTC), count=args.dry_run)
    if args.json:
        from mdtasks.cli.output import json_tree

        print_json(json_tree(found.as_dict()))
    else:
        _show(found, counted=args.dry_run)
    return 0


def run_now(args: argparse.Namespace) -> int:
    """Rounds, until nothing is left or so many were made."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.retention import run_once

    rows: dict[str, int] = {}
    dropped: dict[str, int] = {}
    done: dict[str, Any] = {"more": True, "busy": []}
    with opened_deps(args) as deps:
        for _ in range(args.rounds):
            done = run_once(deps, datetime.now(UTC))
            for total, part in ((rows, done["rows"]), (dropped, done["dropped"])):
                for table, number in part.items():
                    total[table] = total.get(table, 0) + number
            if not done["more"] or done["busy"]:
                break
    if args.json:
        print_json({"rows": rows, "dropped": dropped, "more": done["more"], "busy": done["busy"]})
        return 0
    for table, number in rows.items():
        print(f"{number:,} rows of {table}")
    for table, number in dropped.items():
        print(f"{number:,} months of {table}, whole")
    if done["busy"]:
        say(f"somebody works with {', '.join(done['busy'])}: what is left of it waits for the next round")
    elif done["more"]:
        say("there is more: housekeeping goes on, or give more --rounds")
    elif not rows and not dropped:
        say("nothing is too old")
    return 0


def _show(found: Survey, *, counted: bool) -> None:
    from mdtasks.cli.output import show_table

    headers = ("kept", "days", "kept from", "done before", *(("rows to go", "months to go") if counted else ()))
    rows = []
    for each in found.rules:
        days = "for ever" if each.days is None else f"{each.days:,}"
        line = (each.subject, days, _day(each.kept_from), _day(each.done_before))
        going = (each.rows, len(each.months) if each.months else None) if counted else ()
        rows.append((*line, *going))
    show_table(headers, rows)
    print()
    tables = [(each.table, each.rows, _size(each.bytes), each.partitions or None) for each in found.tables]
    show_table(("table", "rows, about", "on disk", "months"), tables)
    if not counted:
        say("--dry-run counts what would go now")


def _day(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d}"


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"
