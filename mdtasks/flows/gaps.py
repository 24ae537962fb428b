"""What is missing: the intervals that an exchange's sessions make us expect, minus coverage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from mdtasks.connections import Database
from mdtasks.domain import gaps
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import Times
from mdtasks.domain.sessions import Calendar, Calendars
from mdtasks.domain.windows import AskedWindow
from mdtasks.store import bars as store_bars
from mdtasks.store import reference
from mdtasks.store.reference import Instrument

#: An interval that ended less than this ago is not missed yet, seconds: the settle delay and a live tick of T1.
DUE_AFTER_S: Final = 420.0


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch without an answer: ``missing`` expected intervals follow one another in it, nights apart."""

    window: TimeWindow
    missing: int


@dataclass(frozen=True, slots=True)
class Completeness:
    """How complete one symbol is in a window. Every expected interval is one of: ``present`` (answered for, a bar),
    ``no_trade`` (answered for, no bar), ``missing`` (in ``gaps``), ``pending`` (ended just now, not missed yet).
    """

    symbol: str
    interval: Interval
    window: TimeWindow
    expected: int
    present: int
    no_trade: int
    pending: int
    gaps: tuple[Gap, ...]

    @property
    def missing(self) -> int:
        """Expected intervals that nobody has answered for."""
        return sum(gap.missing for gap in self.gaps)


@dataclass(frozen=True, slots=True)
class Question:
    """Which symbols ([]: the whole universe), which interval, which window."""

    symbols: Sequence[str]
    interval: Interval
    window: AskedWindow


def find_gaps(asked: Question, database: Database, calendars: Calendars, now: datetime) -> Iterator[Completeness]:
    """The completeness of each symbol, in the order asked for. Reads only.

    Raises InvalidRequestError (the window), UnknownSymbolError, StoreUnavailableError.
    """
    with database.transaction() as connection:
        found = reference.resolve(connection, asked.symbols).values() if asked.symbols else None
        members = list(found) if found is not None else reference.instruments(connection)
        covered = store_bars.read_coverage(connection, [member.id for member in members], asked.interval)
        for member in members:
            calendar = calendars.get(member.mic)
            # Beyond what a calendar knows nothing is expected; one that ends must not stop the others.
            window = asked.window.on(calendar, asked.interval, min(now, calendar.horizon))
            bars_us = store_bars.read_bars(connection, member.id, asked.interval, window).bars.ts_us
            expected = _expected(member, calendar, window, asked.interval, now)
            yield _judged(member.symbol, (asked.interval, window), expected, (covered[member.id], bars_us, now))


def _expected(
    member: Instrument, calendar: Calendar, window: TimeWindow, interval: Interval, now: datetime
) -> tuple[Times, Times]:
    """Starts and ends of the intervals that have ended, within the listing's life."""
    starts = calendar.expected(window, interval)
    ends = calendar.interval_end(starts, interval)
    kept = ends <= to_us(now)
    for day, sign in ((member.listed_from, 1), (member.delisted_on, -1)):
        if day is not None:
            midnight_us = to_us(datetime.fromisoformat(f"{day}T00:00+00:00"))
            kept &= starts >= midnight_us if sign > 0 else starts < midnight_us
    return starts[kept], ends[kept]


def _judged(
    symbol: str,
    about: tuple[Interval, TimeWindow],
    expected: tuple[Times, Times],
    known: tuple[Sequence[TimeWindow], Times, datetime],
) -> Completeness:
    interval, window = about
    starts, ends = expected
    covered, bars_us, now = known
    spans = gaps.spans_of(covered)
    due = ends <= to_us(now - timedelta(seconds=DUE_AFTER_S))
    found = gaps.missing(starts[due], ends[due], spans)
    lacking = _inside(starts, gaps.missing(starts, ends, spans))
    has_bar = np.isin(starts, bars_us)
    counts = np.diff(np.searchsorted(starts, found), axis=1).ravel()
    return Completeness(
        symbol=symbol,
        interval=interval,
        window=window,
        expected=len(starts),
        present=int((~lacking & has_bar).sum()),
        no_trade=int((~lacking & ~has_bar).sum()),
        pending=int((lacking & ~due).sum()),
        gaps=tuple(
            Gap(TimeWindow(start=from_us(start), end=from_us(end)), int(count))
            for (start, end), count in zip(found.tolist(), counts.tolist(), strict=True)
        ),
    )


def _inside(starts: Times, spans: gaps.Spans) -> np.ndarray:
    """Which starts lie in the spans."""
    inside: np.ndarray = np.searchsorted(spans.ravel(), starts, side="right") % 2 == 1
    return inside
