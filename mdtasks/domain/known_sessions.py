"""The self-test of calendars: sessions that are known for certain, and what else the library says of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from mdtasks.domain.errors import ConfigurationError
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.sessions import Calendars

#: Calendar and day, then in UTC the open, close, and the break's start and end; a day alone was no session.
#: XNYS: Thanksgiving, an early close, the Friday and the Monday around a change of clocks. XHKG: a lunch break, a half
#: day, New Year. XBOM: a Saturday of trading, the kind of session that the library loses in silence with pandas 3.1.
KNOWN_SESSIONS: Final[tuple[tuple[str, ...], ...]] = (
    ("XNYS", "2019-11-28"),
    ("XNYS", "2019-11-29", "14:30", "18:00"),
    ("XNYS", "2021-03-12", "14:30", "21:00"),
    ("XNYS", "2021-03-13"),
    ("XNYS", "2021-03-15", "13:30", "20:00"),
    ("XHKG", "2021-02-10", "01:30", "08:00", "04:00", "05:00"),
    ("XHKG", "2021-02-11", "01:30", "04:00"),
    ("XHKG", "2021-02-12"),
    ("XBOM", "2025-02-01", "03:45", "10:00"),
    ("24/7", "2021-02-13", "00:00", "24:00"),
)


def verify(calendars: Calendars) -> None:
    """Ask for known sessions, as a library that loses sessions does not say so. Workers run it at their start.

    It is the library that is asked: what people have changed of a calendar is no fault of it.

    Raises ConfigurationError that names the first session that is wrong.
    """
    for mic, day, *times in KNOWN_SESSIONS:
        label = datetime.fromisoformat(f"{day}T00:00+00:00")
        window = TimeWindow(start=label, end=label + timedelta(days=1))
        found = [s for s in calendars.plain(mic).sessions(window) if s.label == label.date()]
        said = [[s.open, s.close, *(at for pause in s.breaks for at in (pause.start, pause.end))] for s in found]
        true = [[label + _since_midnight(time) for time in times]] if times else []
        if said != true:
            raise ConfigurationError(
                f"the calendar of {mic} is wrong on {day}: {_spoken(said)} instead of {_spoken(true)}",
                hint="check the installed versions: exchange_calendars 4.13 needs pandas below 3.1",
            )


def _since_midnight(time: str) -> timedelta:
    hours, minutes = time.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes))


def _spoken(sessions: list[list[datetime]]) -> str:
    return "; ".join(", ".join(f"{at:%Y-%m-%d %H:%MZ}" for at in times) for times in sessions) or "no session"
