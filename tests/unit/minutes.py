"""Trading minute by minute, by brute force: what questions to calendars are held against."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import strategies as st

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.sessions import Calendar

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
#: Where rules differ most: DST and early closes, lunch breaks, labels of the day after, Sundays, half hours, always.
KINDS = ["XNYS", "XHKG", "XTKS", "XASX", "XTAE", "XBOM", "24/5", "24/7"]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(start: str, end: str) -> TimeWindow:
    return TimeWindow(start=at(start), end=at(end))


def minutes_of(calendar: Calendar, window: TimeWindow) -> list[int]:
    """Every minute of trading whose start lies in the window, one by one, microseconds."""
    step = 60_000_000
    found = [np.empty(0, dtype=np.int64)]
    for session in calendar.sessions(TimeWindow(start=window.start - DAY, end=window.end + DAY)):
        minutes = np.arange(to_us(session.open), to_us(session.close), step)
        for pause in session.breaks:
            minutes = np.setdiff1d(minutes, np.arange(to_us(pause.start), to_us(pause.end), step), assume_unique=True)
        found.append(minutes)
    every = np.unique(np.concatenate(found))
    inside: list[int] = every[(every >= to_us(window.start)) & (every < to_us(window.end))].tolist()
    return inside


def minutes_traded(calendar: Calendar, window: TimeWindow) -> list[datetime]:
    """The same as times."""
    return [from_us(us) for us in minutes_of(calendar, window)]


@st.composite
def windows(draw: st.DrawFn, days: int = 5) -> TimeWindow:
    """Windows on whole minutes around changes of clocks, turns of the year and holidays, and anywhere."""
    landmarks = ["2021-03-12", "2021-11-05", "2019-11-27", "2020-12-30", "2021-02-10", "2019-10-04", "2022-12-30"]
    start = at(draw(st.sampled_from(landmarks))) + draw(st.integers(-3 * 1440, 3 * 1440)) * MINUTE
    return TimeWindow(start=start, end=start + draw(st.integers(1, days * 1440)) * MINUTE)
