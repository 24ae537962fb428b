"""What one worker process holds: its Deps, opened at its first task, after the fork; never shared with its parent."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil

from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.following import Follower
from mdtasks.flows.policy_watch import EVERY_S
from mdtasks.queue.app import current_app, served_tier


@dataclass(slots=True)
class _Held:
    """The Deps of a process. ``at_work``: a task runs, and what the policy says changes between tasks only."""

    pid: int
    follower: Follower
    at_work: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)


_held: _Held | None = None


def deps() -> Deps:
    """The Deps of this process, policy and calendars current. A child forked after its parent had some opens its own.

    Call it once a task, at its start: what the policy and calendars say does not change in the midst of one.
    """
    held = _opened()
    now = datetime.now(UTC)
    with held.lock:
        held.at_work = True
        found = held.follower.refresh(now)
    found.watch.refresh(now)
    return found


def task_ended() -> None:
    """A task of this process has ended: from now on the policy may change."""
    if _held is not None and _held.pid == os.getpid():
        with _held.lock:
            _held.at_work = False


def _opened() -> _Held:
    global _held  # noqa: PLW0603 - the one value per process that Celery gives no other place for
    if _held is None or _held.pid != os.getpid():
        opened = open_deps(application=f"mdtasks-worker-{os.getpid()}", serves=served_tier(current_app()))
        _held = _Held(os.getpid(), Follower(opened))
        threading.Thread(target=_look_while_idle, args=(_held,), name="policy", daemon=True).start()
    return _held


def _look_while_idle(held: _Held) -> None:
    """Follow the policy also while nothing is to be done: who waits for work shall not be the last to know."""
    while not held.over.wait(EVERY_S):
        with held.lock:
            if not held.at_work and not held.over.is_set():
                held.follower.refresh(datetime.now(UTC))


def close_deps() -> None:
    """Close what this process opened."""
    global _held  # noqa: PLW0603
    if _held is not None and _held.pid == os.getpid():
        _held.over.set()
        with _held.lock:  # not in the midst of a look
            _held.follower.close()
    _held = None


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
