"""What waits in the broker: depths for the caps and the metrics, job ids for the reconciler's proof."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson
import redis

from mdtasks.connections import translated_redis_errors
from mdtasks.queue.app import QUEUES
from mdtasks.queue.enqueue import priority_lists
from mdtasks.queue.letters import DLQ, is_letter

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Sightings:
    """Job ids seen in the broker: with how many messages each (two is doubled: harmless, counted), and which of them
    wait in a queue rather than in a worker's hands.
    """

    counts: dict[str, int]
    waiting: frozenset[str]

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


def unacked(client: redis.Redis) -> int:
    """Messages that workers hold now. Raises BrokerUnavailableError."""
    with translated_redis_errors():
        return int(client.hlen("unacked"))


def sightings(client: redis.Redis) -> Sightings:
    """Every job id in the queues, in workers' hands or among the letters.

    Messages move while this reads: from a queue to ``unacked``, from there back to a queue's tail or to ``dlq``.
    Queues are read from their head, so that pops and pushes shift nothing past the reader, and ``unacked`` is read
    before and after them: a message that stays in the broker cannot be missed. Raises BrokerUnavailableError.
    """
    seen: dict[str, set[bytes]] = {}
    waiting: set[str] = set()
    with translated_redis_errors():
        for element, in_queue in _all(client):
            job_id = _job_id(element)
            if job_id:
                seen.setdefault(job_id, set()).add(_delivery_tag(element))
                if in_queue:
                    waiting.add(job_id)
    return Sightings({job_id: len(tags) for job_id, tags in seen.items()}, frozenset(waiting))


def _all(client: redis.Redis) -> Iterator[tuple[bytes, bool]]:
    yield from ((element, False) for element in _held(client))
    for queue in QUEUES:
        for name in priority_lists(queue):
            yield from ((element, queue != DLQ) for element in _listed(client, name))
    yield from ((element, False) for element in _held(client))
    yield from ((element, False) for element in _listed(client, DLQ))


def _listed(client: redis.Redis, name: str) -> Iterator[bytes]:
    start = 0
    while page := client.lrange(name, start, start + _PAGE - 1):
        yield from (element.encode() if isinstance(element, str) else element for element in page)
        start += _PAGE


def _held(client: redis.Redis) -> Iterator[bytes]:
    for _, value in client.hscan_iter("unacked", count=_PAGE):
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
