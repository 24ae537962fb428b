"""``mdtasks up | down | status | logs | migrate``: the stack on this machine."""

from __future__ import annotations

import argparse
import itertools
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mdtasks.cli.frame import Commands, print_json, say, settings_of
from mdtasks.domain.errors import NotFoundError

if TYPE_CHECKING:
    from mdtasks.stack.home import StackRecord
    from mdtasks.stack.start import Request

#: What `up --outage` shows: the first provider becomes slow, then fails, then is well again. It is probed soon.
_OUTAGE: Final = {
    "MDTASKS_SIMULATORS": "3",
    "MDTASKS_SIMULATOR_SCHEDULE": "45-75 latency_s=2.5; 75-150 error=1",
    "BREAKER_COOLDOWN_SEC": "10",
}


def add_parser(commands: Commands) -> None:
    """Add the commands of the stack."""
    start = commands.add("up", up, "Start the stack: servers, workers, beat, web, Flower", json=True)
    start.add_argument("--demo", action="store_true", help="fill it with a small universe of simulated bars")
    start.add_argument(
        "--outage",
        action="store_true",
        help="as --demo, with three providers; the first is slow after 45 s and fails from 75 to 150 s",
    )
    start.add_argument("--detach", "-d", action="store_true", help="return when it is ready; it runs on")
    start.add_argument(
        "--port", type=_port, metavar="N", help="port of the web app (default: 8642 or the next free one)"
    )
    start.add_argument("--no-prometheus", action="store_true", help="run no Prometheus, also where it is installed")
    commands.add("down", down, "Stop the stack; workers finish what they hold")
    commands.add("status", status, "Show what runs, since when, and what it uses", json=True)
    show = commands.add("logs", logs, "Show the logs of the stack's processes")
    show.add_argument("name", nargs="?", metavar="NAME", help="one process only, e.g. t0")
    show.add_argument("--follow", "-f", action="store_true", help="go on with what is written from now on")
    show.add_argument("--lines", "-n", type=int, default=20, metavar="N", help="lines of each log (default: 20)")
    commands.add("migrate", migrate, "Bring the database to the shape this version needs (`up` does it by itself)")


def up(args: argparse.Namespace) -> int:
    """Run the stack in the foreground, or as a daemon."""
    from mdtasks.stack.start import AlreadyRunningError, Request, detach, run_stack

    environ = _environ(args)
    request = Request(home_of(args), args.port, environ, not args.no_prometheus)
    try:
        if args.detach:
            running = _running(request)
            _announce(args, running or detach(request, _arguments(args, request)), already=running is not None)
            if running is None:
                _say_when_nothing_can_be_fetched(request)
            return 0
        from mdtasks.cli.up_screen import UpScreen

        screen = UpScreen(request.home, demo=args.demo or args.outage)
        with screen:
            run_stack(request, screen.on_event, screen.on_plan)
    except AlreadyRunningError as exc:
        if exc.record is None or not exc.record.web_url:
            raise
        _announce(args, exc.record, already=True)
    return 0


def _environ(args: argparse.Namespace) -> dict[str, str]:
    """The variables that the flags stand for; a schedule of outages counts from now where nobody says from when."""
    environ = {"MDTASKS_SIMULATOR": "1"} if args.demo or args.outage else {}
    if args.outage:
        environ |= _OUTAGE
    if args.outage or ("MDTASKS_SIMULATOR_SCHEDULE" in os.environ and "MDTASKS_SIMULATOR_EPOCH" not in os.environ):
        environ["MDTASKS_SIMULATOR_EPOCH"] = datetime.now(UTC).isoformat()
    return environ


def down(args: argparse.Namespace) -> int:
    """Stop everything; saying so when nothing ran is no error."""
    from mdtasks.stack.start import stop_stack

    home = home_of(args)
    say("stopped" if stop_stack(home) else f"no stack runs in {home}")
    return 0


def status(args: argparse.Namespace) -> int:
    """Show the stack. Exit code 0 when it is ready, 1 when it runs but is not, 5 when none runs."""
    from mdtasks.stack.report import providers_aside, stack_status

    found = stack_status(home_of(args))
    if found.record.ready:
        found = replace(found, aside=providers_aside(found.home))
    if args.json:
        print_json(found.as_dict())
    else:
        from mdtasks.cli.status_table import show_status

        show_status(found)
    return 0 if found.record.ready else 1


