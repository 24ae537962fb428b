"""Durable jobs against a real PostgreSQL: what is enqueued, merged and trimmed; who may claim; how attempts end."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.errors import NotFoundError, StaleClaimError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.store import job_reports, jobs, requests
from mdtasks.store.reference import Instrument, add_instruments, resolve
from mdtasks.testing import backfill_job

_START = datetime(2025, 1, 2, tzinfo=UTC)
ROOM = dict.fromkeys(Tier, 1000)


def _window(first: int, last: int) -> dict[str, datetime]:
    return {"start": _START + timedelta(minutes=first), "end": _START + timedelta(minutes=last)}


def _new(number: int, first: int, last: int, *, instrument: int = 1, provider: str | None = None) -> requests.NewJob:
    job = backfill_job(
        job_id=f"job-{number}", symbol=f"S{instrument}", time_window=_window(first, last), provider_hint=provider
    )
    return requests.NewJob(job, instrument)


@pytest.fixture
def store(database: Database) -> Database:
    """A database with two instruments."""
    with database.transaction() as connection:
        add_instruments(connection, [Instrument(f"S{number}", "24/7", "crypto") for number in (1, 2)])
        assert [one.id for one in resolve(connection, ["S1", "S2"]).values()] == [1, 2]
    return database


def _enqueue(store: Database, new: Iterable[requests.NewJob], room: dict[Tier, int] | None = None) -> requests.Enqueued:
    with store.transaction() as connection:
        request = requests.create_request(connection, "test", {})
        return requests.enqueue(connection, list(new), room or ROOM, 5, request)


def _claim(store: Database, job_id: str, worker: str = "t0@here/1", lease_s: float = 60) -> jobs.Claim | None:
    with store.transaction() as connection:
        return jobs.claim(connection, job_id, worker, lease_s)


def _held_claim(store: Database, job_id: str, worker: str = "t0@here/1", lease_s: float = 60) -> jobs.Claim:
    claim = _claim(store, job_id, worker, lease_s)
    assert claim is not None
    return claim


def _finish(store: Database, claim: jobs.Claim) -> None:
    with store.transaction() as connection:
        jobs.finish(connection, claim, jobs.Ending("done", provider="simulator", bars=3))


def _status(store: Database, job_id: str) -> str:
    with store.transaction() as connection:
        return str(connection.execute(text("SELECT status FROM backfill_jobs WHERE id = :id"), {"id": job_id}).scalar())


def _minutes(window: TimeWindow) -> range:
    return range(*(int((at - _START).total_seconds()) // 60 for at in (window.start, window.end)))


def test_what_fits_into_the_room_is_queued_newest_first_and_the_rest_is_deferred(store: Database) -> None:
    done = _enqueue(store, [_new(n, 10 * n, 10 * n + 10) for n in range(5)], {**ROOM, Tier.T1: 2})
    assert [job.job_id for job in done.queued] == ["job-4", "job-3"]
    assert (done.deferred, done.merged) == (3, 0)
    assert [_status(store, f"job-{n}") for n in range(5)] == ["deferred"] * 3 + ["queued"] * 2


def test_a_window_already_wanted_is_merged_and_its_request_waits_for_the_job_that_has_it(store: Database) -> None:
    _enqueue(store, [_new(1, 0, 100)])
    with store.transaction() as connection:
        request = requests.create_request(connection, "test", {})
        done = requests.enqueue(connection, [_new(2, 20, 40)], ROOM, 5, request)
        assert (done.queued, done.deferred, done.merged) == ([], 0, 1)
        assert job_reports.progress(connection, request).jobs == {"queued": 1}


def test_only_what_nobody_wants_yet_of_a_window_becomes_a_job(store: Database) -> None:
    _enqueue(store, [_new(1, 40, 60)])
    done = _enqueue(store, [_new(2, 0, 100)])
    assert [(job.job_id, _minutes(job.time_window)) for job in done.queued] == [
        ("job-2.2", range(60, 100)),
        ("job-2", range(40)),
    ]
    assert _claim(store, "job-2.2") is not None


def test_a_job_that_names_a_provider_is_merged_only_with_one_that_names_the_same(store: Database) -> None:
    _enqueue(store, [_new(1, 0, 10)])
    assert len(_enqueue(store, [_new(2, 0, 10, provider="files")]).queued) == 1
    assert _enqueue(store, [_new(3, 0, 10, provider="files")]).merged == 1
    assert _enqueue(store, [_new(4, 0, 10)]).merged == 1


def test_a_window_whose_job_is_over_may_be_wanted_again(store: Database) -> None:
    _enqueue(store, [_new(1, 0, 10)])
    _finish(store, _held_claim(store, "job-1"))
    assert len(_enqueue(store, [_new(2, 0, 10)]).queued) == 1


windows = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))
batches = st.lists(st.lists(st.tuples(windows, st.integers(1, 2)), min_size=1, max_size=6), min_size=1, max_size=4)


@given(batches=batches)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_wanted_minute_is_in_exactly_one_active_job(
    store: Database, batches: list[list[tuple[tuple[int, int], int]]]
) -> None:
    wanted: set[tuple[int, int]] = set()
    number = 0
    with store.transaction() as connection:
        connection.execute(text("TRUNCATE backfill_jobs, requests, request_jobs"))
    for batch in batches:
        new = [_new(number + n, *window, instrument=who) for n, (window, who) in enumerate(batch)]
        number += len(batch)
        done = _enqueue(store, new)
        lost = [job for job in new if not set(_minutes(job.job.time_window)) - _minutes_of(wanted, job.instrument_id)]
        wanted |= {(job.instrument_id, minute) for job in new for minute in _minutes(job.job.time_window)}
        assert done.merged >= len(lost)
    with store.transaction() as connection:
        rows = connection.execute(
            text('SELECT instrument_id, lower("window"), upper("window") FROM backfill_jobs')
        ).all()
    covered = [(who, minute) for who, start, end in rows for minute in _minutes(TimeWindow(start=start, end=end))]
    assert sorted(covered) == sorted(wanted)


def _minutes_of(wanted: set[tuple[int, int]], instrument: int) -> set[int]:
    return {minute for who, minute in wanted if who == instrument}


def test_enqueuers_at_once_never_want_a_minute_twice(store: Database) -> None:
    start = threading.Barrier(4)
    queued: list[BackfillJob] = []

    def produce(thread: int) -> None:
        start.wait()
        for number in range(5):
            queued.extend(_enqueue(store, [_new(100 * thread + number, 7 * number, 7 * number + 10)]).queued)

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(minute for job in queued for minute in _minutes(job.time_window)) == list(range(38))


def test_only_one_of_many_may_claim_a_job(store: Database) -> None:
    _enqueue(store, [_new(1, 0, 10)])
    start = threading.Barrier(6)
    claims: list[jobs.Claim | None] = []

    def take(number: int) -> None:
        start.wait()
        claims.append(_claim(store, "job-1", f"t0@here/{number}"))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in claims) == 1


def test_a_claim_that_was_taken_over_can_no_longer_finish(store: Database) -> None:
    _enqueue(store, [_new(1, 0, 10)])
    first = _held_claim(store, "job-1", lease_s=-1)
    with store.transaction() as connection:
        (held,) = jobs.expired(connection)
        jobs.fail(connection, held, jobs.Ending("lost"), pause_s=0)
    second = _held_claim(store, "job-1", "t0@there/2")
    assert second.fence == first.fence + 1
    with pytest.raises(StaleClaimError):
        _finish(store, first)
    _finish(store, second)
    with store.transaction() as connection:
        told = [(row["attempt"], row["outcome"]) for row in job_reports.attempts(connection, "job-1")]
    assert told == [(1, "lost"), (2, "done")]


def test_a_job_waits_until_its_time_and_then_is_dispatched_newest_first(store: Database) -> None:
    _enqueue(store, [_new(n, 10 * n, 10 * n + 10) for n in range(3)], dict.fromkeys(Tier, 0))
    with store.transaction() as connection:
        connection.execute(text("UPDATE backfill_jobs SET not_before = now() + interval '1 h' WHERE id = 'job-2'"))
    assert _claim(store, "job-2") is None
    with store.transaction() as connection:
        assert [job.job_id for job in jobs.dispatchable(connection, Tier.T1, 5)] == ["job-1", "job-0"]
        assert jobs.dispatchable(connection, Tier.T1, 5) == []


def test_attempts_are_counted_at_the_claim_and_end(store: Database) -> None:
    _enqueue(store, [_new(1, 0, 10)])
    for attempt in range(1, 6):
        claim = _held_claim(store, "job-1")
        assert claim.attempt == attempt
        with store.transaction() as connection:
            assert jobs.fail(connection, claim, jobs.Ending("retry", error_class="timeout"), pause_s=0)
    assert _claim(store, "job-1") is None


def test_a_node_that_starts_finds_only_what_its_own_processes_held(store: Database) -> None:
    _enqueue(store, [_new(1, 0, 10), _new(2, 10, 20)])
    _held_claim(store, "job-1", "t0@a_b/10")
    _held_claim(store, "job-2", "t0@axb/10")
    with store.transaction() as connection:
        assert [held.job_id for held in jobs.held_by_node(connection, "t0@a_b")] == ["job-1"]


def test_progress_of_a_request_nobody_made_is_not_found(store: Database) -> None:
    with store.transaction() as connection, pytest.raises(NotFoundError):
        job_reports.progress(connection, "00000000-0000-0000-0000-000000000000")


def test_jobs_come_back_as_they_went_in(store: Database) -> None:
    asked = _new(1, 0, 10, provider="files")
    _enqueue(store, [asked], dict.fromkeys(Tier, 0))
    with store.transaction() as connection:
        (sent,) = jobs.dispatchable(connection, Tier.T1, 1)
    assert sent == asked.job
    claim = _held_claim(store, "job-1")
    assert (claim.window, claim.interval, claim.listing.symbol) == (asked.job.time_window, Interval.M1, "S1")


def test_a_large_request_repeated_is_merged_whole_in_a_few_statements_that_read_each_job_once(store: Database) -> None:
    count = 5000
    new = [_new(n, 10 * n, 10 * n + 7) for n in range(count)]
    _enqueue(store, new)
    with store.transaction() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    read_before = _rows_read(store)
    with store.transaction() as connection:
        request = requests.create_request(connection, "again", {})
        again = [_new(count + n, 10 * n, 10 * n + 7) for n in range(count)]
        assert requests.enqueue(connection, again, ROOM, 5, request).merged == count
        assert job_reports.progress(connection, request).total == count
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    assert _rows_read(store) - read_before < 20 * count


def _rows_read(store: Database) -> int:
    """Rows of jobs that all scans together have looked at."""
    statement = (
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'backfill_jobs'"
    )
    with store.transaction() as connection:
        return int(connection.execute(text(statement)).scalar_one())


def test_an_id_sent_again_takes_nothing_from_the_lines_after_it(store: Database) -> None:
    _enqueue(store, [_new(1, 0, 10)])
    _finish(store, _held_claim(store, "job-1"))
    done = _enqueue(store, [_new(1, 0, 10), _new(2, 0, 10)])
    assert ([job.job_id for job in done.queued], done.merged) == (["job-2"], 1)


def test_a_job_is_queued_when_its_row_is_made_and_not_before_its_wait_for_the_lock(store: Database) -> None:
    with store.transaction() as connection:
        began = connection.execute(text("SELECT now()")).scalar_one()
        requests.enqueue(connection, [_new(1, 0, 10), _new(2, 10, 20)], {**ROOM, Tier.T1: 1}, 5)
        assert [job.job_id for job in jobs.dispatchable(connection, Tier.T1, 5)] == ["job-1"]
        queued = connection.execute(text("SELECT queued_at FROM backfill_jobs")).scalars().all()
    assert len(queued) == 2
    assert all(at > began for at in queued)
