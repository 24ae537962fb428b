"""Longer bars made of minutes, where no vendor has them: which minutes make which bar. Pure.

The minutes of sessions count, as for every bar that a calendar makes us expect: open is the first one's, close the last
one's, high and low the extremes, volume the sum. Minutes of extended hours belong to no derived bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.moments import MINUTE_US
from mdtasks.domain.schedules import DAY_US, Times
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.spans import Spans

#: Whose bars they are, where others bear a vendor's name. The least of all ranks: a vendor's bar takes its place.
PROVIDER: Final = "derived"
#: Most exchanges are never shut for longer than this, days: so far back the interval before the first is looked for.
_BACK: Final = timedelta(days=20)
#: A session's label may lie so far behind its first minute, days.
_AHEAD: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Expected intervals of one exchange, and the minutes that make them; times in microseconds since 1970, sorted.

    ``starts``, ``ends``: of the intervals, shape (n,), as ``Calendar.expected`` and ``interval_end`` have them.
    ``since``: the end on the grid of the expected interval before each: between the two nothing is expected.
    ``parts``: runs of minutes without a break, (m, 2); ``owner``: whose part each is, (m,), sorted.
    """

    starts: Times
    ends: Times
    since: Times
    parts: Spans
    owner: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.starts)

    def touched(self, changes: Spans, now_us: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which intervals that have ended hold a minute of which changes (n, 2), in any order: pairs of positions.

        An interval has ended by ``now_us``, or by the end of the change, which tells of minutes that have ended only:
        the machine that wrote it may be ahead of this one.
        """
        if not len(self):
            return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
        first = np.searchsorted(self.ends, changes[:, 0], side="right")
        begun = np.searchsorted(self._firsts(), changes[:, 1], side="left")
        ended = np.searchsorted(self.ends, np.maximum(changes[:, 1], now_us), side="right")
        counts = np.maximum(np.minimum(begun, ended) - first, 0)
        before = np.cumsum(counts) - counts
        return np.repeat(np.arange(len(changes)), counts), np.repeat(first - before, counts) + np.arange(counts.sum())

    def _firsts(self) -> Times:
        """The first minute of each interval."""
        found: Times = self.parts[np.searchsorted(self.owner, np.arange(len(self))), 0]
        return found


def slots_of(calendar: Calendar, interval: Interval, window: TimeWindow) -> Slots:
    """The intervals that the exchange's calendar expects and that hold a minute of the window.

    What lies behind the calendar's horizon is left out.
    """
    step_us = interval.seconds * 1_000_000
    start, end = to_us(window.start), to_us(window.end)
    ahead = _AHEAD if interval is Interval.D1 else timedelta(0)
    until = min(window.end + ahead, calendar.horizon)
    since = window.start - _BACK
    if until <= since:
        return _none()
    bars = calendar.expected(TimeWindow(start=since, end=until), interval)
    ends = calendar.interval_end(bars, interval)
    first = int(np.searchsorted(ends, start, side="right"))
    if first == len(bars):
        return _none()
    # From where the interval before has ended, every minute is of one of these.
    begin = int(ends[first - 1]) if first else int(bars[0]) - DAY_US
    minutes = calendar.expected(TimeWindow(start=from_us(begin), end=from_us(int(ends[-1]))), Interval.M1)
    owner = np.searchsorted(ends[first:], minutes, side="right")
    before = np.append(bars[:1], bars[:-1] + step_us)
    edges = np.flatnonzero((np.diff(minutes, prepend=-1) != MINUTE_US) | (np.diff(owner, prepend=-1) != 0))
    lasts = np.append(edges[1:], len(minutes)) - 1
    parts, owner = np.column_stack([minutes[edges], minutes[lasts] + MINUTE_US]), owner[edges]
    held = np.unique(owner[parts[:, 0] < end])  # the first to the last that hold a minute of the window
    kept = np.isin(owner, held)
    renumbered = np.searchsorted(held, owner[kept])
    return Slots(bars[first:][held], ends[first:][held], before[first:][held], parts[kept], renumbered)


def _none() -> Slots:
    empty = np.empty(0, dtype=np.int64)
    return Slots(empty, empty, empty, np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.intp))
