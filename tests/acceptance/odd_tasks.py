"""Tasks that end in ways no task should, for a worker that is started with ``--include odd_tasks``."""

from __future__ import annotations

import os
import signal

from celery import shared_task

from mdtasks.worker.tasks import JobTask


class UnspeakableError(Exception):
    """Neither its text nor itself can leave the process."""

    def __init__(self, why: object) -> None:
        super().__init__(why)
        self.lock = lambda: why

    def __str__(self) -> str:
        raise RuntimeError("no words")


@shared_task(base=JobTask, name="odd.end")  # type: ignore[untyped-decorator]
def end(how: str) -> None:
    """End in the way that is asked for."""
    if how == "memory":
        raise MemoryError("no room for a thing")
    if how == "exit":
        raise SystemExit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "unspeakable":
        raise UnspeakableError(how)
    if how == "binary":
        raise RuntimeError("a NUL \x00, half a pair \ud800 and " + "much " * 100_000)
    if how == "gone":
        os._exit(1)
    os.kill(os.getpid(), {"killed": signal.SIGKILL, "segfault": signal.SIGSEGV}[how])
