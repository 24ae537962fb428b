"""Market sessions: when an exchange trades, and which bars that makes us expect. Everything else asks here.

A session is labelled by its date; the UTC date of its open may be the day before (XASX). Bars are expected on the
clock grid of UTC: an interval is expected when it overlaps session time, so the first hour bar of XNYS in winter is
14:00 (09:00 in New York), though the session opens at 14:30. Vendors that label bars by clock hours (LEAN, Alpaca) say
it so, and every stored bar's start is a multiple of its interval. The alternative, a grid that starts at each open,
would move with the exchange and twice a year with its clocks.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import ConfigurationError, InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import DAY_US, NO_BREAK, Keeper, Schedule, Source, Times, source_of

_MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day of an exchange: ``label`` is its date, ``breaks`` lie inside ``[open, close)``."""

    label: date
    open: datetime
    close: datetime
    breaks: tuple[TimeWindow, ...] = ()


class Calendar:
    """When one exchange trades. Pure answers: they depend on the arguments only, never on what was asked before.

    Every method raises InvalidRequestError when it is asked about time past the ``horizon``; time before the
    calendar's first session has no sessions. Thread-safe.
    """

    def __init__(self, mic: str, source: Source) -> None:
        self.mic = mic
        self._source = source

    def __repr__(self) -> str:
        return f"Calendar({self.mic!r})"

    @property
    def horizon(self) -> datetime:
        """From here on the calendar does not know when the exchange trades."""
        return from_us(self._source.horizon_us)

    def schedule(self, start_us: int, end_us: int) -> Schedule:
        """A schedule with every session that touches ``[start_us, end_us)``, and usually many more."""
        if end_us > self._source.horizon_us:
            raise InvalidRequestError(
                f"{self.mic} is known until {self.horizon:%Y-%m-%d}, not until {from_us(end_us).isoformat()}",
                field="end",
                hint="ask for time before it, or install a newer exchange_calendars",
            )
        return self._source.covering(start_us, end_us)

    def expected(self, window: TimeWindow, interval: Interval) -> Times:
        """Starts of all expected intervals whose START lies in the half-open window, sorted, microseconds.

        Intraday: intervals on the UTC clock grid that overlap session time, so breaks are out, and one that
        holds an early close is in. Daily: the sessions' labels (00:00 UTC) that lie in the window.
        """
        start, end = to_us(window.start), to_us(window.end)
        held = self.schedule(start, end)
        if interval is Interval.D1:
            return held.labels[slice(*np.searchsorted(held.labels, [start, end]))]
        step = interval.seconds * 1_000_000
        parts = slice(
            np.searchsorted(held.part_closes, start, side="right"), np.searchsorted(held.part_opens, end + step)
        )
        first = held.part_opens[parts] // step
        after = -(-held.part_closes[parts] // step)
        first[1:] = np.maximum(first[1:], after[:-1])  # an interval that two parts share is one interval
        first = np.maximum(first, -(-start // step))
        count = np.maximum(np.minimum(after, -(-end // step)) - first, 0)
        before = np.cumsum(count) - count
        return (np.repeat(first - before, count) + np.arange(count.sum(), dtype=np.int64)) * step

    def interval_end(self, starts_us: Times, interval: Interval) -> Times:
        """When each interval ends, microseconds, shape of ``starts_us``: the next point of the grid, or the close
        (or break) of the session part it lies in when that comes first. Daily: the close of the session of that
        label. Intervals outside sessions (extended hours) end on the grid; daily ones after 24 hours.
        """
        starts = np.asarray(starts_us, dtype=np.int64)
        ends: Times = starts + interval.seconds * 1_000_000
        if not starts.size:
            return ends
        held = self.schedule(int(starts.min()), int(ends.max()))
        if interval is Interval.D1:
            found = np.searchsorted(held.labels, starts)
            known = np.append(held.labels, NO_BREAK)[found] == starts
            return np.where(known, np.append(held.closes, NO_BREAK)[found], ends)
        part = np.searchsorted(held.part_opens, ends) - 1  # the last part that opens before the interval's end
        closes = np.append(held.part_closes, NO_BREAK)[part]  # part -1: before the first session
        return np.where(closes > starts, np.minimum(closes, ends), ends)

    def sessions(self, window: TimeWindow) -> list[Session]:
        """The sessions that overlap the window, in time order."""
        held = self.schedule(to_us(window.start), to_us(window.end))
        first = np.searchsorted(held.closes, to_us(window.start), side="right")
        return [_session(held, i) for i in range(int(first), int(np.searchsorted(held.opens, to_us(window.end))))]

    def last_sessions(self, n: int, now: datetime, interval: Interval = Interval.M1) -> TimeWindow:
        """From the first interval of the n-th last session that has started, up to ``now``.

        That is its open, on the interval's grid (daily: its label, so sessions count whose label has passed too).
        A calendar with fewer sessions gives all there are.
        Raises InvalidRequestError for n < 1, and when no session has started.
        """
        if n < 1:
            raise InvalidRequestError(f"{n} sessions: ask for at least one", field="sessions")
        until, days, step = to_us(now), n * 2 + 30, interval.seconds * 1_000_000
        while True:
            since = max(until - days * DAY_US, self._source.first_us)
            held = self.schedule(since, until)
            begun = held.opens if interval is not Interval.D1 else np.maximum(held.opens, held.labels)
            started = int(np.searchsorted(begun, until))
            if started >= n or since <= self._source.first_us:
                break
            days *= 4
        if not started:
            raise InvalidRequestError(f"{self.mic} has no session before {now.isoformat()}", field="sessions")
        starts = held.labels if interval is Interval.D1 else held.opens // step * step
        return TimeWindow(start=from_us(int(starts[max(started - n, 0)])), end=now)

    def session_of(self, at: datetime) -> Session | None:
        """The session whose ``[open, close)`` holds ``at``, breaks included; None when the exchange is shut."""
        at_us = to_us(at)
        held = self.schedule(at_us, at_us)
        i = int(np.searchsorted(held.opens, at_us, side="right")) - 1
        return _session(held, i) if i >= 0 and at_us < held.closes[i] else None

    def is_open(self, at: datetime) -> bool:
        """Whether the exchange trades at ``at``: the minute of the open yes, of the close or in a break no."""
        at_us = to_us(at)
        held = self.schedule(at_us, at_us)
        i = int(np.searchsorted(held.part_opens, at_us, side="right")) - 1
        return i >= 0 and bool(at_us < held.part_closes[i])

    def session_minutes(self, window: TimeWindow) -> int:
        """Whole minutes of trading in the window."""
        start, end = to_us(window.start), to_us(window.end)
        traded = self.schedule(start, end).traded_us(np.array([start, end]))
        return int(traded[1] - traded[0]) // _MINUTE_US


class Calendars:
    """The calendars of a process, one instance for each exchange. Thread-safe.

    ``keeper``: where years are kept between processes; without one each process asks the library.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._calendars: dict[str, Calendar] = {}

    def get(self, mic: str) -> Calendar:
        """The calendar of an exchange by its MIC or another of its names (XNAS trades as XNYS), or of ``24/7``.

        Loads no session yet. Raises InvalidRequestError with field ``mic`` and the nearest names for an unknown one.
        """
        with self._lock:
            if mic not in self._calendars:
                name, source = source_of(mic, self._keeper)
                self._calendars[mic] = self._calendars.setdefault(name, Calendar(name, source))
            return self._calendars[mic]


def _session(held: Schedule, i: int) -> Session:
    pause = held.break_starts[i] != NO_BREAK
    breaks = (TimeWindow(start=from_us(held.break_starts[i]), end=from_us(held.break_ends[i])),) if pause else ()
    return Session(from_us(held.labels[i]).date(), from_us(held.opens[i]), from_us(held.closes[i]), breaks)


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

    Raises ConfigurationError that names the first session that is wrong.
    """
    for mic, day, *times in KNOWN_SESSIONS:
        label = datetime.fromisoformat(f"{day}T00:00+00:00")
        window = TimeWindow(start=label, end=label + timedelta(days=1))
        found = [s for s in calendars.get(mic).sessions(window) if s.label == label.date()]
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
