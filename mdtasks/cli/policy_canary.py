"""``mdtasks policy apply --canary`` and ``mdtasks policy canary``: a policy that one tier's workers try first."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mdtasks.cli.frame import print_json, say
from mdtasks.cli.inputs import actor, add_tier, seconds_of
from mdtasks.cli.policy_desk import opened_desk
from mdtasks.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from mdtasks.flows.policy_canaries import Trial
    from mdtasks.flows.policy_facts import Desk

#: How often it is looked at while somebody waits, seconds.
_POLL_S: Final = 1.0


def add_canary_options(parser: argparse.ArgumentParser) -> None:
    """``--canary``, ``--watch`` and ``--wait`` of ``policy apply``."""
    about = "let the workers of this tier try it first; then it holds everywhere, or is taken back, by itself"
    add_tier(parser, about, name="--canary")
    parser.add_argument(
        "--watch", type=seconds_of("watch", 1, 86_400), metavar="TIME", help="of --canary: for how long (default: 5m)"
    )
    parser.add_argument(
        "--wait", action="store_true", help="of --canary: look on until it is decided; exit 1: taken back"
    )


def refuse_without_canary(args: argparse.Namespace) -> None:
    """Raise InvalidRequestError where a trial is spoken of and none is asked for: it would hold everywhere at once."""
    for name in ("watch", "wait"):
        if getattr(args, name) and args.canary is None:
            raise InvalidRequestError(
                f"--{name} is of a trial, and no tier is to try it: nothing was changed",
                field=name,
                hint=f"--canary T2 --{name} …; without both it holds everywhere at once",
            )


def add_end_options(parser: argparse.ArgumentParser) -> None:
    """``policy canary [promote|stop]``."""
    parser.add_argument(
        "end", nargs="?", choices=("promote", "stop"), help="let it hold everywhere now, or take it back"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the record")


def show_or_end(args: argparse.Namespace) -> None:
    """Show the policy that is being tried and how it does; or end its trial."""
    from mdtasks.cli.output import json_tree
    from mdtasks.domain.policy.canaries import Decision
    from mdtasks.flows import policy_canaries
    from mdtasks.flows.policies import Asked

    now = datetime.now(UTC)
    with opened_desk(args) as desk:
        if args.end is not None:
            decision = Decision.PROMOTED if args.end == "promote" else Decision.WITHDRAWN
            ended = policy_canaries.end(desk, decision, Asked(actor(), args.reason), now)
            if args.json:
                print_json(json_tree(ended.as_dict()))
            else:
                print(f"policy {ended.version}, tried by {ended.tier}, is {ended.decision}")
            return
        found = policy_canaries.trial(desk, now)
    if args.json:
        print_json(json_tree({"canary": None if found is None else found.as_dict()}))
    elif found is None:
        say("no policy is being tried; `mdtasks policy history` shows what became of those that were")
    else:
        print(_line(found))
        for process in found.processes:
            print(f"  {process}")
        if not found.processes:
            say(f"no worker that serves {found.canary.tier} alone has taken it up yet: it does with its next look")


def await_end(args: argparse.Namespace, desk: Desk, version: int) -> int:
    """Look on until a trial is decided. Exit code 0: promoted; 1: withdrawn."""
    from mdtasks.cli.output import json_tree
    from mdtasks.flows import policy_canaries

    said = ""
    while True:
        found = policy_canaries.of_version(desk, version, datetime.now(UTC))
        if found is None or found.canary.decision is not None:
            break
        if found.why != said and not args.json:
            said = found.why
            say(_line(found))
        time.sleep(_POLL_S)
    if found is None:  # it has the content of the version that holds: there was nothing to try
        return 0
    if args.json:
        print_json(json_tree(found.as_dict()))
    else:
        print(f"policy {version} is {found.canary.decision}: {found.canary.why}")
    return 0 if found.canary.decision == "promoted" else 1


def _line(found: Trial) -> str:
    canary, seen = found.canary, found.seen
    lasts = f"for {seen.elapsed_s:.0f} of {canary.watch_s:.0f} s"
    return f"policy {canary.version}, tried by {canary.tier} {lasts}: {found.why}"
