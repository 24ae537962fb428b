"""The window somebody asks about: from a time, or the last sessions of the exchange. One rule for all commands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendar


@dataclass(frozen=True, slots=True)
class AskedWindow:
    """``start`` inclusive, or in its place a number of ``sessions``; ``end`` exclusive, None: now. Aware UTC."""

    start: datetime | None = None
    end: datetime | None = None
    sessions: int | None = None

    def on(self, calendar: Calendar, interval: Interval, now: datetime, as_of: datetime | None = None) -> TimeWindow:
        """The window on one exchange, cut to ``now``. ``sessions`` count back from its end, or from ``as_of`` where
        that is earlier: of later ones nothing was known.

        Raises InvalidRequestError when it starts in the future or is empty, or when it has two starts or none.
        """
        if (self.start is None) == (self.sessions is None):
            raise InvalidRequestError(
                "give a start or a number of sessions" + ("" if self.start is None else ", not both"),
                field="start",
                hint="such as start 2026-11-02 or sessions 5",
            )
        end = now if self.end is None else min(self.end, now)
        start = self.start
        if start is None:
            assert self.sessions is not None
            return calendar.last_sessions(self.sessions, end if as_of is None else min(end, as_of), interval)
        if start >= now:
            raise InvalidRequestError(
                f"start {start.isoformat()} is in the future: there are no bars yet",
                field="start",
                hint="give a start before now",
            )
        if start >= end:
            raise InvalidRequestError(
                f"end {end.isoformat()} is not after start {start.isoformat()}",
                field="end",
                hint="windows are half-open: [start, end)",
            )
        return TimeWindow(start=start, end=end)
