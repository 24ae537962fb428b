"""What `mdtasks status` shows: the supervisor's record, and what each process uses of the machine now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mdtasks.domain.errors import MdtasksError, StackNotRunningError
from mdtasks.stack.home import Home, ProcessRecord, StackRecord


@dataclass(frozen=True)
class ProcessStatus:
    """One row: ``memory_bytes`` is proportional (PSS: shared pages divided), of the process and all below it."""

    record: ProcessRecord
    uptime_s: float
    memory_bytes: int
    processes: int

    def as_dict(self) -> dict[str, Any]:
        """The row as `status --json` prints it."""
        record = self.record
        return {
            "name": record.name,
            "state": record.state,
            "pid": record.pid,
            "uptime_s": round(self.uptime_s, 1),
            "restarts": record.restarts,
            "last_exit": record.last_exit,
            "memory_mb": round(self.memory_bytes / 1e6, 1),
            "processes": self.processes,
        }


@dataclass(frozen=True)
class StackStatus:
    """A running stack. ``aside``: providers that are not asked in their turn -> why, as far as that is known."""

    home: Path
    record: StackRecord
    rows: tuple[ProcessStatus, ...]
    aside: Mapping[str, str] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """Of all its processes together."""
        return sum(row.memory_bytes for row in self.rows)

    @property
    def word(self) -> str:
        """The whole in a word: ready, starting, degraded (something is down that was up), stopping."""
        if self.record.stopping:
            return "stopping"
        if self.record.ready:
            return "ready"
        return (
            "degraded" if any(row.record.restarts or row.record.state == "waiting" for row in self.rows) else "starting"
        )

    def as_dict(self) -> dict[str, Any]:
        """The status as `status --json` prints it."""
        return {
            "home": str(self.home),
            "state": self.word,
            "ready": self.record.ready,
            "web_url": self.record.web_url,
            "flower_url": self.record.flower_url,
            "taken_port": self.record.taken_port,
            "prometheus_url": self.record.prometheus_url,
            "memory_mb": round(self.memory_bytes / 1e6, 1),
            "processes": [row.as_dict() for row in self.rows],
            "providers_aside": dict(self.aside),
        }


def stack_status(home: Path) -> StackStatus:
    """The stack that runs in ``home``. Raises StackNotRunningError when none does."""
    record = Home(home).running()
    if record is None:
        raise StackNotRunningError(str(home))
    everything = (record.supervisor, *record.processes)
    # The supervisor is the parent of all others: it is measured without what is below it.
    rows = (_row(each, below=each is not record.supervisor) for each in everything)
    return StackStatus(home, record, tuple(rows))


def providers_aside(home: Path) -> dict[str, str]:
    """Providers of this stack that are not asked in their turn -> why; {} where Redis or the settings do not tell,
    quickly. Redis may know of others: those that were paused or demoted before they were taken out of the settings.
    """
    from mdtasks.connections import open_redis
    from mdtasks.domain.health import Rules
    from mdtasks.providers.registry import Registry
    from mdtasks.settings import load_settings
    from mdtasks.store.health import HealthBook

    try:
        settings = load_settings(home=home)
        names = Registry(settings).names()
        client = open_redis(settings.require_redis_url(), socket_timeout_s=1.0)
        with closing(client):
            found = HealthBook(client, Rules()).standings(dict.fromkeys(names, ()))
    except MdtasksError:
        return {}
    return {each.name: each.why_aside for each in found if each.why_aside}


def _row(record: ProcessRecord, *, below: bool) -> ProcessStatus:
    if record.pid is None:
        return ProcessStatus(record, 0.0, 0, 0)
    members: list[psutil.Process] = []
    with suppress(psutil.Error):
        leader = psutil.Process(record.pid)
        members = [leader, *(leader.children(recursive=True) if below else [])]
    uptime_s = max(0.0, time.time() - (record.started_at or time.time()))
    return ProcessStatus(record, uptime_s, sum(map(_memory_bytes, members)), len(members))


def _memory_bytes(process: psutil.Process) -> int:
    """Proportional set size; resident size where the system does not tell it (macOS, another user's process)."""
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        with suppress(psutil.Error):
            return int(process.memory_info().rss)
    return 0
