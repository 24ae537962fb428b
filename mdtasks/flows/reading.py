"""Reading bars: a question becomes rows, batch by batch, out of one state of the store, in memory that does not grow.

Rows come by symbol and time. Bars are read in pieces of time that hold at most so many intervals; where there are no
bars nothing is asked. Whoever stops to iterate ends the transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.adjustment import Adjust
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.gaps import spans_of
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.reading import BarRows, Fill, Hours, Reading, filled
from mdtasks.domain.schedules import Times
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.silence import inside, slots
from mdtasks.domain.spans import NO_TIME, Spans, intersect
from mdtasks.flows.adjusting import Wish, adjusted, grounds
from mdtasks.flows.as_of import await_changes, await_statements, await_writers
from mdtasks.flows.calendars import apply_overrides, calendars_at
from mdtasks.flows.expecting import ended_intervals
from mdtasks.settings import Settings
from mdtasks.store import bars as store_bars
from mdtasks.store import readings, reference
from mdtasks.store.calendars import KeptCalendars
from mdtasks.store.coverage import coverage_as_of
from mdtasks.store.readings import Extent, State
from mdtasks.store.reference import Instrument

#: Rows of a batch, about; and the most intervals that a piece of time may hold, which bounds the memory.
BATCH_ROWS: Final = 32_768
_PIECE: Final = 50_000
#: Intervals of a window's first piece: the first rows come soon, and a page reads little more than it shows.
_FIRST_PIECE: Final = 8_000
#: Series of which the state is asked for at a time, where a page is full after a few.
_SERIES: Final = 20
#: A statement that reads a piece takes a fraction of a second.
_STATEMENT_S: Final = 60.0
#: A reader that asks for nothing so long loses its transaction.
_IDLE_S: Final = 60.0
_US: Final = timedelta(microseconds=1)
_NOTHING: Final[Times] = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where bars are read from, and the calendars that they are held against."""

    database: Database
    calendars: Calendars


@dataclass(frozen=True, slots=True)
class Place:
    """A row's place in an answer: the rows after it come next."""

    symbol: str
    ts_us: int


@dataclass(frozen=True, slots=True)
class Part:
    """One symbol of a reading: its window, and where in it there may be rows (None: nowhere)."""

    member: Instrument
    window: TimeWindow
    rows: TimeWindow | None
    covered: Spans


