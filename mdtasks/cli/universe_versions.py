"""``mdtasks universe refresh, versions, show, diff, activate, history``: the universe, version by version."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, add_tier, count_of, explain, time_of
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.domain.listings import Kept
    from mdtasks.flows.universe import Made

EXAMPLES: Final = """
examples:
  mdtasks universe refresh --source csv:listing.csv     columns symbol,mic,close,volume and, where you have
                                                        them, listed_from,delisted_on,kind,id
  mdtasks universe refresh --source alpaca
  mdtasks universe diff ACTIVE 2026-11-24-1f0c3a55      what it would change
  mdtasks universe activate 2026-11-24-1f0c3a55
  mdtasks universe show --as-of 2026-11-02T14:30Z       the version that held then
  mdtasks universe recompute 2026-11-24-1f0c3a55 --check
  mdtasks universe export 2026-11-24-1f0c3a55 --output version.zip

A TAG is the name of a version; ACTIVE is the one that holds. Sizes, pins, bans, days and the margin of the rules are
the policy's (tiers.T*.size, universe.*).
"""
_FORCE: Final = ", more than universe.most_leave lets: that needs --force"
TAG: Final = "of `universe versions`, or ACTIVE"


def add_versions(below: Commands) -> None:
    """Add the commands of versions to ``mdtasks universe``."""
    new = below.add("refresh", refresh, "Take a listing and make a version of it; activates nothing", json=True)
    new.add_argument("--source", required=True, metavar="S", help="csv:FILE (csv:- is standard input), lean, alpaca, …")
    new.add_argument("--tag", default="", metavar="TAG", help="name of the version (default: its day and hash)")
    new.add_argument("--as-of", metavar="DAY", help="the day that a CSV tells of (default: today)")
    listed = below.add("versions", versions, "List the versions, the newest first", json=True)
    listed.add_argument("--limit", type=count_of("versions", 1000), default=20, metavar="N", help="the newest N (20)")
    look = below.add("show", show, "Show who is in a version", json=True)
    look.add_argument("tag", nargs="?", metavar="TAG", help=f"{TAG} (default: ACTIVE)")
    look.add_argument("--as-of", metavar="TIME", help="the version that held then")
    look.add_argument("--limit", type=count_of("members", 10_000_000), metavar="N", help="the first N by rank")
    add_tier(look, "of one tier only")
    other = below.add("diff", diff, "Show what differs between two versions", json=True)
    other.add_argument("old", metavar="A", help=TAG)
    other.add_argument("new", metavar="B", help=TAG)
    other.add_argument("--all", action="store_true", help="also those whose rank and score alone changed")
    use = below.add("activate", activate, "Let a version hold: tiers, waiting jobs and gaps follow at once", json=True)
    use.add_argument("tag", metavar="TAG", help="of `universe versions`")
    use.add_argument("--force", action="store_true", help="also when more leave, or go down, than may")
    use.add_argument("--reason", default="", metavar="TEXT", help="why, for the record")
    past = below.add("history", history, "List which version held from when on", json=True)
    past.add_argument("--limit", type=count_of("activations", 1000), default=20, metavar="N", help="the newest N (20)")
    for parser in (new, listed, look, other, use, past):
        explain(parser, EXAMPLES)


def refresh(args: argparse.Namespace) -> None:
    """Take a listing and make a version."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_tree, plural
    from mdtasks.flows import universe as flow
    from mdtasks.flows.universe_listings import listing_of

    source, _, path = args.source.partition(":")
    if (source == "csv") != bool(path):
        raise InvalidRequestError(
            f"source {args.source!r} names {'no file' if source == 'csv' else 'a file'}",
            field="source",
            hint="csv:FILE, or the name of a provider that lists its instruments, such as lean or alpaca",
        )
    if args.as_of is not None and source != "csv":
        raise InvalidRequestError(
            "a provider says itself which day it tells of", field="as_of", hint="leave --as-of out"
        )
    now = datetime.now(UTC)
    with opened_deps(args) as deps:
        kept = _csv(path, args.as_of, now) if source == "csv" else listing_of(source, deps, now)
        made = flow.refresh(source, kept, flow.Asked(actor(), args.tag), deps)
    if args.json:
        print_json(json_tree(made.as_dict()))
        return
    _say_made(made)
    for doubt in made.doubts:
        say(doubt)
    if not made.version.active:
        tag = made.version.version_tag
        force = " --force" if made.refusal is not None else ""
        say(f"`mdtasks universe diff ACTIVE {tag}` shows its changes")
        say(f"`mdtasks universe activate {tag}{force}` lets it hold")
    for why, count in made.skipped.items():
        say(f"{plural(count, 'row')} left out: {why}")


def _say_made(made: Made) -> None:
    from mdtasks.cli.output import plural

    tiers = ", ".join(f"{tier} {count:,}" for tier, count in made.tiers.items())
    told = "was there already" if not made.changed else f"has {plural(made.version.members, 'member')}"
    print(f"version {made.version.version_tag} {told}: {tiers}")
    if made.births or made.renames:
        say(f"{plural(made.births, 'instrument was', 'instruments were')} new, {made.renames:,} renamed")
    moves = made.moves
    if moves.gone:
        leave = f"{len(moves.gone):,} of {plural(moves.held, 'member')} would leave"
        say(leave + (_FORCE if moves.too_many_leave else ""))
    for tier, fall in moves.falls.items():
        down = f"{len(fall.members):,} of {plural(fall.held, 'member')} of {tier} would go down a tier"
        if out := len(fall.members) - len(fall.unwanted):
            down += f" ({out:,} put out by its size)"
        say(down + (_FORCE if tier in moves.too_low else ""))


