"""``mdtasks policy``: show, judge, plan, change and bring back the policy; who runs which version."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, count_of, explain
from mdtasks.cli.policy_canary import add_canary_options, add_end_options, await_end, refuse_without_canary, show_or_end
from mdtasks.cli.policy_desk import candidate, errors_shown, opened_desk, version_of, version_type
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.domain.policy import Effects
    from mdtasks.flows.policies import Outcome
    from mdtasks.flows.policy_facts import Desk

_EXAMPLES: Final = """
examples:
  mdtasks policy show --stored > policy.yaml     the policy as applied, to edit
  mdtasks policy validate policy.yaml            what is wrong with it, or what it would do
  mdtasks policy apply policy.yaml --reason "new account"
  mdtasks policy apply policy.yaml --canary t2 --watch 10m --wait
  mdtasks policy rollback 3 --reason "too many calls"
  mdtasks policy status --check || mdtasks doctor

FILE is YAML or JSON, - is standard input; without one the policy's file is read: MDTASKS_POLICY_FILE, else policy.yaml
in the home, else, before anything was applied, the shipped defaults. What FILE leaves out has its default. A policy
that is refused changes nothing; one that is applied is followed by every process within about a second, between
two pieces of work.
"""
_FILE: Final = "YAML or JSON, - for standard input (default: the policy's file)"
_RECORD: Final = "of `mdtasks policy history`; 0: the defaults"


def add_parser(commands: Commands) -> None:
    """Add ``policy ...``."""
    below = commands.group("policy", "What may change while it runs: show, validate, plan, diff, apply, rollback, …")
    look = below.add("show", show, "Show the policy as YAML, with what the environment sets in its place", json=True)
    look.add_argument("wanted", nargs="?", type=version_type, metavar="VERSION", help=_RECORD)
    look.add_argument("--stored", action="store_true", help="as it was applied, without what the environment sets")
    parsers = [look]
    for name, func, summary in (
        ("validate", validate, "Say what is wrong with a policy, or what it would change and do; changes nothing"),
        ("plan", plan, "Show what each provider must serve per minute, its limit, and what does not fit"),
        ("apply", apply, "Make a policy the one that holds"),
    ):
        parser = below.add(name, func, summary, json=True)
        about = "a policy that is not applied (default: the one that holds)" if name == "plan" else _FILE
        parser.add_argument("file", nargs="?", metavar="FILE", help=about)
        parsers.append(parser)
    other = below.add("diff", diff, "Show what differs from the policy that holds, or between two versions", json=True)
    other.add_argument("what", nargs="*", metavar="FILE|VERSION", help="a file, a version, or two versions")
    back = below.add("rollback", rollback, "Make an earlier version the one that holds", json=True)
    back.add_argument("wanted", type=version_type, metavar="VERSION", help=_RECORD)
    add_canary_options(parsers[-1])
    for parser in (parsers[-1], back):
        parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the record")
        parser.add_argument("--expect", type=version_type, metavar="VERSION", help="refuse unless this version holds")
    past = below.add("history", history, "List the versions of the policy: when, who, why", json=True)
    past.add_argument("--limit", type=count_of("versions", 1000), default=20, metavar="N", help="the newest N (20)")
    told = below.add("status", status, "Show which process runs which version", json=True)
    told.add_argument("--check", action="store_true", help="exit with 1 when a process is behind")
    tried = below.add("canary", show_or_end, "Show the policy that a tier's workers try, or end its trial", json=True)
    add_end_options(tried)
    for parser in (*parsers, other, back, past, told, tried):
        explain(parser, _EXAMPLES)


def show(args: argparse.Namespace) -> None:
    """Show a version; the one that holds where none is named."""
    from mdtasks.cli.policy_shown import say_overridden, yaml_with_notes
    from mdtasks.domain.policy.pages import yaml_of
    from mdtasks.flows import policies

    with opened_desk(args) as desk:
        version = policies.newest(desk) if args.wanted is None else policies.one(desk, args.wanted)
        running = policies.show(desk, version)
    shown = running.stored if args.stored else running.policy
    if args.json:
        about = {**version.as_dict(), "overridden": {} if args.stored else dict(running.overridden)}
        print_json(_tree({**about, "policy": shown.model_dump(mode="json")}))
        return
    print(yaml_of(shown, comments=False) if args.stored else yaml_with_notes(running), end="")
    say(_who(version.version, version.author, version.created_at, version.reason))
    if not args.stored:
        say_overridden(running)


def validate(args: argparse.Namespace) -> None:
    """Judge a policy. Exit code 2 when it is refused."""
    from mdtasks.cli.policy_shown import show_effects
    from mdtasks.flows import policies

    with opened_desk(args) as desk, errors_shown(args):
        data, name = candidate(args.file, desk)
        verdict = policies.validate(desk, data, datetime.now(UTC))
        verdict.require()
    if args.json:
        print_json(_tree(verdict.as_dict()))
        return
    version = verdict.base.version
    base = f"version {version}" if version else "the defaults, as nothing was ever applied here"
    say(f"{name} is right: {'compared with' if verdict.effects.changes else 'the same as'} {base}")
    show_effects(verdict.effects, verdict.unseen)


def plan(args: argparse.Namespace) -> int:
    """Show the quotas. Exit code 1 when something does not fit."""
    from mdtasks.cli.policy_shown import show_plan
    from mdtasks.flows import policies

    with opened_desk(args) as desk, errors_shown(args):
        data = None if args.file is None else candidate(args.file, desk)[0]
        found = policies.plan_of(desk, data, datetime.now(UTC))
    if args.json:
        print_json(found.as_dict())
    else:
        show_plan(found)
    return 0 if found.fits else 1


def diff(args: argparse.Namespace) -> None:
    """Show what differs."""
    from mdtasks.cli.policy_shown import show_effects
    from mdtasks.flows import policies

    if len(args.what) > 2:
        raise InvalidRequestError("at most two versions can be compared", field="what", hint="see --help")
    now = datetime.now(UTC)
    numbers = [version_of(word) for word in args.what]
    with opened_desk(args) as desk, errors_shown(args):
        if len(numbers) == 2 or (numbers and numbers[0] is not None):
            title, did = _between(numbers, desk, now)
        else:
            data, name = candidate(args.what[0] if args.what else None, desk)
            verdict = policies.validate(desk, data, now)
            verdict.require()
            title, did = f"from version {verdict.base.version} to {name}", verdict.effects
    if args.json:
        print_json(_tree(did.as_dict()))
        return
    say(f"{title}:" if did.changes else f"nothing differs {title}")
    show_effects(did, ())


def _between(numbers: list[int | None], desk: Desk, now: datetime) -> tuple[str, Effects]:
    """What differs between two versions, or between the one that holds and another."""
    from mdtasks.flows import policies

    if None in numbers:
        raise InvalidRequestError("two versions are compared, or one file", field="what", hint="see --help")
    found = [policies.one(desk, number) for number in numbers if number is not None]
    old, new = found if len(found) == 2 else (policies.newest(desk), found[0])
    return f"from version {old.version} to {new.version}", policies.compare(desk, old, new, now)


def apply(args: argparse.Namespace) -> int:
    """Make a policy the one that holds, or let a tier try it. With --wait exit code 1 when it is withdrawn."""
    from mdtasks.domain.jobs import Tier
    from mdtasks.flows import policies
    from mdtasks.flows.policies import Asked

    refuse_without_canary(args)
    with opened_desk(args) as desk, errors_shown(args):
        tried_by = None if args.canary is None else Tier(args.canary)
        asked = Asked(actor(), args.reason, args.expect, tried_by, args.watch or policies.WATCH_S)
        outcome = policies.apply(desk, candidate(args.file, desk)[0], asked, datetime.now(UTC))
        if args.canary is None or not args.wait:
            _done(args, outcome)
            return 0
        if not args.json:
            _done(args, outcome)
        return await_end(args, desk, outcome.version.version)


def rollback(args: argparse.Namespace) -> None:
    """Make an earlier version the one that holds."""
    from mdtasks.flows import policies
    from mdtasks.flows.policies import Asked

    with opened_desk(args) as desk, errors_shown(args):
        asked = Asked(actor(), args.reason, args.expect)
        outcome = policies.rollback(desk, args.wanted, asked, datetime.now(UTC))
    _done(args, outcome)


def _done(args: argparse.Namespace, outcome: Outcome) -> None:
    from mdtasks.cli.policy_shown import show_effects

    made = outcome.version
    if args.json:
        print_json(_tree(outcome.as_dict()))
        return
    if not outcome.changed:
        print(f"policy {made.version} has this content already: nothing was changed")
        return
    if outcome.canary is not None:
        print(f"the workers of {outcome.canary} try policy {made.version}; {made.parent} holds elsewhere")
        say("`mdtasks policy canary` shows how it does; it then holds everywhere, or is taken back, by itself")
        return
    print(f"policy {made.version} holds in place of {made.parent}")
    show_effects(outcome.effects, outcome.unseen, done=True)
    if not outcome.announced:
        say("Redis does not answer: processes find it when they next look into PostgreSQL, within half a minute")
    say(f"`mdtasks policy status` shows who follows it; `mdtasks policy rollback {made.parent}` takes it back")


def history(args: argparse.Namespace) -> None:
    """List versions, the newest first."""
    from mdtasks.cli.output import show_table
    from mdtasks.flows import policies

    with opened_desk(args) as desk:
        found = policies.history(desk, args.limit)
    if args.json:
        print_json(_tree([each.as_dict() for each in found]))
    elif not found:
        say("no policy was ever applied: the defaults hold")
    else:
        headers = ("version", "made (UTC)", "by", "from", "brings back", "reason", "canary", "hash")
        rows = [
            (str(v.version), v.created_at, v.author, v.parent, v.restores, v.reason, v.canary or "", v.hash[:12])
            for v in found
        ]
        show_table(headers, rows)


def status(args: argparse.Namespace) -> int:
    """Show who runs what. With --check exit code 1 when a process is behind."""
    from mdtasks.cli.output import show_table
    from mdtasks.flows import policy_status

    with opened_desk(args) as desk:
        found = policy_status.status(desk, datetime.now(UTC))
    if args.json:
        print_json(_tree(found.as_dict()))
    else:
        version = found.version
        rows = [
            (
                each.word.process,
                each.word.serves,
                each.word.version,
                each.state,
                each.word.since,
                each.word.seen,
                each.why,
            )
            for each in found.standings
        ]
        if rows:
            show_table(("process", "tier", "version", "state", "since (UTC)", "seen (UTC)", "why"), rows)
        say(_who(version.version, version.author, version.created_at, version.reason))
        if found.canary is not None:
            say(f"the workers of {found.canary.tier} try policy {found.canary.version}: `mdtasks policy canary`")
        say(f"{len(found.behind)} of {len(rows)} processes are behind" if rows else "no process has left word yet")
    return 1 if args.check and found.behind else 0


def _who(version: int, author: str, at: datetime | None, reason: str) -> str:
    if not version:
        return "policy 0: the defaults, nothing was ever applied"
    return f"policy {version}: by {author} on {at:%Y-%m-%d %H:%M:%S} UTC" + (f": {reason}" if reason else "")


def _tree(value: Any) -> Any:
    from mdtasks.cli.output import json_tree

    return json_tree(value)