class Opened:
    """A reading in its snapshot. Good until the block of ``opened`` ends; one caller at a time."""

    def __init__(self, connection: Connection, asked: Reading, calendars: Calendars, now: datetime) -> None:
        self._connection, self.asked, self._now = connection, asked, now
        self.calendars = calendars if asked.as_of is None else calendars_at(connection, calendars, asked.as_of)
        self._wish = Wish(asked.adjust, asked.as_of, now)
        found = reference.resolve(connection, asked.symbols, as_of=asked.as_of)
        members = sorted(found.values(), key=lambda member: member.symbol)
        windows = [(member.id, self._window(member)) for member in members]
        extents = readings.extents(connection, asked.interval, windows)
        self.parts = [
            _part(member, window, (extent, covered))
            for member, (_, window), extent, covered in zip(
                members, windows, extents, self._answered_for(windows), strict=True
            )
        ]

    def _answered_for(self, windows: readings.Windows) -> list[Spans]:
        """What is covered of each window, where silence is told; as it was, where it is told of the past."""
        asked = self.asked
        if asked.fill is Fill.NONE:
            return [NO_TIME] * len(windows)
        if asked.as_of is not None:
            return [coverage_as_of(self._connection, each, asked.interval, at, asked.as_of) for each, at in windows]
        found = store_bars.read_coverage(self._connection, [each for each, _ in windows], asked.interval)
        return [spans_of(found[each]) for each, _ in windows]

    def _window(self, member: Instrument) -> TimeWindow:
        calendar, window = self.calendars.get(member.mic), self.asked.window
        # Only sessions that are counted back need the calendar: bars beyond its horizon can be read by their time.
        now = self._now if window.start is not None else min(self._now, calendar.horizon)
        return window.on(calendar, self.asked.interval, now, self.asked.as_of)

    def batches(self, after: Place | None = None) -> Iterator[BarRows]:
        """The rows after a place, or all, in batches of about BATCH_ROWS; none is empty."""
        held: list[BarRows] = []
        for rows in self._pieces(after):
            held.append(rows)
            if sum(map(len, held)) >= BATCH_ROWS:
                yield BarRows.concat(held)
                held = []
        if held:
            yield BarRows.concat(held)

    def page(self, limit: int, after: Place | None = None) -> tuple[list[BarRows], Place | None]:
        """The next ``limit`` rows, and the place of the last one where more come after it."""
        held: list[BarRows] = []
        left = limit
        for rows in self._pieces(after):
            if left == 0 or len(rows) > left:
                held.append(rows.take(slice(left)))
                last = next(each for each in reversed(held) if len(each))
                return held, Place(str(last.symbol[-1]), int(last.bars.ts_us[-1]))
            held.append(rows)
            left -= len(rows)
        return held, None

    @property
    def is_plain(self) -> bool:
        """Whether the rows are the bars as stored: none left out by the hours, put in for silence, or adjusted."""
        asked = self.asked
        return asked.hours is Hours.ALL and asked.fill is Fill.NONE and asked.adjust is Adjust.NONE

    def tag(self, after: Place | None = None, most: int | None = None) -> tuple[str, bool]:
        """What differs whenever the rows after a place do (the first ``most`` of them, where they are plain), without
        reading any; and whether bars among them may still become final, which nothing does as of the past. Asks the
        store for counts and sums only.
        """
        asked = self.asked
        left = [(part, rows) for part in self.parts if (rows := _after(part, after)) is not None]
        found = self._states(left, most)
        digest = self._digest()
        for (part, rows), state in zip(left, found, strict=False):
            digest.update(repr((part.member.id, state)).encode())
            if asked.adjust is not Adjust.NONE:
                known = grounds(self, self._connection, part.member, rows.start, self._wish)
                digest.update(known.encode())
            for piece in () if self.is_plain else _cut(rows, asked.interval):
                digest.update(self._held(part, piece).tobytes())
        return digest.hexdigest(), asked.as_of is None and any(state.may_be_promoted for state in found)

    def tag_of(self, rows: Sequence[BarRows], next_at: Place | None) -> str:
        """What differs whenever these rows of a page do, or whether more come after them."""
        digest = self._digest()
        for part in rows:
            numbers: list[NDArray[Any]] = [part.bars.ts_us, *part.bars.columns, part.status, part.known_at_us]
            for column in numbers:
                digest.update(column.tobytes())
            digest.update(repr((part.symbol.tolist(), part.provider.tolist())).encode())
        digest.update(repr(next_at is None).encode())
        return digest.hexdigest()

    def _digest(self) -> blake2b:
        series = [(part.member.symbol, part.member.id, to_us(part.window.start)) for part in self.parts]
        return blake2b(repr(series).encode(), digest_size=16)

    def _states(self, left: Sequence[tuple[Part, TimeWindow]], most: int | None) -> list[State]:
        """The states of the windows, of so many of them as together have ``most`` bars."""
        found: list[State] = []
        for start in range(0, len(left), _SERIES):
            windows = [(part.member.id, rows) for part, rows in left[start : start + _SERIES]]
            found += readings.states(self._connection, self.asked.interval, windows, self.asked.as_of, most)
            if most is not None and sum(state.bars for state in found) >= most:
                break
        return found

    def _held(self, part: Part, piece: TimeWindow) -> Spans:
        """What hours and silence depend on beside the bars: the intervals that may have rows."""
        expected = slots(self._expected(part, piece), self.asked.interval)
        return intersect(expected, part.covered) if self.asked.fill is Fill.NO_TRADE else expected

    def _pieces(self, after: Place | None) -> Iterator[BarRows]:
        for part in self.parts:
            window = _after(part, after)
            if window is None:
                continue
            for piece in _cut(window, self.asked.interval):
                rows = self._rows(part, piece)
                if len(rows):
                    yield rows

    def _rows(self, part: Part, piece: TimeWindow) -> BarRows:
        """The rows of one symbol in a piece of time, as every answer has them."""
        asked, symbol = self.asked, part.member.symbol
        stored = store_bars.read_bars(self._connection, part.member.id, asked.interval, piece, asked.as_of)
        stored = adjusted(self, self._connection, part.member, asked.interval, stored, self._wish)
        rows = BarRows(
            np.full(len(stored), symbol, dtype=object),
            stored.bars,
            stored.provider,
            stored.final.astype(np.int8),
            stored.known_at_us,
        )
        if asked.hours is Hours.REGULAR:
            rows = rows.take(np.isin(rows.bars.ts_us, self._expected(part, piece)))
        if asked.fill is Fill.NO_TRADE:
            rows = filled(rows, symbol, self._silent(part, piece))
        return rows

    def _silent(self, part: Part, piece: TimeWindow) -> Times:
        """Starts of the intervals that were answered for; those that have no bar are ``no_trade``."""
        calendar = self.calendars.get_of(part.member.mic, part.member.id)  # a halt is no silence
        known = _before(piece, calendar.horizon)
        if known is None:
            return _NOTHING
        by = self._now if self.asked.as_of is None else min(self._now, self.asked.as_of)
        starts, _ = ended_intervals(part.member, calendar, known, self.asked.interval, by)
        return starts[inside(starts, part.covered)]

    def _expected(self, part: Part, piece: TimeWindow) -> Times:
        calendar = self.calendars.get_of(part.member.mic, part.member.id)
        known = _before(piece, calendar.horizon)
        return _NOTHING if known is None else calendar.expected(known, self.asked.interval)


