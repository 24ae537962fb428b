"""Gap algebra: expected session time minus coverage gives windows, and windows are cut into job-sized chunks.

Sets of time are ``Spans``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import numpy as np

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import Schedule, Times
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.spans import Spans, intersect, merge, subtract

#: The algebra of spans is part of this page for those who call it.
__all__ = [
    "Spans",
    "chunks",
    "intersect",
    "merge",
    "missing",
    "settled_before",
    "spans_of",
    "subtract",
    "untraded",
    "windows_of",
]


def spans_of(windows: Iterable[TimeWindow]) -> Spans:
    """Windows, in any order and overlapping or not, as spans."""
    return merge(np.array([(to_us(w.start), to_us(w.end)) for w in windows], dtype=np.int64))


def windows_of(spans: Spans) -> list[TimeWindow]:
    """Spans as windows, in time order."""
    return [TimeWindow(start=from_us(start), end=from_us(end)) for start, end in spans.tolist()]


def missing(expected_us: Times, ends_us: Times, covered: Spans) -> Spans:
    """The expected intervals ``[expected_us[i], ends_us[i])`` (sorted) that do not lie wholly in ``covered``.

    A run of missing intervals that follow one another in the expected list is one span, from the first one's start
    to the last one's end, across the night or the weekend between them: five missing sessions are one window.
    """
    if not len(expected_us):
        return np.empty((0, 2), dtype=np.int64)
    covered = merge(covered)
    held = np.searchsorted(covered[:, 0], expected_us, side="right") - 1
    reach = np.append(covered[:, 1], np.iinfo(np.int64).min)[held]  # held -1: nothing covered before
    lacking = np.append(reach < ends_us, False)
    edges = np.flatnonzero(np.diff(lacking, prepend=False))
    return np.column_stack([expected_us[edges[::2]], ends_us[edges[1::2] - 1]])


def untraded(whole: Calendar, kept: Calendar, window: TimeWindow, interval: Interval) -> Times:
    """Starts of the intervals that ``whole`` expects in the window and ``kept``, a part of it, does not: a halt, or
    what people shut. Free where the two are one calendar, as they nearly always are.
    """
    if kept is whole:
        return np.empty(0, dtype=np.int64)
    return np.setdiff1d(whole.expected(window, interval), kept.expected(window, interval), assume_unique=True)


def settled_before(calendar: Calendar, interval: Interval, settled_at: datetime) -> datetime:
    """Intervals that start before this had ended by ``settled_at``: their bars are final, their silence is verified.

    Intraday that is the clock's grid; daily it is the label of the first session that had not closed by then.
    """
    if interval is not Interval.D1:
        step_us = interval.seconds * 1_000_000
        return from_us(to_us(settled_at) // step_us * step_us)
    until = min(settled_at + timedelta(days=15), calendar.horizon)
    if until <= settled_at:  # beyond what the calendar knows: whatever it knows of has closed long ago
        return settled_at
    labels = calendar.expected(TimeWindow(start=settled_at - timedelta(days=15), end=until), interval)
    open_still = labels[calendar.interval_end(labels, interval) > to_us(settled_at)]
    return from_us(int(open_still[0])) if len(open_still) else settled_at


def chunks(window: TimeWindow, calendar: Calendar, interval: Interval, minutes: int) -> list[TimeWindow]:
    """Job-sized windows that tile ``window`` exactly, in time order: what lies outside sessions belongs to one too,
    as bars of extended hours are stored as well.

    Each holds at most ``minutes`` session minutes (daily: sessions), but always one interval. Cuts are made where a
    session's first interval starts, so that whole sessions stay together; a session is cut, on the interval's grid,
    only when it does not fit alone. Raises InvalidRequestError for minutes < 1 and beyond the calendar's horizon.
    """
    if minutes < 1:
        raise InvalidRequestError(f"chunks of {minutes} minutes: give at least one", field="minutes")
    start, end = to_us(window.start), to_us(window.end)
    schedule = calendar.schedule(start, end)
    if interval is Interval.D1:
        labels = schedule.labels[slice(*np.searchsorted(schedule.labels, [start, end]))]
        cuts = labels[minutes::minutes].tolist()
    else:
        cuts = _cuts(schedule, (start, end), interval.seconds * 1_000_000, minutes * 60_000_000)
    return windows_of(np.column_stack([[start, *cuts], [*cuts, end]]))


def _cuts(schedule: Schedule, bounds_us: tuple[int, int], step_us: int, most_us: int) -> list[int]:
    """Where to cut so that no chunk trades longer than ``most_us``; greedy, from the start."""
    fences = schedule.opens // step_us * step_us
    traded_at_fence = schedule.traded_us(fences)
    traded, traded_at_end = schedule.traded_us(np.array(bounds_us)).tolist()
    cuts: list[int] = []
    while traded_at_end - traded > most_us:
        reach = schedule.reach_us(traded + most_us)
        fence = int(np.searchsorted(fences, reach, side="right")) - 1
        if fence >= 0 and traded_at_fence[fence] > traded:
            at = int(fences[fence])
        else:
            at = reach // step_us * step_us
            if schedule.traded_us(at) <= traded:  # less than one interval fits: it goes whole
                at += step_us
        traded = int(schedule.traded_us(at))
        if traded >= traded_at_end:
            break
        cuts.append(at)
    return cuts