def _csv(path: str, as_of: str | None, now: datetime) -> Sequence[Kept]:
    from mdtasks.domain.listings import Kept

    day = now.date() if as_of is None else day_of(as_of, "as_of")
    if day > now.date():
        raise InvalidRequestError(
            f"as_of {day} is still to come", field="as_of", hint="the day that the listing tells of"
        )
    try:
        body = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
    except OSError as exc:
        raise InvalidRequestError(
            f"cannot read the listing from {path}: {exc.strerror}", field="source", hint="csv:FILE, or csv:- for stdin"
        ) from exc
    return [Kept(day, body)]


def day_of(text: str, field: str) -> date:
    """A date. Raises InvalidRequestError naming ``field``."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequestError(f"{field} {text!r} is not a date", field=field, hint="such as 2026-11-02") from None


def versions(args: argparse.Namespace) -> None:
    """List versions."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_tree, show_table
    from mdtasks.store import universe as store

    with opened_database(args) as database, database.transaction() as connection:
        listed = store.history(connection, args.limit)
    if args.json:
        print_json(json_tree([each.as_dict() for each in listed]))
    elif not listed:
        say("no versions yet; `mdtasks universe refresh --source csv:FILE` makes one")
    else:
        headers = ("tag", "holds", "made (UTC)", "by", "source", "members", "made beside")
        rows = [
            (v.version_tag, v.active, v.created_at, v.created_by, v.source_meta["source"], v.members, v.parent)
            for v in listed
        ]
        show_table(headers, rows)


def show(args: argparse.Namespace) -> None:
    """Show a version."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_tree, show_table
    from mdtasks.domain.jobs import Tier
    from mdtasks.flows.as_of import await_changes
    from mdtasks.store import universe as store

    if args.tag is not None and args.as_of is not None:
        raise InvalidRequestError("give TAG or --as-of, not both", field="as_of", hint="leave one of them out")
    as_of = None if args.as_of is None else time_of(args.as_of, "as_of")
    with opened_database(args) as database:
        if as_of is not None:
            await_changes(database, as_of)
        with database.transaction() as connection:
            version = store.chosen(connection, args.tag, as_of)
            members = store.members(connection, version.version, Tier(args.tier) if args.tier else None, args.limit)
            tiers = store.tier_counts(connection, version.version)
    names = ("rank", "symbol", "tier", "score", "instrument")
    rows = [tuple(getattr(each, name) for name in names) for each in members]
    if args.json:
        listed = [dict(zip(names, row, strict=True)) for row in rows]
        print_json(json_tree({**version.as_dict(), "tiers": tiers, "listed": listed}))
        return
    if rows:
        show_table(("rank", "symbol", "tier", "dollars a day", "instrument"), rows)
    say(f"{version.version_tag}: {', '.join(f'{tier} {count:,}' for tier, count in tiers.items())}")


def diff(args: argparse.Namespace) -> None:
    """Show what differs."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import plural, show_table
    from mdtasks.domain.versions import difference
    from mdtasks.store import universe as store

    with opened_database(args) as database, database.transaction() as connection:
        old, new = (store.members_of(connection, tag) for tag in (args.old, args.new))
    moves = [move for move in difference(old, new) if args.all or move.decides]
    if args.json:
        print_json([move.as_dict() for move in moves])
    elif not moves:
        say("nobody came, left, moved or was renamed")
    else:
        rows = [
            (move.one.symbol, *(each and each.tier for each in sides), *(each and each.rank for each in sides))
            for move in moves
            for sides in ((move.before, move.after),)
        ]
        show_table(("symbol", "from", "to", "rank", "now"), rows)
        say(plural(len(moves), "instrument"))


def activate(args: argparse.Namespace) -> None:
    """Let a version hold."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_tree
    from mdtasks.flows import universe as flow

    with opened_deps(args) as deps:
        made, version = flow.activate(args.tag, actor(), args.reason, deps, force=args.force)
    if args.json:
        told = {} if made is None else made.as_dict()
        print_json(json_tree({"ok": True, "changed": made is not None, "version_tag": version.version_tag, **told}))
    elif made is None:
        print(f"{version.version_tag} holds already: nothing was changed")
    else:
        counts = made.counts
        print(
            f"{version.version_tag} holds: {counts['came']:,} came, {counts['up']:,} up, {counts['down']:,} down,"
            f" {counts['left']:,} left"
        )
        if counts["jobs_moved"] or counts["jobs_staying"]:
            say(
                f"{counts['jobs_moved']:,} waiting backfills went to the new tier; {counts['jobs_staying']:,} are on"
                " their way in the old one and end there"
            )


def history(args: argparse.Namespace) -> None:
    """List activations."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_tree, show_table
    from mdtasks.store import universe as store

    with opened_database(args) as database, database.transaction() as connection:
        listed = store.activations(connection, args.limit)
    if args.json:
        print_json(json_tree([each.as_dict() for each in listed]))
    elif not listed:
        say("no version was ever activated")
    else:
        rows = [
            (a.version_tag, a.activated_at, a.actor, a.reason, *(a.counts[n] for n in ("came", "up", "down", "left")))
            for a in listed
        ]
        show_table(("tag", "from (UTC)", "by", "reason", "came", "up", "down", "left"), rows)
