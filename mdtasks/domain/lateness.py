"""Lateness: how far a series lags behind its market, in time in which its exchange traded. Pure.

A series is as fresh as ``fresh_until``: the nominal end of its newest interval that has a bar or is covered. Breaks,
early closes, holidays and nights are not time, and while an exchange is shut its series are not looked at. The lateness
of thousands of series is decided by one comparison each: ``mark`` turns what a lag may be into the moment before
which ``fresh_until`` is too old, which is the same for every series of an exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np

from mdtasks.domain import sessions
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import Schedule
from mdtasks.domain.sessions import Calendar

#: Nothing is older than this: where so little was traded yet that nothing can be late.
NEVER: Final = datetime(1, 1, 1, tzinfo=UTC)
#: A lag is counted this far back: it says "for more than a year" of what was never filled.
LONGEST: Final = timedelta(days=366)
#: Sessions of a daily series that may be missing though they are due, as an intraday one may lag by 2 intervals.
_SPARE: Final = 2
#: The longest that any exchange was shut since 2010 is 12 days (XTAI); three sessions lie within this.
_BACK: Final = timedelta(days=45)
_SECOND_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a series of an interval may lag, seconds.

    ``delay_s``: the provider's own; ``settle_s``: silence becomes coverage only so long after its interval ended;
    ``cadence_s``: how often the series is asked for (0: not live); ``grace_s``: for the way through queue and store.
    """

    interval: Interval
    delay_s: float
    settle_s: float
    grace_s: float
    cadence_s: float = 0.0

    @property
    def trading_s(self) -> float:
        """An intraday series is late when it lags by more than this, in trading time."""
        waiting_s = max(0.0, self.cadence_s - self.interval.seconds)
        return 2 * self.interval.seconds + self.due_after_s + waiting_s

    @property
    def due_after_s(self) -> float:
        """A session's bars are due so long after its close, by the clock."""
        return self.delay_s + self.settle_s + self.grace_s


@dataclass(frozen=True, slots=True)
class Mark:
    """An exchange at a moment at which it trades.

    ``session``: the label of its session. ``due_from``: a series listed on that day is due from then on.
    A series whose ``fresh_until`` lies before ``late_before`` is late, and no other is.
    """

    session: date
    due_from: datetime
    late_before: datetime


def mark(calendar: Calendar, allowance: Allowance, now: datetime) -> Mark | None:
    """Where the exchange stands at ``now``; None when it is shut: then nothing of it is looked at.

    Intraday a series is late when more than ``allowance.trading_s`` was traded between its ``fresh_until`` and
    ``now``. A daily one when more than two sessions are due whose labels are not before its ``fresh_until``.
    Raises InvalidRequestError beyond the calendar's horizon.
    """
    session = calendar.session_of(now)
    if session is None or not calendar.is_open(now):
        return None
    if allowance.interval is not Interval.D1:
        # One microsecond more than may be: what lags by just that is not late.
        since = calendar.since(to_us(now), round(allowance.trading_s * _SECOND_US) + 1)
        return Mark(session.label, session.open, NEVER if since == sessions.NEVER else from_us(since + 1))
    schedule = calendar.schedule(to_us(now - _BACK), to_us(now))
    label = datetime(session.label.year, session.label.month, session.label.day, tzinfo=UTC)
    return Mark(session.label, label, _daily_late_before(schedule, to_us(now), allowance))


def _daily_late_before(schedule: Schedule, now_us: int, allowance: Allowance) -> datetime:
    due = int(np.searchsorted(schedule.closes + round(allowance.due_after_s * _SECOND_US), now_us))
    # The third last due session: a series that lacks it lacks the two after it as well.
    return NEVER if due <= _SPARE else from_us(int(schedule.labels[due - _SPARE - 1]) + 1)


def lags_s(calendar: Calendar, interval: Interval, fresh_until: Sequence[datetime], now: datetime) -> list[float]:
    """What was traded between each ``fresh_until`` and ``now``, seconds; counted LONGEST back at most.

    Of a daily series that is the trading time since the open of the first session it lacks.
    Raises InvalidRequestError beyond the calendar's horizon.
    """
    if not fresh_until:
        return []
    now_us, first_us = to_us(now), to_us(now - LONGEST)
    since = np.maximum(np.array([to_us(each) for each in fresh_until], dtype=np.int64), first_us)
    schedule = calendar.schedule(min(int(since.min()), now_us), now_us)
    if interval is Interval.D1:
        since = np.append(schedule.opens, now_us)[np.searchsorted(schedule.labels, since)]
    lag_us = schedule.traded_us(now_us) - schedule.traded_us(np.minimum(since, now_us))
    return [float(each) / _SECOND_US for each in lag_us]


def traded_s(calendar: Calendar, start: datetime, end: datetime) -> float:
    """Seconds of trading between two moments; 0 when the first is not before the second."""
    if start >= end:
        return 0.0
    bounds = np.array([to_us(start), to_us(end)], dtype=np.int64)
    traded = calendar.schedule(int(bounds[0]), int(bounds[1])).traded_us(bounds)
    return float(traded[1] - traded[0]) / _SECOND_US


@dataclass(frozen=True, slots=True)
class Whole:
    """A session that is over, and the time that covers it wholly: its stretches of trading, or its day."""

    session: date
    parts: tuple[TimeWindow, ...]


def last_whole(calendar: Calendar, allowance: Allowance, now: datetime) -> Whole | None:
    """The last session whose bars are due at ``now``; None when there was none in the last weeks.

    Raises InvalidRequestError beyond the calendar's horizon.
    """
    schedule = calendar.schedule(to_us(now - _BACK), to_us(now))
    due = int(np.searchsorted(schedule.closes + round(allowance.due_after_s * _SECOND_US), to_us(now)))
    if not due:
        return None
    session = schedule.session(due - 1)
    if allowance.interval is Interval.D1:
        label = datetime(session.label.year, session.label.month, session.label.day, tzinfo=UTC)
        # From the open, as far back as a halt of the whole session reaches; not before the label, where its bar begins.
        # Up to the close, as far as an answer that has settled reaches.
        return Whole(session.label, (TimeWindow(start=max(label, session.open), end=session.close),))
    edges = [session.open, *(at for pause in session.breaks for at in (pause.start, pause.end)), session.close]
    parts = zip(edges[::2], edges[1::2], strict=True)
    return Whole(session.label, tuple(TimeWindow(start=start, end=end) for start, end in parts))
