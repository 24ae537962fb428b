"""One supervised process: started, watched, started again with growing pauses when it dies, stopped by rule."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mdtasks.stack.home import ProcessRecord, identity
from mdtasks.stack.processes import StopRule
from mdtasks.stack.spawn import Command, spawn

#: A process that has been up this long, seconds, starts with the shortest pause again when it dies.
SETTLED_S: Final = 60.0


def restart_pause_s(failures: int) -> float:
    """Seconds to wait before a process is started again that died ``failures`` times in a row: 0.5 doubling to 30."""
    return float(min(0.5 * 2 ** min(failures - 1, 10), 30.0))


@dataclass(frozen=True)
class Job:
    """What a child needs to know of its process. ``is_ready`` is asked, now and then, with the pid that now runs."""

    name: str
    command: Callable[[], Command]
    stop: StopRule
    is_ready: Callable[[int], bool]
    phase: int = 0
    needed: bool = True


class Child:
    """One process and its history. Time is ``time.monotonic()`` and is always given."""

    def __init__(self, job: Job, log: Path, *, extra_environ: dict[str, str] | None = None) -> None:
        self.job = job
        self.log = log
        self.record = ProcessRecord(job.name, state="stopped")
        self._process: subprocess.Popen[bytes] | None = None
        self._extra_environ = extra_environ or {}
        self._failures = 0
        self._since = 0.0  # when it was started
        self._resume_at = 0.0  # when it is started again
        self._stop_step = -1
        self._step_until = 0.0

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def running(self) -> bool:
        """Whether its process runs now."""
        return self._process is not None

    def start(self, now: float) -> None:
        """Start the process."""
        command = self.job.command()
        if self._extra_environ:
            environ = os.environ if command.environ is None else command.environ
            command = replace(command, environ={**environ, **self._extra_environ})
        self._process = spawn(command, self.log)
        self._since = now
        pid = self._process.pid
        self.record = replace(self.record, state="starting", pid=pid, identity=identity(pid), started_at=time.time())

    def step(self, now: float) -> str | None:
        """Look after the process once. Returns its new state when that has changed."""
        before = self.record
        if self._process is not None and self._process.poll() is not None:
            self._ended(now)
        if self._stop_step >= 0:
            self._press(now)
        elif self._process is None and self.record.state == "waiting" and now >= self._resume_at:
            self.record = replace(self.record, restarts=self.record.restarts + 1)
            self.start(now)
        elif self._process is not None and self.record.state == "starting" and self.job.is_ready(self._process.pid):
            self.record = replace(self.record, state="ready")
        return self.record.state if self.record.state != before.state or self.record.pid != before.pid else None

    def stop(self, now: float) -> None:
        """Begin to stop it; ``step`` goes on from there. Safe to repeat."""
        if self._process is None:
            self.record = replace(self.record, state="stopped")
        elif self._stop_step < 0:
            self.record = replace(self.record, state="stopping")
            self._stop_step = 0
            self._signal(now)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._sweep()
            with suppress(ProcessLookupError):
                self._process.kill()

    def resume_in(self, now: float) -> float:
        """Seconds until it is started again (0 when it is not waiting for that)."""
        return max(0.0, self._resume_at - now) if self.record.state == "waiting" else 0.0

    def _ended(self, now: float) -> None:
        assert self._process is not None
        code = self._process.returncode
        self._sweep()
        self._process = None
        stopping = self._stop_step >= 0
        self._failures = 1 if now - self._since >= SETTLED_S else self._failures + 1
        self._resume_at = now + restart_pause_s(self._failures)
        self.record = replace(
            self.record, state="stopped" if stopping else "waiting", pid=None, identity=None, last_exit=code
        )

    def _press(self, now: float) -> None:
        """While it is being stopped: the next signal of the rule when the last one's time is over."""
        if self._process is not None and now >= self._step_until and self._stop_step + 1 < len(self.job.stop):
            self._stop_step += 1
            self._signal(now)

    def _signal(self, now: float) -> None:
        assert self._process is not None
        number, patience_s = self.job.stop[self._stop_step]
        self._step_until = now + patience_s
        if number == signal.SIGKILL:
            self.kill()
        else:
            # Only the leader: a pool's processes are told by it, in the way that finishes their work.
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _sweep(self) -> None:
        """Kill what the process leaves behind in its group (a pool whose leader was killed)."""
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
