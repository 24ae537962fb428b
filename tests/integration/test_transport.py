"""The transport's promises on a real Redis: caps that no producer passes, envelopes that equal Celery's own."""

from __future__ import annotations

import base64
import itertools
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from celery import Celery

from mdtasks.domain.errors import QueueFullError
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, Tier
from mdtasks.queue import backlog
from mdtasks.queue.app import make_app
from mdtasks.queue.enqueue import Enqueuer, shown
from mdtasks.settings import Settings
from mdtasks.testing import backfill_job, bars_fetch_job


@pytest.fixture
def small(settings: Settings) -> Settings:
    """Settings with a cap of 100 on T0."""
    return settings.model_copy(update={"cap_t0": 100})


@pytest.fixture
def app(small: Settings) -> Iterator[Celery]:
    made = make_app(small)
    made.loader.import_default_modules()
    yield made
    made.close()


@pytest.fixture
def enqueuer(app: Celery, small: Settings, redis_client: redis.Redis) -> Enqueuer:
    return Enqueuer(app, redis_client, small)


def _jobs(count: int) -> list[BackfillJob]:
    days = [datetime(2025, 1, 2, tzinfo=UTC) + timedelta(days=number) for number in range(count + 1)]
    return [
        backfill_job(job_id=f"job-{number}", priority="T0", time_window={"start": start, "end": end})
        for number, (start, end) in enumerate(itertools.pairwise(days))
    ]


def test_plain_apply_async_meets_the_cap_and_says_how_full_the_queue_is(app: Celery, redis_client: redis.Redis) -> None:
    task = app.tasks["mdtasks.backfill"]
    for _ in range(100):
        task.apply_async(({},), queue="T0")
    with pytest.raises(QueueFullError) as refused:
        task.apply_async(({},), queue="T0")
    assert (refused.value.queue, refused.value.cap, refused.value.depth) == ("T0", 100, 100)
    assert redis_client.llen("T0") == 100


def test_every_priority_list_counts_towards_the_cap(app: Celery, redis_client: redis.Redis) -> None:
    task = app.tasks["mdtasks.backfill"]
    for number in range(100):
        task.apply_async(({},), queue="T0", priority=(0, 3, 6, 9)[number % 4])
    assert redis_client.llen("T0") == 25
    with pytest.raises(QueueFullError):
        task.apply_async(({},), queue="T0", priority=9)


def test_a_retry_of_accepted_work_is_never_refused(app: Celery, redis_client: redis.Redis) -> None:
    task = app.tasks["mdtasks.backfill"]
    for _ in range(100):
        task.apply_async(({},), queue="T0")
    task.apply_async(({},), queue="T0", retries=1)
    assert redis_client.llen("T0") == 101


def test_queues_without_a_cap_take_whatever_comes(app: Celery, redis_client: redis.Redis) -> None:
    for _ in range(150):
        app.tasks["mdtasks.dispatch"].apply_async(queue="control")
    assert redis_client.llen("control") == 150


def test_a_bulk_push_stops_exactly_at_the_cap(enqueuer: Enqueuer, redis_client: redis.Redis) -> None:
    jobs = _jobs(140)
    assert enqueuer.push_backfills(Tier.T0, jobs) == 100
    assert enqueuer.push_backfills(Tier.T0, jobs[100:]) == 0
    oldest = json.loads(redis_client.lindex("T0", -1) or b"")
    assert oldest["headers"]["id"] == jobs[0].job_id


