"""``mdtasks dlq`` and ``mdtasks requeue``: what failed for good, why, and giving it another life."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, add_symbol, add_tier, count_of, explain, since_of
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.flows.deps import Deps
    from mdtasks.flows.letters import Preview
    from mdtasks.store.letters import LetterFilter

_EXAMPLES: Final = """
examples:
  mdtasks dlq groups
  mdtasks dlq list --provider files --since 2h
  mdtasks dlq show 3f0c9c1e-8d3e-4f4e-9b44-0a6b2f7d1c55
  mdtasks dlq requeue --error no_data --tier T0 --dry-run
  mdtasks dlq requeue --plan PLAN --yes
  mdtasks dlq purge --days 30

A requeue first freezes the exact set as a plan, shows it, and then acts on that set alone, whatever dies meanwhile.
"""
#: Ids of a plan that are shown; --json has them all.
_SHOWN: Final = 5


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
        "--days", type=count_of("days", 36_500, least=0), required=True, metavar="N", help="those older than N days"
    )
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
        "--kind", choices=("backfills", "others"), metavar="K", help="backfills, or others (poison, live)"
    )


def _filter(args: argparse.Namespace) -> LetterFilter:
    from mdtasks.domain.jobs import Tier
    from mdtasks.store.letters import LetterFilter

    return LetterFilter(
        backfills=None if args.kind is None else args.kind == "backfills",
        tier=None if args.tier is None else Tier(args.tier),
        symbol=args.symbol,
        provider=args.provider,
        error_class=args.error,
        since=None if args.since is None else since_of(args.since, datetime.now(UTC)),
    )


def list_letters(args: argparse.Namespace) -> int:
    """List letters."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, show_table
    from mdtasks.store import letters

    which = _filter(args)
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
    from mdtasks.cli.output import json_row, show_fields
    from mdtasks.queue.letters import job_document
    from mdtasks.store import jobs, letters

    with opened_database(args) as database, database.transaction() as connection:
        letter = letters.one(connection, args.letter)
        history = jobs.attempts(connection, letter["job_id"]) if letter["job_id"] else []
    payload = job_document(letter["envelope"])
    if args.json:
        print_json({**json_row(letter), "payload": payload, "history": [json_row(each) for each in history]})
        return 0
    apart = ("envelope", "traceback", "message")
    show_fields({name.replace("_", " "): value for name, value in letter.items() if value and name not in apart})
    print(f"\n{letter['error_class']}: {letter['message']}\n")
    if history:
        show_attempts(history)
        print()
    _show_payload(payload, letter["envelope"])
    if letter["traceback"]:
        print(f"\n{letter['traceback'].rstrip()}")
    if letter["state"] == "open":
        say(f"\n`mdtasks requeue {args.letter}` sends it again")
    return 0


def _show_payload(payload: dict[str, object] | None, envelope: str) -> None:
    if payload is not None:
        print(f"payload\n{json.dumps(payload, indent=2)}")
    elif envelope:
        print(f"the message as it was on the wire, which is no job\n{envelope}")
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


def requeue_letters(args: argparse.Namespace) -> int:
    """Freeze a set of letters, show it, and on a yes send exactly that set again."""
    from mdtasks.cli.opened import opened_deps

    chosen = [bool(args.letters), bool(_filter(args).as_dict()), args.all, args.plan is not None]
    if sum(chosen) != 1:
        given = "nothing was" if not any(chosen) else "more than one was"
        raise InvalidRequestError(
            f"requeue which letters? {given} given",
            field="letters",
            hint="give ids, or a filter such as --tier T0, or --all, or --plan PLAN",
        )
    with opened_deps(args) as deps:
        found = _planned(args, deps)
        if found.result is not None:
            return _tell(args, {"already": True, **found.result})
        if not args.json:
            _show_plan(found)
        if args.dry_run or not found.letters:
            if args.json:
                print_json({**found.as_dict(), "dry_run": args.dry_run})
            elif found.letters:
                say(f"nothing was sent; `mdtasks dlq requeue --plan {found.plan_id}` sends exactly these")
            return 0
        _confirm(args, f"requeue {found.letters:,}", f"mdtasks dlq requeue --plan {found.plan_id} --yes")
        from mdtasks.flows.letters import carry_out

        return _tell(args, carry_out(found.plan_id, actor(), deps))


