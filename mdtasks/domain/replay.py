"""The replay buffer's values: a stream per instrument and interval, positions in it, and what a reader gets of it.

A stream is a sequence of entries: a bar that is new or revised, or an interval that ended without a trade. Offsets
count up by one within an epoch; a new epoch begins whenever the buffer cannot vouch for its own past (it was emptied,
its server came back from an older state). So a reader who knows epoch and offset knows exactly what it has seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval

_POSITION: Final = re.compile(r"([0-9a-z]{1,32}):(0|[1-9][0-9]{0,15})")


class StreamKey(NamedTuple):
    """Which stream: bars of one instrument and interval."""

    instrument_id: int
    interval: Interval


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a stream a reader is: it has seen all entries of ``epoch`` up to ``offset``, inclusive. 0: none yet."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str, *, field: str = "since") -> Position:
        """A position as it was told. Raises InvalidRequestError naming the ``field``."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise InvalidRequestError(
                f"{text[:80]!r} is no position", field=field, hint="EPOCH:OFFSET, as it came with the last frame"
            )
        return cls(found[1], int(found[2]))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream. ``ts_us``: start of the interval it is about, us since 1970.

    ``body``: a JSON object, the same for every reader: ``{"type": "bar", "ts", "open", …}`` or
    ``{"type": "interval_complete", "ts"}``; made once, by whoever published it.
    """

    offset: int
    ts_us: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Window:
    """What a reader gets of a stream at one instant, after which it is at ``position``.

    ``resumed``: the entries are exactly those after the position that the reader gave, in order of offsets. Otherwise
    they are a snapshot, the newest bars that there are, one of each interval in order of time; they say nothing of what
    the reader had before.
    """

    key: StreamKey
    position: Position
    entries: Sequence[Entry]
    resumed: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be published and has no offset yet. ``version``: grows with every change of the same bar; 0: there is
    none, the interval ended without a trade.
    """

    ts_us: int
    version: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """Entries as they were published together. ``committed_us``: when the oldest of them was written, us since 1970,
    by PostgreSQL's clock.
    """

    committed_us: int
    entries: Sequence[tuple[StreamKey, str, Entry]]


@dataclass(frozen=True, slots=True)
class LatestQuotes:
    """The newest quotes of instruments, ``{"type": "quote", "ts", "bid", …}`` each; they have no positions."""

    committed_us: int
    quotes: Sequence[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Broken:
    """The feed begins here, or begins again: what was published before may have been missed, so read anew."""


#: No exchange's regular session is shorter; none was shut for longer since 2010 (XTAI: not quite 12 days).
_SHORTEST_SESSION_S: Final = 3 * 3600
_LONGEST_SHUT: Final = timedelta(days=14)


def heard_since(interval: Interval, max_bars: int, now: datetime) -> datetime:
    """A moment before which the last ``max_bars`` intervals of trading do not reach, whatever the exchange.

    >>> from datetime import UTC
    >>> heard_since(Interval.M1, 120, datetime(2026, 11, 20, tzinfo=UTC)).date().isoformat()
    '2026-11-04'
    """
    sessions = max_bars if interval is Interval.D1 else math.ceil(max_bars * interval.seconds / _SHORTEST_SESSION_S)
    return now - _LONGEST_SHUT - timedelta(days=math.ceil(sessions * 7 / 5))
