"""What people read of the bars beside the bars: which series there are, and what was kept out. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.jobs import Interval, TimeWindow

_SQL: Final = load_statements("mdtasks.store.sql", "bar_reports.sql")


@dataclass(frozen=True, slots=True)
class BarCount:
    """How many bars of an instrument there are, from which to which start, and how many of them provisional."""

    bars: int
    first_at: datetime
    last_at: datetime
    provisional: int


@dataclass(frozen=True, slots=True)
class NewestBar:
    """The newest bar of an instrument and interval, as the store has it."""

    symbol: str
    interval: str
    ts: datetime
    close: float
    provider: str
    final: bool
    known_at: datetime


def bar_counts(connection: Connection, instrument_ids: Iterable[int], interval: Interval) -> dict[int, BarCount]:
    """How much there is of each instrument, counted; one without bars is absent."""
    about = {"instruments": list(instrument_ids), "interval": interval}
    return {instrument: BarCount(*counts) for instrument, *counts in connection.execute(_SQL["count_bars"], about)}


def newest_bars(connection: Connection, limit: int) -> list[NewestBar]:
    """The newest bar of those series that gained coverage last, by symbol and length; at most ``limit`` series."""
    return [NewestBar(*row) for row in connection.execute(_SQL["newest_bars"], {"limit": limit})]


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


def rejected(
    connection: Connection,
    instrument_id: int,
    interval: Interval,
    window: TimeWindow,
    as_of: datetime | None = None,
) -> list[Rejected]:
    """The quarantined bars of a series in a window that were seen, by now or by an instant; in order of time."""
    about = {"instrument": instrument_id, "interval": interval, "start": window.start, "end": window.end, "at": as_of}
    return [Rejected(*row) for row in connection.execute(_SQL["rejected"], about)]


@dataclass(frozen=True, slots=True)
class Revision:
    """A bar that was replaced: what it said, who had brought it, from when to when it was what is known; and what
    stands now, and by whom.
    """

    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    provider: str
    known_at: datetime
    superseded_at: datetime
    close_now: float
    volume_now: float
    provider_now: str


def revisions(
    connection: Connection, instrument_id: int, interval: Interval, window: TimeWindow, limit: int
) -> list[Revision]:
    """The bars of a series in a window that were replaced, those replaced last first."""
    about = {"instrument": instrument_id, "interval": interval, "start": window.start, "end": window.end}
    return [Revision(*row) for row in connection.execute(_SQL["revisions"], {**about, "limit": limit})]


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
