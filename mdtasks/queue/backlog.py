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

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Sightings:
    """Where each job id was seen in the broker, with how often. A job in two places is doubled (harmless, counted)."""

    counts: dict[str, int]

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
    with translated_redis_errors():
        for element in _all(client):
            job_id = _job_id(element)
            if job_id:
                seen.setdefault(job_id, set()).add(_delivery_tag(element))
    return Sightings({job_id: len(tags) for job_id, tags in seen.items()})


def _all(client: redis.Redis) -> Iterator[bytes]:
    yield from _held(client)
    for queue in QUEUES:
        for name in priority_lists(queue):
            yield from _listed(client, name)
    yield from _held(client)
    yield from _listed(client, "dlq")


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
        if headers["task"] == "mdtasks.dead_letter":
            return _letter_job_id(element)
        return str(headers["id"])
    except (ValueError, KeyError, TypeError):
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
