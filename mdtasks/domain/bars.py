"""Bars and quotes as values: columns of one instrument and interval, and the rules a batch must satisfy.

A bar is stamped with the START of its interval in UTC. A daily bar's interval is its session; it is stamped with
the session's label at 00:00 UTC, as exchange_calendars labels sessions, because the UTC date of an open is not
always the session's date (XASX opens on the evening before). Prices are raw, as the provider gave them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.jobs import Interval, TimeWindow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(at: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exactly. Raises ValueError on a naive datetime."""
    if at.tzinfo is None:
        raise ValueError(f"{at!r} is naive: give it a time zone")
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds  # a third of what dividing costs


def from_us(us: int) -> datetime:
    """The aware UTC datetime of ``us`` microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=int(us))


class BarStatus(StrEnum):
    """provisional: the provider may still change it; final: asked for after the settle delay."""

    PROVISIONAL = "provisional"
    FINAL = "final"


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Bars of one instrument and interval as columns, each of shape (n,).

    ``ts_us``: int64, interval start, microseconds since 1970 UTC. Prices and volume: float64, raw.
    """

    ts_us: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ts_us)

    @property
    def columns(self) -> tuple[NDArray[np.float64], ...]:
        """open, high, low, close, volume."""
        return (self.open, self.high, self.low, self.close, self.volume)

    @classmethod
    def empty(cls) -> Bars:
        return cls.of([], [], [], [], [], [])

    @classmethod
    def of(  # noqa: PLR0917 - the columns, in their one order
        cls,
        ts_us: Sequence[int] | NDArray[np.int64],
        open: Sequence[float] | NDArray[np.float64],  # noqa: A002 - the field's name
        high: Sequence[float] | NDArray[np.float64],
        low: Sequence[float] | NDArray[np.float64],
        close: Sequence[float] | NDArray[np.float64],
        volume: Sequence[float] | NDArray[np.float64],
    ) -> Bars:
        """Columns from any sequences. Raises ValueError when their lengths differ."""
        ts = np.ascontiguousarray(ts_us, dtype=np.int64)
        floats = [np.ascontiguousarray(c, dtype=np.float64) for c in (open, high, low, close, volume)]
        if any(len(c) != len(ts) for c in floats):
            raise ValueError(f"columns differ in length: ts {len(ts)}, others {[len(c) for c in floats]}")
        return cls(ts, *floats)

    def take(self, index: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Bars:
        """The bars at ``index`` (mask, positions or slice), in that order."""
        return Bars(self.ts_us[index], *(c[index] for c in self.columns))

    def within(self, window: TimeWindow) -> Bars:
        """The bars whose start lies in the half-open window."""
        return self.take((self.ts_us >= to_us(window.start)) & (self.ts_us < to_us(window.end)))

    @classmethod
    def concat(cls, parts: Iterable[Bars]) -> Bars:
        parts = list(parts)
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([p.ts_us for p in parts]),
            *(np.concatenate([p.columns[i] for p in parts]) for i in range(5)),
        )


@dataclass(frozen=True, slots=True)
class Quote:
    """The best bid and ask of one instrument at ``ts``. A side may be missing (None)."""

    ts: datetime
    bid: float | None
    bid_size: float | None
    ask: float | None
    ask_size: float | None


@dataclass(frozen=True, slots=True)
class RejectedBar:
    """A bar that was not stored, with the first rule it broke."""

    ts_us: int
    reason: str
    open: float
    high: float
    low: float
    close: float
    volume: float


def validated(bars: Bars, window: TimeWindow, interval: Interval) -> tuple[Bars, list[RejectedBar]]:
    """Split a provider's bars into those fit to store, in time order, and those to quarantine.

    Rules, in the order they are tried: ``not_finite`` (NaN, infinity), ``outside_window`` (start not in the half-open
    window asked for), ``misaligned`` (start not on the interval's grid; daily: not midnight UTC), ``negative_volume``,
    ``high_below_low``, ``duplicate`` (a later bar of the same start; the first is kept). An open or close beyond high
    and low is stored as it came: vendors' opens may be prints that their highs and lows leave out (Yahoo's SPY of
    2015-03-05 and 2015-03-30), and quarantining such a bar would leave a hole that no vendor can fill.
    """
    values = np.vstack(bars.columns) if len(bars) else np.empty((5, 0))
    _, high, low, _, volume = values
    step_us = interval.seconds * 1_000_000
    first_seen = np.zeros(len(bars), dtype=bool)
    rules = {
        "not_finite": ~np.isfinite(values).all(axis=0),
        "outside_window": (bars.ts_us < to_us(window.start)) | (bars.ts_us >= to_us(window.end)),
        "misaligned": bars.ts_us % step_us != 0,
        "negative_volume": volume < 0,
        "high_below_low": high < low,
    }
    names = [*rules, "duplicate"]
    broken = np.full(len(bars), -1)
    for number, mask in reversed(list(enumerate(rules.values()))):
        broken[mask] = number
    sound = np.flatnonzero(broken == -1)
    first_seen[sound[np.unique(bars.ts_us[sound], return_index=True)[1]]] = True
    broken[(broken == -1) & ~first_seen] = names.index("duplicate")
    good = bars.take(broken == -1)
    rejected = [
        RejectedBar(int(bars.ts_us[i]), names[broken[i]], *(float(c[i]) for c in bars.columns))
        for i in np.flatnonzero(broken >= 0)
    ]
    return good.take(np.argsort(good.ts_us, kind="stable")), rejected
