"""The seams between row and message: whatever comes twice, late, or not at all, a job has its effect exactly once.

No worker runs here: each test is the worker, the dispatcher and the reconciler, and stops where a crash would.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from sqlalchemy import text

from mdtasks.domain.bars import Bars
from mdtasks.domain.errors import ProviderError, UnknownJobError, VendorError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.flows.backfill import enqueue_documents, enqueue_jobs
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import dispatch_once, reconcile_once, release_node
from mdtasks.flows.ingest import Outcome, run_backfill
from mdtasks.flows.letters import Dead, record, requeue_job
from mdtasks.providers.base import BarsAnswer
from mdtasks.providers.gate import OpenGate
from mdtasks.queue.app import make_app
from mdtasks.queue.letters import Reason, letter
from mdtasks.settings import Settings
from mdtasks.store import job_reports, jobs, requests
from mdtasks.store.reference import Instrument, add_instruments, resolve
from mdtasks.testing import backfill_job, bars_fetch_job

_START = datetime(2025, 1, 2, tzinfo=UTC)
LOST = Reason("worker_lost", "signal 9 (SIGKILL)", worker="t0@here/1")


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """The adapters of one process, and an instrument that trades at any hour."""
    opened = open_deps(settings, application="tests")
    with opened.database.transaction() as connection:
        add_instruments(connection, [Instrument("S1", "24/7", "crypto", Tier.T0)])
    yield opened
    opened.close()


def a_job(number: int = 0, **changes: Any) -> BackfillJob:
    """The ``number``-th ten minutes of S1."""
    start = _START + timedelta(minutes=10 * number)
    window = {"start": start, "end": start + timedelta(minutes=10)}
    wanted = {"job_id": f"job-{number}", "symbol": "S1", "priority": "T0", "time_window": window}
    return backfill_job(**wanted | changes)


def run(job: BackfillJob, deps: Deps, worker: str = "t0@here/1") -> Outcome:
    """What a worker process does with the job's message; a job that dies raises there."""
    try:
        return run_backfill(job, deps, worker, datetime.now(UTC)).outcome
    except ProviderError:
        return Outcome.FAILED


def row(deps: Deps, job: BackfillJob) -> dict[str, Any]:
    """The job's row."""
    with deps.database.transaction() as connection:
        found = connection.execute(text("SELECT * FROM backfill_jobs WHERE id = :id"), {"id": job.job_id}).one()
    return dict(found._mapping)


def history(deps: Deps, job: BackfillJob) -> list[tuple[int, str | None, str | None]]:
    """(fence, outcome, error class) of each attempt."""
    with deps.database.transaction() as connection:
        return [
            (one["fence"], one["outcome"], one["error_class"]) for one in job_reports.attempts(connection, job.job_id)
        ]


def counted(deps: Deps, table: str) -> int:
    """The rows of a table."""
    with deps.database.transaction() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def change(deps: Deps, statement: str, job: BackfillJob) -> None:
    """Bend a row as time or another process would."""
    with deps.database.transaction() as connection:
        assert connection.execute(text(statement), {"id": job.job_id}).rowcount == 1


def expire(deps: Deps, job: BackfillJob) -> None:
    """Let the job's lease have run out."""
    change(deps, "UPDATE backfill_jobs SET lease_until = now() - interval '1 s' WHERE id = :id", job)


def make_due(deps: Deps, job: BackfillJob) -> None:
    """Let the pause before the job's next attempt be over."""
    change(deps, "UPDATE backfill_jobs SET not_before = NULL WHERE id = :id AND status = 'deferred'", job)


def envelopes(client: redis.Redis, queue: str = "T0") -> list[str]:
    """The ids of the messages that wait, oldest first."""
    return [json.loads(element)["headers"]["id"] for element in reversed(client.lrange(queue, 0, -1))]