def _part(member: Instrument, window: TimeWindow, found: tuple[Extent, Spans]) -> Part:
    """``found``: where there are bars, and what is covered where silence is told."""
    extent, covered = found
    covered = intersect(covered, spans_of([window]))
    edges = [] if extent is None else [extent[0], extent[1] + _US]
    edges += [from_us(us) for us in covered.ravel()[[0, -1]]] if len(covered) else []
    return Part(member, window, TimeWindow(start=min(edges), end=max(edges)) if edges else None, covered)


def _after(part: Part, place: Place | None) -> TimeWindow | None:
    """Where rows of a part may be that come after a place."""
    if place is None or part.rows is None or part.member.symbol > place.symbol:
        return part.rows
    start = max(part.rows.start, from_us(place.ts_us) + _US)
    if part.member.symbol < place.symbol or start >= part.rows.end:
        return None
    return TimeWindow(start=start, end=part.rows.end)


def _before(window: TimeWindow, horizon: datetime) -> TimeWindow | None:
    """What of a window a calendar knows."""
    if window.start >= horizon:
        return None
    return window if window.end <= horizon else TimeWindow(start=window.start, end=horizon)


def _cut(window: TimeWindow, interval: Interval) -> Iterator[TimeWindow]:
    """A window in pieces, each twice as long as the one before, up to _PIECE intervals."""
    start, count = window.start, _FIRST_PIECE
    while start < window.end:
        left = (window.end - start).total_seconds() / interval.seconds
        end = window.end if left <= count else start + timedelta(seconds=count * interval.seconds)
        yield TimeWindow(start=start, end=end)
        start, count = end, min(count * 2, _PIECE)


@contextmanager
def open_shelf(settings: Settings, application: str) -> Iterator[Shelf]:
    """The store of these settings, with calendars as people have told of them. Raises StackNotRunningError."""
    database = Database(settings.require_database_url(), application=application, pool_size=1)
    # Who only reads makes no home where there is none.
    calendars = Calendars(KeptCalendars(settings.calendars_dir) if settings.home.is_dir() else None)
    try:
        apply_overrides(database, calendars)
        yield Shelf(database, calendars)
    finally:
        database.close()


@contextmanager
def opened(asked: Reading, shelf: Shelf, now: datetime, *, idle_s: float = _IDLE_S) -> Iterator[Opened]:
    """The reading in a snapshot of the store, which ends with the block; ``idle_s`` may pass between two batches.

    Raises UnknownSymbolError, InvalidRequestError (the window, an ``as_of`` to come), StoreUnavailableError, BusyError.
    """
    if asked.as_of is not None:
        _await(asked, asked.as_of, shelf.database)
    with shelf.database.snapshot(statement_s=_STATEMENT_S, idle_s=idle_s) as connection:
        yield Opened(connection, asked, shelf.calendars, now)


def _await(asked: Reading, as_of: datetime, database: Database) -> None:
    """Wait for what may still be dated before: names and, where the answer goes by it, actions, silence, calendars."""
    await_changes(database, as_of)
    if asked.adjust is not Adjust.NONE:
        await_statements(database, as_of)
    if asked.fill is not Fill.NONE:
        await_writers(database, as_of, asked.interval, asked.symbols)


def is_settled(shelf: Shelf, as_of: datetime, margin_s: float) -> bool:
    """Whether what was known at an instant is known whole, for readings that are opened after this."""
    with shelf.database.transaction() as connection:
        return readings.is_settled(connection, as_of, margin_s)
