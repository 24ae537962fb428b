"""Stores with bars of many months, and policies that keep some of them for a while only."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.policy import Policy
from mdtasks.flows.deps import Deps
from mdtasks.store.bars import BarBatch, write_bars
from mdtasks.store.partitions import ensure_partitions

#: A Friday evening. Thirty days before it is 2026-10-21: months before October go.
NOW = datetime(2026, 11, 20, 22, tzinfo=UTC)
MONTHS = [datetime(2026, month, 1, tzinfo=UTC) for month in range(6, 12)]


def keeping(deps: Deps, **days: int | None) -> Deps:
    """The same process under a policy that keeps these for so many days."""
    retention = {f"{name}_days": value for name, value in days.items()}
    policy = Policy.model_validate({"retention": retention})
    return replace(deps, running=replace(deps.running, policy=policy))


def store(
    database: Database, instrument: int, interval: Interval, start: datetime, count: int = 60, *, price: float = 100.0
) -> None:
    """Write so many bars in a row, final and covered."""
    starts = to_us(start) + np.arange(count) * interval.seconds * 1_000_000
    bars = Bars.of(starts, *([price + shift] * count for shift in (0.0, 2.0, -2.0, 1.0, 10.0)))
    window = TimeWindow(start=start, end=start + timedelta(seconds=count * interval.seconds))
    ensure_partitions(database, "bars", int(starts[0]), int(starts[-1]))
    with database.transaction() as connection:
        write_bars(connection, interval, [BarBatch(instrument, bars, 2**62, [window])], "simulator", 1)


def fill(database: Database, *instruments: int) -> None:
    """An hour of minutes and ten days, of each instrument at the beginning of each month, minutes revised once."""
    for instrument in instruments:
        for month in MONTHS:
            store(database, instrument, Interval.M1, month)
            store(database, instrument, Interval.M1, month, 30, price=101.0)
            store(database, instrument, Interval.D1, month, 10)


def one(database: Database, statement: str, **values: Any) -> Any:
    """What a statement answers, one value."""
    with database.transaction() as connection:
        return connection.execute(text(statement), values).scalar_one()


def months(database: Database, interval: Interval) -> list[int]:
    """The months, by number, that have bars of an interval."""
    statement = text(
        "SELECT DISTINCT extract(month FROM ts)::int FROM bars WHERE interval = CAST(:i AS bar_interval) ORDER BY 1"
    )
    with database.transaction() as connection:
        return list(connection.execute(statement, {"i": interval.value}).scalars())


def partitions(database: Database, table: str = "bars") -> list[str]:
    """The partitions of a table, by name."""
    statement = text("SELECT CAST(inhrelid AS regclass)::text FROM pg_inherits WHERE inhparent = CAST(:t AS regclass)")
    with database.transaction() as connection:
        return sorted(connection.execute(statement, {"t": table}).scalars())