class Provider:
    """The simulator, which calls ``meanwhile`` before it answers and bends its answer by ``bent``."""

    name = "simulator"

    def __init__(
        self, deps: Deps, meanwhile: Callable[[], None] = lambda: None, bent: Callable[[Bars], Bars] = lambda bars: bars
    ) -> None:
        self._inner = deps.registry.get("simulator")
        self.capabilities = self._inner.capabilities
        self._meanwhile = meanwhile
        self._bent = bent

    def fetch_bars(
        self, listings: Sequence[Listing], interval: Interval, window: TimeWindow, now: datetime
    ) -> BarsAnswer:
        answer = self._inner.fetch_bars(listings, interval, window, now)
        self._meanwhile()
        return replace(answer, bars={symbol: self._bent(bars) for symbol, bars in answer.bars.items()})

    def order(self, _capability: object, _hint: str | None = None) -> list[Provider]:
        """As a registry of this one alone."""
        return [self]

    def names(self) -> list[str]:
        """As a registry of this one alone."""
        return [self.name]

    def get(self, _name: str) -> Provider:
        """As a registry of this one alone."""
        return self

    def gate(self, _name: str) -> OpenGate:
        """Nothing stands before it."""
        return OpenGate()


def asking(deps: Deps, provider: Provider) -> Deps:
    """The same deps with another provider."""
    return replace(deps, registry=provider)  # type: ignore[arg-type]


def dearer(bars: Bars) -> Bars:
    """The same bars at other prices."""
    return Bars(bars.ts_us, *(column * 2 for column in bars.columns))


# -- the same thing twice ----------------------------------------------------------------------------------------


def test_a_message_delivered_again_after_its_commit_finds_nothing_to_do(deps: Deps, redis_client: redis.Redis) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    app = make_app(deps.settings)
    with app.connection_for_read() as broker:  # a worker that commits, then dies before it acknowledges
        assert app.amqp.queues["T0"].bind(broker.default_channel).get() is not None
        assert run(job, deps) is Outcome.DONE
    assert envelopes(redis_client) == [job.job_id]  # the message was restored
    assert run(job, deps, "t0@here/2") is Outcome.STALE
    assert history(deps, job) == [(1, "done", None)]
    assert (counted(deps, "bars"), counted(deps, "bar_revisions")) == (10, 0)


def test_a_letter_recorded_twice_is_one_letter_and_one_lost_attempt(deps: Deps) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    with deps.database.transaction() as connection:
        assert jobs.claim(connection, job.job_id, LOST.worker, 60) is not None
    raw = wire(job)
    assert record(Dead("letter-1", raw, LOST, "T0"), deps) == "retried"
    assert record(Dead("letter-1", raw, LOST, "T0"), deps) == "stale"
    assert (history(deps, job), row(deps, job)["attempts"]) == ([(1, "lost", "worker_lost")], 1)
    poison = Dead("letter-2", "garbage{", Reason("undecodable", "no JSON"), "T0")
    assert [record(poison, deps), record(poison, deps)] == ["recorded", "known"]
    assert counted(deps, "dead_letters") == 1


def wire(job: BackfillJob) -> str:
    """The job's message, near enough to what was on the wire."""
    return json.dumps(
        {
            "headers": {"task": "mdtasks.backfill", "id": job.job_id},
            "properties": {"body_encoding": "utf-8", "delivery_tag": str(uuid4())},
            "body": json.dumps([[job.model_dump(mode="json")], {}, {}]),
        }
    )


def test_a_lease_that_runs_out_and_a_letter_that_says_so_end_one_attempt_once(deps: Deps) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    with deps.database.transaction() as connection:
        jobs.claim(connection, job.job_id, LOST.worker, 60)
    expire(deps, job)
    assert reconcile_once(deps, datetime.now(UTC)).expired == 1
    assert record(Dead("letter-1", wire(job), LOST, "T0"), deps) == "stale"
    assert history(deps, job) == [(1, "lost", "worker_lost")]
    assert row(deps, job)["status"] == "deferred"


def test_a_job_sent_again_under_its_id_is_merged_whatever_became_of_the_first(deps: Deps) -> None:
    first, again = a_job(), a_job().model_dump(mode="json")
    enqueue_jobs([first], "test", deps)
    assert run(first, deps) is Outcome.DONE
    answer = enqueue_documents([again, a_job(1).model_dump(mode="json")], "test", deps)
    assert (answer.queued, answer.merged, answer.refused) == (1, 1, [])
    with deps.database.transaction() as connection:
        assert job_reports.progress(connection, answer.request_id).jobs == {"done": 1, "queued": 1}


