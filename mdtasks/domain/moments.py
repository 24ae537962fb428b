"""Single moments of a calendar: what trades at one, which minute it snaps to, how much was traded between two.

Those who ask for one moment at a time ask often, for each symbol and each bar, so their answers come from plain lists:
numpy takes longer to be called than to answer. The lists are held in blocks of days, made on demand and few at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from typing import Final

import numpy as np

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.schedules import DAY_US, Schedule, Session, Source

MINUTE_US: Final = 60_000_000
#: Days of a block: a few hold what is asked for around now, and lists of so many sessions are searched in no time.
BLOCK_US: Final = 32 * DAY_US
#: Blocks held: six years, a few MB. One more, and all are let go of.
MOST_BLOCKS: Final = 64
#: Minutes remembered with a block: three days of 24 hours; whoever walks through a year must not fill the memory.
MOST_MINUTES: Final = 4320
#: Blocks that two moments may lie apart to be counted by blocks: half a year.
_NEAR: Final = 6

_MINUTELY: Final = Interval.M1
_DAILY: Final = Interval.D1
_STEP_US: Final = {interval: interval.seconds * 1_000_000 for interval in Interval}


class Block:
    """The trading of ``[start_us, until_us)`` as lists; ``last_us``: up to where questions may come."""

    __slots__ = (
        "_held",
        "_inside",
        "_outside",
        "_sessions",
        "aligned",
        "closed",
        "edges",
        "last_minute",
        "last_us",
        "session_closes",
        "session_opens",
        "traded_us",
    )

    def __init__(self, held: Schedule, start_us: int, horizon_us: int) -> None:
        until_us = min(start_us + BLOCK_US, horizon_us)
        #: The last moment that may be asked about: the horizon itself still may.
        self.last_us = until_us if until_us == horizon_us else until_us - 1
        first, after = np.searchsorted(held.part_closes, start_us, "right"), np.searchsorted(held.part_opens, until_us)
        opens = np.maximum(held.part_opens[first:after], start_us)
        closes = np.minimum(held.part_closes[first:after], until_us)
        traded = np.concatenate([[0], np.cumsum(closes - opens)])
        self._outside: list[int] = traded.tolist()
        self._inside: list[int] = (traded[:-1] - opens).tolist()
        #: Trading time of the whole block.
        self.traded_us: int = self._outside[-1]
        #: Opens and closes in turn: the exchange trades where an odd number of them is behind.
        self.edges: list[int] = np.column_stack([opens, closes]).ravel().tolist()
        #: The last minute traded before the block; None before the first session.
        self.last_minute = (int(held.part_closes[first - 1]) - 1) // MINUTE_US * MINUTE_US if first else None
        #: Minutes that were asked for, and what they snap to.
        self.aligned: dict[int, int] = {}
        i, j = np.searchsorted(held.closes, start_us, "right"), np.searchsorted(held.opens, until_us)
        self.session_opens: list[int] = held.opens[i:j].tolist()
        self.session_closes: list[int] = held.closes[i:j].tolist()
        self._held, self._sessions = held, dict[int, Session]()
        #: When the daily bars of the block's days can be there.
        over = daily_ends(held)
        self.closed: list[int] = over[slice(*np.searchsorted(over, [start_us, until_us]))].tolist()

    def traded(self, at_us: int) -> int:
        """Trading time from the block's start until a moment of it, microseconds."""
        edge = bisect_right(self.edges, at_us)
        # Inside part i: what came before it is traded, less its open, plus the moment. Outside: what came before.
        return at_us + self._inside[edge >> 1] if edge & 1 else self._outside[edge >> 1]

    def align(self, at_us: int) -> int | None:
        """The minute that trades at a moment of the block, or the last that did."""
        edge = bisect_right(self.edges, at_us)
        if edge & 1:
            return at_us // MINUTE_US * MINUTE_US
        return (self.edges[edge - 1] - 1) // MINUTE_US * MINUTE_US if edge else self.last_minute

    def session(self, i: int) -> Session:
        """The i-th session of the block."""
        found = self._sessions.get(i)
        if found is None:
            at = int(np.searchsorted(self._held.opens, self.session_opens[i]))
            found = self._sessions[i] = self._held.session(at)
        return found


def daily_ends(held: Schedule) -> np.ndarray:
    """When each session counts as closed, sorted: at its close; just after its label at the earliest, since that is
    when the day before ends, as daily bars are counted, and a session that opens on the evening before may be cut off
    before midnight.
    """
    return np.maximum.accumulate(np.maximum(held.closes, held.labels + 1)) if len(held.labels) else held.closes