def test_racing_producers_never_pass_the_cap(small: Settings, app: Celery, redis_client: redis.Redis) -> None:
    start = threading.Barrier(8)
    pushed: list[int] = []

    def produce() -> None:
        mine = Enqueuer(app, redis_client, small)
        jobs = _jobs(30)
        start.wait()
        pushed.append(sum(mine.push_backfills(Tier.T0, [job]) for job in jobs))

    threads = [threading.Thread(target=produce) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(pushed) == 100
    assert redis_client.llen("T0") == 100


@pytest.mark.parametrize("kind", ["backfill", "bars_fetch"])
def test_a_bulk_envelope_equals_celerys_own_field_by_field(
    kind: str, app: Celery, enqueuer: Enqueuer, redis_client: redis.Redis
) -> None:
    now = datetime.now(UTC)
    job: BackfillJob | BarsFetchJob
    if kind == "backfill":
        job, queue, options = backfill_job(priority="T0"), "T0", {}
        enqueuer.push_backfills(Tier.T0, [job])
    else:
        job, queue, options = bars_fetch_job(priority="T0"), "T0.live", {"expires": 60}
        enqueuer.push_live(job, now, expires_s=60)
    app.tasks[f"mdtasks.{kind}"].apply_async((job.model_dump(mode="json"),), task_id=job.job_id, queue=queue, **options)
    celerys, ours = (json.loads(element) for element in redis_client.lrange(queue, 0, 1))
    for envelope in (celerys, ours):
        envelope["body"] = json.loads(base64.b64decode(envelope["body"]))
        assert len(envelope["properties"].pop("delivery_tag")) == 36
        assert (envelope["headers"].pop("expires") is None) == (kind == "backfill")  # each its own moment
    # The one difference that is meant: Flower shows what the job is instead of a cut repr of a dict.
    assert (ours["headers"].pop("argsrepr"), bool(celerys["headers"].pop("argsrepr"))) == (shown(job), True)
    assert ours == celerys


def test_sightings_see_a_job_in_a_queue_in_hand_and_in_a_letter(
    app: Celery, enqueuer: Enqueuer, redis_client: redis.Redis
) -> None:
    waiting, held, dead = _jobs(3)
    enqueuer.push_backfills(Tier.T0, [waiting, held, dead])
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        queue = app.amqp.queues["T0"].bind(channel)
        first, second, third = (queue.get() for _ in range(3))
        first.requeue()
        third.reject()
        seen = backlog.sightings(redis_client)
        assert seen.counts == {waiting.job_id: 1, held.job_id: 1, dead.job_id: 1}
        assert backlog.depths(redis_client)["dlq"] == 1
        second.ack()
    assert held.job_id not in backlog.sightings(redis_client)


def test_a_rejected_message_is_in_the_dead_letters_whole(
    app: Celery, enqueuer: Enqueuer, redis_client: redis.Redis
) -> None:
    (job,) = _jobs(1)
    enqueuer.push_backfills(Tier.T0, [job])
    on_the_wire = json.loads(redis_client.lindex("T0", 0) or b"")
    with app.connection_for_read() as connection:
        app.amqp.queues["T0"].bind(connection.default_channel).get().reject()
    letter = json.loads(redis_client.lindex("dlq", 0) or b"")
    raw, reason, queue = json.loads(base64.b64decode(letter["body"]))[0]
    assert letter["headers"]["task"] == "mdtasks.dead_letter"
    assert (reason["error_class"], queue) == ("rejected", "T0")
    kept = json.loads(raw)
    assert kept["body"] == on_the_wire["body"]
    assert kept["headers"] == on_the_wire["headers"]
    assert not redis_client.hlen("unacked")


def test_a_connection_names_itself_by_the_url_it_was_given(app: Celery, small: Settings) -> None:
    with app.connection() as connection:
        assert connection.as_uri(include_password=True).rstrip("/").startswith(small.require_broker_url().rstrip("/"))
        assert "**" in connection.as_uri()


def test_a_channel_that_holds_a_message_when_its_connection_is_lost_says_that_it_is_lost(
    app: Celery, enqueuer: Enqueuer, redis_client: redis.Redis
) -> None:
    enqueuer.push_backfills(Tier.T0, [backfill_job(priority="T0")])
    with app.connection_for_read() as broker:
        channel = broker.default_channel
        assert app.amqp.queues["T0"].bind(channel).get() is not None
        # As kombu leaves a connection that broke: its pools and its address are gone, its channel is closed last.
        address, broker.transport.client, channel._pool = broker.transport.client, None, None
        with pytest.raises(broker.connection_errors):
            channel.close()
        broker.transport.client = address
    assert redis_client.hlen("unacked") == 1  # nobody lost it: it is delivered again, or its job is sent again