def test_one_id_twice_in_a_batch_is_one_job(deps: Deps) -> None:
    answer = enqueue_jobs([a_job(0, job_id="same"), a_job(1, job_id="same")], "test", deps)
    assert (answer.queued, answer.merged) == (1, 1)


def test_the_parts_of_a_trimmed_job_can_be_run_whatever_its_id(deps: Deps, redis_client: redis.Redis) -> None:
    enqueue_jobs([a_job(1)], "test", deps)
    redis_client.flushall()
    whole = TimeWindow(start=_START, end=_START + timedelta(minutes=30))
    enqueue_jobs([a_job(0, job_id="x" * 64, time_window=whole), a_job(5, job_id=f"{'x' * 62}.2")], "test", deps)
    ids = envelopes(redis_client)
    assert len(ids) == 3
    assert {run(a_job(0, job_id=job_id), deps) for job_id in ids} == {Outcome.DONE}


# -- one of the two is missing -----------------------------------------------------------------------------------


def test_rows_whose_push_never_came_are_sent_by_the_reconciler_after_their_grace(
    deps: Deps, redis_client: redis.Redis
) -> None:
    new = [a_job(number) for number in range(3)]
    with deps.database.transaction() as connection:  # an enqueuer that dies between commit and push
        instrument = resolve(connection, ["S1"])["S1"].id
        requests.enqueue(connection, [requests.NewJob(job, instrument) for job in new], dict.fromkeys(Tier, 10), 5)
    assert reconcile_once(deps, datetime.now(UTC)).lost == 0
    assert envelopes(redis_client) == []
    assert reconcile_once(deps, datetime.now(UTC), grace_s=0).lost == 3
    assert sorted(envelopes(redis_client)) == [job.job_id for job in new]
    assert {run(job, deps) for job in new} == {Outcome.DONE}
    redis_client.flushall()
    again = reconcile_once(deps, datetime.now(UTC), grace_s=0)
    assert (again.queued, again.lost, again.doubled, again.orphans) == (0, 0, 0, 0)


def test_a_dispatcher_that_dies_before_its_push_loses_nothing(deps: Deps, redis_client: redis.Redis) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    redis_client.flushall()
    change(deps, "UPDATE backfill_jobs SET status = 'deferred' WHERE id = :id", job)
    with deps.database.transaction() as connection:
        assert len(jobs.dispatchable(connection, Tier.T0, 10)) == 1
    assert reconcile_once(deps, datetime.now(UTC), grace_s=0).lost == 1
    assert envelopes(redis_client) == [job.job_id]


def test_a_redis_that_forgot_everything_is_filled_again(deps: Deps, redis_client: redis.Redis) -> None:
    new = [a_job(number) for number in range(20)]
    enqueue_jobs(new, "test", deps)
    redis_client.flushall()
    assert reconcile_once(deps, datetime.now(UTC), grace_s=0).lost == 20
    assert sorted(envelopes(redis_client)) == sorted(job.job_id for job in new)
    assert reconcile_once(deps, datetime.now(UTC), grace_s=0).lost == 0


def test_a_message_without_a_row_is_refused_by_name_and_leaves_nothing(deps: Deps) -> None:
    deps.enqueuer.push_backfills(Tier.T0, [a_job()])
    with pytest.raises(UnknownJobError, match="no job job-0"):
        run(a_job(), deps)
    assert (counted(deps, "job_attempts"), counted(deps, "bars")) == (0, 0)
    assert reconcile_once(deps, datetime.now(UTC), grace_s=0).orphans == 0


