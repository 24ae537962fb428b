"""What is asked for already: time as sorted stretches, to which a window adds only what is new. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import datetime
from typing import TypeAlias

#: Half-open, not empty, aware UTC.
Stretch: TypeAlias = tuple[datetime, datetime]


class Wanted:
    """A growing set of time. Stretches are kept sorted, disjoint and apart: windows that tile a year are one.

    That makes an ``add`` a search and not a comparison with every window before it, however many there were.
    """

    def __init__(self) -> None:
        self._starts: list[datetime] = []
        self._ends: list[datetime] = []

    def add(self, start: datetime, end: datetime) -> list[Stretch]:
        """Add ``[start, end)``; returns what of it was not in here before, in time order."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first == last:
            self._starts.insert(first, start)
            self._ends.insert(first, end)
            return [(start, end)]
        fresh: list[Stretch] = []
        at = start
        for held_from, held_to in zip(self._starts[first:last], self._ends[first:last], strict=True):
            if at < held_from:
                fresh.append((at, held_from))
            at = max(at, held_to)
        if at < end:
            fresh.append((at, end))
        self._starts[first:last] = [min(start, self._starts[first])]
        self._ends[first:last] = [max(end, self._ends[last - 1])]
        return fresh

    def meets(self, start: datetime, end: datetime) -> bool:
        """Whether any of ``[start, end)`` is in here."""
        first = bisect_right(self._ends, start)
        return first < len(self._starts) and self._starts[first] < end
