"""What one worker process holds: its Deps, opened at its first task, after the fork; never shared with its parent."""

from __future__ import annotations

import os
from typing import Any

from mdtasks.flows.deps import Deps, open_deps

_deps: tuple[int, Deps] | None = None


def deps() -> Deps:
    """The Deps of this process. A child that was forked after its parent had some opens its own."""
    global _deps  # noqa: PLW0603 - the one value per process that Celery gives no other place for
    if _deps is None or _deps[0] != os.getpid():
        _deps = (os.getpid(), open_deps(application=f"mdtasks-worker-{os.getpid()}"))
    return _deps[1]


def close_deps() -> None:
    """Close what this process opened."""
    global _deps  # noqa: PLW0603
    if _deps is not None and _deps[0] == os.getpid():
        _deps[1].close()
    _deps = None


def worker_name(request: Any) -> str:
    """How an attempt names its worker: node and process, ``t0@host/1234``. The parent's Request names it alike."""
    return f"{request.hostname}/{os.getpid()}"