def test_a_message_that_a_worker_took_and_never_began_is_sent_again(deps: Deps, redis_client: redis.Redis) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    app = make_app(deps.settings)
    with app.connection_for_read() as broker:
        assert app.amqp.queues["T0"].bind(broker.default_channel).get() is not None
        broker.default_channel.do_restore = False  # killed: nobody puts it back
    assert redis_client.hlen("unacked") == 1
    change(deps, "UPDATE backfill_jobs SET queued_at = now() - interval '1 h' WHERE id = :id", job)
    assert reconcile_once(deps, datetime.now(UTC)).lost == 0  # it has only just been taken
    (tag,) = redis_client.hkeys("unacked")
    assert isinstance(tag, bytes)
    redis_client.zadd("unacked_index", {tag: 1_700_000_000})
    assert reconcile_once(deps, datetime.now(UTC)).lost == 1
    assert envelopes(redis_client) == [job.job_id]
    assert run(job, deps) is Outcome.DONE


def test_the_reconciler_reads_past_whatever_lies_in_the_broker(deps: Deps, redis_client: redis.Redis) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    garbage: list[str | bytes] = ["{", "[]", "null", "5", b"\xff\x00", "[" * 10_000, '{"headers": null}']
    garbage += ['{"headers": {"task": "mdtasks.dead_letter"}}', letter("raw", Reason("x", "y"), "T0")]
    garbage += [letter(raw, Reason("x", "y"), "T0") for raw in ("{", "[]", '{"headers": 5}')]
    hollow = json.loads(letter("raw", Reason("x", "y"), "T0"))
    garbage += [json.dumps(hollow | {"body": body}) for body in ("", "e30=", "W10=", "W1tdXQ==", "W1s1XV0=", "@")]
    for queue in ("T0", "control", "dlq", "T2.live"):
        redis_client.lpush(queue, *garbage)
    for number, element in enumerate(garbage):
        redis_client.hset("unacked", str(number), element)
        redis_client.hset("unacked", f"{number}-", json.dumps([5, "", ""]))
    proof = reconcile_once(deps, datetime.now(UTC), grace_s=0)
    assert (proof.queued, proof.lost, proof.doubled, proof.orphans) == (1, 0, 0, 0)


def test_what_waits_goes_out_newest_window_first(deps: Deps, redis_client: redis.Redis) -> None:
    one_place = replace(deps, settings=deps.settings.model_copy(update={"cap_t0": 1}))
    new = [a_job(number) for number in (3, 1, 4, 0, 5, 2)]
    enqueue_jobs(new, "test", one_place)
    assert envelopes(redis_client) == ["job-5"]
    dispatch_once(deps)
    assert envelopes(redis_client) == [f"job-{number}" for number in (5, 4, 3, 2, 1, 0)]


# -- one of the two is late --------------------------------------------------------------------------------------


def test_a_claim_taken_over_before_the_commit_leaves_nothing_of_the_first_attempt(deps: Deps) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)

    def somebody_else_does_it() -> None:
        expire(deps, job)
        assert reconcile_once(deps, datetime.now(UTC)).expired == 1
        make_due(deps, job)
        assert run(job, deps, "t0@there/2") is Outcome.DONE

    late = asking(deps, Provider(deps, somebody_else_does_it, dearer))
    assert run(job, late) is Outcome.STALE
    assert history(deps, job) == [(1, "lost", "worker_lost"), (2, "done", None)]
    assert row(deps, job)["status"] == "done"
    assert_bars_are_those_of_fence(deps, job, 2)


def assert_bars_are_those_of_fence(deps: Deps, job: BackfillJob, fence: int) -> None:
    """Every bar of the job was written by that attempt, and none was ever another."""
    with deps.database.transaction() as connection:
        made_by = connection.execute(text("SELECT DISTINCT fence FROM bars JOIN job_attempts a ON a.id = attempt_id"))
        assert list(made_by.scalars()) == [fence]
    assert (counted(deps, "bars"), counted(deps, "bar_revisions")) == (10, 0)
    assert row(deps, job)["fence"] == fence


