"""Market sessions: when an exchange trades, and which bars that makes us expect. Everything else asks here.

A session is labelled by its date; the UTC date of its open may be the day before (XASX). Bars are expected on the
clock grid of UTC: an interval is expected when it overlaps session time, so the first hour bar of XNYS in winter is
14:00 (09:00 in New York), though the session opens at 14:30. Vendors that label bars by clock hours (LEAN, Alpaca) say
it so, and every stored bar's start is a multiple of its interval. The alternative, a grid that starts at each open,
would move with the exchange and twice a year with its clocks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.library import Keeper, source_of
from mdtasks.domain.moments import MINUTE_US, Moments, daily_ends
from mdtasks.domain.overrides import NO_OVERRIDES, Overrides
from mdtasks.domain.schedules import DAY_US, NO_BREAK, Session, Shut, Times
from mdtasks.domain.spans import NO_TIME, Spans

#: What ``since`` answers when the calendar has not traded that long: before all time.
NEVER: Final = NO_BREAK


class Calendar(Moments):
    """When one exchange trades. Pure answers: they depend on the arguments only, never on what was asked before.

    Every method raises InvalidRequestError when it is asked about time past the ``horizon``; time before the
    calendar's first session has no sessions. Thread-safe.
    """

    def __repr__(self) -> str:
        return f"Calendar({self.mic!r})"

    def without(self, shut: Spans) -> Calendar:
        """This calendar less the time of ``shut``, which counts as closed then; itself when there is none."""
        return Calendar(self.mic, Shut(self._source, shut)) if len(shut) else self

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

    def ended_until(self, now: datetime, interval: Interval) -> datetime:
        """The point of the interval's grid before which every interval has ended at ``now``: the start of the first
        expected one under way, and without one the end of the last. Daily: 00:00 UTC of the session under way, or of
        the day after one that has closed today. Looks back a few days only.
        """
        now_us, step = to_us(now), interval.seconds * 1_000_000
        begun = TimeWindow(start=from_us(now_us - 10 * DAY_US), end=from_us(-(-now_us // step) * step))
        starts = self.expected(begun, interval)
        under_way = starts[self.interval_end(starts, interval) > now_us]
        if len(under_way):
            return from_us(int(under_way[0]))
        floor = now_us // step * step
        return from_us(max(floor, int(starts[-1]) + step) if len(starts) else floor)

    def sessions(self, window: TimeWindow) -> list[Session]:
        """The sessions that overlap the window, in time order."""
        held = self.schedule(to_us(window.start), to_us(window.end))
        first = np.searchsorted(held.closes, to_us(window.start), side="right")
        return [held.session(i) for i in range(int(first), int(np.searchsorted(held.opens, to_us(window.end))))]

    def last_sessions(self, n: int, now: datetime, interval: Interval = Interval.M1) -> TimeWindow:
        """From the first interval of the n-th last session that has started, up to ``now``.

        That is its open, on the interval's grid (daily: its label, so sessions count whose label has passed too).
        A calendar with fewer sessions gives all there are.
        Raises InvalidRequestError for n < 1, and when no session has started.
        """
        if n < 1:
            raise InvalidRequestError(f"{n} sessions: ask for at least one", field="sessions", hint="such as 5")
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
            raise InvalidRequestError(
                f"{self.mic} has no session before {now.isoformat()}", field="sessions", hint="ask for a later time"
            )
        starts = held.labels if interval is Interval.D1 else held.opens // step * step
        return TimeWindow(start=from_us(int(starts[max(started - n, 0)])), end=now)

    def align(self, at_us: Times) -> Times:
        """``align_minute`` of many moments at once, shape of ``at_us``."""
        at = np.asarray(at_us, dtype=np.int64)
        if not at.size:
            return at.copy()
        first = int(at.min())
        held = self._reaching_back(first + 1, int(at.max()))
        part = np.searchsorted(held.part_opens, at, side="right") - 1
        if not len(held.part_opens) or held.part_opens[0] > first:
            raise self._before_all(first)
        aligned: Times = np.minimum(at, (held.part_closes - 1)[part])
        aligned //= MINUTE_US
        aligned *= MINUTE_US
        return aligned

    def are_open(self, at_us: Times) -> NDArray[np.bool_]:
        """``is_open`` of many moments at once, shape of ``at_us``."""
        at = np.asarray(at_us, dtype=np.int64)
        if not at.size:
            return np.zeros(at.shape, dtype=bool)
        held = self.schedule(int(at.min()), int(at.max()))
        edges = np.column_stack([held.part_opens, held.part_closes]).ravel()
        found: NDArray[np.bool_] = np.searchsorted(edges, at, side="right") & 1 == 1
        return found

    def elapsed_each(self, last_us: Times, now_us: int, interval: Interval) -> NDArray[np.float64]:
        """``elapsed`` from each of many moments until one, shape of ``last_us``. The oldest decides which years are
        loaded: whoever has series without any bar asks ``since`` or ``sessions_back`` and compares.
        """
        last = np.maximum(np.asarray(last_us, dtype=np.int64), self._source.first_us)
        if not last.size:
            return np.zeros(last.shape)
        held = self.schedule(min(int(last.min()), now_us), now_us)
        if interval is Interval.D1:
            over = daily_ends(held)
            behind: Times = np.searchsorted(over, now_us, side="right") - np.searchsorted(over, last, side="right")
            return np.maximum(behind, 0).astype(np.float64)
        traded: Times = held.traded_us(now_us) - held.traded_us(last)
        steps: NDArray[np.float64] = np.maximum(traded, 0) / (interval.seconds * 1_000_000)
        return steps

    def since(self, now_us: int, traded_us: int) -> int:
        """The latest moment, not after ``now_us``, from which until now ``traded_us`` or more was traded.

        The inverse of ``elapsed``: a series that ends at or before it lacks that much, one that ends later lacks less.
        NEVER when the calendar has not traded that long. Raises ValueError for less than 0.
        """
        if traded_us < 0:
            raise ValueError(f"{traded_us} us: trading time is not negative")
        reach_us = 4 * traded_us + 15 * DAY_US
        while True:
            start = max(now_us - reach_us, self._source.first_us)
            held = self.schedule(min(start, now_us), now_us)
            at_traded = int(held.traded_us(now_us)) - traded_us
            if at_traded >= 0:
                return min(held.reach_us(at_traded), now_us)
            if start == self._source.first_us:
                return NEVER
            reach_us *= 4

    def sessions_back(self, now_us: int, n: int) -> int:
        """``since`` for daily bars: the latest moment after which ``n`` sessions or more have closed until now.

        A series whose newest label, plus 24 hours, is at or before it lacks ``n`` daily bars, one that ends later
        lacks fewer. NEVER when there were not so many. Raises ValueError for n < 1.
        """
        if n < 1:
            raise ValueError(f"{n} sessions: at least one")
        days = 2 * n + 30
        while True:
            start = max(now_us - days * DAY_US, self._source.first_us)
            over = daily_ends(self.schedule(min(start, now_us), now_us))
            closed = int(np.searchsorted(over, now_us, side="right"))
            if closed >= n:
                return int(over[closed - n]) - 1
            if start == self._source.first_us:
                return NEVER
            days *= 4

    def session_minutes(self, window: TimeWindow) -> int:
        """Whole minutes of trading in the window."""
        start, end = to_us(window.start), to_us(window.end)
        traded = self.schedule(start, end).traded_us(np.array([start, end]))
        return int(traded[1] - traded[0]) // MINUTE_US


class _Version:
    """The calendars of one version of the overrides. Filled as they are asked for; replaced, never changed."""

    def __init__(self, overrides: Overrides) -> None:
        self.overrides = overrides
        self.calendars: dict[str, Calendar] = {}
        self.halted: dict[int, Calendar] = {}


class Calendars:
    """The calendars of a process, one instance for each exchange. Thread-safe.

    ``keeper``: where years are kept between processes; without one each process asks the library.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._plain: dict[str, Calendar] = {}
        self._now = _Version(NO_OVERRIDES)

    @property
    def overrides(self) -> Overrides:
        """The overrides that hold."""
        return self._now.overrides

    def apply(self, overrides: Overrides) -> None:
        """Let these overrides hold in place of those before, for whatever is got from now on. A calendar that
        somebody has got already stays as it is, so no answer changes in the middle of a piece of work.
        """
        with self._lock:
            before, after = self._now, _Version(overrides)
            for name, calendar in before.calendars.items():
                if np.array_equal(_shut(before.overrides, calendar.mic), _shut(overrides, calendar.mic)):
                    after.calendars[name] = calendar  # with all that it remembers
            self._now = after

    def under(self, overrides: Overrides) -> Calendars:
        """These calendars under other overrides, for one piece of work: what was told at an instant. They share what
        their library told.
        """
        now = self._now
        if overrides.version == now.overrides.version:
            return self
        found = Calendars(self._keeper)
        found._lock, found._plain, found._now = self._lock, self._plain, now
        found.apply(overrides)
        return found

    def plain(self, mic: str) -> Calendar:
        """The calendar of an exchange as its library tells it, whatever people have said since. Raises as ``get``."""
        with self._lock:
            return self._plain_of(mic)

    def get(self, mic: str) -> Calendar:
        """The calendar of an exchange by its MIC or another of its names (XNAS trades as XNYS), or of ``24/7``.

        Loads no session yet. Raises InvalidRequestError with field ``mic`` and the nearest names for an unknown one.
        """
        found = self._now.calendars.get(mic)
        if found is not None:
            return found
        with self._lock:
            plain, now = self._plain_of(mic), self._now
            made = now.calendars.get(plain.mic) or plain.without(_shut(now.overrides, plain.mic))
            return now.calendars.setdefault(mic, now.calendars.setdefault(plain.mic, made))

    def get_of(self, mic: str, instrument_id: int) -> Calendar:
        """The calendar of one instrument: its exchange's, less the time in which it was halted. Raises as ``get``."""
        now = self._now
        if instrument_id not in now.overrides.halted:
            return self.get(mic)
        found = now.halted.get(instrument_id)
        if found is None:
            found = now.halted[instrument_id] = self.get(mic).without(now.overrides.halted[instrument_id])
        return found

    def halts(self, instrument_id: int) -> Spans:
        """The time in which an instrument was halted while its exchange may have traded."""
        return self._now.overrides.halted.get(instrument_id, NO_TIME)

    def preload(self, mics: Iterable[str], window: TimeWindow) -> None:
        """Load what single moments of the window need, of these exchanges. Idempotent. Raises as ``get``."""
        for mic in mics:
            self.get(mic).preload(to_us(window.start), to_us(window.end))

    def _plain_of(self, mic: str) -> Calendar:
        if mic not in self._plain:
            name, source = source_of(mic, self._keeper)
            self._plain[mic] = self._plain.setdefault(name, Calendar(name, source))
        return self._plain[mic]


def _shut(overrides: Overrides, mic: str) -> Spans:
    return overrides.shut.get(mic, NO_TIME)
