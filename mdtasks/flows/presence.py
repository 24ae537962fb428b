"""Who is there: workers and beat leave word in Redis now and then, so that one that vanished can be missed.

A worker that is killed says nothing more, and for a day its last word is remembered. One that is stopped in good order
takes its name off the list: nobody shall be woken for it.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from mdtasks.connections import Redis, translated_redis_errors
from mdtasks.domain.errors import MdtasksError
from mdtasks.flows.deps import Deps

log = logging.getLogger(__name__)

#: Sorted set: node name -> when it was last heard of, seconds since 1970.
WORKERS_KEY: Final = "mdtasks:workers:seen"
#: When a task of beat last began in a worker, seconds since 1970.
TICK_KEY: Final = "mdtasks:beat:tick"
#: A node that was not heard of for so long is no longer expected, seconds.
EXPECTED_S: Final = 86_400.0
#: A worker, and beat, that said nothing for so long is silent, seconds: as the alerts WorkerMissing and BeatMissing.
WORKER_SILENT_S: Final = 120.0
BEAT_SILENT_S: Final = 60.0


def worker_seen(state: Redis, node: str, now: datetime) -> None:
    """Leave word that a worker lives. Raises BrokerUnavailableError."""
    with translated_redis_errors():
        state.zadd(WORKERS_KEY, {node: now.timestamp()})


def worker_left(state: Redis, node: str) -> None:
    """Take a worker that stops in good order off the list. Raises BrokerUnavailableError."""
    with translated_redis_errors():
        state.zrem(WORKERS_KEY, node)


def workers_seen(state: Redis, now: datetime) -> dict[str, float]:
    """When each worker of the last day was last heard of, seconds since 1970; older ones are forgotten.

    Raises BrokerUnavailableError.
    """
    with translated_redis_errors():
        state.zremrangebyscore(WORKERS_KEY, "-inf", now.timestamp() - EXPECTED_S)
        found: list[tuple[bytes, float]] = state.zrange(WORKERS_KEY, 0, -1, withscores=True)  # type: ignore[assignment]
    return {node.decode(): seen_at for node, seen_at in found}


def tick_arrived(deps: Deps, now: datetime) -> None:
    """Leave word that a task of beat began: beat lives, and a worker serves it. Never fails: the task comes first."""
    try:
        with translated_redis_errors():
            deps.state.set(TICK_KEY, now.timestamp())
    except MdtasksError as error:
        log.warning("could not leave word of beat's tick: %s", error)


def last_tick(state: Redis) -> float | None:
    """When a task of beat last began, seconds since 1970; None: never. Raises BrokerUnavailableError."""
    with translated_redis_errors():
        raw = state.get(TICK_KEY)
    return None if raw is None else float(raw)
