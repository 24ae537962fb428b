"""Slow calls at rest: traces within their bounds whatever comes, records that outlive them, and what asks for them."""

from __future__ import annotations

import gzip
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.errors import NotFoundError
from mdtasks.domain.jobs import TimeWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.traces import forget_once
from mdtasks.observe.traces import Asker, CallContext, SlowCall
from mdtasks.store import job_reports, traces
from mdtasks.store.jobs import open_live_attempt
from mdtasks.store.traces import MOST_RECORDS, TraceFilter, forget, keep, matching, one, trace_of

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
WINDOW = TimeWindow(start=NOW - timedelta(hours=1), end=NOW)


def call_of(
    *, at: datetime = NOW, size: int | None = 10, latency_s: float = 3.0, asked: CallContext | None = None
) -> SlowCall:
    context = asked or CallContext("alpaca", "bars_1m", ("SPY", "MSFT"), WINDOW, Asker("job-1"))
    return SlowCall(context, at, latency_s, 2.0, None, None if size is None else b"x" * size)


def stored(database: Database, call: SlowCall, most: int = 1000, most_bytes: int = 1_000_000) -> int:
    with database.transaction() as connection:
        return keep(connection, call, most=most, most_bytes=most_bytes)


def left(database: Database) -> list[tuple[int, int | None]]:
    """(id, bytes of the trace) of every record, the newest first."""
    with database.transaction() as connection:
        return [(row["id"], row["bytes"]) for row in matching(connection, TraceFilter(), 100_000)]


@trying(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(1, 50)), max_size=25),
    most=st.integers(0, 8),
    most_bytes=st.integers(1, 150),
)
def test_what_is_kept_is_the_newest_that_fits_and_every_record_stays(
    database: Database, calls: list[tuple[int, int | None]], most: int, most_bytes: int
) -> None:
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE slow_calls"))
    known: list[tuple[datetime, int, int | None]] = []
    for minute, size in calls:
        at = NOW + timedelta(minutes=minute)
        call_id = stored(database, call_of(at=at, size=size), most, most_bytes)
        known = sorted([*known, (at, call_id, size)], reverse=True)
        # The model: from the newest on, as long as neither bound is passed.
        number = total = 0
        for place, (began, each, held) in enumerate(known):
            if held is not None:
                number, total = number + 1, total + held
                if size is not None and (number > most or total > most_bytes):
                    known[place] = (began, each, None)
        assert left(database) == [(each, held) for _, each, held in known]


def test_many_processes_that_store_at_once_stay_within_the_bounds(database: Database) -> None:
    def many() -> None:
        for number in range(15):
            stored(database, call_of(at=NOW + timedelta(seconds=number)), most=5)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = left(database)
    assert (len(found), sum(size is not None for _, size in found)) == (60, 5)
    assert [size for _, size in found[:5]] == [10] * 5


def test_old_records_go_and_tighter_bounds_hold_at_the_next_round(database: Database) -> None:
    old = stored(database, call_of(at=NOW - timedelta(days=31)))
    ids = [stored(database, call_of(at=NOW + timedelta(seconds=number))) for number in range(3)]
    with database.transaction() as connection:
        assert forget(connection, NOW - timedelta(days=30), most=1, most_bytes=100) == 1
        assert forget(connection, NOW - timedelta(days=30), most=1, most_bytes=100) == 0
    assert old not in dict(left(database))
    assert left(database) == [(ids[2], 10), (ids[1], None), (ids[0], None)]


def test_records_are_bounded_in_number_too(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_RECORDS", 2)
    assert MOST_RECORDS > 2
    ids = [stored(database, call_of(at=NOW + timedelta(seconds=number))) for number in range(4)]
    with database.transaction() as connection:
        assert forget(connection, NOW - timedelta(days=30), most=9, most_bytes=1000) == 2
    assert [each for each, _ in left(database)] == [ids[3], ids[2]]


def test_housekeeping_goes_by_the_settings(deps: Deps) -> None:
    stored(deps.database, call_of(at=NOW - timedelta(days=30, seconds=1)))
    stored(deps.database, call_of(at=NOW))
    assert forget_once(deps, NOW) == 1
    assert len(left(deps.database)) == 1


def test_a_record_tells_what_was_asked_by_whom_and_its_attempt_points_to_it(database: Database) -> None:
    with database.transaction() as connection:
        attempt_id = open_live_attempt(connection, "job-9", "bars_fetch", "t0@here/1")
    asked = CallContext(
        "alpaca", "bars_1m", tuple(f"S{n}" for n in range(80)), WINDOW, Asker("job-9", attempt_id, 1, "t0@here/1")
    )
    packed = gzip.compress(b'{"traceEvents": []}')
    traced = stored(database, SlowCall(asked, NOW, 3.5, 2.0, "timeout", packed))
    stored(database, SlowCall(asked, NOW, 3.5, 2.0, "timeout", None))
    with database.transaction() as connection:
        row = one(connection, traced)
        assert trace_of(connection, traced) == b'{"traceEvents": []}'
        (attempt,) = job_reports.attempts(connection, "job-9")
    assert (row["worker"], row["attempt"], row["attempt_id"], row["job_id"]) == ("t0@here/1", 1, attempt_id, "job-9")
    assert (row["start"], row["end"], row["policy_version"]) == (WINDOW.start, WINDOW.end, None)
    assert (len(row["symbols"]), row["symbol_count"], row["latency_s"], row["threshold_s"]) == (50, 80, 3.5, 2.0)
    assert (attempt["slow_calls"], attempt["traces"]) == (2, [traced])


def test_a_call_without_a_job_or_a_window_is_recorded_too(database: Database) -> None:
    call_id = stored(database, call_of(asked=CallContext("finnhub", "quotes", ("SPY",))))
    with database.transaction() as connection:
        row = one(connection, call_id)
    assert [row[name] for name in ("start", "end", "job_id", "attempt_id", "worker")] == [None] * 5


def test_filters_narrow_and_what_is_not_there_is_said_with_the_reason(database: Database) -> None:
    first = stored(database, call_of(latency_s=9.0))
    other = CallContext("finnhub", "quotes", ("SPY",), None, Asker("job-2"))
    second = stored(database, call_of(at=NOW + timedelta(hours=1), asked=other, size=None))
    with database.transaction() as connection:

        def ids(**wanted: object) -> list[int]:
            return [row["id"] for row in matching(connection, TraceFilter(**wanted), 10)]  # type: ignore[arg-type]

        assert ids() == [second, first]
        assert ids(provider="alpaca") == ids(job_id="job-1") == ids(min_latency_s=9.0) == [first]
        assert ids(capability="quotes") == ids(since=NOW + timedelta(minutes=1)) == [second]
        assert ids(provider="nobody") == []
        with pytest.raises(NotFoundError, match=f"no trace of slow call {second}"):
            trace_of(connection, second)
        for missing in (0, 10**6, 2**63, 10**30):
            with pytest.raises(NotFoundError, match="no slow call"):
                one(connection, missing)
