"""The bulk way onto the queues: envelopes built once, patched per job, pushed many at a time under the cap.

Each envelope equals, field by field, what ``apply_async`` of the same task would put on the wire (a test compares
them), so a stock Celery worker consumes them. Building one costs microseconds instead of half a millisecond.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final
from uuid import uuid4

import orjson
import redis
from celery import Celery
from kombu import Connection

from mdtasks.connections import load_script, translated_redis_errors
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, QuotesFetchJob, Tier
from mdtasks.queue.app import backfill_queue, cap_queues, live_queue
from mdtasks.queue.transport import PUSH, Channel
from mdtasks.settings import Settings

Job = BackfillJob | BarsFetchJob | QuotesFetchJob

#: How long a live job from outside is known by its id, seconds: a coordinator that repeats itself does so sooner.
SEEN_S: Final = 3600
PUSH_ONCE: Final = load_script("mdtasks.queue", "push_once.lua")
#: Envelopes in one Lua call: about half a megabyte, a few milliseconds of Redis' time.
BATCH: Final = 500


def task_name(job_type: str) -> str:
    """The Celery task that runs jobs of a type."""
    return f"mdtasks.{job_type}"


def shown(job: Job) -> str:
    """How a job reads in Flower and in logs."""
    if isinstance(job, BackfillJob):
        start, end = (at.isoformat()[:16] for at in (job.time_window.start, job.time_window.end))
        return f"({job.symbol} {job.interval} {start}Z..{end}Z)"
    interval = f" {job.interval}" if isinstance(job, BarsFetchJob) else ""
    return f"({len(job.symbols)} symbols{interval}: {', '.join(job.symbols[:3])}{'…' if len(job.symbols) > 3 else ''})"


class _Template:
    """An envelope of one task as Celery built it, cut where jobs differ: JSON pieces to be joined with values.

    No value needs escaping: ids and symbols are of plain characters, the rest is made here.
    """

    _FIELDS: Final = ("job_id", "shown", "delivery_tag", "queue", "body", "expires", "expiration")

    def __init__(self, envelope: dict[str, Any], *, expires: bool) -> None:
        self.embed = orjson.dumps(orjson.loads(base64.b64decode(envelope["body"]))[2]).decode()
        marks = {name: f"@{name}@" for name in self._FIELDS}
        headers = {"id": marks["job_id"], "root_id": marks["job_id"], "argsrepr": marks["shown"]}
        properties = {"correlation_id": marks["job_id"], "delivery_tag": marks["delivery_tag"]}
        if expires:
            headers["expires"] = marks["expires"]
            properties["expiration"] = marks["expiration"]
        marked = {
            **envelope,
            "body": marks["body"],
            "headers": {**envelope["headers"], **headers},
            "properties": {
                **envelope["properties"],
                **properties,
                "delivery_info": {"exchange": "", "routing_key": marks["queue"]},
            },
        }
        self._pieces = re.split(rf"@({'|'.join(self._FIELDS)})@", orjson.dumps(marked).decode())

    def fill(self, **values: str) -> bytes:
        """The envelope with these values in it."""
        filled = self._pieces.copy()
        filled[1::2] = [values[name] for name in filled[1::2]]
        return "".join(filled).encode()


@dataclass(frozen=True, slots=True)
class _Expiry:
    """When a message is too old to run: the moment (ISO 8601), and how long after it was sent (milliseconds)."""

    at: str
    after_ms: str

    @classmethod
    def of(cls, now: datetime, expires_s: float) -> _Expiry:
        """Too old so many seconds after it was sent."""
        return cls((now + timedelta(seconds=expires_s)).isoformat(), str(int(expires_s * 1000)))


class Enqueuer:
    """Pushes jobs of this app's tasks. One per process; threads may share it."""

    def __init__(self, app: Celery, client: redis.Redis, settings: Settings) -> None:
        self._app = app
        self._client = client
        self._push = client.register_script(PUSH)
        self._push_once = client.register_script(PUSH_ONCE)
        self._settings = settings
        # Delivery tags in the shape of a UUID: this pusher's own beginning and a count. A UUID each costs more.
        self._tag = str(uuid4())[:24]
        self._pushes = count()
        self._templates: dict[tuple[str, bool], _Template] = {}

    def under(self, settings: Settings) -> Enqueuer:
        """The same way onto the queues under other settings; the caps of the app's own sends are theirs from now on."""
        cap_queues(self._app, settings)
        return Enqueuer(self._app, self._client, settings)

    def push_backfills(self, tier: Tier, jobs: Sequence[BackfillJob]) -> int:
        """Push jobs onto the tier's queue as far as its cap allows: the first ones, how many is the answer.

        Raises BrokerUnavailableError; what was pushed stays pushed (a doubled message finds nothing to claim).
        """
        queue, cap = backfill_queue(tier), self._settings.cap(tier)
        return self._push_all(queue, cap, self._envelopes(jobs, queue), len(jobs))

    def push_live(self, job: BarsFetchJob | QuotesFetchJob, now: datetime, expires_s: float) -> None:
        """Push one live fetch, dropped by the worker when it still waits ``expires_s`` seconds from now."""
        queue = live_queue(job.priority)
        expiry = _Expiry.of(now, expires_s)
        self._push_all(queue, -1, self._envelopes([job], queue, expiry), 1)

    def push_live_once(
        self, tier: Tier, jobs: Sequence[BarsFetchJob | QuotesFetchJob], now: datetime, expires_s: float
    ) -> list[bool]:
        """Push live fetches of a tier that may have been pushed before; of each, whether it was not.

        A job is known by its id for SEEN_S seconds. Raises BrokerUnavailableError; asking again is safe.
        """
        queue = live_queue(tier)
        expiry = _Expiry.of(now, expires_s)
        new: list[bool] = []
        with translated_redis_errors():
            for start in range(0, len(jobs), BATCH):
                batch = jobs[start : start + BATCH]
                seen = [f"mdtasks:seen:{job.job_id}" for job in batch]
                args: list[Any] = [SEEN_S, *self._envelopes(batch, queue, expiry)]
                new += map(bool, self._push_once(keys=[queue, *seen], args=args))
        return new

    def push_raw(self, tier_or_queue: str, envelope: str) -> bool:
        """Push an envelope that was on a queue before (a requeued letter), under the queue's cap. False: no room.

        One that expires gets as long again as it had; nothing else in it changes.
        """
        cap = {backfill_queue(tier): self._settings.cap(tier) for tier in Tier}.get(tier_or_queue, -1)
        return self._push_all(tier_or_queue, cap, iter([_renewed(envelope, datetime.now(UTC))]), 1) == 1

    def _push_all(self, queue: str, cap: int, envelopes: Iterator[bytes], count: int) -> int:
        lists = priority_lists(queue)
        pushed = 0
        with translated_redis_errors():
            for start in range(0, count, BATCH):
                batch = [next(envelopes) for _ in range(min(BATCH, count - start))]
                taken, _ = self._push(keys=lists, args=[cap, *batch])
                pushed += taken
                if taken < len(batch):
                    break
        return pushed

    def _envelopes(self, jobs: Sequence[Job], queue: str, expiry: _Expiry | None = None) -> Iterator[bytes]:
        for job in jobs:
            template = self._template(job.type, expires=expiry is not None)
            body = f"[[{job.model_dump_json()}],{{}},{template.embed}]"
            yield template.fill(
                job_id=job.job_id,
                shown=shown(job),
                delivery_tag=f"{self._tag}{next(self._pushes):012x}",
                queue=queue,
                body=base64.b64encode(body.encode()).decode(),
                expires=expiry.at if expiry else "",
                expiration=expiry.after_ms if expiry else "",
            )

    def _template(self, job_type: str, *, expires: bool) -> _Template:
        """What Celery itself puts on the wire for this task, caught from an in-memory broker."""
        if (job_type, expires) not in self._templates:
            self._app.loader.import_default_modules()
            task = self._app.tasks[task_name(job_type)]
            with Connection("memory://") as memory:
                producer = self._app.amqp.Producer(memory.channel(), auto_declare=False)
                task.apply_async(({},), task_id="template", producer=producer, queue=backfill_queue(Tier.T0), kwargs={})
                envelope = memory.default_channel._get(backfill_queue(Tier.T0))
            self._templates[job_type, expires] = _Template(envelope, expires=expires)
        return self._templates[job_type, expires]


def _renewed(envelope: str, now: datetime) -> bytes:
    """The envelope with its time to live counted from now: a worker would drop it unseen when that is over."""
    try:
        content = json.loads(envelope)
        headers, properties = content["headers"], content["properties"]
        if not headers.get("expires"):
            return envelope.encode()
        after_ms = str(properties.pop("expiration", ""))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return envelope.encode()
    headers["expires"] = None
    if after_ms.isdecimal() and len(after_ms) < 12:  # one without a known length is asked for by hand: it is to run
        headers["expires"] = (now + timedelta(milliseconds=int(after_ms))).isoformat()
        properties["expiration"] = after_ms
    return json.dumps(content).encode()


def priority_lists(queue: str) -> list[str]:
    """The Redis lists that together are a queue: kombu keeps one per message priority, ours is the first."""
    steps = Channel.priority_steps
    return [queue, *(f"{queue}{Channel.sep}{step}" for step in steps if step)]
