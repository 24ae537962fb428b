"""Cuts what an instrument lacks of a window into job-sized pieces. Reads calendars only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

from mdtasks.domain import gaps
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.store.reference import Instrument


class Pieces:
    """The pieces of one request. ``windows``: what is asked for on each exchange; ``minutes``: the most of a job.

    Those of a whole window are kept, one list an exchange: most instruments of a large request hold nothing yet.
    """

    def __init__(
        self, interval: Interval, windows: Mapping[str, TimeWindow], calendars: Calendars, minutes: int
    ) -> None:
        self._interval = interval
        self._windows = windows
        self._calendars = calendars
        self._minutes = minutes
        self._whole: dict[str, list[TimeWindow]] = {}

    def whole(self, mic: str) -> list[TimeWindow]:
        """The pieces of the whole window, newest first."""
        if mic not in self._whole:
            self._whole[mic] = self._cut(mic, self._windows[mic], ())
        return self._whole[mic]

    def of(self, member: Instrument, held: Sequence[TimeWindow]) -> list[TimeWindow]:
        """The pieces of what is not ``held`` of the window, within the listing's life, newest first."""
        asked = self._windows[member.mic]
        window = within_life(asked, member)
        if window is None:
            return []
        return self._cut(member.mic, window, held) if held or window != asked else self.whole(member.mic)

    def _cut(self, mic: str, window: TimeWindow, held: Sequence[TimeWindow]) -> list[TimeWindow]:
        calendar = self._calendars.get(mic)
        left = gaps.windows_of(gaps.subtract(gaps.spans_of([window]), gaps.spans_of(held)))
        pieces = [
            piece
            for part in left
            if len(calendar.expected(part, self._interval))  # a part without session time is nobody's loss
            for piece in gaps.chunks(part, calendar, self._interval, self._minutes)
        ]
        return pieces[::-1]


def within_life(window: TimeWindow, member: Instrument) -> TimeWindow | None:
    """The part of a window in which an instrument is listed, by UTC days; None when there is none."""
    start, end = window.start, window.end
    if member.listed_from is not None:
        start = max(start, _midnight(member.listed_from))
    if member.delisted_on is not None:
        end = min(end, _midnight(member.delisted_on))
    return TimeWindow(start=start, end=end) if start < end else None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
