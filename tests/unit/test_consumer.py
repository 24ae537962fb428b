"""What a letter says of a task whose process was lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.pool import Pool

from mdtasks.worker.consumer import said_by


def test_a_lost_process_is_told_without_the_pools_own_number() -> None:
    told: list[Any] = []
    job = SimpleNamespace(_job=13, _set=lambda _, result: told.append(result[1].exception))
    Pool.mark_as_worker_lost(None, job, -9)
    error = told[0].exc if isinstance(told[0], ExceptionWithTraceback) else told[0]
    assert str(error).endswith(" Job: 13.")
    assert said_by(error) == "Worker exited prematurely: signal 9 (SIGKILL)"
    assert said_by(RuntimeError("lost. Job: 13.")) == "lost. Job: 13."
