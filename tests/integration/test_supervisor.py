"""The supervisor with real servers, and stand-ins for the stack's own processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from mdtasks.stack.home import Home, ProcessRecord
from mdtasks.stack.leftovers import stop_leftovers
from tests.kept import give_calendars

Eventually = Callable[..., None]
_SCRIPT = Path(__file__).with_name("supervise.py")


@dataclass
class Supervised:
    """A supervisor that runs in a process of its own."""

    home: Home
    process: subprocess.Popen[bytes]
    output: Path

    def record(self, name: str) -> ProcessRecord:
        """What the supervisor says of one process."""
        stack = self.home.running()
        found = next((each for each in stack.processes if each.name == name), None) if stack is not None else None
        return found or ProcessRecord(name, "unknown")

    def events(self) -> str:
        """All it has said so far."""
        return self.output.read_text()

    def connection(self) -> dict[str, str]:
        """The content of the connection file."""
        content: dict[str, str] = json.loads(self.home.connection_file.read_text())
        return content


@contextmanager
def supervised(folder: Path, *behaviours: str) -> Iterator[Supervised]:
    """Run a supervisor over these stand-ins; killed at the end if it still runs."""
    give_calendars(folder)
    output = folder / "events"
    environ = {**os.environ, "MDTASKS_HOME": str(folder)}
    with output.open("wb") as file:
        argv = [sys.executable, str(_SCRIPT), str(folder), *behaviours]
        process = subprocess.Popen(argv, stdout=file, stderr=file, env=environ)
    try:
        yield Supervised(Home(folder), process, output)
    finally:
        process.kill()
        process.wait()
        stop_leftovers(Home(folder))


def living_in(home: Path) -> list[str]:
    """The command lines of all processes that belong to this home, by their arguments or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.pid != os.getpid() and (
                str(home) in " ".join(words) or process.environ().get("MDTASKS_HOME") == str(home)
            ):
                found.append(" ".join(words))
        except psutil.Error:
            continue
    return found


def test_a_stack_starts_tells_where_it_is_and_leaves_nothing_when_stopped(
    tmp_path: Path, eventually: Eventually
) -> None:
    with supervised(tmp_path, "steady", "pool") as stack:
        eventually(lambda: "stack ready" in stack.events(), within_s=30)
        assert Home(tmp_path).connection_file.stat().st_mode & 0o777 == 0o600
        with psycopg.connect(stack.connection()["database_url"]) as connection:
            assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(15) == 0
        assert "stack stopped" in stack.events()
        assert not stack.home.connection_file.exists()
        assert living_in(tmp_path) == []


def test_a_process_that_is_killed_starts_again_and_its_own_children_go_with_it(
    tmp_path: Path, eventually: Eventually
) -> None:
    with supervised(tmp_path, "pool") as stack:
        eventually(lambda: "stack ready" in stack.events(), within_s=30)
        before = stack.record("pool")
        assert before.pid is not None
        below = psutil.Process(before.pid).children()
        os.kill(before.pid, signal.SIGKILL)
        eventually(lambda: stack.record("pool").restarts == 1 and stack.record("pool").state == "ready")
        assert stack.record("pool").last_exit == -signal.SIGKILL
        assert below
        eventually(lambda: not any(child.is_running() for child in below))


def test_servers_that_are_killed_come_back_at_the_same_place_with_their_data(
    tmp_path: Path, eventually: Eventually
) -> None:
    with supervised(tmp_path, "steady") as stack:
        eventually(lambda: "stack ready" in stack.events(), within_s=30)
        place = stack.connection()
        with redis.Redis.from_url(place["redis_url"]) as client:
            client.set("kept", "yes")
        with psycopg.connect(place["database_url"]) as connection:
            connection.execute("CREATE TABLE kept (word text)")
            connection.execute("INSERT INTO kept VALUES ('yes')")
        for name in ("redis", "postgres"):
            pid = stack.record(name).pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        eventually(
            lambda: all(
                stack.record(name).restarts >= 1 and stack.record(name).state == "ready"
                for name in ("redis", "postgres")
            ),
            within_s=30,
        )
        assert stack.connection() == place
        with redis.Redis.from_url(place["redis_url"]) as client:
            assert client.get("kept") == b"yes"
        with psycopg.connect(place["database_url"]) as connection:
            assert connection.execute("SELECT word FROM kept").fetchone() == ("yes",)


@pytest.mark.parametrize("step", ["bin/initdb ", "mdtasks migrate "])
def test_a_stop_does_not_wait_for_a_step_of_the_start(tmp_path: Path, eventually: Eventually, step: str) -> None:
    with supervised(tmp_path, "steady") as stack:

        def at_work() -> list[psutil.Process]:
            below = psutil.Process(stack.process.pid).children(recursive=True)
            return [each for each in below if step in _words(each) and "launch.py" not in _words(each)]

        eventually(at_work, within_s=30, what=f"{step} runs")
        (program,) = at_work()
        program.suspend()  # for as long as it takes
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(15) == 0
        assert living_in(tmp_path) == []
    with supervised(tmp_path, "steady") as stack:
        eventually(lambda: "stack ready" in stack.events(), within_s=30, what="the next start begins it anew")


def _words(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def test_a_process_that_keeps_dying_is_tried_with_growing_pauses_and_does_not_disturb_the_others(
    tmp_path: Path, eventually: Eventually
) -> None:
    with supervised(tmp_path, "steady", "crashing") as stack:
        eventually(lambda: stack.record("crashing").restarts >= 2, within_s=30)
        assert "exit 3; again in 0.5 s: crashing starts" in stack.events()
        assert "exit 3; again in 1.0 s: crashing starts" in stack.events()
        assert stack.record("steady").restarts == 0
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(15) == 0


def test_a_process_that_does_not_stop_is_killed_when_its_time_is_over(tmp_path: Path, eventually: Eventually) -> None:
    with supervised(tmp_path, "hanging") as stack:
        eventually(lambda: "stack ready" in stack.events(), within_s=30)
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(15) == 0
        assert living_in(tmp_path) == []


def test_when_the_supervisor_is_killed_the_rest_goes_or_is_cleared_by_the_next(
    tmp_path: Path, eventually: Eventually
) -> None:
    with supervised(tmp_path, "steady", "hanging", "pool") as stack:
        eventually(lambda: "stack ready" in stack.events(), within_s=30)
        stack.process.kill()
        stack.process.wait()
        assert stack.home.running() is None
        # The one that ignores its signal is still there, and is known by its record.
        assert "hanging" in stop_leftovers(stack.home)
        eventually(lambda: living_in(tmp_path) == [], what="nothing is left")


def test_leftovers_are_never_processes_that_only_bear_a_recorded_pid(tmp_path: Path) -> None:
    home = Home(tmp_path)
    stranger = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    try:
        content = {"name": "t0", "state": "ready", "pid": stranger.pid, "identity": "another boot:1"}
        home.logs.mkdir(parents=True)
        me = {"name": "supervisor", "state": "ready"}
        home.state_file.write_text(json.dumps({"supervisor": me, "processes": [content]}))
        assert stop_leftovers(home) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_stack_is_ready_without_what_it_does_not_need(tmp_path: Path, eventually: Eventually) -> None:
    with supervised(tmp_path, "spare:crashing") as stack:
        eventually(lambda: stack.record("crashing").restarts >= 1, within_s=60, what="it has crashed")
        eventually(lambda: (found := stack.home.running()) is not None and found.ready, within_s=60, what="ready")
