"""Calling commands as users do, and standing in for the workers meanwhile."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from mdtasks.cli import main
from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.jobs import BackfillJob
from mdtasks.flows import ingest
from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.store import job_reports, letters


@dataclass(frozen=True)
class Called:
    """What a command answered."""

    code: int
    out: str
    err: str
    raw: bytes

    @property
    def json(self) -> Any:
        """Standard output read as JSON."""
        return json.loads(self.out)


class _Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Cli:
    """Commands of the test's own stack, called in this process."""

    settings: Settings
    captured: pytest.CaptureFixture[bytes]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *words: str, stdin: str = "", typed: str | None = None) -> Called:
        """Run a command to its end; ``typed``: by a person at a terminal."""
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if typed is None else _Keyboard(typed))
        self.captured.readouterr()
        code = main(list(words))
        sys.stdout.flush()
        out, err = self.captured.readouterr()
        return Called(code, out.decode(errors="replace"), err.decode(), out)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command as a process of its own."""
        environ = {**os.environ, **environment_of(self.settings)}
        argv = [sys.executable, "-P", "-m", "mdtasks", *words]
        return subprocess.Popen(argv, env=environ, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that give a process the addresses of these settings, and the simulator."""
    return {
        "MDTASKS_HOME": str(settings.home),
        "MDTASKS_DATABASE_URL": settings.require_database_url(),
        "MDTASKS_REDIS_URL": settings.require_redis_url(),
        "MDTASKS_SIMULATOR": "1",
    }


def work(deps: Deps) -> int:
    """Do every queued job as a worker would, one attempt each; letters of those that die. Returns how many."""
    with deps.database.transaction() as connection:
        queued = [row["id"] for row in job_reports.list_jobs(connection, status="queued", limit=100_000)]
    for job_id in queued:
        try:
            ingest.run_backfill(BackfillJob.model_construct(job_id=job_id), deps, "t0@test/1", datetime.now(UTC))
        except MdtasksError as error:
            _bury(job_id, error, deps)
    deps.broker.flushdb()
    return len(queued)


def _bury(job_id: str, error: MdtasksError, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        letter = letters.letter_of_failed(connection, job_id, "", f"Traceback: {error}", "T1")
        assert letter is not None
        assert letters.record(connection, letter)
