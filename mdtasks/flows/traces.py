"""Slow provider calls: from a fetch to the recorder, and from the recorder to the store."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from mdtasks.domain.errors import MdtasksError
from mdtasks.flows.deps import Deps
from mdtasks.flows.judging import Asked
from mdtasks.observe.traces import Asker, Call, CallContext, SlowCall
from mdtasks.settings import Settings
from mdtasks.store import traces

log = logging.getLogger(__name__)

#: What stands around a call; yields its record, which may be told what of the time was ours.
Recorded = AbstractContextManager[Call | None]
#: Around a call that nobody records.
UNRECORDED: Final[Recorded] = nullcontext()


def recorded_bars(deps: Deps, asked: Asked, symbols: Iterable[str], asker: Asker) -> Recorded:
    """What stands around one call for bars."""
    if deps.recorder is None:
        return UNRECORDED
    context = CallContext(
        asked.provider.name, f"bars_{asked.interval}", tuple(symbols), asked.window, asker, deps.running.version
    )
    return deps.recorder.call(context, partial(_keep, deps))


def recorded_quotes(deps: Deps, provider: str, symbols: Iterable[str], asker: Asker) -> Recorded:
    """What stands around one call for quotes."""
    if deps.recorder is None:
        return UNRECORDED
    return deps.recorder.call(
        CallContext(provider, "quotes", tuple(symbols), None, asker, deps.running.version), partial(_keep, deps)
    )


def _keep(deps: Deps, call: SlowCall) -> None:
    """Store a record by itself: the fetch has no transaction open while it asks."""
    try:
        with deps.database.transaction() as connection:
            traces.keep(connection, call, **_bounds(deps.settings))
    except MdtasksError as error:
        named = (call.context.provider, call.context.capability)
        log.warning("a call of %s (%s) took %.1f s; its record is lost: %s", *named, call.latency_s, error)


def _bounds(settings: Settings) -> dict[str, int]:
    return {"most": settings.viztracer_keep, "most_bytes": settings.viztracer_keep_mb * 1_000_000}


def forget_once(deps: Deps, now: datetime) -> int:
    """Delete records that are KEEP_DAYS old and traces that are too many; returns how many records went."""
    with deps.database.transaction() as connection:
        return traces.forget(connection, now - timedelta(days=traces.KEEP_DAYS), **_bounds(deps.settings))
