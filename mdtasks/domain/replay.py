"""The replay buffer's values: a stream per instrument and interval, positions in it, and what a reader gets of it.

A stream is a sequence of entries: a bar that is new or revised, or an interval that ended without a trade. Offsets
count up by one within an epoch; a new epoch begins whenever the buffer cannot vouch for its own past (it was emptied,
its server came back from an older state). So a reader who knows epoch and offset knows exactly what it has seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
    """What a reader gets of a stream at one instant: ``entries`` in order of offsets, the last one at ``position``.

    ``resumed``: the entries are exactly those after the position that the reader gave. Otherwise they are a snapshot,
    the newest entry of each interval in order of time, and say nothing of what the reader had before.
    """

    key: StreamKey
    position: Position
    entries: Sequence[Entry]
    resumed: bool