def test_a_claim_taken_over_by_one_that_still_works_leaves_nothing_of_the_first_attempt_either(deps: Deps) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)

    def somebody_else_begins_it() -> None:
        expire(deps, job)
        reconcile_once(deps, datetime.now(UTC))
        make_due(deps, job)
        with deps.database.transaction() as connection:
            assert jobs.claim(connection, job.job_id, "t0@there/2", 60) is not None

    assert run(job, asking(deps, Provider(deps, somebody_else_begins_it))) is Outcome.STALE
    assert (row(deps, job)["status"], row(deps, job)["fence"]) == ("running", 2)
    assert [counted(deps, table) for table in ("bars", "bar_revisions", "coverage")] == [0, 0, 0]
    assert history(deps, job) == [(1, "lost", "worker_lost"), (2, None, None)]


def test_an_error_of_an_attempt_whose_claim_was_taken_over_changes_nothing(deps: Deps) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)

    def late_failure() -> None:
        expire(deps, job)
        reconcile_once(deps, datetime.now(UTC))
        make_due(deps, job)
        assert run(job, deps, "t0@there/2") is Outcome.DONE
        raise VendorError("too late", provider="simulator")

    assert run(job, asking(deps, Provider(deps, late_failure))) is Outcome.STALE
    assert (row(deps, job)["status"], row(deps, job)["last_error_class"]) == ("done", None)
    assert history(deps, job) == [(1, "lost", "worker_lost"), (2, "done", None)]


@pytest.mark.parametrize("moved", ["claimed by another", "done", "waits for its pause", "cancelled"])
def test_a_letter_of_a_job_that_moved_on_changes_nothing(deps: Deps, moved: str) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    with deps.database.transaction() as connection:
        jobs.claim(connection, job.job_id, LOST.worker, 60)
    expire(deps, job)
    reconcile_once(deps, datetime.now(UTC))
    if moved == "claimed by another":
        make_due(deps, job)
        with deps.database.transaction() as connection:
            jobs.claim(connection, job.job_id, "t0@there/2", 60)
    elif moved == "done":
        make_due(deps, job)
        assert run(job, deps, "t0@there/2") is Outcome.DONE
    elif moved == "cancelled":
        with deps.database.transaction() as connection:
            jobs.cancel(connection, [job.job_id])
    before, attempts = row(deps, job), history(deps, job)
    for reason in (LOST, Reason("time_limit", "ran too long", worker=LOST.worker), Reason("rejected", "")):
        assert record(Dead(str(uuid4()), wire(job), reason, "T0"), deps) == "stale"
    assert (row(deps, job), history(deps, job)) == (before, attempts)
    assert counted(deps, "dead_letters") == 0


def test_a_letter_of_a_job_that_was_never_claimed_sends_it_again(deps: Deps, redis_client: redis.Redis) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    redis_client.flushall()
    away = Reason("store_unavailable", "PostgreSQL does not answer", worker=LOST.worker)
    assert record(Dead("letter-1", wire(job), away, "T0"), deps) == "stale"
    dispatch_once(deps)
    assert envelopes(redis_client) == [job.job_id]
    assert (run(job, deps), history(deps, job)) == (Outcome.DONE, [(1, "done", None)])


def test_a_requeued_job_is_not_failed_again_by_the_letter_of_its_first_life(deps: Deps) -> None:
    once = replace(deps, settings=deps.settings.model_copy(update={"max_attempts": 1}))
    job = a_job()
    enqueue_jobs([job], "test", once)
    with once.database.transaction() as connection:
        jobs.claim(connection, job.job_id, LOST.worker, 60)
    dead = Dead("letter-1", wire(job), LOST, "T0")
    assert record(dead, once) == "recorded"
    requeue_job(job.job_id, "test", once)
    assert record(dead, once) == "stale"
    assert row(once, job)["status"] == "deferred"  # to be sent a second time: harmless
    dispatch_once(once)
    assert run(job, once, "t0@there/2") is Outcome.DONE
    assert history(once, job) == [(1, "failed", "worker_lost"), (2, "done", None)]


