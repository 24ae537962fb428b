"""Which intervals of an instrument are over: those of its exchange's sessions within the listing's life."""

from __future__ import annotations

from datetime import datetime

from mdtasks.domain.bars import to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import Times
from mdtasks.domain.sessions import Calendar
from mdtasks.store.reference import Instrument


def ended_intervals(
    member: Instrument,
    calendar: Calendar,
    window: TimeWindow,
    interval: Interval,
    now: datetime,
    *,
    since: datetime | None = None,
) -> tuple[Times, Times]:
    """Starts and ends of the intervals expected by ``calendar`` that start in the window and have ended, within the
    listing's life. ``since``: what is older was deleted, or will be, and nobody expects it.
    """
    starts = calendar.expected(window, interval)
    ends = calendar.interval_end(starts, interval)
    kept = ends <= to_us(now)
    if since is not None:
        kept &= starts >= to_us(since)
    for day, sign in ((member.listed_from, 1), (member.delisted_on, -1)):
        if day is not None:
            midnight_us = to_us(datetime.fromisoformat(f"{day}T00:00+00:00"))
            kept &= starts >= midnight_us if sign > 0 else starts < midnight_us
    return starts[kept], ends[kept]
