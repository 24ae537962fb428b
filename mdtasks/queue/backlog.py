"""What waits in the broker: depths for the caps and the metrics, job ids for the reconciler's proof."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import orjson
import redis

from mdtasks.connections import translated_redis_errors
from mdtasks.queue.app import QUEUES
from mdtasks.queue.enqueue import priority_lists
from mdtasks.queue.letters import DLQ, is_letter

_PAGE: Final = 1000
_HELD: Final = ""  # the place of a message in a worker's hands


@dataclass(frozen=True, slots=True)
class Sightings:
    """Job ids seen in the broker: with how many messages each (two is doubled: harmless, counted), which of them wait
    in a queue, and since when (seconds since 1970) workers hold those that were seen nowhere else.
    """

    counts: dict[str, int]
    waiting: frozenset[str]
    held_since: dict[str, float]

    def __contains__(self, job_id: str) -> bool:
        return job_id in self.counts


def depths(client: redis.Redis) -> dict[str, int]:
    """Elements waiting in every queue, over its priority lists. Raises BrokerUnavailableError."""
    with translated_redis_errors():
        pipe = client.pipeline(transaction=False)
        for queue in QUEUES:
            for name in priority_lists(queue):
                pipe.llen(name)
        lengths = iter(pipe.execute())
    return {queue: sum(next(lengths) for _ in priority_lists(queue)) for queue in QUEUES}


def sightings(client: redis.Redis) -> Sightings:
    """Every job id in the queues, in workers' hands or among the letters.

    Messages move while this reads: from a queue to ``unacked``, from there back to a queue's tail or to ``dlq``.
    Queues are read from their head, so that pops and pushes shift nothing past the reader, and ``unacked`` is read
    before and after them: a message that stays in the broker cannot be missed. Raises BrokerUnavailableError.
    """
    seen: dict[str, set[bytes]] = {}
    places: dict[str, set[str]] = {}
    with translated_redis_errors():
        taken: dict[bytes, float] = dict(client.zrange("unacked_index", 0, -1, withscores=True))  # type: ignore[arg-type]
        for element, place in _all(client):
            job_id = _job_id(element)
            if job_id:
                seen.setdefault(job_id, set()).add(_delivery_tag(element))
                places.setdefault(job_id, set()).add(place)
    only_held = [job_id for job_id, found in places.items() if found == {_HELD}]
    now = time.time()
    return Sightings(
        counts={job_id: len(tags) for job_id, tags in seen.items()},
        waiting=frozenset(job_id for job_id, found in places.items() if found - {_HELD, DLQ}),
        held_since={job_id: max(taken.get(tag, now) for tag in seen[job_id]) for job_id in only_held},
    )


def in_flight(client: redis.Redis, queue: str) -> dict[str, float]:
    """Job ids of a queue's messages that wait in it or are in workers' hands: since when they are held (seconds since
    1970), 0 for those that wait. For queues that are short. Raises BrokerUnavailableError.

    The queue is read first: a message that is taken meanwhile is met in the workers' hands.
    """
    found: dict[str, float] = {}
    with translated_redis_errors():
        waiting = [element for name in priority_lists(queue) for element in _listed(client, name)]
        taken: dict[bytes, float] = dict(client.zrange("unacked_index", 0, -1, withscores=True))  # type: ignore[arg-type]
        held = list(_held(client))
    for element in held:
        with suppress(ValueError, LookupError, TypeError):
            if orjson.loads(element)["properties"]["delivery_info"]["routing_key"] == queue and (
                job := _job_id(element)
            ):
                found[job] = max(found.get(job, 0.0), taken.get(_delivery_tag(element), time.time()))
    return {job: 0.0 for element in waiting if (job := _job_id(element))} | found


def _all(client: redis.Redis) -> Iterator[tuple[bytes, str]]:
    """Every element with its place: the name of its queue, or ``_HELD``."""
    yield from ((element, _HELD) for element in _held(client))
    for queue in QUEUES:
        for name in priority_lists(queue):
            yield from ((element, queue) for element in _listed(client, name))
    yield from ((element, _HELD) for element in _held(client))
    yield from ((element, DLQ) for element in _listed(client, DLQ))


def _listed(client: redis.Redis, name: str) -> Iterator[bytes]:
    start = 0
    while page := client.lrange(name, start, start + _PAGE - 1):
        yield from (element.encode() if isinstance(element, str) else element for element in page)
        start += _PAGE


def _held(client: redis.Redis) -> Iterator[bytes]:
    for _, value in client.hscan_iter("unacked", count=_PAGE):
        with suppress(ValueError, LookupError, TypeError):
            yield orjson.dumps(orjson.loads(value)[0])


def _job_id(element: bytes) -> str | None:
    """The job that an element carries: its own, or that of the dead message inside a letter."""
    try:
        headers = orjson.loads(element)["headers"]
        if is_letter(headers):
            return _letter_job_id(element)
        return str(headers["id"])
    except (ValueError, LookupError, TypeError):
        return None


def _letter_job_id(element: bytes) -> str | None:
    raw = orjson.loads(base64.b64decode(orjson.loads(element)["body"]))[0][0]
    return str(orjson.loads(raw)["headers"]["id"])


def _delivery_tag(element: bytes) -> bytes:
    """Tells two messages of one job apart; the same message seen twice while it moved is one."""
    try:
        return str(orjson.loads(element)["properties"]["delivery_tag"]).encode()
    except (ValueError, KeyError, TypeError):
        return element