def test_a_letter_that_comes_after_one_was_made_up_brings_its_envelope(deps: Deps) -> None:
    once = replace(deps, settings=deps.settings.model_copy(update={"max_attempts": 1}))
    job = a_job()
    enqueue_jobs([job], "test", once)

    def fail() -> None:
        raise VendorError("500", provider="simulator")

    assert run(job, asking(once, Provider(once, fail))) is Outcome.FAILED
    change(once, "UPDATE backfill_jobs SET updated_at = now() - interval '1 h' WHERE id = :id", job)
    assert reconcile_once(once, datetime.now(UTC)).unlettered == 1
    reason = Reason("vendor_error", "500", "Traceback", "t0@here/1")
    assert record(Dead("letter-1", wire(job), reason, "T0"), once) == "known"
    with once.database.transaction() as connection:
        (kept,) = connection.execute(text("SELECT * FROM dead_letters")).all()
    assert (json.loads(kept.envelope), kept.traceback, kept.queue) == (
        json.loads(wire(job)) | kept_part(kept),
        "Traceback",
        "T0",
    )
    assert (kept.error_class, kept.provider, kept.attempts) == ("vendor_error", "simulator", 1)


def kept_part(kept: Any) -> Mapping[str, Any]:
    """What differs between two makings of one message: the delivery tag."""
    return {"properties": json.loads(kept.envelope)["properties"]}


def test_a_node_that_starts_gives_up_what_it_held_and_nobody_elses(deps: Deps) -> None:
    mine, other, similar = a_job(0), a_job(1), a_job(2)
    enqueue_jobs([mine, other, similar], "test", deps)
    with deps.database.transaction() as connection:
        for job, worker in ((mine, "t0@a_b/1"), (other, "t1@a_b/1"), (similar, "t0@a-b/1")):
            jobs.claim(connection, job.job_id, worker, 60)
    assert release_node(deps, "t0@a_b") == 1
    assert [row(deps, job)["status"] for job in (mine, other, similar)] == ["deferred", "running", "running"]
    assert history(deps, mine) == [(1, "lost", "worker_lost")]


@pytest.mark.parametrize("restored", [True, False])
def test_a_failure_after_the_connection_was_lost_does_not_take_the_message_away(
    deps: Deps, redis_client: redis.Redis, restored: bool
) -> None:
    deps.enqueuer.push_live(bars_fetch_job(priority="T0"), datetime.now(UTC), expires_s=60)
    app = make_app(deps.settings)
    with app.connection_for_read() as first, app.connection_for_read() as second:
        message = app.amqp.queues["T0.live"].bind(first.default_channel).get()
        assert message is not None
        if not restored:  # Redis was away when the connection broke; kombu then forgets what it delivered
            first.default_channel.qos._delivered.clear()
        first.default_channel.close()
        taken_again = app.amqp.queues["T0.live"].bind(second.default_channel).get()
        assert (taken_again is not None) == restored
        message.reject()
        assert redis_client.hlen("unacked") == 1
        if taken_again is not None:
            taken_again.reject()
            assert (redis_client.hlen("unacked"), redis_client.llen("dlq")) == (0, 1)
        second.default_channel.do_restore = False


# -- odd errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        VendorError("a NUL \x00 and half a pair \ud800", provider="simulator"),
        VendorError("much " * 100_000, provider="simulator"),
        MemoryError("no room"),
        KeyError("a bug"),
        RuntimeError(),
    ],
    ids=["odd text", "long text", "memory", "a bug", "silent"],
)
def test_whatever_a_provider_raises_the_attempt_ends_and_another_follows(deps: Deps, error: Exception) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)

    def fail() -> None:
        raise error

    assert run(job, asking(deps, Provider(deps, fail))) is Outcome.RETRY
    assert [outcome for _, outcome, _ in history(deps, job)] == ["retry"]
    make_due(deps, job)
    assert run(job, deps) is Outcome.DONE


def test_of_many_that_claim_one_job_at_once_one_has_it(deps: Deps) -> None:
    job = a_job()
    enqueue_jobs([job], "test", deps)
    start = threading.Barrier(8)
    outcomes: list[Outcome] = []

    def work(number: int) -> None:
        start.wait()
        outcomes.append(run(job, deps, f"t0@here/{number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [Outcome.DONE, *[Outcome.STALE] * 7]
    assert history(deps, job) == [(1, "done", None)]
