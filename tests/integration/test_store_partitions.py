"""Partitions are there before the rows, whoever needs them first, while others read and write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

import pytest
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import Quote, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.store.partitions import ensure_ahead, ensure_partitions, forget
from mdtasks.store.quotes import write_quotes


def _us(*date: int) -> int:
    return to_us(datetime(*date, tzinfo=UTC))  # type: ignore[arg-type,misc]


def _partitions(database: Database) -> list[tuple[str, str]]:
    with database.transaction() as connection:
        rows = connection.execute(
            text(
                "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i "
                "JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r' ORDER BY 1"
            )
        )
        return [(row[0], row[1]) for row in rows]


def test_a_month_goes_from_its_first_instant_to_the_next_months_in_utc(database: Database) -> None:
    assert ensure_partitions(database, "bars", _us(2023, 12, 31, 23, 59), _us(2024, 1, 1)) == 2
    assert _partitions(database) == [
        ("bars_2023_12", "FOR VALUES FROM ('2023-12-01 00:00:00+00') TO ('2024-01-01 00:00:00+00')"),
        ("bars_2024_01", "FOR VALUES FROM ('2024-01-01 00:00:00+00') TO ('2024-02-01 00:00:00+00')"),
    ]


def test_only_what_is_missing_is_made(database: Database) -> None:
    assert ensure_partitions(database, "bars", _us(2024, 1, 1), _us(2024, 3, 1)) == 3
    assert ensure_partitions(database, "bars", _us(2024, 1, 1), _us(2024, 3, 1)) == 0
    forget(database.engine)
    assert ensure_partitions(database, "bars", _us(2023, 12, 1), _us(2024, 4, 1)) == 2


def test_what_this_process_has_seen_is_not_looked_up_again(database: Database) -> None:
    ensure_partitions(database, "bars", _us(2024, 1, 1), _us(2024, 3, 1))
    database.close()
    ensure_partitions(database, "bars", _us(2024, 2, 1), _us(2024, 2, 1))
    assert database.engine.pool.checkedin() == 0  # type: ignore[attr-defined]  # no connection was opened for it


def test_thirteen_years_are_made_once_by_makers_that_start_together(database_url: str) -> None:
    together = Barrier(4)

    def make(_: int) -> int:
        database = Database(database_url)
        try:
            together.wait(timeout=30)
            return ensure_partitions(database, "bars", _us(2008, 1, 1), _us(2021, 4, 30))
        finally:
            database.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(make, range(4))) == 160


def test_beat_makes_this_month_and_the_next_two_over_the_end_of_a_year(database: Database) -> None:
    assert ensure_ahead(database, datetime(2024, 11, 30, 23, 59, tzinfo=UTC)) == 6
    names = [name for name, _ in _partitions(database)]
    assert names == [f"{t}_{m}" for t in ("bars", "quotes") for m in ("2024_11", "2024_12", "2025_01")]
    assert ensure_ahead(database, datetime(2024, 11, 30, 23, 59, tzinfo=UTC)) == 0


def test_a_partition_is_made_beside_a_reader_and_a_writer_that_are_at_work(database: Database) -> None:
    ensure_partitions(database, "quotes", _us(2024, 1, 1), _us(2024, 1, 1))
    with database.transaction() as connection:
        connection.execute(text("SELECT count(*) FROM quotes"))
        write_quotes(connection, {1: Quote(datetime(2024, 1, 2, tzinfo=UTC), 1.0, 1.0, 2.0, 1.0)}, "simulator")
        assert ensure_partitions(database, "quotes", _us(2024, 2, 1), _us(2024, 2, 1)) == 1


@pytest.mark.parametrize("last_us", [_us(2199, 1, 1), 2**62, 253_402_300_799_000_000])
def test_a_range_no_market_has_is_refused_and_makes_nothing(database: Database, last_us: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"years|no such time"):
        ensure_partitions(database, "bars", _us(1970, 1, 1), last_us)
    assert _partitions(database) == []
