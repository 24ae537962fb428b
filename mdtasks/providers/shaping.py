"""What a source's rows become before they leave an adapter: bars that bear our labels, lie in the window and ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.jobs import Interval
from mdtasks.domain.sessions import Calendar
from mdtasks.providers.wallclock import DAY_US, SECOND_US, utc_to_local

NEW_YORK: Final = "America/New_York"


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


def in_order(bars: Bars) -> Bars:
    """The bars in time order; of equal times, which validation names, in the order they came."""
    if (np.diff(bars.ts_us) < 0).any():
        return bars.take(np.argsort(bars.ts_us, kind="stable"))
    return bars
