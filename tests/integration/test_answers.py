"""What an answer covers, through the whole of an attempt: cuts, rejected bars, silence, time that has not settled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import text

from mdtasks.domain.actions import Days
from mdtasks.domain.bars import Bars, Quote, to_us
from mdtasks.domain.errors import NoDataError, ProviderError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.silence import Silence
from mdtasks.domain.universe import Listing
from mdtasks.flows import fetch as asking
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.fetch import Ask
from mdtasks.flows.judging import Fetched, Subject
from mdtasks.providers.base import ActionsAnswer, BarsAnswer, Capabilities, Unanswered
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings
from mdtasks.store import silences
from mdtasks.store.bars import BarBatch, read_coverage, write_bars
from mdtasks.store.partitions import ensure_partitions

SPY = Listing("SPY", "XNYS")
FRIDAY = datetime(2026, 11, 20, tzinfo=UTC)
NOON = FRIDAY.replace(hour=17)
SESSION = TimeWindow(start=FRIDAY.replace(hour=14, minute=30), end=NOON)
CALENDARS = Calendars()


def at(hour: int, minute: int = 0) -> datetime:
    return FRIDAY.replace(hour=hour, minute=minute)


class Told:
    """A provider that answers as a test tells it: without bars at some times, with wrong ones at others, with cuts."""

    def __init__(self, name: str, *, cuts: Sequence[TimeWindow] = (), complete: bool = True) -> None:
        self.name = name
        self.capabilities = Capabilities(frozenset(Interval), complete=complete)
        self.cuts = cuts
        self.silent: set[datetime] = set()
        self.wrong: set[datetime] = set()
        self.asked: list[TimeWindow] = []

    def fetch_bars(
        self, listings: Sequence[Listing], interval: Interval, window: TimeWindow, now: datetime
    ) -> BarsAnswer:
        self.asked.append(window)
        starts = CALENDARS.get("XNYS").expected(window, interval)
        ended = CALENDARS.get("XNYS").interval_end(starts, interval) <= to_us(now)
        cut = np.zeros(len(starts), dtype=bool)
        for each in self.cuts:
            cut |= (starts >= to_us(each.start)) & (starts < to_us(each.end))
        starts = starts[ended & ~cut & ~np.isin(starts, [to_us(moment) for moment in self.silent])]
        ones = np.ones(len(starts))
        high = np.where(np.isin(starts, [to_us(moment) for moment in self.wrong]), -1.0, 1.0)
        bars = Bars.of(starts, ones, high, ones * 0.5, ones, ones)
        inside = [each for each in self.cuts if each.start < window.end and window.start < each.end]
        error: ProviderError = NoDataError("no file for this day", provider=self.name)
        return BarsAnswer({SPY.symbol: bars}, {}, {SPY.symbol: tuple(Unanswered(each, error) for each in inside)})

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:
        return {}

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:
        return ActionsAnswer({})

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:
        raise NotImplementedError

    def check(self) -> str:
        return "told"


@pytest.fixture
def plain(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings)
    yield opened
    opened.close()


def _deps(plain: Deps, *providers: Told) -> Deps:
    registry = Registry(plain.settings, plain.calendars)
    registry._providers = {provider.name: provider for provider in providers}
    return replace(plain, registry=registry)


@dataclass(frozen=True)
class Gathered:
    """What one subject got of a fetch, and how the fetch ended."""

    parts: list[Fetched]
    outcome: asking.Outcome

    @property
    def shortfall(self) -> ProviderError | None:
        return self.outcome.shortfall

    @property
    def covered(self) -> tuple[TimeWindow, ...]:
        (part,) = self.parts
        return tuple(part.batch.covered)


def fetch(deps: Deps, ask: Ask) -> Gathered:
    outcome = asking.fetch(deps, [Subject(1, SPY)], ask, lambda _parts: None)
    return Gathered(outcome.brought[1], outcome)


def test_a_cut_that_has_not_settled_is_not_missed_yet(plain: Deps) -> None:
    late = TimeWindow(start=at(16, 58), end=at(21))
    gathered = fetch(_deps(plain, Told("first", cuts=[late])), Ask(Interval.M1, SESSION, at(16, 58)))
    assert gathered.shortfall is None
    assert gathered.parts[0].batch.covered[-1].end == at(16, 57)


def test_a_daily_bar_of_a_session_that_still_trades_is_not_missed_yet(plain: Deps) -> None:
    today = TimeWindow(start=FRIDAY, end=FRIDAY + timedelta(days=1))
    week = TimeWindow(start=FRIDAY - timedelta(days=4), end=FRIDAY + timedelta(days=1))
    gathered = fetch(_deps(plain, Told("first", cuts=[today])), Ask(Interval.D1, week, NOON))
    assert gathered.shortfall is None
    assert [part.batch.covered[-1].end for part in gathered.parts] == [FRIDAY]


def test_what_one_provider_leaves_open_the_next_is_asked_for_and_no_more(plain: Deps) -> None:
    hole = TimeWindow(start=at(15), end=at(15, 30))
    first, second = Told("first", cuts=[hole]), Told("second")
    gathered = fetch(_deps(plain, first, second), Ask(Interval.M1, SESSION, NOON + timedelta(hours=1)))
    assert second.asked == [hole]
    assert gathered.shortfall is None
    assert [part.provider for part in gathered.parts] == ["first", "second"]
    assert sum(len(part.bars) for part in gathered.parts) == 150


def test_a_cut_that_nobody_fills_fails_the_job_with_its_reason_and_stays_open(plain: Deps) -> None:
    hole = TimeWindow(start=at(15), end=at(15, 30))
    first, second = (Told(name, cuts=[hole]) for name in ("first", "second"))
    gathered = fetch(_deps(plain, first, second), Ask(Interval.M1, SESSION, NOON + timedelta(hours=1)))
    assert isinstance(gathered.shortfall, NoDataError)
    assert gathered.shortfall.provider == "first"
    assert tuple(gathered.parts[0].batch.covered) == (
        TimeWindow(start=SESSION.start, end=hole.start),
        TimeWindow(start=hole.end, end=SESSION.end),
    )


def test_rejected_bars_are_not_verified_silence(plain: Deps) -> None:
    provider = Told("first")
    provider.wrong = {at(15, 10), at(15, 11)}
    gathered = fetch(_deps(plain, provider), Ask(Interval.M1, SESSION, NOON + timedelta(hours=1)))
    assert gathered.shortfall is not None
    assert (gathered.shortfall.code, gathered.shortfall.retryable) == ("bad_bars", True)
    assert tuple(gathered.parts[0].batch.covered) == (
        TimeWindow(start=SESSION.start, end=at(15, 10)),
        TimeWindow(start=at(15, 12), end=SESSION.end),
    )


@pytest.mark.parametrize(("complete", "age_s", "covered"), [(True, 60, 1), (False, 119, 2), (False, 120, 1)])
def test_silence_of_a_provider_that_may_leave_bars_out_counts_when_it_has_settled_twice(
    plain: Deps, complete: bool, age_s: int, covered: int
) -> None:
    provider = Told("first", complete=complete)
    provider.silent = {at(15, 10)}
    window = TimeWindow(start=at(14, 30), end=at(15, 12))
    now = at(15, 11) + timedelta(seconds=age_s)
    gathered = fetch(_deps(plain, provider), Ask(Interval.M1, window, now))
    assert gathered.shortfall is None
    ends = [span.end for span in gathered.covered]
    assert (at(15, 10) in ends) == (covered == 2)
    assert [each.believed for each in gathered.parts[0].batch.silences] == [covered == 1]


def _minutes(first: int, last: int) -> set[datetime]:
    return {at(15) + timedelta(minutes=minute) for minute in range(first, last)}


def test_a_hole_that_trading_makes_near_impossible_is_no_silence(plain: Deps) -> None:
    provider = Told("first")
    provider.silent = _minutes(10, 30)
    gathered = fetch(_deps(plain, provider), Ask(Interval.M1, SESSION, NOON + timedelta(hours=1)))
    assert gathered.shortfall is not None
    assert (gathered.shortfall.code, gathered.shortfall.retryable) == ("silence_doubted", True)
    hole = TimeWindow(start=at(15, 10), end=at(15, 30))
    assert gathered.covered == (
        TimeWindow(start=SESSION.start, end=hole.start),
        TimeWindow(start=hole.end, end=SESSION.end),
    )
    assert [(each.window, each.believed) for each in gathered.parts[0].batch.silences] == [(hole, False)]


def test_a_second_provider_is_asked_for_doubted_silence_and_settles_it(plain: Deps) -> None:
    first, agrees, fills, half = (Told(name) for name in ("first", "agrees", "fills", "half"))
    first.silent = agrees.silent = _minutes(10, 30)
    half.silent = _minutes(10, 20)
    hole = TimeWindow(start=at(15, 10), end=at(15, 30))
    ask = Ask(Interval.M1, SESSION, NOON + timedelta(hours=1))
    for second, bars in ((agrees, 0), (fills, 20), (half, 10)):
        gathered = fetch(_deps(plain, first, second), ask)
        assert second.asked == [hole]
        assert gathered.shortfall is None
        assert len(gathered.parts[1].bars) == bars
        assert tuple(gathered.parts[1].batch.covered) == (hole,)


def test_the_word_of_another_provider_or_of_a_person_from_earlier_counts_too(plain: Deps) -> None:
    provider = Told("first")
    provider.silent = _minutes(10, 30)
    deps, ask = _deps(plain, provider), Ask(Interval.M1, SESSION, NOON + timedelta(hours=1))
    hole = TimeWindow(start=at(15, 10), end=at(15, 30))
    ensure_partitions(plain.database, "bars", to_us(SESSION.start), to_us(SESSION.end))
    for who, counts in (("first", False), ("second", True)):
        with plain.database.transaction() as connection:
            heard = BarBatch(1, Bars.empty(), 0, silences=[Silence(hole, believed=False)])
            write_bars(connection, Interval.M1, [heard], who, 1)
        assert (fetch(deps, ask).shortfall is None) == counts
    with plain.database.transaction() as connection:
        connection.execute(text("DELETE FROM silences"))
        silences.accept(connection, 1, Interval.M1, hole, ("ann@desk", "halted for news"))
        audited = connection.execute(text("SELECT actor, action, details->>'reason' FROM audit_log")).one()
    assert tuple(audited) == ("ann@desk", "gaps.accept", "halted for news")
    assert fetch(deps, ask).shortfall is None


def test_a_hole_that_comes_minute_by_minute_is_found_whole(plain: Deps) -> None:
    provider = Told("first")
    provider.silent = _minutes(10, 30)
    deps = _deps(plain, provider)
    ensure_partitions(plain.database, "bars", to_us(SESSION.start), to_us(SESSION.end))

    def keep(parts: Sequence[Fetched]) -> None:
        with plain.database.transaction() as connection:
            write_bars(connection, Interval.M1, [part.batch for part in parts], "first", 1)

    doubts = []
    for minute in range(80):
        now = at(14, 40) + timedelta(minutes=minute)
        window = TimeWindow(start=max(SESSION.start, now - timedelta(minutes=4)), end=now)
        outcome = asking.fetch(deps, [Subject(1, SPY)], Ask(Interval.M1, window, now), keep)
        doubts.append(outcome.shortfall is not None)
    with plain.database.transaction() as connection:
        covered = read_coverage(connection, [1], Interval.M1)[1]
        (said,) = (each for each in silences.heard(connection, 1, Interval.M1, SESSION) if not each.believed)
    # The first few silent minutes were believed, and taken back when the run had grown too long.
    assert [(span.start, span.end) for span in covered] == [(at(14, 36), at(15, 10)), (at(15, 30), at(15, 58))]
    assert (said.starts_at, said.ends_at, said.provider) == (at(15, 10), at(15, 30), "first")
    assert not any(doubts[:30])
    assert any(doubts)


def test_a_provider_is_not_asked_for_what_lies_beyond_its_history(plain: Deps) -> None:
    short, long = Told("short"), Told("long")
    short.capabilities = replace(short.capabilities, history=timedelta(days=1))
    ask = Ask(Interval.M1, SESSION, NOON + timedelta(days=3))
    gathered = fetch(_deps(plain, short, long), ask)
    assert short.asked == []
    assert [part.provider for part in gathered.parts] == ["long"]
    assert "reaches back 1 days only" in (gathered.outcome.words or "")
