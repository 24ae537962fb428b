"""``mdtasks backfill``: ask for what is missing, and look on while it comes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, add_interval, add_tier, add_window, asked_window, explain, symbols_of
from mdtasks.domain.errors import InvalidRequestError, JobsFailedError

if TYPE_CHECKING:
    from mdtasks.connections import Database
    from mdtasks.flows.backfill import Answer
    from mdtasks.flows.deps import Deps
    from mdtasks.store.job_reports import Progress

_EXAMPLES = """
examples:
  mdtasks backfill AAPL MSFT --sessions 5 --wait
  mdtasks backfill AAPL --interval 1d --start 2020-01-01 --end 2026-01-01
  mdtasks backfill @symbols.txt --start 2026-11-02T14:30Z --tier T2 --provider files
  mdtasks backfill --status REQUEST --wait

Safe to repeat: what is stored, or being fetched, is not asked for again. A date alone is 00:00 UTC.
"""


def add_parser(commands: Commands) -> None:
    """Add ``backfill``."""
    ask = commands.add("backfill", backfill, "Fetch the bars that are missing in a window", json=True)
    ask.add_argument("symbols", nargs="*", metavar="SYMBOL", help="a name, @FILE, or - for standard input")
    add_interval(ask)
    add_window(ask, default=" of each symbol's own exchange, in place of --start")
    add_tier(ask, "queue to run in (default: each symbol's own tier)")
    ask.add_argument("--provider", metavar="NAME", help="ask this one alone (default: the order of the policy)")
    ask.add_argument("--refetch", action="store_true", help="ask again for what is stored already")
    ask.add_argument("--wait", action="store_true", help="show progress until all is done; exit code 8 if jobs failed")
    ask.add_argument("--status", metavar="REQUEST", help="show how an earlier request stands")
    explain(ask, _EXAMPLES)


def backfill(args: argparse.Namespace) -> int:
    """Ask for bars, or show how an earlier request stands."""
    from mdtasks.cli.opened import opened_database, opened_deps

    if args.status is not None:
        if args.symbols:
            raise InvalidRequestError(
                "--status takes no symbols: they are those of the request", field="symbol", hint="leave them out"
            )
        with opened_database(args) as database:
            return follow(args, database, args.status, {})
    symbols = symbols_of(args.symbols)
    window = asked_window(args)
    with opened_deps(args) as deps:
        if args.provider is not None:
            deps.registry.get(args.provider)
        document = {"symbol": symbols, "interval": args.interval, "priority": args.tier, "provider": args.provider}
        span = {"start": window.start, "end": window.end, "sessions": window.sessions}
        answer = _request({**document, **span, "refetch": args.refetch}, deps)
        if not args.json:
            say_answer(answer, len(symbols))
        if args.wait:
            return follow(args, deps.database, answer.request_id, answer.as_dict())
    if args.json:
        print_json(answer.as_dict())
    elif answer.queued or answer.deferred or answer.merged:
        say(f"`mdtasks backfill --status {answer.request_id} --wait` follows it")
    return 0


def _request(document: dict[str, Any], deps: Deps) -> Answer:
    from datetime import UTC, datetime

    from mdtasks.flows.backfill import BackfillRequest, request_backfill

    return request_backfill(BackfillRequest.parse(document), actor(), deps, now=datetime.now(UTC))


def say_answer(answer: Answer, symbols: int) -> None:
    """Say what became of a request."""
    from mdtasks.cli.output import plural

    print(f"request {answer.request_id}")
    if answer.kept_from is not None:
        say(f"asked for from {answer.kept_from:%Y-%m-%d} on: what is older is not kept (`mdtasks retention`)")
    if answer.queued:
        print(f"  {plural(answer.queued, 'job')} queued")
    if answer.deferred:
        print(f"  {plural(answer.deferred, 'job')} waiting in PostgreSQL for room in the queue (deferred)")
    if answer.merged:
        print(f"  {plural(answer.merged, 'job')} being fetched already (merged)")
    if answer.covered:
        whole = "nothing to fetch: " if answer.covered == symbols else ""
        print(f"  {whole}{plural(answer.covered, 'symbol')} complete already (covered)")


def follow(args: argparse.Namespace, database: Database, request_id: str, answer: dict[str, Any]) -> int:
    """Show how a request stands, with ``--wait`` until it is over. Raises JobsFailedError when jobs failed for good."""
    from mdtasks.cli.waiting import read_progress, wait_for

    try:
        seen = wait_for(database, request_id) if args.wait else read_progress(database, request_id)
    except KeyboardInterrupt:
        say(f"\nyou stopped looking; the jobs go on. Look again: mdtasks backfill --status {request_id} --wait")
        return 130
    failed = seen.jobs.get("failed", 0)
    if args.json:
        print_json({**answer, **_as_dict(seen)})
    elif not args.wait:
        _show(seen)
    if not failed:
        return 0
    error = JobsFailedError(failed, seen.total, last_error=seen.last_error)
    if args.json:  # one document is enough
        return error.exit_code
    raise error


def _as_dict(seen: Progress) -> dict[str, Any]:
    ended = {"total": seen.total, "ended": seen.ended, "failed": seen.jobs.get("failed", 0)}
    return {"request": seen.request_id, **ended, "jobs": seen.jobs, "bars": seen.bars, "last_error": seen.last_error}


def _show(seen: Progress) -> None:
    from mdtasks.cli.output import show_fields

    states = ", ".join(f"{count:,} {state}" for state, count in sorted(seen.jobs.items())) or "none"
    show_fields({"request": seen.request_id, "jobs": states, "bars": seen.bars, "newest error": seen.last_error})
