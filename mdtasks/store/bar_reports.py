"""What people read of the bars beside the bars: which series there are, and what was kept out. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.jobs import Interval, TimeWindow

_SQL: Final = load_statements("mdtasks.store.sql", "bar_reports.sql")


@dataclass(frozen=True, slots=True)
class Series:
    """An interval of which an instrument has bars, and the starts of the first and the last."""

    interval: Interval
    first_at: datetime
    last_at: datetime


def stored_series(connection: Connection, instrument_id: int) -> list[Series]:
    """The intervals of which an instrument has bars, the shortest first."""
    rows = connection.execute(_SQL["stored_series"], {"instrument": instrument_id})
    return [Series(Interval(row.interval), row.first_at, row.last_at) for row in rows]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A bar of a series that broke a rule: its time, the rule, who brought it, and when it was first seen."""

    ts: datetime
    reason: str
    provider: str
    seen_at: datetime


def rejected(connection: Connection, instrument_id: int, interval: Interval, window: TimeWindow) -> list[Rejected]:
    """The quarantined bars of a series in a window, in order of time."""
    about = {"instrument": instrument_id, "interval": interval, "start": window.start, "end": window.end}
    return [Rejected(*row) for row in connection.execute(_SQL["rejected"], about)]


@dataclass(frozen=True, slots=True)
class QuarantineFilter:
    """Which quarantined bars. ``symbols`` empty: of all."""

    symbols: Sequence[str] = ()
    interval: Interval | None = None
    provider: str | None = None
    since: datetime | None = None


def quarantined(connection: Connection, which: QuarantineFilter, limit: int) -> list[dict[str, Any]]:
    """Bars that broke a rule, as plain rows, those seen last first.

    ``bar``: the values as they came, numbers that JSON has no word for as text. A bad bar that comes again is kept
    once: ``attempt_id`` and ``job_id`` are those that brought it first.
    """
    rows = connection.execute(
        _SQL["quarantined"],
        {
            "symbols": list(which.symbols) or None,
            "interval": which.interval,
            "provider": which.provider,
            "since": which.since,
            "limit": limit,
        },
    )
    return [dict(row._mapping) for row in rows]
