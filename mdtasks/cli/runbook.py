"""``mdtasks runbook``: what an alert means, why it fires now, and the repair."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, explain
from mdtasks.cli.requeue import confirm

if TYPE_CHECKING:
    from mdtasks.flows.runbooks.findings import Finding
    from mdtasks.flows.runbooks.rounds import Looked

_EXAMPLES: Final = """
examples:
  mdtasks runbook
  mdtasks runbook DLQGrowing
  mdtasks runbook DLQGrowing --apply

Looks at the live system and names the causes that fit, the likeliest first, each with its evidence and its repair.
--apply does the first one's repair where mdtasks can do it itself, and puts it on record. Exit code 0 when nothing was
found or the repair was done, 1 when something was found, 4 when its repair is yours to do.
"""


def add_parser(commands: Commands) -> None:
    """Add ``runbook``."""
    show = commands.add("runbook", runbook, "Say why an alert fires and what to do; do it on request", json=True)
    show.add_argument("alert", nargs="?", metavar="ALERT", help="the alert's name; without one all are listed")
    show.add_argument("--apply", action="store_true", help="do the repair of the likeliest cause")
    show.add_argument("--yes", "-y", action="store_true", help="do not ask")
    explain(show, _EXAMPLES)


def runbook(args: argparse.Namespace) -> int:
    """List the runbooks, or carry one out."""
    from mdtasks.flows.runbooks import books

    if args.alert is None:
        return _list(args)
    alert = books.known(args.alert)
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.runbooks.rounds import look, repair

    with opened_deps(args) as deps:
        looked = look(alert, deps, datetime.now(UTC))
        if not args.json:
            _show(looked)
        done: dict[str, Any] | None = None
        if args.apply:
            if looked.findings and looked.findings[0].repair.act is not None:
                confirm(args, looked.findings[0].repair.words, f"mdtasks runbook {alert} --apply --yes")
            done = repair(looked, actor(), deps)
    if args.json:
        print_json({**looked.as_dict(), "done": done})
    elif done is not None:
        print(f"done: {_told(done['result'])}")
    return 0 if done is not None or not looked.findings else 1


def _list(args: argparse.Namespace) -> int:
    from mdtasks.cli.output import show_table
    from mdtasks.flows.runbooks import books

    meanings = {name: books.meaning_of(name) for name in books.names()}
    if args.json:
        print_json(meanings)
    else:
        show_table(("alert", "means"), list(meanings.items()))
    return 0


def _show(looked: Looked) -> None:
    from mdtasks.flows.runbooks import books

    say(f"{looked.alert}: {books.meaning_of(looked.alert)}")
    for number, finding in enumerate(looked.findings, 1):
        _show_finding(number, finding)
    for words in looked.unseen:
        say(f"not looked at: {words}")
    if not looked.findings:
        print("nothing was found that explains it; `mdtasks doctor` looks at every part")


def _show_finding(number: int, finding: Finding) -> None:
    from mdtasks.cli.output import text_of

    print(f"{number}. {text_of(finding.cause)} ({finding.likelihood:.0%})")
    for words in finding.evidence:
        print(f"   {text_of(words)}")
    by_itself = "  [--apply does it]" if finding.repair.act is not None and number == 1 else ""
    print(f"   -> {text_of(finding.repair.words)}{by_itself}")


def _told(result: dict[str, Any]) -> str:
    parts: list[str] = []
    for name, value in result.items():
        if isinstance(value, dict):
            parts.append(f"{name} ({_told(value)})")
        else:
            parts.append(f"{name} {value}")
    return ", ".join(parts)
