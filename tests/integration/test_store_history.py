"""The store against a model of it in plain Python, over random histories; and writers that meet on the same bars."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Barrier

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.store.bars import BarBatch, WriteCounts, read_bars, read_coverage, write_bars
from mdtasks.store.partitions import ensure_partitions

#: Twelve minutes over the end of a month: six on either side.
_MINUTES = 12
_START = datetime(2024, 1, 31, 23, 54, tzinfo=UTC)
_DAY = TimeWindow(start=_START - timedelta(hours=12), end=_START + timedelta(hours=12))
_instruments = itertools.count(1)


@pytest.fixture
def database_with_months(database: Database) -> Database:
    ensure_partitions(database, "bars", to_us(_DAY.start), to_us(_DAY.end))
    return database


def _at(minute: int) -> datetime:
    return _START + timedelta(minutes=minute)


def _to_bars(values: dict[int, float]) -> Bars:
    minutes = sorted(values)
    columns = [[values[minute] + shift for minute in minutes] for shift in (0.0, 2.0, -2.0, 1.0, 10.0)]
    return Bars.of([to_us(_at(minute)) for minute in minutes], *columns)


@dataclass(frozen=True)
class Write:
    """One answer: value per minute, the minute from which bars are provisional, what it covers."""

    values: dict[int, float]
    final_before: int
    covered: tuple[int, int] | None

    def batch(self, instrument: int) -> BarBatch:
        windows = [TimeWindow(start=_at(self.covered[0]), end=_at(self.covered[1]))] if self.covered else []
        return BarBatch(instrument, _to_bars(self.values), to_us(_at(self.final_before)), windows)


@dataclass
class Model:
    """What the store should hold: value and finality per minute, and the minutes covered."""

    values: dict[int, float] = field(default_factory=dict)
    final: dict[int, bool] = field(default_factory=dict)
    covered: set[int] = field(default_factory=set)

    def write(self, write: Write) -> WriteCounts:
        fates = {"inserted": 0, "revised": 0, "promoted": 0, "unchanged": 0}
        for minute, value in write.values.items():
            fates[self._fate(minute, value, minute < write.final_before)] += 1
        self.covered |= set(range(*write.covered)) if write.covered else set()
        return WriteCounts(**fates)

    def _fate(self, minute: int, value: float, final: bool) -> str:
        known = minute in self.values
        if known and self.final[minute] and not final:
            return "unchanged"
        fate = "inserted" if not known else "revised" if self.values[minute] != value else "promoted"
        if fate == "promoted" and self.final[minute] == final:
            return "unchanged"
        self.values[minute], self.final[minute] = value, final
        return fate

    def windows(self) -> list[TimeWindow]:
        edges = [m for m in range(_MINUTES + 1) if (m in self.covered) != (m - 1 in self.covered)]
        return [TimeWindow(start=_at(a), end=_at(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


_writes = st.builds(
    Write,
    values=st.dictionaries(st.integers(0, _MINUTES - 1), st.sampled_from([100.0, 100.1, 100.2]), max_size=_MINUTES),
    final_before=st.integers(0, _MINUTES),
    covered=st.none() | st.tuples(st.integers(0, _MINUTES - 1), st.integers(1, _MINUTES)).filter(lambda r: r[0] < r[1]),
)


def _read(database: Database, instrument: int, as_of: datetime | None = None) -> dict[int, float]:
    with database.transaction() as connection:
        stored = read_bars(connection, instrument, Interval.M1, _DAY, as_of)
    minutes = ((stored.bars.ts_us - to_us(_START)) // 60_000_000).tolist()
    assert minutes == sorted(set(minutes)), "a bar is there twice or out of order"
    assert np.array_equal(stored.bars.volume, stored.bars.open + 10.0)
    return dict(zip(minutes, stored.bars.open.tolist(), strict=True))


@given(history=st.lists(_writes, min_size=1, max_size=8), together=st.booleans())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_history_reads_back_as_it_was_known_at_each_step(
    database_with_months: Database, history: list[Write], together: bool
) -> None:
    database, instrument, model = database_with_months, next(_instruments), Model()
    known: list[tuple[datetime, dict[int, float]]] = []
    for write in history:
        with database.transaction() as connection:
            expected = model.write(write)
            batches = [write.batch(instrument)]
            if together:  # a neighbour in the same write must not matter
                batches.append(BarBatch(10**6, _to_bars({1: float(len(known))}), 0))
            counts = write_bars(connection, Interval.M1, batches, "simulator", 1)
            neighbour = len(batches) - 1
            assert (
                counts.inserted + counts.revised + counts.promoted + counts.unchanged == len(write.values) + neighbour
            )
            if not together:
                assert counts == expected
            now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        known.append((now, dict(model.values)))
    for as_of, values in known:
        assert _read(database, instrument, as_of) == values
    assert _read(database, instrument) == model.values
    with database.transaction() as connection:
        stored = read_bars(connection, instrument, Interval.M1, _DAY)
        assert stored.final.tolist() == [model.final[minute] for minute in sorted(model.final)]
        assert read_coverage(connection, [instrument], Interval.M1)[instrument] == model.windows()


@given(write=_writes, earlier=st.lists(_writes, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_write_twice_is_that_write_once(database_with_months: Database, write: Write, earlier: list[Write]) -> None:
    instrument = next(_instruments)
    states = []
    for batch in [*earlier, write, write]:
        with database_with_months.transaction() as connection:
            counts = write_bars(connection, Interval.M1, [batch.batch(instrument)], "simulator", 1)
            rows = [
                connection.execute(
                    text(
                        f"SELECT ctid::text, xmin::text, xmax::text, t::text FROM {table} t WHERE instrument_id = :id"
                    ),
                    {"id": instrument},
                ).all()
                for table in ("bars", "bar_revisions", "coverage")
            ]
        states.append(rows)
    assert states[-1] == states[-2]
    assert counts == WriteCounts(unchanged=len(write.values))


def test_writers_that_meet_on_the_same_bars_neither_deadlock_nor_lose_a_version(
    database_with_months: Database, database_url: str
) -> None:
    writers, rounds, instruments = 4, 12, list(range(1, 31))
    together = Barrier(writers)

    def write(writer: int) -> int:
        order, revised = Random(writer), 0
        database = Database(database_url)
        together.wait(timeout=30)
        for number in range(rounds):
            chosen = order.sample(instruments, 20)
            value = 100.0 * writer + number
            bars = _to_bars(dict.fromkeys(range(_MINUTES), value))
            minute = TimeWindow(start=_at(number), end=_at(number + 1))
            batches = [BarBatch(one, bars, 2**62, [minute]) for one in chosen]
            with database.transaction() as connection:
                counts = write_bars(connection, Interval.M1, batches, "simulator", writer)
            assert counts.inserted + counts.revised + counts.unchanged == len(chosen) * _MINUTES
            revised += counts.inserted + counts.revised
        database.close()
        return revised

    with ThreadPoolExecutor(writers) as pool:
        written = sum(pool.map(write, range(1, writers + 1)))
    _check_chains(database_with_months, written)


def _check_chains(database: Database, versions: int) -> None:
    """Every version ever written is there, each superseded at the instant its successor became known."""
    statement = text(
        "SELECT count(*), count(*) FILTER (WHERE superseded_at IS NOT NULL AND superseded_at IS DISTINCT FROM next), "
        "       count(*) FILTER (WHERE known_at >= superseded_at) "
        "FROM (SELECT v.*, lead(known_at) OVER (PARTITION BY instrument_id, ts ORDER BY known_at) AS next FROM ("
        "    SELECT instrument_id, ts, known_at, NULL::timestamptz AS superseded_at FROM bars UNION ALL "
        "    SELECT instrument_id, ts, known_at, superseded_at FROM bar_revisions) v) chain"
    )
    with database.transaction() as connection:
        assert tuple(connection.execute(statement).one()) == (versions, 0, 0)
        coverage = read_coverage(connection, range(1, 31), Interval.M1)
    assert any(windows == [TimeWindow(start=_at(0), end=_at(12))] for windows in coverage.values())
