"""Schedules: an exchange's sessions as int64 arrays. ``library`` makes them, ``sessions`` asks, ``gaps`` counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.spans import Spans

Times = NDArray[np.int64]

DAY_US: Final = 86_400_000_000
#: What stands where a session has no break in a table of sessions (numpy's NaT).
NO_BREAK: Final = int(np.iinfo(np.int64).min)
#: Every instrument that never closes: no library, no holidays, one session a UTC day.
ALWAYS_OPEN: Final = "24/7"
#: Asked-for time is widened by this, as a session may open a day before its label and close a day after.
PAD_US: Final = 2 * DAY_US


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day of an exchange: ``label`` is its date, ``breaks`` lie inside ``[open, close)``."""

    label: date
    open: datetime
    close: datetime
    breaks: tuple[TimeWindow, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The sessions whose labels lie in ``[since_us, until_us)``, all of them, as sorted columns.

    Times are int64 microseconds since 1970 UTC. ``labels``: 00:00 UTC of the session's date, shape (n,);
    ``opens`` and ``closes`` likewise. ``part_opens``, ``part_closes``, shape (p,): the stretches of trading; a session
    has one more of them than it has breaks, the first begins at its open, the last ends at its close.
    """

    since_us: int
    until_us: int
    labels: Times
    opens: Times
    closes: Times
    part_opens: Times
    part_closes: Times
    _traded_before: Times

    @classmethod
    def of(
        cls, bounds_us: tuple[int, int], sessions: tuple[Times, Times, Times], parts: tuple[Times, Times]
    ) -> Schedule:
        """The schedule of ``sessions`` (labels, opens, closes) and their ``parts`` (opens, closes), sorted."""
        part_opens, part_closes = parts
        traded = np.concatenate([[0], np.cumsum(part_closes - part_opens)])
        held = (*sessions, part_opens, part_closes, traded)
        for column in held:
            column.setflags(write=False)
        return cls(*bounds_us, *held)

    @classmethod
    def of_table(cls, bounds_us: tuple[int, int], labels: Times, columns: Times) -> Schedule:
        """The schedule of ``labels`` (n,) and ``columns`` (4, n): open, close, break start, break end or NO_BREAK."""
        opens, closes, break_starts, break_ends = columns
        cut = break_starts != NO_BREAK
        part_opens = np.sort(np.concatenate([opens, break_ends[cut]]))
        part_closes = np.sort(np.concatenate([closes, break_starts[cut]]))
        return cls.of(bounds_us, (labels, opens, closes), (part_opens, part_closes))

    def joined(self, later: Schedule) -> Schedule:
        """This schedule and the one that starts where it ends."""
        names = ("labels", "opens", "closes", "part_opens", "part_closes")
        labels, opens, closes, part_opens, part_closes = (
            np.concatenate([getattr(self, name), getattr(later, name)]) for name in names
        )
        return Schedule.of((self.since_us, later.until_us), (labels, opens, closes), (part_opens, part_closes))

    def without(self, shut: Spans) -> Schedule:
        """This schedule less the time of ``shut``: what is left of each session's parts, and of sessions those that
        have some time left, from its first moment to its last. Itself when none of its trading lies in ``shut``.
        """
        edges = shut.ravel()
        points = np.unique(np.concatenate([self.part_opens, self.part_closes, edges]))
        starts, ends = points[:-1], points[1:]
        part = np.searchsorted(self.part_opens, starts, side="right") - 1
        trades = starts < np.append(self.part_closes, NO_BREAK)[part]  # part -1: before the first session
        closed = np.searchsorted(edges, starts, side="right") % 2 == 1
        if not (trades & closed).any():
            return self
        part_opens, part_closes = starts[trades & ~closed], ends[trades & ~closed]
        kept, first = np.unique(np.searchsorted(self.opens, part_opens, side="right") - 1, return_index=True)
        last = np.append(first[1:], len(part_opens)) - 1
        sessions = (self.labels[kept], part_opens[first], part_closes[last[: len(first)]])
        return Schedule.of((self.since_us, self.until_us), sessions, (part_opens, part_closes))

    def session(self, i: int) -> Session:
        """The i-th session as people read it."""
        first, after = np.searchsorted(self.part_opens, [self.opens[i], self.closes[i]]).tolist()
        breaks = tuple(
            TimeWindow(start=from_us(self.part_closes[part]), end=from_us(self.part_opens[part + 1]))
            for part in range(first, after - 1)
        )
        return Session(from_us(self.labels[i]).date(), from_us(self.opens[i]), from_us(self.closes[i]), breaks)

    def traded_us(self, at_us: Times | int) -> Times:
        """Trading time from the schedule's first open until each time, microseconds. Only differences mean anything."""
        at = np.asarray(at_us, dtype=np.int64)
        part = np.searchsorted(self.part_opens, at, side="right") - 1
        if not len(self.part_opens):
            return np.zeros_like(at)
        inside = np.clip(at, self.part_opens[part], self.part_closes[part]) - self.part_opens[part]
        return np.where(part < 0, 0, self._traded_before[part] + inside)

    def reach_us(self, traded_us: int) -> int:
        """The last time until which no more than ``traded_us`` was traded (inverse of traded_us): closed time after
        the last minute is passed over, so a full session reaches the next open. None traded later: until_us."""
        part = int(np.searchsorted(self._traded_before, traded_us, side="right")) - 1
        if part >= len(self.part_opens):
            return self.until_us
        return int(self.part_opens[part] + traded_us - self._traded_before[part])


class Source(Protocol):
    """Where a calendar's schedule comes from."""

    #: From here on nothing is known, microseconds.
    horizon_us: int
    #: Before this there are no sessions, microseconds.
    first_us: int

    @property
    def zone(self) -> str:
        """The exchange's time zone, a name such as ``America/New_York``."""

    def covering(self, start_us: int, end_us: int) -> Schedule:
        """A schedule with every session that touches ``[start_us, end_us)``; the caller stays below the horizon."""


class AlwaysOpen:
    """24/7 by arithmetic: a session a UTC day, at any time."""

    first_us = to_us(datetime(1, 1, 3, tzinfo=UTC))
    horizon_us = to_us(datetime(9999, 12, 29, tzinfo=UTC))
    zone = "UTC"

    def covering(self, start_us: int, end_us: int) -> Schedule:
        since, until = (start_us - PAD_US) // DAY_US, (end_us + PAD_US) // DAY_US + 1
        labels = np.arange(since, until, dtype=np.int64) * DAY_US
        closes = labels + DAY_US
        return Schedule.of((since * DAY_US, until * DAY_US), (labels, labels, closes), (labels, closes))


class Shut:
    """A source less the time in which people say that there was no trading. Thread-safe."""

    def __init__(self, source: Source, shut: Spans) -> None:
        self.first_us, self.horizon_us = source.first_us, source.horizon_us
        self._source = source
        self._shut = shut
        self._last: tuple[Schedule, Schedule] | None = None

    @property
    def zone(self) -> str:
        return self._source.zone

    def covering(self, start_us: int, end_us: int) -> Schedule:
        held, last = self._source.covering(start_us, end_us), self._last
        if last is None or last[0] is not held:
            last = self._last = (held, held.without(self._shut))
        return last[1]
