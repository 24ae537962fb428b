"""What one worker process holds: its Deps, opened at its first task, after the fork; never shared with its parent."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psutil

from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.following import Follower

_follower: tuple[int, Follower] | None = None


def deps() -> Deps:
    """The Deps of this process, policy and calendars current. A child forked after its parent had some opens its own.

    Call it once a task, at its start: what the policy and calendars say does not change in the midst of one.
    """
    global _follower  # noqa: PLW0603 - the one value per process that Celery gives no other place for
    if _follower is None or _follower[0] != os.getpid():
        _follower = (os.getpid(), Follower(open_deps(application=f"mdtasks-worker-{os.getpid()}")))
    now = datetime.now(UTC)
    found = _follower[1].refresh(now)
    found.watch.refresh(now)
    return found


def close_deps() -> None:
    """Close what this process opened."""
    global _follower  # noqa: PLW0603
    if _follower is not None and _follower[0] == os.getpid():
        _follower[1].close()
    _follower = None


def worker_name(request: Any) -> str:
    """How an attempt names its worker: node and process, ``t0@host/1234``. The parent's Request names it alike."""
    return f"{request.hostname}/{os.getpid()}"


def pids_of_node(node: str) -> set[int]:
    """The other processes of this machine that may work under the node's name now: another worker typed by hand.

    Known by their command lines, which a pool's children share with their parent. A stranger taken for one of them
    does no harm: a claim that is spared ends with its lease.
    """
    name = node.partition("@")[0]
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if process.pid != os.getpid() and "celery" in words and name in words:
                found.add(process.pid)
    return found
