"""What a write of bars promises: exact values, point-in-time history, nothing touched twice, nothing half done."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from mdtasks.connections import Database
from mdtasks.domain.bars import Bars, RejectedBar, from_us, to_us
from mdtasks.domain.errors import StoreUnavailableError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.store.bar_reports import bar_counts
from mdtasks.store.bars import BarBatch, WriteCounts, read_bars, read_coverage, write_bars
from mdtasks.store.partitions import ensure_partitions

_OPEN = datetime(2024, 1, 31, 14, 30, tzinfo=UTC)
_MINUTE_US = 60_000_000
_ALL_FINAL = 2**62
_NONE_FINAL = 0
_EVER = TimeWindow(start=datetime(1, 1, 1, tzinfo=UTC), end=datetime(9999, 12, 31, tzinfo=UTC))


def _bars(close: list[float], first: datetime = _OPEN) -> Bars:
    ts = to_us(first) + np.arange(len(close)) * _MINUTE_US
    return Bars.of(ts, close, close, close, close, [1.0] * len(close))


def _window(minutes: int, first: datetime = _OPEN) -> TimeWindow:
    return TimeWindow(start=first, end=first + timedelta(minutes=minutes))


def _write(connection: Connection, *batches: BarBatch, provider: str = "simulator", attempt: int = 1) -> WriteCounts:
    return write_bars(connection, Interval.M1, batches, provider, attempt)


def _rows(connection: Connection, table: str) -> list[Any]:
    """Every row with where it lies and which transactions wrote or locked it."""
    statement = text(f"SELECT tableoid::regclass::text, ctid::text, xmin::text, xmax::text, t::text FROM {table} t")
    return sorted(tuple(row) for row in connection.execute(statement))


def _all_rows(database: Database) -> list[Any]:
    with database.transaction() as connection:
        return [_rows(connection, table) for table in ("bars", "bar_revisions", "coverage", "bar_quarantine")]


@pytest.fixture
def january(database: Database) -> Database:
    """The database with partitions around the turn of January 2024."""
    ensure_partitions(database, "bars", to_us(_OPEN), to_us(_OPEN + timedelta(days=1)))
    return database


@given(
    values=st.lists(
        st.tuples(*[st.floats(allow_nan=False, allow_infinity=False) for _ in range(5)]), min_size=1, max_size=40
    ),
    late=st.integers(0, 59_999_999),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_finite_double_and_microsecond_comes_back_bit_for_bit(
    january: Database, values: list[tuple[float, ...]], late: int
) -> None:
    ts = to_us(_OPEN) + late + np.arange(len(values)) * _MINUTE_US
    bars = Bars.of(ts, *np.array(values).T)
    with january.transaction() as connection:
        connection.execute(text("TRUNCATE bars"))
        assert _write(connection, BarBatch(1, bars, _ALL_FINAL)).inserted == len(bars)
        stored = read_bars(connection, 1, Interval.M1, _EVER)
    assert stored.bars.ts_us.tolist() == bars.ts_us.tolist()
    for read, given_ in zip(stored.bars.columns, bars.columns, strict=True):
        assert read.tobytes() == given_.tobytes()


def test_where_each_bar_came_from_is_read_with_it(january: Database) -> None:
    with january.transaction() as connection:
        _write(connection, BarBatch(1, _bars([1.0, 2.0]), to_us(_OPEN) + 1), attempt=7)
        _write(connection, BarBatch(1, _bars([3.0], _OPEN + timedelta(minutes=2)), _ALL_FINAL), provider="lean")
        stored = read_bars(connection, 1, Interval.M1, _window(3))
        server_now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert stored.provider.tolist() == ["simulator", "simulator", "lean"]
    assert stored.final.tolist() == [True, False, True]
    assert stored.attempt_id.tolist() == [7, 7, 1]
    assert stored.known_at_us[0] == stored.known_at_us[1] < stored.known_at_us[2] < to_us(server_now)


def test_an_identical_second_write_touches_no_row(january: Database) -> None:
    rejected = [RejectedBar(to_us(_OPEN), "high_below_low", 1.0, 0.0, 2.0, 1.0, 5.0)]
    batches = [
        BarBatch(number, _bars([1.0, 2.0, 3.0]), to_us(_OPEN) + _MINUTE_US + 1, [_window(2)], rejected)
        for number in range(1, 60)
    ]
    with january.transaction() as connection:
        assert _write(connection, *batches) == WriteCounts(inserted=177, quarantined=59)
    before = _all_rows(january)
    with january.transaction() as connection:
        again = _write(connection, *reversed(batches), provider="simulator", attempt=2)
        assert again == WriteCounts(unchanged=177)
    assert _all_rows(january) == before


def test_a_promotion_changes_the_status_and_nothing_else(january: Database) -> None:
    with january.transaction() as connection:
        _write(connection, BarBatch(1, _bars([1.0, 2.0]), _NONE_FINAL), attempt=1)
        before = read_bars(connection, 1, Interval.M1, _EVER)
        counts = _write(connection, BarBatch(1, _bars([1.0, 2.0]), _ALL_FINAL), provider="lean", attempt=2)
        after = read_bars(connection, 1, Interval.M1, _EVER)
        assert counts == WriteCounts(promoted=2)
        assert after.final.all()
        assert not before.final.any()
        assert after.known_at_us.tolist() == before.known_at_us.tolist()
        assert after.provider.tolist() == ["simulator"] * 2
        assert after.attempt_id.tolist() == [1, 1]
        assert _rows(connection, "bar_revisions") == []


def test_provisional_never_beats_final_neither_in_value_nor_in_status(january: Database) -> None:
    with january.transaction() as connection:
        _write(connection, BarBatch(1, _bars([1.0, 2.0]), _ALL_FINAL))
    before = _all_rows(january)
    with january.transaction() as connection:
        assert _write(connection, BarBatch(1, _bars([1.0, 9.0]), _NONE_FINAL)) == WriteCounts(unchanged=2)
    assert _all_rows(january) == before


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_a_change_of_the_last_bit_in_any_column_is_a_revision(january: Database, column: str) -> None:
    first = _bars([1.0, 2.0])
    changed = replace(first, **{column: np.nextafter(getattr(first, column), 9.0)})
    with january.transaction() as connection:
        _write(connection, BarBatch(1, first, _ALL_FINAL))
        assert _write(connection, BarBatch(1, changed, _ALL_FINAL)) == WriteCounts(revised=2)
        stored = read_bars(connection, 1, Interval.M1, _EVER).bars
    assert getattr(stored, column).tolist() == getattr(changed, column).tolist()


def test_a_revision_keeps_all_of_what_it_replaced(january: Database) -> None:
    with january.transaction() as connection:
        _write(connection, BarBatch(1, _bars([1.0, 2.0]), _NONE_FINAL), attempt=1)
        first = read_bars(connection, 1, Interval.M1, _EVER)
        assert _write(connection, BarBatch(1, _bars([1.0, 5.0]), _NONE_FINAL), provider="lean", attempt=2).revised == 1
        now = read_bars(connection, 1, Interval.M1, _EVER)
        then = read_bars(connection, 1, Interval.M1, _EVER, as_of=from_us(int(first.known_at_us[0])))
        before = read_bars(connection, 1, Interval.M1, _EVER, as_of=from_us(int(first.known_at_us[0]) - 1))
    assert now.bars.close.tolist() == [1.0, 5.0]
    assert now.provider.tolist() == ["simulator", "lean"]
    assert then.bars.close.tolist() == [1.0, 2.0]
    assert then.provider.tolist() == ["simulator"] * 2
    assert then.attempt_id.tolist() == [1, 1]
    assert len(before) == 0


def test_history_stays_in_order_when_the_servers_clock_was_set_back(january: Database) -> None:
    with january.transaction() as connection:
        _write(connection, BarBatch(1, _bars([1.0]), _ALL_FINAL))
        connection.execute(text("UPDATE bars SET known_at = known_at + interval '1 hour'"))
        known_at = from_us(int(read_bars(connection, 1, Interval.M1, _EVER).known_at_us[0]))
        _write(connection, BarBatch(1, _bars([2.0]), _ALL_FINAL))
        assert read_bars(connection, 1, Interval.M1, _EVER, as_of=known_at).bars.close.tolist() == [1.0]
        later = known_at + timedelta(microseconds=1)
        assert read_bars(connection, 1, Interval.M1, _EVER, as_of=later).bars.close.tolist() == [2.0]


def test_silence_is_covered_without_bars_and_windows_that_touch_merge(january: Database) -> None:
    later = _OPEN + timedelta(minutes=5)
    apart = _OPEN + timedelta(hours=2)
    with january.transaction() as connection:
        _write(connection, BarBatch(1, Bars.empty(), _ALL_FINAL, [_window(5)]), BarBatch(2, _bars([1.0]), _ALL_FINAL))
        _write(connection, BarBatch(1, Bars.empty(), _ALL_FINAL, [_window(1, apart), _window(5, later)]))
        assert read_coverage(connection, [2, 1], Interval.M1) == {2: [], 1: [_window(10), _window(1, apart)]}
        assert read_coverage(connection, [1], Interval.M5) == {1: []}
        assert _write(connection) == WriteCounts()


def test_a_series_is_as_fresh_as_its_newest_bar_or_coverage_and_never_less(january: Database) -> None:
    def fresh() -> dict[int, datetime]:
        found = connection.execute(text("SELECT instrument_id, fresh_until FROM coverage ORDER BY 1"))
        return {row.instrument_id: row.fresh_until for row in found}

    def at(minutes: int) -> datetime:
        return _OPEN + timedelta(minutes=minutes)

    with january.transaction() as connection:
        # Two bars that are not settled, so nothing is covered; silence of another that is.
        _write(connection, BarBatch(1, _bars([1.0, 2.0]), _NONE_FINAL), BarBatch(2, Bars.empty(), 0, [_window(9)]))
        assert fresh() == {1: at(2), 2: at(9)}
        assert read_coverage(connection, [1], Interval.M1) == {1: []}
        # What comes of an earlier time makes nothing staler; what is covered past the last bar makes it fresher.
        _write(connection, BarBatch(1, _bars([1.0]), _ALL_FINAL, [_window(1)]), BarBatch(2, _bars([1.0]), _ALL_FINAL))
        assert fresh() == {1: at(2), 2: at(9)}
        _write(connection, BarBatch(1, _bars([1.0]), _ALL_FINAL, [_window(5)]))
        assert fresh() == {1: at(5), 2: at(9)}


def test_a_rejected_bar_is_kept_as_it_came_whatever_it_is(january: Database) -> None:
    broken = [
        RejectedBar(-(2**63), "outside_window", float("nan"), float("inf"), float("-inf"), -0.0, 0.1),
        RejectedBar(2**63 - 1, "outside_window", 1.0, 1.0, 1.0, 1.0, 1.0),
        RejectedBar(to_us(_OPEN), "duplicate", 1.0, 1.0, 1.0, 1.0, 1.0),
        RejectedBar(to_us(_OPEN), "duplicate", 2.0, 2.0, 2.0, 2.0, 2.0),
    ]
    with january.transaction() as connection:
        batch = BarBatch(1, Bars.empty(), _ALL_FINAL, rejected=broken)
        assert _write(connection, batch) == WriteCounts(quarantined=3)
        assert _write(connection, batch, attempt=2) == WriteCounts()
        assert _write(connection, batch, provider="lean") == WriteCounts(quarantined=3)
        kept = connection.execute(text("SELECT bar FROM bar_quarantine ORDER BY ts LIMIT 1")).scalar_one()
    assert kept == {
        "ts_us": -(2**63), "open": "nan", "high": "inf", "low": "-inf", "close": -0.0, "volume": 0.1,
    }  # fmt: skip


def test_what_the_caller_takes_back_leaves_nothing(january: Database) -> None:
    before = _all_rows(january)

    def write_and_fail() -> None:
        with january.transaction() as connection:
            _write(connection, BarBatch(1, _bars([1.0]), _ALL_FINAL, [_window(1)]))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert _all_rows(january) == before
    with january.transaction() as connection:  # the same pooled connection, whose staging table is gone
        assert _write(connection, BarBatch(1, _bars([1.0]), _ALL_FINAL)).inserted == 1


@pytest.mark.parametrize(
    ("batches", "provider"),
    [
        ([BarBatch(1, _bars([1.0]), 0), BarBatch(1, _bars([2.0]), 0)], "simulator"),
        ([BarBatch(1, _bars([1.0, 2.0]).take(slice(None, None, -1)), 0)], "simulator"),
        ([BarBatch(1, _bars([1.0]).take(np.array([0, 0])), 0)], "simulator"),
        ([BarBatch(1, _bars([1.0]), 0)], "two,names"),
    ],
    ids=["two batches of one instrument", "out of order", "doubled", "name with a comma"],
)
def test_batches_that_break_their_contract_are_refused(
    january: Database, batches: list[BarBatch], provider: str
) -> None:
    with january.transaction() as connection, pytest.raises(ValueError, match=r"instrument|provider"):
        _write(connection, *batches, provider=provider)


def test_a_dropped_partition_fails_one_attempt_and_the_next_finds_it_made(january: Database) -> None:
    def attempt() -> WriteCounts:
        ensure_partitions(january, "bars", to_us(_OPEN), to_us(_OPEN))
        with january.transaction() as connection:
            return _write(connection, BarBatch(1, _bars([1.0]), _ALL_FINAL))

    with january.transaction() as connection:
        connection.execute(text("DROP TABLE bars_2024_01"))
    with pytest.raises(StoreUnavailableError, match="partition"):
        attempt()
    assert attempt().inserted == 1


def test_a_server_that_goes_away_between_two_writes_is_told_in_our_words(january: Database) -> None:
    def write_twice() -> None:
        with january.transaction() as connection:
            _write(connection, BarBatch(1, _bars([1.0]), _ALL_FINAL))
            mine = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with january.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": mine})
            _write(connection, BarBatch(2, _bars([1.0]), _ALL_FINAL))

    with pytest.raises(StoreUnavailableError):
        write_twice()
    with january.transaction() as connection:
        assert bar_counts(connection, [1, 2], Interval.M1) == {}


def test_a_write_opens_only_the_partitions_its_bars_lie_in(january: Database) -> None:
    ensure_partitions(january, "bars", to_us(datetime(2015, 1, 1, tzinfo=UTC)), to_us(_OPEN))
    batch = BarBatch(1, _bars([1.0] * 390), _ALL_FINAL)
    for _ in range(8):  # past the runs after which psycopg prepares and PostgreSQL turns to generic plans
        with january.transaction() as connection:
            _write(connection, batch)
            opened = connection.execute(
                text("SELECT DISTINCT relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
                     "WHERE l.pid = pg_backend_pid() AND relkind = 'r' AND relname LIKE 'bars\\_%'")
            )  # fmt: skip
            assert set(opened.scalars()) == {"bars_2024_01"}


def test_more_instruments_than_the_lock_table_holds_are_written_at_once(january: Database) -> None:
    batches = [BarBatch(number, _bars([1.0]), _ALL_FINAL, [_window(1)]) for number in range(1, 12_001)]
    with january.transaction() as connection:
        assert _write(connection, *batches) == WriteCounts(inserted=12_000)
    with january.transaction() as connection:
        assert _write(connection, *batches) == WriteCounts(unchanged=12_000)
        assert len(read_coverage(connection, range(1, 12_001), Interval.M1)[12_000]) == 1


def test_a_long_window_is_read_whole_and_in_order(january: Database) -> None:
    starts = [datetime(year, month, 1, tzinfo=UTC) for year in range(2009, 2022) for month in range(1, 13)]
    ensure_partitions(january, "bars", to_us(starts[0]), to_us(starts[-1]))
    values = np.arange(len(starts), dtype=float)
    bars = Bars.of([to_us(start) for start in starts], *[values] * 5)
    with january.transaction() as connection:
        write_bars(connection, Interval.D1, [BarBatch(1, bars, _ALL_FINAL)], "files", 1)
        for window in (_EVER, TimeWindow(start=starts[0], end=starts[-1] + timedelta(microseconds=1))):
            assert read_bars(connection, 1, Interval.D1, window).bars.close.tolist() == values.tolist()
        some = TimeWindow(start=starts[3] + timedelta(microseconds=1), end=starts[9])
        assert read_bars(connection, 1, Interval.D1, some).bars.close.tolist() == values[4:9].tolist()
        counted = bar_counts(connection, [1, 2], Interval.D1)
    assert list(counted) == [1]
    assert (counted[1].bars, counted[1].first_at, counted[1].last_at) == (len(starts), starts[0], starts[-1])
    assert counted[1].provisional == 0


def test_a_naive_as_of_is_refused(january: Database) -> None:
    with january.transaction() as connection, pytest.raises(ValueError, match="naive"):
        read_bars(connection, 1, Interval.M1, _EVER, as_of=datetime(2024, 1, 1))  # noqa: DTZ001
