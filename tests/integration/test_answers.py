"""What an answer covers, through the whole of an attempt: cuts, rejected bars, silence, time that has not settled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from mdtasks.domain.bars import Bars, Quote, to_us
from mdtasks.domain.errors import NoDataError, ProviderError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.fetch import Ask, fetch
from mdtasks.providers.base import BarsAnswer, Capabilities, Unanswered
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings

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


def test_a_cut_that_has_not_settled_is_not_missed_yet(plain: Deps) -> None:
    late = TimeWindow(start=at(16, 58), end=at(21))
    gathered = fetch(_deps(plain, Told("first", cuts=[late])), SPY, Ask(Interval.M1, SESSION, at(16, 58)), None)
    assert gathered.shortfall is None
    assert gathered.parts[0].covered[-1].end == at(16, 57)


def test_a_daily_bar_of_a_session_that_still_trades_is_not_missed_yet(plain: Deps) -> None:
    today = TimeWindow(start=FRIDAY, end=FRIDAY + timedelta(days=1))
    week = TimeWindow(start=FRIDAY - timedelta(days=4), end=FRIDAY + timedelta(days=1))
    gathered = fetch(_deps(plain, Told("first", cuts=[today])), SPY, Ask(Interval.D1, week, NOON), None)
    assert gathered.shortfall is None
    assert [part.covered[-1].end for part in gathered.parts] == [FRIDAY]


def test_what_one_provider_leaves_open_the_next_is_asked_for_and_no_more(plain: Deps) -> None:
    hole = TimeWindow(start=at(15), end=at(15, 30))
    first, second = Told("first", cuts=[hole]), Told("second")
    gathered = fetch(_deps(plain, first, second), SPY, Ask(Interval.M1, SESSION, NOON + timedelta(hours=1)), None)
    assert second.asked == [hole]
    assert gathered.shortfall is None
    assert [part.provider for part in gathered.parts] == ["first", "second"]
    assert sum(len(part.bars) for part in gathered.parts) == 150


def test_a_cut_that_nobody_fills_fails_the_job_with_its_reason_and_stays_open(plain: Deps) -> None:
    hole = TimeWindow(start=at(15), end=at(15, 30))
    first, second = (Told(name, cuts=[hole]) for name in ("first", "second"))
    gathered = fetch(_deps(plain, first, second), SPY, Ask(Interval.M1, SESSION, NOON + timedelta(hours=1)), None)
    assert isinstance(gathered.shortfall, NoDataError)
    assert gathered.shortfall.provider == "first"
    assert gathered.parts[0].covered == (
        TimeWindow(start=SESSION.start, end=hole.start),
        TimeWindow(start=hole.end, end=SESSION.end),
    )


def test_rejected_bars_are_not_verified_silence(plain: Deps) -> None:
    provider = Told("first")
    provider.wrong = {at(15, 10), at(15, 11)}
    gathered = fetch(_deps(plain, provider), SPY, Ask(Interval.M1, SESSION, NOON + timedelta(hours=1)), None)
    assert gathered.shortfall is not None
    assert (gathered.shortfall.code, gathered.shortfall.retryable) == ("bad_bars", True)
    assert gathered.parts[0].covered == (
        TimeWindow(start=SESSION.start, end=at(15, 10)),
        TimeWindow(start=at(15, 12), end=SESSION.end),
    )


@pytest.mark.parametrize("complete", [True, False])
def test_silence_counts_only_of_a_provider_that_declares_complete_answers(plain: Deps, complete: bool) -> None:
    provider = Told("first", complete=complete)
    provider.silent = {at(15, 10)}
    gathered = fetch(_deps(plain, provider), SPY, Ask(Interval.M1, SESSION, NOON + timedelta(hours=1)), None)
    assert gathered.shortfall is None
    assert len(gathered.parts[0].covered) == (1 if complete else 2)


def test_a_provider_is_not_asked_for_what_lies_beyond_its_history(plain: Deps) -> None:
    short, long = Told("short"), Told("long")
    short.capabilities = replace(short.capabilities, history=timedelta(days=1))
    ask = Ask(Interval.M1, SESSION, NOON + timedelta(days=3))
    gathered = fetch(_deps(plain, short, long), SPY, ask, None)
    assert short.asked == []
    assert [part.provider for part in gathered.parts] == ["long"]
    assert "reaches back 1 days only" in (gathered.heard or "")
