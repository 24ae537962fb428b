"""``mdtasks jobs``: what was asked for, and each attempt at it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import add_symbol, add_tier, count_of, explain

_STATES: Final = ("deferred", "queued", "running", "done", "failed", "cancelled")

#: Why a job of this status cannot be cancelled.
_WHY_NOT: Final = {
    "deferred": "it began to wait again just now; try again",
    "queued": "it began to wait again just now; try again",
    "running": "it is running; it ends by itself",
    "done": "it is done",
    "failed": "it has failed; `mdtasks dlq purge` gives up old ones",
    "cancelled": "it was cancelled before",
}

_EXAMPLES = """
examples:
  mdtasks jobs --status failed --tier T0
  mdtasks jobs --symbol AAPL --json
  mdtasks jobs show 3f0c9c1e-8d3e-4f4e-9b44-0a6b2f7d1c55
  mdtasks jobs cancel 3f0c9c1e-8d3e-4f4e-9b44-0a6b2f7d1c55
"""


def add_parser(commands: Commands) -> None:
    """Add ``jobs``, ``jobs show`` and ``jobs cancel``."""
    several = commands.add(
        "jobs", list_jobs, "List backfill jobs, newest change first; `jobs show ID` tells of one", json=True
    )
    several.add_argument("--status", choices=_STATES, metavar="S", help=", ".join(_STATES))
    add_tier(several, "of one tier only")
    add_symbol(several)
    several.add_argument(
        "--limit", type=count_of("jobs", 1_000_000), default=50, metavar="N", help="at most N (default: 50)"
    )
    explain(several, _EXAMPLES)
    below = Commands(several, dest="jobs_command")
    several.set_defaults(func=list_jobs)
    one = below.add("show", show_job, "Show a job and every attempt at it", json=True)
    one.add_argument("job", metavar="ID")
    some = below.add("cancel", cancel_jobs, "Cancel jobs that have not started", json=True)
    some.add_argument("jobs", nargs="+", metavar="ID")


def list_jobs(args: argparse.Namespace) -> int:
    """List jobs."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_table
    from mdtasks.domain.jobs import Tier
    from mdtasks.store import job_reports

    with opened_database(args) as database, database.transaction() as connection:
        tier = None if args.tier is None else Tier(args.tier)
        rows = job_reports.list_jobs(connection, status=args.status, tier=tier, symbol=args.symbol, limit=args.limit)
    if args.json:
        print_json([json_row(row) for row in rows])
    elif rows:
        headers = ("job", "symbol", "int", "start (UTC)", "end", "tier", "status", "tries", "bars", "error")
        show_table(headers, [_cells(row) for row in rows])
        if len(rows) == args.limit:
            say(f"the newest {args.limit}; --limit shows more")
    else:
        say(
            "no jobs" + (" like that" if args.status or args.tier or args.symbol else "; `mdtasks backfill` makes some")
        )
    return 0


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    window = (f"{row['start']:%Y-%m-%d %H:%M}", f"{row['end']:%m-%d %H:%M}")
    about = (row["tier"], row["status"], f"{row['attempts']}/{row['max_attempts']}", row["bars"])
    error = row["last_error"] if row["status"] != "done" else None
    return (row["id"], row["symbol"], row["interval"], *window, *about, error)


