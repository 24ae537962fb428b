"""Runs the whole stack in one home: servers, migrations, connection file, processes; watches them; stops them in order.

One thread does it all: the kernel ties each process to the thread that started it, and one thread has no races. It
sleeps in a selector that a signal, the end of a process or a process reporting itself ready wakes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from mdtasks.domain.errors import UnavailableError
from mdtasks.settings import published, sealed
from mdtasks.stack.child import Child, Job
from mdtasks.stack.embedded import EmbeddedServer, PostgresServer, ValkeyServer
from mdtasks.stack.home import SUPERVISOR, Home, ProcessRecord, StackRecord, identity, write_private
from mdtasks.stack.logs import last_lines, rotate
from mdtasks.stack.processes import Plan, Spec, process_table, stop_server
from mdtasks.stack.spawn import Command, spawn
from mdtasks.stack.wakeups import WakeUps, woken_by_signals

_SERVER_PHASE: Final = 2
_SERVERS_START_WITHIN_S: Final = 30.0
_LOGS_LOOKED_AT_EVERY_S: Final = 10.0


@dataclass(frozen=True)
class Event:
    """Something a person watching would want to know. ``what`` is a process state or ready, stopping, stopped."""

    name: str
    what: str
    text: str = ""


class _StopRequestedError(Exception):
    """A signal asked the stack to stop while it was starting."""


class Supervisor:
    """The stack of one home, which the caller holds. Use it once, from the main thread."""

    _woken: WakeUps

    def __init__(
        self,
        plan: Plan,
        *,
        on_event: Callable[[Event], None] = lambda _event: None,
        table: Callable[[Plan], tuple[Spec, ...]] = process_table,
    ) -> None:
        self._plan = plan
        self._home = Home(plan.home)
        self._on_event = on_event
        self._table = table
        self._servers: list[EmbeddedServer] = []
        self._children: list[Child] = []
        self._began = time.monotonic()
        me = ProcessRecord(SUPERVISOR, "ready", os.getpid(), identity(os.getpid()), time.time())
        places = {name: getattr(plan, name) for name in ("web_url", "flower_url", "prometheus_url", "taken_port")}
        self._record = StackRecord(me, **places)

    def run(self) -> None:
        """Start everything, watch until a signal asks to stop, stop everything.

        Raises UnavailableError when a server or a migration fails; then nothing is left running.
        """
        with woken_by_signals() as self._woken:
            try:
                self._note()
                self._start_servers()
                self._migrate()
                self._publish()
                self._start_processes()
                self._watch()
            except _StopRequestedError:
                pass
            finally:
                self._stop_all()

    # -- the steps ---------------------------------------------------------------------------------

    def _start_servers(self) -> None:
        given = self._plan.settings
        if given.redis_url is None:
            self._servers.append(ValkeyServer(self._home.path))
        if given.database_url is None:
            self._servers.append(PostgresServer(self._home.path))
        for server in self._servers:
            self._on_event(Event(server.name, "starting"))
            server.prepare(self._await_end)
            job = Job(
                server.name, server.command, stop_server(server.stop_signals), _answers(server), phase=_SERVER_PHASE
            )
            self._start(Child(job, self._home.log(server.name)))
        until = time.monotonic() + _SERVERS_START_WITHIN_S
        while not all(child.record.state == "ready" for child in self._children):
            self._step()
            self._raise_if_server_failed(late=time.monotonic() > until)
            self._sleep(0.05)

    def _raise_if_server_failed(self, *, late: bool) -> None:
        for child in self._children:
            if child.record.restarts >= 2 or (late and child.record.state != "ready"):
                words = last_lines(child.log, 1) or ["no word in its log"]
                raise UnavailableError(f"{child.name} does not start: {words[0]}", hint=f"see {child.log}")

    def _migrate(self) -> None:
        """Bring the database to this version's shape, in a process whose memory goes with it."""
        for server in self._servers:
            if isinstance(server, PostgresServer):
                server.ensure_database()
        self._on_event(Event("migrations", "starting"))
        log = self._home.log("migrate")
        argv = (sys.executable, "-P", "-m", "mdtasks", "migrate", "--home", str(self._home.path))
        process = spawn(Command(argv, environ={**os.environ, "MDTASKS_DATABASE_URL": self._database_url()}), log)
        self._await_end(process)
        if process.returncode != 0:
            words = [line for line in last_lines(log, 5) if line.startswith("error: ")] or last_lines(log, 1)
            raise UnavailableError(f"migrations failed: {words[-1].removeprefix('error: ')}", hint=f"see {log}")
        self._on_event(Event("migrations", "ready", (last_lines(log, 1) or [""])[0]))

    def _publish(self) -> None:
        """Tell every other process, ours and those started by hand, where the servers are."""
        settings = self._plan.settings
        content = {
            "database_url": self._database_url(),
            "redis_url": self._redis_url(),
            "broker_url": settings.broker_url.get_secret_value() if settings.broker_url else self._redis_url(),
            "rlc_redis_url": settings.rlc_redis_url.get_secret_value() if settings.rlc_redis_url else "",
            "api_token": settings.api_token.get_secret_value() if settings.api_token else "",
            "web_url": self._plan.web_url,
            "flower_url": self._plan.flower_url,
            "prometheus_url": self._plan.prometheus_url,
            "settings": published(settings),
            "secrets": sealed(settings),
        }
        write_private(self._home.connection_file, json.dumps(content, indent=1))

    def _start_processes(self) -> None:
        for spec in self._table(self._plan):
            rules = (spec.stop, self._readiness(spec), spec.phase, spec.needed)
            job = Job(spec.name, lambda spec=spec: spec.command, *rules)  # type: ignore[misc]
            extra = {"NOTIFY_SOCKET": self._woken.notify.address} if spec.notifies else {}
            self._on_event(Event(spec.name, "starting"))
            self._start(Child(job, self._home.log(spec.name), extra_environ=extra))

    def _watch(self) -> None:
        logs_at = time.monotonic()
        while True:
            self._step()
            if not self._record.ready and self._all_ready():
                self._record = replace(self._record, ready=True)
                self._note()
                self._on_event(Event("stack", "ready", f"{time.monotonic() - self._began:.1f} s"))
            if time.monotonic() >= logs_at:
                logs_at = time.monotonic() + _LOGS_LOOKED_AT_EVERY_S
                for child in self._children:
                    rotate(child.log)
            self._sleep(0.5 if self._record.ready else 0.1)

    def _stop_all(self) -> None:
        """Stop phase after phase, each by its rules. A second signal ends everything at once."""
        self._record = replace(self._record, stopping=True, ready=False)
        if self._children:
            self._on_event(Event("stack", "stopping"))
        asked = self._woken.stops_asked
        for phase in sorted({child.job.phase for child in self._children}):
            children = [child for child in self._children if child.job.phase == phase]
            for child in children:
                child.stop(time.monotonic())
            self._note()
            while any(child.running for child in children):
                if self._woken.stops_asked > asked + 1:
                    for child in self._children:
                        child.kill()
                self._step()
                self._woken.wait(0.05)
        self._home.connection_file.unlink(missing_ok=True)
        self._home.state_file.unlink(missing_ok=True)
        self._on_event(Event("stack", "stopped"))

    # -- what the steps share ----------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        self._children.append(child)
        child.start(time.monotonic())
        self._note()

    def _step(self) -> None:
        changed = False
        for child in self._children:
            now = time.monotonic()
            state = child.step(now)
            if state is not None:
                changed = True
                self._on_event(Event(child.name, state, self._story(child, state, now)))
        if changed:
            if not self._all_ready():
                self._record = replace(self._record, ready=False)
            self._note()

    def _all_ready(self) -> bool:
        return all(child.record.state == "ready" for child in self._children if child.job.needed)

    def _story(self, child: Child, state: str, now: float) -> str:
        if state == "ready":
            return f"{time.time() - (child.record.started_at or 0):.1f} s"
        if state == "waiting":
            words = last_lines(child.log, 1)
            pause_s = child.resume_in(now)
            return f"{exit_words(child.record.last_exit)}; again in {pause_s:.1f} s" + (
                f": {words[0]}" if words and child.record.last_exit not in (0, -signal.SIGKILL) else ""
            )
        return ""

    def _note(self) -> None:
        self._record = replace(self._record, processes=tuple(child.record for child in self._children))
        # A full disk must not end the watch: `status` then shows what was recorded last.
        with suppress(OSError):
            self._home.write(self._record)

    def _readiness(self, spec: Spec) -> Callable[[int], bool]:
        def is_ready(pid: int) -> bool:
            # Both, where there are both: what answers at the address may be another stack's.
            said = not spec.notifies or self._woken.notify.is_ready(pid)
            return said and (not spec.ready_url or _answers_200(spec.ready_url))

        return is_ready

    def _database_url(self) -> str:
        server = next((each for each in self._servers if isinstance(each, PostgresServer)), None)
        return server.url if server is not None else self._plan.settings.require_database_url()

    def _redis_url(self) -> str:
        server = next((each for each in self._servers if isinstance(each, ValkeyServer)), None)
        return server.url if server is not None else self._plan.settings.require_redis_url()

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a step that is a program. Ends it, with its children, and raises when a stop was asked for: what it
        did is undone (a transaction) or made again (a data folder) at the next start.
        """
        try:
            while process.poll() is None:
                self._sleep(0.1)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _sleep(self, seconds: float) -> None:
        """Wait for something to happen, ``seconds`` at most. Raises when a stop was asked for."""
        self._woken.wait(seconds)
        if self._woken.stops_asked:
            raise _StopRequestedError


def exit_words(code: int | None) -> str:
    """How a process ended, in words: ``exit 1``, ``killed (SIGKILL)``."""
    if code is None:
        return ""
    if code >= 0:
        return f"exit {code}"
    with suppress(ValueError):
        return f"killed ({signal.Signals(-code).name})"
    return f"killed by signal {-code}"


def _answers(server: EmbeddedServer) -> Callable[[int], bool]:
    return lambda _pid: server.answers()


def _answers_200(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=0.5) as answer:  # noqa: S310  -- our own http://127.0.0.1
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
