"""From what the user asked for to a running stack: take the home, clear what a killed stack left, plan, supervise."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from mdtasks.connections import open_redis, translated_redis_errors
from mdtasks.domain.errors import ConfigurationError, ConflictError, MdtasksError, UnavailableError
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings, load_settings
from mdtasks.stack.binaries import prometheus_binary
from mdtasks.stack.home import Home, StackRecord
from mdtasks.stack.kept import free_port
from mdtasks.stack.leftovers import stop_leftovers
from mdtasks.stack.logs import last_lines
from mdtasks.stack.ports import choose_flower_port, choose_web_port, taken_port
from mdtasks.stack.processes import Plan
from mdtasks.stack.supervisor import Event, Supervisor

#: How long `down` waits for a supervisor, which itself takes less than 15 s.
_DOWN_PATIENCE_S = 20.0
#: What the start of a stack may fail with, by the exit code that a daemon leaves.
_BY_EXIT_CODE: Final = {each.exit_code: each for each in (ConfigurationError, ConflictError, UnavailableError)}


class AlreadyRunningError(ConflictError):
    """Another stack has this home. ``record``: what it says of itself, when it has said something yet."""

    code = "stack_already_running"

    def __init__(self, home: Path, record: StackRecord | None) -> None:
        super().__init__(f"a stack already runs in {home}", hint="`mdtasks status`, `mdtasks down`")
        self.record = record


@dataclass(frozen=True)
class Request:
    """What `mdtasks up` was asked for."""

    home: Path
    web_port: int | None = None
    #: Variables for the stack's processes beside those of the caller.
    environ: Mapping[str, str] = field(default_factory=dict)
    #: Whether to run Prometheus where its program is.
    prometheus: bool = True


def run_stack(request: Request, on_event: Callable[[Event], None], on_plan: Callable[[Plan], None]) -> None:
    """Run a stack until a signal asks it to stop. From the main thread.

    Raises AlreadyRunningError, ConflictError (the port is taken), ConfigurationError, UnavailableError (a server or a
    migration failed). ``on_plan`` is told what will run before anything is started.
    """
    home = Home(request.home)
    with home.held() as mine:
        if not mine:
            raise AlreadyRunningError(home.path, home.running())
        for name in stop_leftovers(home):
            on_event(Event(name, "cleared", "left behind by a stack that was killed"))
        # The connection file of a killed stack would look like servers that somebody gave us.
        home.connection_file.unlink(missing_ok=True)
        home.state_file.unlink(missing_ok=True)
        settings = load_settings({**os.environ, **request.environ}, home=home.path)
        _check(settings)
        web_port = choose_web_port(request.web_port)
        taken = taken_port(request.web_port, web_port)
        prometheus = _prometheus(home) if request.prometheus else None
        plan = Plan(settings, web_port, choose_flower_port(web_port), request.environ, taken, prometheus)
        on_plan(plan)
        Supervisor(plan, on_event=on_event).run()


def _prometheus(home: Home) -> tuple[Path, int] | None:
    program = prometheus_binary()
    return None if program is None else (program, free_port(home.path, "prometheus"))


def _check(settings: Settings) -> None:
    """Refuse what each process would only stumble over in a loop of restarts: providers, and servers that were given.

    Raises ConfigurationError, ProviderError, UnavailableError.
    """
    Registry(settings)
    for url in (settings.redis_url, settings.broker_url):
        if url is not None:
            with translated_redis_errors(), open_redis(url.get_secret_value()) as client:
                client.ping()


def detach(request: Request, arguments: list[str], *, timeout_s: float = 60.0) -> StackRecord:
    """Run ``mdtasks`` with these arguments as a daemon; return when its stack is ready.

    Raises what ``run_stack`` raised in the daemon when that ends; UnavailableError with its last words when it said
    nothing, or is not ready in time (it then goes on).
    """
    home = Home(request.home)
    log = home.log("supervisor")
    home.make()
    with log.open("ab") as output:
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "mdtasks", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # lives on when the terminal goes
        )
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        record = home.running()
        if record is not None and record.supervisor.pid == daemon.pid and record.ready:
            return record
        with suppress(subprocess.TimeoutExpired):
            code = daemon.wait(0.1)
            raise _ended_early(log, code)
    record = home.running()
    late = [each.name for each in record.processes if each.state != "ready"] if record is not None else []
    raise UnavailableError(
        f"not ready after {timeout_s:.0f} s: {', '.join(late) or 'nothing has started'}",
        hint="it goes on starting: `mdtasks status`, `mdtasks logs`; `mdtasks down` ends it",
    )


def _ended_early(log: Path, code: int) -> MdtasksError:
    """What the daemon said before it ended, as the error it would have been in the foreground."""
    lines = last_lines(log, 5)
    error = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    hint = next((line.removeprefix("hint: ") for line in reversed(lines) if line.startswith("hint: ")), f"see {log}")
    said = error or f"the stack did not start: {' / '.join(lines)}"
    return _BY_EXIT_CODE.get(code, UnavailableError)(said, hint=hint)


def stop_stack(home: Path) -> bool:
    """Stop the stack of this home, all of it. Returns whether there was anything to stop. Safe to repeat."""
    place = Home(home)
    if not place.path.is_dir():
        return False
    record = place.running()
    if record is not None and record.supervisor.pid is not None:
        with suppress(psutil.Error):
            supervisor = psutil.Process(record.supervisor.pid)
            supervisor.terminate()
            try:
                supervisor.wait(_DOWN_PATIENCE_S)
            except psutil.TimeoutExpired:
                supervisor.kill()
    with place.held() as mine:
        if not mine:
            return record is not None
        left = stop_leftovers(place)
        place.connection_file.unlink(missing_ok=True)
        place.state_file.unlink(missing_ok=True)
    return record is not None or bool(left)
