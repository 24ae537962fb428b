"""``mdtasks doctor``: every part looked at, with what to do about what is bad."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mdtasks.cli.frame import Commands, print_json, say, settings_of
from mdtasks.cli.inputs import explain

if TYPE_CHECKING:
    from mdtasks.flows.doctor import Check, State
    from mdtasks.settings import Settings

_EXAMPLES: Final = """
examples:
  mdtasks doctor
  mdtasks doctor --json

Looks only, changes nothing; takes about 4 seconds, in which it listens for the workers. Exit code 1 when something is
bad, 0 otherwise.
"""
_MARKS: Final = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "bad": "[red]✗[/]"}


def add_parser(commands: Commands) -> None:
    """Add ``doctor``."""
    explain(commands.add("doctor", doctor, "Check every part and say what to do", json=True), _EXAMPLES)


def doctor(args: argparse.Namespace) -> int:
    """Examine everything; each finding is shown as soon as it is there."""
    found: list[Check] = []
    for check in _examine(args):
        found.append(check)
        if not args.json:
            _show(check)
    bad = sum(check.state == "bad" for check in found)
    if args.json:
        print_json({"healthy": not bad, "checks": [check.as_dict() for check in found]})
    else:
        warned = sum(check.state == "warn" for check in found)
        say(f"{bad} bad, {warned} to look at" if bad or warned else "all is well")
    return 1 if bad else 0


def _examine(args: argparse.Namespace) -> Iterator[Check]:
    from mdtasks.flows.doctor import Check, checked, examine_calendars, examine_services
    from mdtasks.flows.doctor_machine import examine_machine

    settings = settings_of(args)
    yield from examine_machine(settings)
    stack = checked("stack", lambda: _stack(settings))
    yield stack
    if settings.database_url is None or settings.redis_url is None:
        if stack.state != "bad":
            todo = "set both, or neither to have `mdtasks up` run its own"
            yield Check("servers", "bad", "only one of MDTASKS_DATABASE_URL and MDTASKS_REDIS_URL is set", todo)
        return
    from mdtasks.cli.opened import opened_deps

    with opened_deps(args, settings) as deps:
        yield examine_calendars(deps)
        yield from examine_services(deps, datetime.now(UTC))


def _stack(settings: Settings) -> tuple[State, str, str]:
    """The processes of the stack in this home; none need run where the servers are given by URL."""
    from mdtasks.domain.errors import StackNotRunningError
    from mdtasks.stack.report import stack_status

    try:
        status = stack_status(settings.home)
    except StackNotRunningError:
        if settings.database_url is None:
            raise
        return "ok", f"none in {settings.home}; the servers are those of the URLs given", ""
    down = [row.record.name for row in status.rows if row.record.state != "ready"]
    restarts = {row.record.name: row.record.restarts for row in status.rows if row.record.restarts}
    again = "; started again: " + ", ".join(f"{name} {count}x" for name, count in restarts.items()) if restarts else ""
    found = f"{status.word}, {len(status.rows)} processes, {status.memory_bytes / 1e6:,.0f} MB{again}"
    if down:
        return "bad", f"{found}; not ready: {', '.join(down)}", f"see `mdtasks logs {down[0]}`"
    return ("warn", found, f"`mdtasks logs {next(iter(restarts))}` says why") if restarts else ("ok", found, "")


def _show(check: Check) -> None:
    from mdtasks.cli.output import on_terminal, text_of

    found = text_of(check.found)
    if not on_terminal():
        todo = f"  -> {check.todo}" if check.todo else ""
        print(f"{check.state:<4}  {check.part:<18}  {found}{todo}", flush=True)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding

    console = Console(highlight=False)
    console.print(f"{_MARKS[check.state]} [bold]{check.part}[/]  [dim]{escape(found)}[/]")
    if check.todo:
        console.print(Padding(f"[yellow]→[/] {escape(check.todo)}", (0, 0, 0, 2)))
