"""What people do about dead letters: ``mdtasks requeue``, ``mdtasks dlq requeue`` and ``mdtasks dlq purge``."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import print_json, say
from mdtasks.cli.inputs import actor, since_of
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.flows.deps import Deps
    from mdtasks.flows.letters import Preview
    from mdtasks.store.letters import LetterFilter

#: Ids of a plan that are shown; --json has them all.
_SHOWN: Final = 5


def filter_of(args: argparse.Namespace) -> LetterFilter:
    """The letters that the options ask for."""
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


def requeue_letters(args: argparse.Namespace) -> int:
    """Freeze a set of letters, show it, and on a yes send exactly that set again."""
    from mdtasks.cli.opened import opened_deps

    chosen = [bool(args.letters), bool(filter_of(args).as_dict()), args.all, args.plan is not None]
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
        confirm(args, f"requeue {found.letters:,}", f"mdtasks dlq requeue --plan {found.plan_id} --yes")
        from mdtasks.flows.letters import carry_out

        return _tell(args, carry_out(found.plan_id, actor(), deps))


def _planned(args: argparse.Namespace, deps: Deps) -> Preview:
    from mdtasks.flows import letters

    if args.plan is not None:
        return letters.plan_again(args.plan, deps)
    if args.letters:
        return letters.plan_of(args.letters, actor(), deps)
    return letters.plan(filter_of(args), actor(), deps)


def _show_plan(found: Preview) -> None:
    from mdtasks.cli.output import plural

    if not found.letters:
        say("no open dead letters like that can be sent again; what a finding says settles it: `mdtasks dlq list`")
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


def confirm(args: argparse.Namespace, what: str, command: str) -> None:
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
    """Show what is old enough, and on a yes delete exactly what is older than the moment it was shown for."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_row, plural
    from mdtasks.store import letters

    who = actor()
    before = datetime.now(UTC) - timedelta(days=args.days)
    with opened_database(args) as database:
        with database.transaction() as connection:
            found = letters.older(connection, before)
        count = sum(row["letters"] for row in found)
        what = f"{plural(count, 'letter')} older than {plural(args.days, 'day')}"
        if found and not args.json:
            _show_older(found)
        if args.dry_run:
            if args.json:
                print_json({"purged": 0, "would_purge": count, "causes": [json_row(row) for row in found]})
            else:
                say(f"{what} would be deleted; nothing was")
            return 0
        if found:
            confirm(args, f"delete {what}", f"mdtasks dlq purge --days {args.days} --yes")
        with database.transaction() as connection:
            purged = letters.purge(connection, before, who)
    if args.json:
        print_json({"purged": purged, "by": who})
    else:
        nothing = "" if purged else f": none is older than {plural(args.days, 'day')}"
        print(f"{plural(purged, 'letter')} purged{nothing}")
    return 0


def _show_older(found: list[dict[str, Any]]) -> None:
    from mdtasks.cli.output import plural, show_table

    headers = ("letters", "state", "error", "provider", "first (UTC)", "last (UTC)")
    names = ("letters", "state", "error_class", "provider", "first_died", "last_died")
    show_table(headers, [tuple(row[name] for name in names) for row in found])
    given_up = sum(row["jobs"] for row in found)
    if given_up:
        say(f"{plural(given_up, 'job')} that failed would be given up with them and could not be sent again")
