"""Celery's signals: what a worker process does when it starts, is ready and ends."""

from __future__ import annotations

import gc
import logging
from datetime import UTC, datetime
from typing import Any

from celery import signals

from mdtasks.domain.errors import MdtasksError
from mdtasks.flows.deps import open_deps
from mdtasks.flows.dispatch import release_node
from mdtasks.observe.ready import tell_ready
from mdtasks.settings import load_settings
from mdtasks.store.calendars import verified_calendars
from mdtasks.worker.process import close_deps

log = logging.getLogger(__name__)


@signals.worker_init.connect
def on_worker_init(sender: Any, **_: object) -> None:
    """Before the first child is forked: the calendars' library is checked, lost claims are given up."""
    verified_calendars(load_settings().calendars_dir, datetime.now(UTC))
    deps = open_deps(application=f"mdtasks-start-{sender.hostname}")
    try:
        released = release_node(deps, sender.hostname)
        if released:
            log.warning("%s: %d jobs were held when this node last stopped; they run again", sender.hostname, released)
    except MdtasksError as error:
        # Not a reason to stay down: their leases run out by themselves.
        log.warning("%s: could not release what it held before: %s", sender.hostname, error)
    finally:
        deps.close()
    # What is loaded by now stays shared with the children: a collection in one of them would write to every page of it.
    gc.collect()
    gc.freeze()


@signals.worker_ready.connect
def on_worker_ready(**_: object) -> None:
    """Tell whoever started this process."""
    tell_ready()


@signals.worker_process_shutdown.connect
def on_process_shutdown(**_: object) -> None:
    """A child ends in good order: close its connections. Its counts are folded at the next scrape."""
    close_deps()
