"""What a source's rows become before they leave an adapter: bars that bear our labels, lie in the window and ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendar
from mdtasks.providers.wallclock import DAY_US, SECOND_US, utc_to_local

NEW_YORK: Final = "America/New_York"
#: No exchange rests longer.
_LONGEST_BREAK: Final = timedelta(days=30)


def session_labels(ts_us: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """The date that each time falls on in the zone, as its 00:00 UTC, shape (n,).

    Vendors stamp a daily bar with midnight, or with the open, on the exchange's clock.
    """
    return utc_to_local(ts_us, zone) // DAY_US * DAY_US


def ended(bars: Bars, interval: Interval, calendar: Callable[[], Calendar], now: datetime) -> Bars:
    """The bars whose interval is over at ``now``. The calendar is asked only about those that may be under way."""
    now_us = to_us(now)
    over = bars.ts_us + interval.seconds * SECOND_US <= now_us
    under_way = ~over & (bars.ts_us < now_us)
    if under_way.any():  # a daily bar ends at the close, an hour bar at an early close
        over[under_way] = calendar().interval_end(bars.ts_us[under_way], interval) <= now_us
    return bars if over.all() else bars.take(over)


def session_from(calendar: Calendar, day: date) -> date:
    """The first session on or after a date."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    labels = calendar.expected(TimeWindow(start=start, end=start + _LONGEST_BREAK), Interval.D1)
    return from_us(int(labels[0])).date() if len(labels) else day


def shortest(value: float, within: float) -> float:
    """The number with the fewest decimals that is as near as ``within``: what a source meant that rounded its factors.
    The value itself, to ten decimals, where none with up to six is.
    """
    return next((short for n in range(2, 7) if abs((short := round(value, n)) - value) <= within), round(value, 10))


def in_order(bars: Bars) -> Bars:
    """The bars in time order; of equal times, which validation names, in the order they came."""
    if (np.diff(bars.ts_us) < 0).any():
        return bars.take(np.argsort(bars.ts_us, kind="stable"))
    return bars