def _planned(args: argparse.Namespace, deps: Deps) -> Preview:
    from mdtasks.flows import letters

    if args.plan is not None:
        return letters.plan_again(args.plan, deps)
    if args.letters:
        return letters.plan_of(args.letters, actor(), deps)
    return letters.plan(_filter(args), actor(), deps)


def _show_plan(found: Preview) -> None:
    from mdtasks.cli.output import plural

    if not found.letters:
        say("no open dead letters like that")
        return
    print(f"plan {found.plan_id}: {plural(found.letters, 'letter')}")
    for tier, count in found.by_tier.items():
        if count:
            over = f"; {count - found.room[tier]:,} will wait in PostgreSQL" if count > found.room[tier] else ""
            print(f"  {tier}: {count:,}, room for {found.room[tier]:,} under the cap{over}")
    others = len(found.ids) - sum(found.by_tier.values())
    if others:
        print(f"  without a tier: {others:,}")
    if len(found.ids) < found.letters:
        print(f"  no longer open, left out: {found.letters - len(found.ids):,}")
    more = f" and {len(found.ids) - _SHOWN:,} more (--json lists all)" if len(found.ids) > _SHOWN else ""
    print(f"  {', '.join(found.ids[:_SHOWN])}{more}")


def _confirm(args: argparse.Namespace, what: str, command: str) -> None:
    """Return when it was said yes to. Raises InvalidRequestError otherwise: nothing was done."""
    if args.yes:
        return
    if not sys.stdin.isatty() or args.json:
        raise InvalidRequestError(
            "nothing was done: there is no terminal to ask at", field="yes", hint=f"`{command}` does it"
        )
    print(f"{what}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise InvalidRequestError("nothing was done", field="yes", hint=f"`{command}` does it later")


def _tell(args: argparse.Namespace, result: dict[str, Any]) -> int:
    if args.json:
        print_json(result)
        return 0
    already = "this plan was carried out before: " if result.get("already") else ""
    merged = f", {result['merged']:,} wanted already (merged)" if result["merged"] else ""
    skipped = f", {result['skipped']:,} no longer open (skipped)" if result["skipped"] else ""
    refused = f", {result['refused']:,} stay: unreadable, or no room in their queue" if result["refused"] else ""
    print(f"{already}{result['requeued']:,} requeued{merged}{skipped}{refused}")
    return 0


def requeue_one(args: argparse.Namespace) -> int:
    """Send one letter again. Exit code 3 when there is none, or it is not failed (any more)."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.letters import requeue_job

    with opened_deps(args) as deps:
        done = requeue_job(args.job, actor(), deps)
    if args.json:
        print_json(done)
    elif done["merged"]:
        print(f"{done['job_id']}: another job fetches its window already (merged)")
    else:
        print(f"{done['job_id']} requeued")
        say(f"`mdtasks jobs show {done['job_id']}` tells how it goes")
    return 0


def purge_letters(args: argparse.Namespace) -> int:
    """Delete letters by age."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import plural
    from mdtasks.store import letters

    who = actor()
    with opened_database(args) as database:
        with database.transaction() as connection:
            count = letters.count_older(connection, args.days)
        if count:
            what = f"{plural(count, 'letter')} older than {plural(args.days, 'day')}"
            if not args.json:
                say(f"{what}; recorded as purged by {who}; their jobs are given up")
            _confirm(args, f"delete {what}", f"mdtasks dlq purge --days {args.days} --yes")
        with database.transaction() as connection:
            purged = letters.purge(connection, args.days, who)
    if args.json:
        print_json({"purged": purged, "by": who})
    else:
        print(
            f"{plural(purged, 'letter')} purged"
            + ("" if purged else f": none is older than {plural(args.days, 'day')}")
        )
    return 0