class Moments:
    """What a calendar says of single moments. Times are int microseconds since 1970 UTC, or aware datetimes where it
    says so, which cost half a microsecond more. A calendar never changes, so what is remembered is true for its life.

    Every method raises InvalidRequestError past the horizon. Thread-safe.
    """

    def __init__(self, mic: str, source: Source) -> None:
        self.mic = mic
        self._source = source
        self._blocks: dict[int, Block] = {}

    @property
    def horizon(self) -> datetime:
        """From here on the calendar does not know when the exchange trades."""
        return from_us(self._source.horizon_us)

    @property
    def zone(self) -> str:
        """The exchange's time zone, such as ``America/New_York``."""
        return self._source.zone

    def schedule(self, start_us: int, end_us: int) -> Schedule:
        """A schedule with every session that touches ``[start_us, end_us)``, and usually many more."""
        if end_us > self._source.horizon_us:
            raise self._beyond(end_us)
        return self._source.covering(start_us, end_us)

    def align_minute(self, at_us: int) -> int:
        """The start of the minute that trades at ``at_us``, or of the last that traded before. Remembered, for some
        days of minutes. Raises InvalidRequestError when none ever did.
        """
        block = self._blocks.get(at_us // BLOCK_US) or self._block(at_us)
        minute = at_us // MINUTE_US
        found = block.aligned.get(minute)
        return self._aligned(block, at_us) if found is None else found

    def is_open(self, at: datetime | int) -> bool:
        """Whether the exchange trades at ``at``: the minute of the open yes, of the close or in a break no."""
        at_us = to_us(at) if isinstance(at, datetime) else at
        block = self._blocks.get(at_us // BLOCK_US) or self._block(at_us)
        if at_us > block.last_us:
            raise self._beyond(at_us)
        return bisect_right(block.edges, at_us) & 1 == 1

    def session_of(self, at: datetime | int) -> Session | None:
        """The session whose ``[open, close)`` holds ``at``, breaks included; None when the exchange is shut."""
        at_us = to_us(at) if isinstance(at, datetime) else at
        block = self._blocks.get(at_us // BLOCK_US) or self._block(at_us)
        if at_us > block.last_us:
            raise self._beyond(at_us)
        i = bisect_right(block.session_opens, at_us) - 1
        return block.session(i) if i >= 0 and at_us < block.session_closes[i] else None

    def elapsed(self, last_us: int, now_us: int, interval: Interval) -> float:
        """Trading time between two moments as a number of intervals; 0 when ``now_us`` is not after ``last_us``.

        Intraday: traded time over the interval's nominal length. Daily: sessions that closed in ``(last, now]``, where
        ``last`` is the end of the newest daily interval as it is counted: its label plus 24 hours.
        """
        first = last_us // BLOCK_US
        if now_us // BLOCK_US != first or now_us <= last_us:
            return self._elapsed_across(last_us, now_us, interval)
        block = self._blocks.get(first) or self._block(now_us)
        if now_us > block.last_us:
            raise self._beyond(now_us)
        if interval is _DAILY:
            return float(bisect_right(block.closed, now_us) - bisect_right(block.closed, last_us))
        # An enum's hash is Python code: most ask for minutes, and they need not wait for it.
        step_us = MINUTE_US if interval is _MINUTELY else _STEP_US[interval]
        return (block.traded(now_us) - block.traded(last_us)) / step_us

    def _elapsed_across(self, last_us: int, now_us: int, interval: Interval) -> float:
        """The same over an end of blocks: by blocks when they are near, else by the schedule."""
        last_us = max(last_us, self._source.first_us)
        if now_us <= last_us:
            return 0.0
        first, last = last_us // BLOCK_US, now_us // BLOCK_US
        if last - first > _NEAR:
            held = self.schedule(last_us, now_us)
            if interval is _DAILY:
                since, until = np.searchsorted(daily_ends(held), [last_us, now_us], side="right").tolist()
                return float(until - since)
            before, after = held.traded_us(np.array([last_us, now_us])).tolist()
            return float(after - before) / _STEP_US[interval]
        blocks = [self._blocks.get(number) or self._block(number * BLOCK_US) for number in range(first, last + 1)]
        if now_us > blocks[-1].last_us:
            raise self._beyond(now_us)
        if interval is _DAILY:
            whole = sum(len(block.closed) for block in blocks[:-1])
            return float(whole + bisect_right(blocks[-1].closed, now_us) - bisect_right(blocks[0].closed, last_us))
        traded = sum(block.traded_us for block in blocks[:-1]) + blocks[-1].traded(now_us) - blocks[0].traded(last_us)
        return traded / _STEP_US[interval]

    def preload(self, start_us: int, end_us: int) -> None:
        """Load what single moments of ``[start_us, end_us)`` need, as far as the calendar knows. Idempotent."""
        end_us = min(end_us, self._source.horizon_us)
        start_us = min(start_us, end_us)
        for number in range(start_us // BLOCK_US, -(-end_us // BLOCK_US)):
            if number not in self._blocks:
                self._block(max(number * BLOCK_US, start_us))

    def _aligned(self, block: Block, at_us: int) -> int:
        if at_us > block.last_us:
            raise self._beyond(at_us)
        found = block.align(at_us)
        if found is None:
            raise self._before_all(at_us)
        if len(block.aligned) >= MOST_MINUTES:
            block.aligned.clear()
        if at_us < self._source.horizon_us:  # of the horizon's own minute only the first moment may be asked about
            block.aligned[at_us // MINUTE_US] = found
        return found

    def _block(self, at_us: int) -> Block:
        if at_us > self._source.horizon_us:
            raise self._beyond(at_us)
        number = at_us // BLOCK_US
        start_us = number * BLOCK_US
        held = self._reaching_back(start_us, min(start_us + BLOCK_US, self._source.horizon_us))
        block = Block(held, start_us, self._source.horizon_us)
        if len(self._blocks) >= MOST_BLOCKS:
            self._blocks.clear()
        self._blocks[number] = block
        return block

    def _reaching_back(self, start_us: int, end_us: int) -> Schedule:
        """A schedule of ``[start_us, end_us)`` in which something trades before ``start_us``, if anything ever did."""
        days = 15  # most exchanges are never shut for longer
        while True:
            since = max(start_us - days * DAY_US, self._source.first_us)
            held = self.schedule(since, end_us)
            if since == self._source.first_us or (len(held.part_opens) and held.part_opens[0] < start_us):
                return held
            days *= 4

    def _beyond(self, at_us: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self.mic} is known until {self.horizon:%Y-%m-%d}, not until {from_us(at_us).isoformat()}",
            field="end",
            hint="ask for time before it, or install a newer exchange_calendars",
        )

    def _before_all(self, at_us: int) -> InvalidRequestError:
        return InvalidRequestError(f"{self.mic} traded no minute before {from_us(at_us).isoformat()}", field="at")
