"""The folder of a stack: where its files lie, who holds it, and what is known of what runs there.

``state.json`` is written by the supervisor at every change and read by `status`, `down` and the next `up`. It names
each process by pid and start time, so that a pid that the machine has given to somebody else is never taken for ours.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import psutil

from mdtasks.domain.errors import ConfigurationError
from mdtasks.settings import CONNECTION_FILE

SUPERVISOR: Final = "supervisor"
_PROC: Final = Path("/proc/")  # Linux only


@dataclass(frozen=True)
class ProcessRecord:
    """One process of the stack, as last seen by its supervisor."""

    name: str
    state: str  # starting, ready, waiting (for its restart), stopping, stopped
    pid: int | None = None
    #: ``identity(pid)`` when it was started.
    identity: str | None = None
    started_at: float | None = None  # seconds since the epoch
    restarts: int = 0
    last_exit: int | None = None  # negative: the signal that ended it


@dataclass(frozen=True)
class StackRecord:
    """A stack as last seen by its supervisor. ``ready``: everything answers."""

    supervisor: ProcessRecord
    ready: bool = False
    stopping: bool = False
    web_url: str = ""
    flower_url: str = ""
    processes: tuple[ProcessRecord, ...] = field(default_factory=tuple)
    #: The default port, where another program had it at the start, so that the web app had to move.
    taken_port: int | None = None
    prometheus_url: str = ""


@dataclass(frozen=True)
class Home:
    """Paths in the folder, and its lock."""

    path: Path

    @property
    def connection_file(self) -> Path:
        """Where other processes find this stack's servers: see ``mdtasks.settings``."""
        return self.path / CONNECTION_FILE

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Make the folder and its folder of logs. Raises ConfigurationError when that cannot be."""
        with self._made():
            pass

    @contextmanager
    def _made(self) -> Iterator[None]:
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as exc:
            raise ConfigurationError(
                f"cannot use {self.path} as a home: {exc.strerror}", name="MDTASKS_HOME", hint="choose another --home"
            ) from exc

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the folder for one supervisor, until it ends in whatever way. Yields False when another one has it."""
        with self._made():
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)

    def read(self) -> StackRecord | None:
        """What was last recorded here: None when nothing was, or nothing readable."""
        try:
            content = json.loads(self.state_file.read_text())
            processes = tuple(ProcessRecord(**each) for each in content.pop("processes"))
            supervisor = ProcessRecord(**content.pop("supervisor"))
            return StackRecord(supervisor=supervisor, processes=processes, **content)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, record: StackRecord) -> None:
        """Record the stack; readers see the old record or the new one, never half of one."""
        write_private(self.state_file, json.dumps(asdict(record), indent=1))

    def running(self) -> StackRecord | None:
        """The record of the stack whose supervisor is alive here: None when none is."""
        record = self.read()
        return record if record is not None and is_alive(record.supervisor) else None


def identity(pid: int) -> str | None:
    """What tells this process from any other that bears or will bear its pid: None when it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if (_PROC / "self" / "stat").exists():  # ticks since boot: the wall clock may be set, this does not move
            ticks = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
            boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
            return f"{boot}:{ticks}"
        return f"{process.create_time():.3f}"
    except (psutil.Error, OSError, IndexError):
        return None


def is_alive(record: ProcessRecord) -> bool:
    """Whether the recorded process, and not another one with its pid, still runs."""
    return record.pid is not None and record.identity is not None and identity(record.pid) == record.identity


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
