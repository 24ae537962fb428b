"""Celery's signals: what a worker process does when it starts, is ready and ends."""

from __future__ import annotations

import gc
import logging
from datetime import UTC, datetime
from typing import Any

from celery import signals

from mdtasks.connections import open_redis
from mdtasks.domain.errors import ConfigurationError, MdtasksError
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import release_node
from mdtasks.observe.ready import tell_ready
from mdtasks.settings import load_settings
from mdtasks.store.calendars import verified_calendars
from mdtasks.worker.presence import Presence
from mdtasks.worker.process import close_deps, pids_of_node, task_ended

log = logging.getLogger(__name__)

_presence = Presence(lambda: open_redis(load_settings().require_redis_url(), socket_timeout_s=1.0))


@signals.worker_init.connect
def on_worker_init(sender: Any, **_: object) -> None:
    """Before the first child is forked: the calendars' library is checked, lost claims are given up.

    Raises SystemExit when nothing may run here. Not an Exception: Celery logs those of a signal and goes on.
    """
    try:
        verified_calendars(load_settings().calendars_dir, datetime.now(UTC))
        deps = open_deps(application=f"mdtasks-start-{sender.hostname}")
    except ConfigurationError as error:
        raise SystemExit(f"error: {error.message}" + (f" ({error.hint})" if error.hint else "")) from error
    except Exception as error:  # a library that breaks on known sessions is to be trusted no more than one that lies
        log.exception("%s cannot start", sender.hostname)
        raise SystemExit(f"error: {sender.hostname} cannot start: {type(error).__name__}: {error}") from error
    deps.watch.refresh(datetime.now(UTC))  # years of calendars that are loaded here need not be in each child
    deps.registry.preload()
    if deps.recorder is not None:
        deps.recorder.preload()
    _release(deps, sender.hostname)
    # What is loaded by now stays shared with the children: a collection in one of them would write to every page of it.
    gc.collect()
    gc.freeze()


def _release(deps: Deps, node: str) -> None:
    """Give up what processes of this node held that are gone."""
    try:
        released = release_node(deps, node, pids_of_node(node))
        if released:
            log.warning("%s: %d jobs were held when this node last stopped; they run again", node, released)
    except MdtasksError as error:
        # Not a reason to stay down: their leases run out by themselves.
        log.warning("%s: could not release what it held before: %s", node, error)
    finally:
        deps.close()


@signals.worker_ready.connect
def on_worker_ready(**_: object) -> None:
    """Tell whoever started this process."""
    tell_ready()


@signals.heartbeat_sent.connect
def on_heartbeat(sender: Any, **_: object) -> None:
    """The parent leaves word that this node lives."""
    _presence.alive(sender.eventer.hostname)


@signals.worker_shutdown.connect
def on_shutdown(sender: Any, **_: object) -> None:
    """The node stops in good order: nobody shall miss it."""
    _presence.left(sender.hostname)


@signals.task_postrun.connect
def on_task_end(**_: object) -> None:
    """Between two tasks the policy may change."""
    task_ended()


@signals.worker_process_shutdown.connect
def on_process_shutdown(**_: object) -> None:
    """A child ends in good order: close its connections. Its counts are folded at the next scrape."""
    close_deps()
