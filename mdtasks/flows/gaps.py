"""What is missing: a verdict for each interval that an exchange's sessions make us expect, and the evidence for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from sqlalchemy import Connection

from mdtasks.domain import gaps
from mdtasks.domain.bars import to_us
from mdtasks.domain.completeness import Completeness, Series
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.retention import horizon, subject_of
from mdtasks.domain.schedules import Times
from mdtasks.domain.silence import slots
from mdtasks.domain.spans import Spans
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.as_of import await_changes, await_scan, await_writers, deps_at
from mdtasks.flows.deps import Deps
from mdtasks.flows.expecting import ended_intervals
from mdtasks.flows.scan import ACTOR, due_after_s, scan
from mdtasks.store import bar_reports, reference, silences
from mdtasks.store import bars as store_bars
from mdtasks.store import gaps as store_gaps
from mdtasks.store.bars import StoredBars
from mdtasks.store.coverage import coverage_as_of, hold_writers
from mdtasks.store.gaps import LedgerEntry, Scope
from mdtasks.store.provenance import at_one_moment
from mdtasks.store.reference import Instrument
from mdtasks.store.retention import lost_before
from mdtasks.store.silences import Heard

#: Intervals of the clock that a question may span: each that is expected is held in memory, with its verdict.
_MOST_INTERVALS: Final = 6_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The completeness of a symbol with its evidence: bars by provider, the ledger, and what was said of silence.

    ``series`` and ``stored``: what it was judged by, interval by interval, and the bars of the window. ``as_of``: all
    as it was then; None: now.
    """

    completeness: Completeness
    series: Series
    stored: StoredBars
    tier: Tier | None
    providers: dict[str, int]
    ledger: Sequence[LedgerEntry]
    heard: Sequence[Heard]
    rejected: Sequence[bar_reports.Rejected]
    as_of: datetime | None = None

    def as_dict(self) -> dict[str, object]:
        """As JSON shows it; times are datetimes."""
        return {
            **self.completeness.as_dict(),
            "as_of": self.as_of,
            "tier": self.tier,
            "providers": self.providers,
            "ledger": [{**asdict(each), "took_s": each.took_s} for each in self.ledger],
            "silences": [asdict(each) for each in self.heard],
            "rejected": [asdict(each) for each in self.rejected],
        }


@dataclass(frozen=True, slots=True)
class Question:
    """Which symbols ([]: the whole universe), which interval, which window. ``as_of``: as it would have been answered
    then; None: now.
    """

    symbols: Sequence[str]
    interval: Interval
    window: AskedWindow
    as_of: datetime | None = None


def find_gaps(asked: Question, deps: Deps, now: datetime) -> list[Completeness]:
    """The completeness of each symbol, in the order asked for. Reads only.

    Raises InvalidRequestError (the window; an ``as_of`` that cannot be told of), UnknownSymbolError,
    StoreUnavailableError.
    """
    with _looking(asked, deps, now) as look:
        return [look.series(member)[0].judged() for member in look.members]


def explain_gaps(symbol: str, asked: Question, deps: Deps, now: datetime) -> Explanation:
    """The completeness of one symbol with the evidence for it. Reads only. Raises as ``find_gaps``."""
    with _looking(replace(asked, symbols=[symbol]), deps, now, with_ledger=True) as look:
        (member,) = look.members
        series, stored, rejected = look.series(member)
        about = (look.connection, member.id, asked.interval, series.window, asked.as_of)
        ledger, heard = store_gaps.history(*about), silences.heard(*about)
    names, counts = np.unique(stored.provider.astype(str), return_counts=True)
    return Explanation(
        completeness=series.judged(),
        series=series,
        stored=stored,
        tier=member.kept_in,
        providers=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        ledger=ledger,
        heard=heard,
        rejected=rejected,
        as_of=asked.as_of,
    )


@contextmanager
def _looking(asked: Question, deps: Deps, now: datetime, *, with_ledger: bool = False) -> Iterator[_Look]:
    """A look at the store for what is asked, in one transaction; as of an instant, in one snapshot of all that was
    known by then.
    """
    if asked.as_of is None:
        with deps.database.transaction() as connection:
            yield _Look(connection, asked, deps, now)
        return
    await_changes(deps.database, asked.as_of)
    if with_ledger:  # a scan that is under way dates what it finds before it is seen
        await_scan(deps.database, asked.as_of)
    await_writers(deps.database, asked.as_of, asked.interval, asked.symbols)
    with deps.database.transaction() as connection:
        at_one_moment(connection)
        yield _Look(connection, asked, deps_at(connection, deps, asked.as_of), asked.as_of)


