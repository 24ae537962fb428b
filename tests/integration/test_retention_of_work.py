"""What people are done with goes: jobs, attempts, requests, letters, revisions; what is open or still tells stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import Bars
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.silence import Silence
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.retention import run_once
from mdtasks.settings import Settings
from mdtasks.store.bars import BarBatch, read_bars, write_bars
from tests.integration.retention_worlds import MONTHS, NOW, keeping, one, store

NOTHING = {"jobs": None, "letters": None, "quarantine": None}
OLD, NEW = NOW - timedelta(days=100), NOW - timedelta(days=10)
REQUEST = "00000000-0000-0000-0000-00000000000"


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings)
    yield opened
    opened.close()


def put(database: Database, statement: str, **values: Any) -> None:
    with database.transaction() as connection:
        connection.execute(text(statement), values)


def request(database: Database, number: int, at: datetime = OLD) -> str:
    put(
        database,
        "INSERT INTO requests (id, requested_by, spec, created_at) VALUES (CAST(:id AS uuid), 'me', '{}', :at)",
        id=f"{REQUEST}{number}",
        at=at,
    )
    return f"{REQUEST}{number}"


def job(database: Database, name: str, status: str = "done", at: datetime = OLD, request_id: str | None = None) -> None:
    put(
        database,
        """INSERT INTO backfill_jobs (id, instrument_id, symbol, interval, "window", tier, status, max_attempts,
                                      updated_at, request_id)
           VALUES (:id, 1, 'A', '1m', '[2026-08-01, 2026-08-02)', 'T1', CAST(:status AS job_status), 5, :at,
                   CAST(:request AS uuid))""",
        id=name,
        status=status,
        at=at,
        request=request_id,
    )


def attempt(database: Database, number: int, job_id: str, at: datetime = OLD, **about: Any) -> None:
    put(
        database,
        """INSERT INTO job_attempts (id, job_id, job_type, attempt, fence, worker, started_at, ended_at, outcome, bars,
                                     route, message)
           OVERRIDING SYSTEM VALUE
           VALUES (:id, :job, :type, 1, 1, 't1@here/1', :at, :at, 'done', :bars, '[]', 'said')""",
        id=number,
        job=job_id,
        at=at,
        **{"type": "backfill", "bars": 0, **about},
    )


def left(database: Database, table: str, column: str = "id") -> list[Any]:
    with database.transaction() as connection:
        return list(connection.execute(text(f"SELECT {column} FROM {table} ORDER BY id")).scalars())


def test_jobs_that_are_over_go_and_their_attempts_that_left_something_stay_thin(deps: Deps) -> None:
    database = deps.database
    job(database, "old")
    job(database, "new", at=NEW)
    attempt(database, 1, "old", bars=60)
    attempt(database, 2, "old")
    attempt(database, 3, "old")  # it brought a bar that broke a rule
    attempt(database, 4, "old")  # it said that there was silence
    attempt(database, 5, "new", at=NEW)
    put(
        database,
        "INSERT INTO bar_quarantine (instrument_id, interval, ts, reason, provider, attempt_id, bar) "
        "VALUES (1, '1m', '2026-08-01', 'high_below_low', 'x', 3, '{}')",
    )
    put(
        database,
        "INSERT INTO silences (instrument_id, interval, starts_at, provider, ends_at, believed, attempt_id) "
        "VALUES (1, '1m', '2026-08-01', 'x', '2026-08-01 01:00', true, 4)",
    )
    run_once(keeping(deps, **{**NOTHING, "jobs": 90}), NOW, 100)
    assert left(database, "backfill_jobs") == ["new"]
    assert left(database, "job_attempts") == [1, 3, 4, 5]
    assert left(database, "job_attempts", "route IS NULL AND message IS NULL") == [True, True, True, False]
    assert one(database, "SELECT worker FROM job_attempts WHERE id = 1") == "t1@here/1"


def test_an_open_request_keeps_all_its_jobs_and_an_open_letter_its_job(deps: Deps) -> None:
    database = deps.database
    first, second, over = (request(database, number) for number in (1, 2, 3))
    job(database, "done", request_id=first)
    job(database, "failed", "failed", request_id=first)
    job(database, "merged")  # the second request waits for it, and for one that runs
    job(database, "running", "running")
    for name in ("merged", "running"):
        put(database, "INSERT INTO request_jobs VALUES (CAST(:id AS uuid), :job)", id=second, job=name)
    job(database, "lettered")
    letter(database, "open", "lettered", "open", OLD)
    job(database, "over", request_id=over)
    run_once(keeping(deps, **{**NOTHING, "jobs": 90}), NOW, 100)
    assert left(database, "backfill_jobs") == ["done", "failed", "lettered", "merged", "running"]
    assert left(database, "requests", "id::text") == [first, second]

    put(database, "UPDATE backfill_jobs SET status = 'done', updated_at = :at", at=OLD)
    put(database, "UPDATE dead_letters SET state = 'resolved'")
    run_once(keeping(deps, **{**NOTHING, "jobs": 90}), NOW + timedelta(days=1), 100)
    assert (left(database, "backfill_jobs"), left(database, "requests")) == ([], [])
    assert one(database, "SELECT count(*) FROM request_jobs") == 0


def letter(database: Database, name: str, job_id: str, state: str, at: datetime) -> None:
    put(
        database,
        "INSERT INTO dead_letters (id, kind, job_id, error_class, message, envelope, state, died_at, updated_at) "
        "VALUES (:id, 'backfill', :job, 'timeout', 'slow', '', :state, :at, :at)",
        id=name,
        job=job_id,
        state=state,
        at=at,
    )


def test_live_attempts_for_quotes_go_and_those_for_bars_stay_thin(deps: Deps) -> None:
    database = deps.database
    for number in range(1, 8):
        kind = "quotes_fetch" if number % 2 else "bars_fetch"
        attempt(database, number, f"live{number}", OLD if number < 5 else NEW, type=kind)
    kept = keeping(deps, **{**NOTHING, "jobs": 90})
    assert run_once(kept, NOW, 100)["rows"] == {"job_attempts": 4}
    assert left(database, "job_attempts") == [2, 4, 5, 6, 7]
    assert left(database, "job_attempts", "message") == [None, None, "said", "said", "said"]
    run_once(kept, NOW + timedelta(days=85), 100)
    assert left(database, "job_attempts") == [2, 4, 6]


def test_attempts_go_when_no_bar_of_theirs_can_be_left(deps: Deps) -> None:
    days = {f"bars_{interval}": 30 for interval in Interval}
    for number in (1, 2):
        attempt(deps.database, number, f"live{number}", OLD, type="bars_fetch", bars=5)
    attempt(deps.database, 3, "kept", NOW - timedelta(days=45), type="bars_fetch", bars=5)
    run_once(keeping(deps, **{**NOTHING, **days, "jobs": 30}), NOW, 100)
    assert left(deps.database, "job_attempts") == [3]


def test_letters_that_people_are_done_with_go_unless_their_job_lives(deps: Deps) -> None:
    database = deps.database
    job(database, "alive", "failed")
    job(database, "over")
    for name, of, state, at in (
        ("open", "over", "open", OLD),
        ("resolved", "over", "resolved", OLD),
        ("poison", "nobody", "requeued", OLD),
        ("life", "alive", "requeued", OLD),
        ("young", "over", "resolved", NEW),
    ):
        letter(database, name, of, state, at)
    run_once(keeping(deps, **{**NOTHING, "letters": 90}), NOW, 100)
    assert left(database, "dead_letters") == ["life", "open", "young"]


def test_quarantined_bars_go_by_when_they_were_seen(deps: Deps) -> None:
    for number, seen in enumerate((OLD, NEW)):
        put(
            deps.database,
            "INSERT INTO bar_quarantine (instrument_id, interval, ts, reason, provider, attempt_id, bar, seen_at) "
            "VALUES (:n, '1m', '0001-01-01', 'not_finite', 'x', 1, '{}', :seen)",
            n=number,
            seen=seen,
        )
    run_once(keeping(deps, **{**NOTHING, "quarantine": 90}), NOW, 100)
    assert left(deps.database, "bar_quarantine", "instrument_id") == [1]


def test_a_read_as_of_before_the_revisions_that_went_is_refused_and_a_later_one_is_whole(deps: Deps) -> None:
    hour = TimeWindow(start=MONTHS[5], end=MONTHS[5] + timedelta(hours=1))
    store(deps.database, 1, Interval.M1, MONTHS[5], 3)
    store(deps.database, 1, Interval.M1, MONTHS[5], 3, price=101.0)
    silent = [(Silence(hour, believed), [] if believed else [hour]) for believed in (True, False)]
    for silence, retracted in silent:
        batch = BarBatch(1, Bars.empty(), 0, [hour], retracted=retracted, silences=[silence])
        with deps.database.transaction() as connection:
            write_bars(connection, Interval.M1, [batch], "simulator", 1)
    histories = ("coverage_changes", "silence_revisions")
    assert all(one(deps.database, f"SELECT count(*) FROM {table}") == 1 for table in histories)
    then = datetime.now(UTC)
    gone_from = then + timedelta(days=8)
    store(deps.database, 1, Interval.M1, MONTHS[5], 3, price=102.0)
    with deps.database.transaction() as connection:
        before = read_bars(connection, 1, Interval.M1, hour, then)
    assert before.bars.open.tolist() == [101.0] * 3
    run_once(keeping(deps, **{**NOTHING, "revisions": 7}), gone_from, 100)
    with deps.database.transaction() as connection:
        assert one(deps.database, "SELECT count(*) FROM bar_revisions") == 0
        assert all(one(deps.database, f"SELECT count(*) FROM {table}") == 0 for table in histories)
        with pytest.raises(InvalidRequestError, match="as of") as refused:
            read_bars(connection, 1, Interval.M1, hour, then)
        assert refused.value.field == "as_of"
        assert "retention.revisions_days" in refused.value.hint
        assert read_bars(connection, 1, Interval.M1, hour, gone_from).bars.open.tolist() == [102.0] * 3