def logs(args: argparse.Namespace) -> int:
    """Show the last lines of each log, then, on request, every new one."""
    from mdtasks.stack.home import Home
    from mdtasks.stack.logs import Follower, last_lines

    home = Home(home_of(args))
    paths = {path.stem: path for path in sorted(home.logs.glob("*.log"))}
    if args.name is not None:
        if args.name not in paths:
            raise NotFoundError(
                f"no log of {args.name!r} in {home.logs}", hint=f"there are: {', '.join(paths) or 'none'}"
            )
        paths = {args.name: paths[args.name]}
    if not paths:
        raise NotFoundError(f"no stack has run in {home.path}", hint="start one with `mdtasks up`")
    width = max(map(len, paths)) if len(paths) > 1 else 0
    # The follower first: it starts where the earlier lines end, so none is shown twice or never.
    new = Follower(paths)
    ends = new.offsets.copy()
    earlier = ((name, line) for name, path in paths.items() for line in last_lines(path, args.lines, end=ends[name]))
    for name, line in itertools.chain(earlier, new if args.follow else ()):
        print(f"{name:<{width}} | {line}" if width else line, flush=args.follow)
    return 0


def migrate(args: argparse.Namespace) -> int:
    """Migrate the database of the settings, and check the calendars. Safe to repeat, and at the same time as others."""
    from mdtasks.store.calendars import verified_calendars
    from mdtasks.store.schema import migrate as run_migrations

    settings = settings_of(args)
    say(f"database at revision {run_migrations(settings.require_database_url())}")
    verified_calendars(settings.calendars_dir, datetime.now(UTC))
    say("calendars know their sessions")
    return 0


def home_of(args: argparse.Namespace) -> Path:
    """The home that the command is about: ``--home``, else MDTASKS_HOME, else ``.mdtasks``; absolute.

    Needs no other value to be right: a stack whose other settings are wrong can still be looked at and stopped. But no
    name may be mistyped: a command without its MDTASKS_HOME would act on another stack. Raises ConfigurationError.
    """
    from mdtasks.settings import refuse_unknown

    refuse_unknown(os.environ)
    given: Path | None = args.home
    return (given or Path(os.environ.get("MDTASKS_HOME") or ".mdtasks")).expanduser().absolute()


def _running(request: Request) -> StackRecord | None:
    from mdtasks.stack.home import Home

    return Home(request.home).running()


def _arguments(args: argparse.Namespace, request: Request) -> list[str]:
    port = [] if request.web_port is None else ["--port", str(request.web_port)]
    flags = [f"--{name.replace('_', '-')}" for name in ("demo", "outage", "no_prometheus") if getattr(args, name)]
    return ["up", "--home", str(request.home), *port, *flags]


def _say_when_nothing_can_be_fetched(request: Request) -> None:
    from mdtasks.cli.up_screen import NO_PROVIDER
    from mdtasks.providers.registry import Registry
    from mdtasks.settings import load_settings

    if not Registry(load_settings({**os.environ, **request.environ}, home=request.home)).names():
        say(NO_PROVIDER)


def _announce(args: argparse.Namespace, record: StackRecord, *, already: bool = False) -> None:
    """Say where the stack is, and why not where it is looked for."""
    from mdtasks.stack.ports import why_moved

    if args.json:
        urls = ("web_url", "flower_url", "prometheus_url", "taken_port")
        found = {name: getattr(record, name) for name in urls}
        print_json({"pid": record.supervisor.pid, "ready": record.ready, **found})
        return
    why = why_moved(record.taken_port)
    say(f"{'already running' if already else 'running'} (pid {record.supervisor.pid})")
    say(f"web     {record.web_url}" + (f" ({why})" if why else ""))
    say(f"flower  {record.flower_url}")
    if record.prometheus_url:
        say(f"alerts  {record.prometheus_url}/alerts")
    say("`mdtasks status` shows it, `mdtasks down` stops it")


def _port(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return number
