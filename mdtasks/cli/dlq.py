"""``mdtasks dlq``: what failed for good, and why. What can be done about it is in ``requeue``."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import add_symbol, add_tier, count_of, explain
from mdtasks.cli.requeue import filter_of, purge_letters, requeue_letters, requeue_one

_EXAMPLES: Final = """
examples:
  mdtasks dlq groups
  mdtasks dlq list --provider files --since 2h
  mdtasks dlq show 3f0c9c1e-8d3e-4f4e-9b44-0a6b2f7d1c55
  mdtasks dlq requeue --error no_data --tier T0 --dry-run
  mdtasks dlq requeue --plan PLAN --yes
  mdtasks dlq purge --days 90 --dry-run

A requeue first freezes the exact set as a plan, shows it, and then acts on that set alone, whatever dies meanwhile.
Findings about what is stored (kind action) are in none: nothing was sent, and what they say settles them.
"""


def add_parser(commands: Commands) -> None:
    """Add ``dlq ...`` and ``requeue``."""
    below = commands.group("dlq", "Dead letters: list, show, groups, requeue, purge, stats")
    show = below.add("list", list_letters, "List open dead letters, newest first", json=True)
    _add_filters(show)
    show.add_argument(
        "--limit", type=count_of("letters", 1_000_000), default=50, metavar="N", help="at most N (default: 50)"
    )
    one = below.add("show", show_letter, "Show one letter: its history, payload and traceback", json=True)
    one.add_argument("letter", metavar="ID", help="of the letter, or of its job")
    causes = below.add("groups", show_groups, "Group open letters by provider, error and task", json=True)
    again = below.add("requeue", requeue_letters, "Send letters again, under the caps: a frozen set of them", json=True)
    again.add_argument("letters", nargs="*", metavar="ID", help="of letters, or of their jobs")
    _add_filters(again)
    again.add_argument("--all", action="store_true", help="every open letter")
    again.add_argument("--plan", metavar="PLAN", help="carry out a plan that was made before")
    again.add_argument("--dry-run", action="store_true", help="only make the plan, and show it")
    again.add_argument("--yes", "-y", action="store_true", help="do not ask")
    old = below.add(
        "purge", purge_letters, "Delete old letters; their jobs are given up, an audit row stays", json=True
    )
    old.add_argument(
        "--days", type=count_of("days", 36_500), default=30, metavar="N", help="those older than N days (default: 30)"
    )
    old.add_argument("--dry-run", action="store_true", help="only show what would be deleted")
    old.add_argument("--yes", "-y", action="store_true", help="do not ask")
    counts = below.add("stats", show_stats, "Count the letters", json=True)
    for parser in (show, one, causes, again, old, counts):
        explain(parser, _EXAMPLES)
    single = commands.add("requeue", requeue_one, "Send one dead job again", json=True)
    single.add_argument("job", metavar="JOB", help="id of the job, or of its letter")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    add_tier(parser, "of one tier only")
    add_symbol(parser)
    parser.add_argument("--provider", metavar="NAME", help="of one provider only")
    parser.add_argument("--error", metavar="CLASS", help="of one error class only, such as no_data or time_limit")
    parser.add_argument("--since", metavar="TIME", help="dead since a time, or since 30m, 2h, 3d ago")
    parser.add_argument(
        "--kind", choices=("backfills", "others"), metavar="K", help="backfills, or others (poison, live, findings)"
    )


def list_letters(args: argparse.Namespace) -> int:
    """List letters."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_table
    from mdtasks.store import letters

    which = filter_of(args)
    with opened_database(args) as database, database.transaction() as connection:
        rows = letters.matching(connection, which, args.limit)
    if args.json:
        print_json([json_row(row) for row in rows])
    elif rows:
        headers = ("job or letter", "died (UTC)", "tier", "symbol", "int", "provider", "tries", "error", "message")
        show_table(headers, [_cells(row) for row in rows])
        if len(rows) == args.limit:
            say(f"the newest {args.limit}; --limit shows more, `mdtasks dlq groups` counts them by cause")
    else:
        say("no open dead letters" + (" like that" if which.as_dict() else ""))
    return 0


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    about = (row["tier"], row["symbol"], row["interval"], row["provider"], row["attempts"])
    return (row["job_id"] or row["id"], row["died_at"], *about, row["error_class"], row["message"])


def show_letter(args: argparse.Namespace) -> int:
    """Show one letter whole."""
    from mdtasks.cli.jobs import show_attempts
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import block_of, json_row, show_fields
    from mdtasks.flows.letters import why_never
    from mdtasks.queue.letters import job_document
    from mdtasks.store import job_reports, letters

    with opened_database(args) as database, database.transaction() as connection:
        letter = letters.one(connection, args.letter)
        history = job_reports.attempts(connection, letter["job_id"]) if letter["job_id"] else []
    payload = job_document(letter["envelope"])
    if args.json:
        print_json({**json_row(letter), "payload": payload, "history": [json_row(each) for each in history]})
        return 0
    apart = ("envelope", "traceback", "message")
    show_fields({name.replace("_", " "): value for name, value in letter.items() if value and name not in apart})
    print(f"\n{letter['error_class']}: {block_of(letter['message'])}\n")
    if history:
        show_attempts(letter["job_id"], history)
        print()
    if letter["kind"] != letters.FINDING:
        _show_payload(payload, letter["envelope"])
    if letter["traceback"]:
        print(f"\n{block_of(letter['traceback'])}")
    if letter["state"] == "open":
        never = why_never(letter)
        again = f"`mdtasks requeue {args.letter}` sends it again"
        say(f"\n{again if never is None else f'it cannot be sent again: {never[0]}'}")
    return 0


def _show_payload(payload: dict[str, object] | None, envelope: str) -> None:
    from mdtasks.cli.output import block_of

    if payload is not None:
        print(f"payload\n{json.dumps(payload, indent=2)}")
    elif envelope:
        print(f"the message as it was on the wire, which is no job\n{block_of(envelope)}")
    else:
        print("its message was lost; what is above was read from the job's row")


def show_groups(args: argparse.Namespace) -> int:
    """Group letters by cause."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_table
    from mdtasks.store import letters

    with opened_database(args) as database, database.transaction() as connection:
        rows = letters.groups(connection)
    if args.json:
        print_json([json_row(row) for row in rows])
    elif rows:
        names = ("letters", "symbols", "provider", "error_class", "task", "first_seen", "last_seen", "example")
        headers = ("letters", "symbols", "provider", "error", "task", "first (UTC)", "last (UTC)", "the newest says")
        show_table(headers, [tuple(row[name] for name in names) for row in rows])
    else:
        say("no open dead letters")
    return 0


def show_stats(args: argparse.Namespace) -> int:
    """Count letters, those on their way to the record too."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_row, show_fields
    from mdtasks.flows.letters import letter_stats

    with opened_deps(args) as deps:
        found = letter_stats(deps)
    if args.json:
        print_json(json_row(found))
    else:
        show_fields({name.replace("_", " "): value for name, value in found.items()})
    return 0