class _Look:
    """What is known of symbols in a transaction: now, or ``as_of`` an instant that takes the place of now. ``deps``:
    with the policy and the calendars of then.
    """

    def __init__(self, connection: Connection, asked: Question, deps: Deps, now: datetime) -> None:
        self.connection, self._asked, self._deps, self._now = connection, asked, deps, now
        self.members = reference.asked_for(connection, asked.symbols, asked.as_of)
        self._kept_from = horizon(deps.running.policy, asked.interval, now)
        self._covered: Mapping[int, Sequence[TimeWindow]] = {}
        if asked.as_of is None:
            ids = [member.id for member in self.members]
            self._covered = store_bars.read_coverage(connection, ids, asked.interval)
            return
        # What was deleted since cannot be told, and is not expected of then either.
        lost = lost_before(connection, subject_of(asked.interval))
        self._kept_from = max(filter(None, (self._kept_from, lost)), default=None)

    def series(self, member: Instrument) -> tuple[Series, StoredBars, Sequence[bar_reports.Rejected]]:
        """What a symbol is judged by, the bars of the window, and those that broke a rule."""
        asked, window = self._asked, self._window(member)
        about = (self.connection, member.id, asked.interval, window)
        stored = store_bars.read_bars(*about, asked.as_of)
        rejected = bar_reports.rejected(*about, asked.as_of)
        if asked.as_of is None:
            covered = gaps.spans_of(self._covered[member.id])
        else:
            covered = coverage_as_of(*about, asked.as_of)
        return self._series(member, window, (covered, stored.bars.ts_us, rejected)), stored, rejected

    def _window(self, member: Instrument) -> TimeWindow:
        asked, calendar = self._asked, self._deps.calendars.get(member.mic)
        if asked.as_of is not None and asked.window.start is not None and asked.window.start >= asked.as_of:
            raise InvalidRequestError(
                f"start {asked.window.start.isoformat()} is not before as_of {asked.as_of.isoformat()}",
                field="start",
                hint="nothing was expected yet of what came later",
            )
        # Beyond what a calendar knows nothing is expected; one that ends must not stop the others.
        window = asked.window.on(calendar, asked.interval, min(self._now, calendar.horizon))
        longest = timedelta(seconds=_MOST_INTERVALS * asked.interval.seconds)
        if window.end - window.start > longest:
            raise InvalidRequestError(
                f"more than {longest.days:,} days of {asked.interval} at a time",
                field="start",
                hint="ask for a part at a time, or for a longer interval",
            )
        return window

    def _series(
        self,
        member: Instrument,
        window: TimeWindow,
        known: tuple[Spans, Times, Sequence[bar_reports.Rejected]],
    ) -> Series:
        deps, interval = self._deps, self._asked.interval
        covered, bars_us, rejected = known
        whole, kept = deps.calendars.get(member.mic), deps.calendars.get_of(member.mic, member.id)
        starts, ends = ended_intervals(member, whole, window, interval, self._now, since=self._kept_from)
        step_us = interval.seconds * 1_000_000
        due_us = to_us(self._now - timedelta(seconds=due_after_s(member.tier, interval, member.mic, deps)))
        return Series(
            symbol=member.symbol,
            interval=interval,
            window=window,
            starts=starts,
            ends=ends,
            covered=covered,
            halted=slots(gaps.untraded(whole, kept, window, interval), interval),
            bars_us=bars_us,
            rejected_us=np.array([to_us(bar.ts) // step_us * step_us for bar in rejected], dtype=np.int64),
            due_us=due_us,
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a person took responsibility for: the windows, and how many intervals they hold."""

    symbol: str
    interval: Interval
    windows: tuple[TimeWindow, ...]
    intervals: int

    def as_dict(self) -> dict[str, object]:
        """As JSON shows it; times are datetimes."""
        windows = [{"start": window.start, "end": window.end} for window in self.windows]
        about = {"symbol": self.symbol, "interval": self.interval.value}
        return {**about, "accepted": self.intervals, "windows": windows}


def accept_gaps(symbol: str, asked: Question, word: tuple[str, str], deps: Deps, now: datetime) -> Accepted:
    """Count what is missing of a symbol in a window as silence, on somebody's word: (actor, reason). Audited.

    The ledger is closed and letters of failed jobs about it are resolved at once. Raises InvalidRequestError when
    nothing is missing there, or no reason is given; UnknownSymbolError.
    """
    if not word[1].strip():
        raise InvalidRequestError("say why", field="reason", hint="--reason 'trading was halted for news'")
    found = explain_gaps(symbol, asked, deps, now)
    if not found.completeness.gaps:
        raise InvalidRequestError(
            f"nothing is missing of {symbol} {asked.interval} in that window",
            field="start",
            hint=f"`mdtasks gaps {symbol} --interval {asked.interval}` shows what is",
        )
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, [symbol])[symbol]
        calendar = deps.calendars.get_of(member.mic, member.id)
        # Only time that is expected now: a night that turns out to be a session was nobody's word.
        windows = tuple(
            window
            for gap in found.completeness.gaps
            for window in gaps.windows_of(slots(calendar.expected(gap.window, asked.interval), asked.interval))
        )
        hold_writers(connection, asked.interval, [member.id])
        for window in windows:
            silences.accept(connection, member.id, asked.interval, window, word)
    scan(Scope(member.tier, asked.interval, [member.id]), deps, now, found_by=ACTOR)
    return Accepted(symbol, asked.interval, windows, found.completeness.missing)