def show_job(args: argparse.Namespace) -> int:
    """Show one job with its attempts; of a live fetch, which is a message alone, the attempts."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_fields
    from mdtasks.domain.errors import BadBarsError
    from mdtasks.store import job_reports

    with opened_database(args) as database, database.transaction() as connection:
        attempts = job_reports.attempts(connection, args.job)
        job = job_reports.any_job(connection, args.job) if attempts else job_reports.one_job(connection, args.job)
    if job is None:
        _show_live(args, attempts)
        return 0
    if args.json:
        print_json({**json_row(job), "history": [json_row(each) for each in attempts]})
        return 0
    show_fields({name.replace("_", " "): value for name, value in job.items() if value is not None})
    print()
    show_attempts(job["id"], attempts)
    if any(each["error_class"] == BadBarsError.code for each in attempts):
        say(f"`mdtasks quarantine {job['symbol']} --interval {job['interval']}` shows the bars that were not stored")
    if job["status"] == "failed":
        say(f"`mdtasks requeue {job['id']}` gives it another life")
    return 0


def _show_live(args: argparse.Namespace, attempts: list[dict[str, Any]]) -> None:
    from mdtasks.cli.output import json_row

    if args.json:
        print_json({"id": args.job, "history": [json_row(each) for each in attempts]})
        return
    say(f"{args.job} is a live fetch: it has no row among the jobs, only its attempts")
    show_attempts(args.job, attempts)


def cancel_jobs(args: argparse.Namespace) -> int:
    """Cancel jobs that wait; what runs or is over stays as it is. Exit code 3 when one of them is not there, 4 when one
    did not wait."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.domain.errors import ConflictError, NotFoundError
    from mdtasks.store import jobs

    asked = list(dict.fromkeys(args.jobs))
    with opened_database(args) as database, database.transaction() as connection:
        cancelled = set(jobs.cancel(connection, asked))
        left = [job for job in asked if job not in cancelled]
        standing = jobs.statuses(connection, left)
    why = {job: _WHY_NOT.get(standing.get(job, ""), "there is no such job") for job in left}
    unknown = [job for job in left if job not in standing]
    if args.json:
        print_json({"cancelled": [job for job in asked if job in cancelled], "left": why})
        return NotFoundError.exit_code if unknown else ConflictError.exit_code if left else 0
    if len(asked) > 1 or not left:
        say(f"{len(cancelled)} of {len(asked)} cancelled")
    for job, reason in list(why.items())[:-1]:
        say(f"not cancelled: {job}: {reason}")
    if not left:
        return 0
    message = f"not cancelled: {left[-1]}: {why[left[-1]]}"
    if unknown:
        raise NotFoundError(message, hint="`mdtasks jobs` lists them")
    raise ConflictError(message, hint=f"`mdtasks jobs show {left[-1]}` tells how it stands")


def show_attempts(job_id: str, attempts: list[dict[str, Any]]) -> None:
    """Print the history of a job."""
    from mdtasks.cli.output import show_table, text_of

    if not attempts:
        print("no attempt yet")
        return
    headers = ("attempt", "started (UTC)", "took", "outcome", "provider", "worker", "bars", "error")
    show_table(headers, [_attempt(each) for each in attempts])
    for each in attempts:
        if each["route"]:
            print(text_of(f"attempt {each['attempt']} {route_words(each['route'])}"))
    if slow := sum(each["slow_calls"] for each in attempts):
        traced = [f"`mdtasks traces show {trace}`" for each in attempts for trace in each["traces"]]
        where = ", ".join(traced[-3:]) or f"`mdtasks traces --job {job_id}` lists them"
        say(f"{slow} slow provider {'call' if slow == 1 else 'calls'}: {where}")


def _attempt(row: dict[str, Any]) -> tuple[object, ...]:
    took = None if row["ended_at"] is None else f"{(row['ended_at'] - row['started_at']).total_seconds():.2f}s"
    error = ": ".join(part for part in (row["error_class"], row["message"]) if part)
    outcome = row["outcome"] or "running"
    return (row["attempt"], row["started_at"], took, outcome, row["provider"], row["worker"], row["bars"], error)


def route_words(route: Sequence[Mapping[str, Any]]) -> str:
    """Whom an attempt asked, in order, and what each said; then who was not asked and why."""
    asked = [f"{step['provider']} ({_said(step)})" for step in route if "answered" in step]
    aside = [f"{step['provider']}, {step['why']}" for step in route if "answered" not in step]
    parts = [f"asked {', then '.join(asked)}" if asked else "asked nobody"]
    return "; ".join([*parts, *([f"not asked: {'; '.join(aside)}"] if aside else [])])


def _said(step: Mapping[str, Any]) -> str:
    answered = step["answered"]
    errors = (f"{code}: {_without_name(step, message)}" for code, message in step.get("errors", {}).items())
    told = ["answered" if answered == 1 else f"answered {answered:,} calls"] if answered else []
    return ", ".join([*([step["why"]] if "why" in step else []), *told, *errors]) or "said nothing"


def _without_name(step: Mapping[str, Any], message: str) -> str:
    return message.removeprefix(f"{step['provider']}: ")
