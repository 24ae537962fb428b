"""What is missing: a verdict for each interval that an exchange's sessions make us expect, and the evidence for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from mdtasks.domain import gaps
from mdtasks.domain.bars import to_us
from mdtasks.domain.completeness import Completeness, Series
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.retention import horizon
from mdtasks.domain.schedules import Times
from mdtasks.domain.silence import slots
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.expecting import ended_intervals
from mdtasks.flows.scan import ACTOR, due_after_s, scan
from mdtasks.store import bar_reports, reference, silences
from mdtasks.store import bars as store_bars
from mdtasks.store import gaps as store_gaps
from mdtasks.store.bars import StoredBars
from mdtasks.store.gaps import LedgerEntry, Scope
from mdtasks.store.reference import Instrument
from mdtasks.store.silences import Heard

#: Intervals of the clock that a question may span: each that is expected is held in memory, with its verdict.
_MOST_INTERVALS: Final = 6_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The completeness of a symbol with its evidence: bars by provider, the ledger, and what was said of silence.

    ``series`` and ``stored``: what it was judged by, interval by interval, and the bars of the window.
    """

    completeness: Completeness
    series: Series
    stored: StoredBars
    tier: Tier
    providers: dict[str, int]
    ledger: Sequence[LedgerEntry]
    heard: Sequence[Heard]
    rejected: Sequence[bar_reports.Rejected]

    def as_dict(self) -> dict[str, object]:
        """As JSON shows it; times are datetimes."""
        return {
            **self.completeness.as_dict(),
            "tier": self.tier.value,
            "providers": self.providers,
            "ledger": [{**asdict(each), "took_s": each.took_s} for each in self.ledger],
            "silences": [asdict(each) for each in self.heard],
            "rejected": [asdict(each) for each in self.rejected],
        }


@dataclass(frozen=True, slots=True)
class Question:
    """Which symbols ([]: the whole universe), which interval, which window."""

    symbols: Sequence[str]
    interval: Interval
    window: AskedWindow


def find_gaps(asked: Question, deps: Deps, now: datetime) -> list[Completeness]:
    """The completeness of each symbol, in the order asked for. Reads only.

    Raises InvalidRequestError (the window), UnknownSymbolError, StoreUnavailableError.
    """
    with deps.database.transaction() as connection:
        found = reference.resolve(connection, asked.symbols).values() if asked.symbols else None
        members = list(found) if found is not None else reference.instruments(connection)
        covered = store_bars.read_coverage(connection, [member.id for member in members], asked.interval)

        def judged(member: Instrument) -> Completeness:
            window = _window(asked, member, deps, now)
            bars_us = store_bars.read_bars(connection, member.id, asked.interval, window).bars.ts_us
            rejected = bar_reports.rejected(connection, member.id, asked.interval, window)
            known = (covered[member.id], bars_us, rejected)
            return _series(member, (asked.interval, window), known, deps, now).judged()

        return [judged(member) for member in members]


def explain_gaps(symbol: str, asked: Question, deps: Deps, now: datetime) -> Explanation:
    """The completeness of one symbol with the evidence for it. Reads only. Raises as ``find_gaps``."""
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, [symbol])[symbol]
        window = _window(asked, member, deps, now)
        covered = store_bars.read_coverage(connection, [member.id], asked.interval)[member.id]
        stored = store_bars.read_bars(connection, member.id, asked.interval, window)
        rejected = bar_reports.rejected(connection, member.id, asked.interval, window)
        ledger = store_gaps.history(connection, member.id, asked.interval, (window.start, window.end))
        heard = silences.heard(connection, member.id, asked.interval, window)
    known = (covered, stored.bars.ts_us, rejected)
    names, counts = np.unique(stored.provider.astype(str), return_counts=True)
    series = _series(member, (asked.interval, window), known, deps, now)
    return Explanation(
        completeness=series.judged(),
        series=series,
        stored=stored,
        tier=member.tier,
        providers=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        ledger=ledger,
        heard=heard,
        rejected=rejected,
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
        for window in windows:
            silences.accept(connection, member.id, asked.interval, window, word)
    scan(Scope(member.tier, asked.interval, [member.id]), deps, now, found_by=ACTOR)
    return Accepted(symbol, asked.interval, windows, found.completeness.missing)


def _window(asked: Question, member: Instrument, deps: Deps, now: datetime) -> TimeWindow:
    calendar = deps.calendars.get(member.mic)
    # Beyond what a calendar knows nothing is expected; one that ends must not stop the others.
    window = asked.window.on(calendar, asked.interval, min(now, calendar.horizon))
    longest = timedelta(seconds=_MOST_INTERVALS * asked.interval.seconds)
    if window.end - window.start > longest:
        raise InvalidRequestError(
            f"more than {longest.days:,} days of {asked.interval} at a time",
            field="start",
            hint="ask for a part at a time, or for a longer interval",
        )
    return window


def _series(
    member: Instrument,
    about: tuple[Interval, TimeWindow],
    known: tuple[Sequence[TimeWindow], Times, Sequence[bar_reports.Rejected]],
    deps: Deps,
    now: datetime,
) -> Series:
    interval, window = about
    covered, bars_us, rejected = known
    since = horizon(deps.running.policy, interval, now)
    starts, ends = ended_intervals(member, deps.calendars.get(member.mic), window, interval, now, since=since)
    whole, kept = deps.calendars.get(member.mic), deps.calendars.get_of(member.mic, member.id)
    step_us = interval.seconds * 1_000_000
    due_us = to_us(now - timedelta(seconds=due_after_s(member.tier, interval, member.mic, deps)))
    return Series(
        symbol=member.symbol,
        interval=interval,
        window=window,
        starts=starts,
        ends=ends,
        covered=gaps.spans_of(covered),
        halted=slots(gaps.untraded(whole, kept, window, interval), interval),
        bars_us=bars_us,
        rejected_us=np.array([to_us(bar.ts) // step_us * step_us for bar in rejected], dtype=np.int64),
        due_us=due_us,
    )
