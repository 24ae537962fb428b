"""One suite for every provider: what the protocol promises, asked of each adapter on data made here.

An adapter joins by a world of ``provider_worlds``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mdtasks.domain.action_news import combined
from mdtasks.domain.actions import Days
from mdtasks.domain.bars import Bars, to_us, validated
from mdtasks.domain.errors import NoDataError, NotYetError, ProviderError, UnsupportedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.providers.files import FilesProvider
from mdtasks.providers.lean import LeanProvider
from tests.integration.answered import answered
from tests.integration.provider_worlds import CALENDARS, UNKNOWN, WINDOW, WORLDS, World, simulator_world
from tests.vendors.configured import SWITCHES


@pytest.fixture(params=WORLDS, ids=[name for name, *_ in WORLDS])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    _, build, listing, interval = request.param
    made: World = build(tmp_path, listing, interval)
    with made.open:
        yield made


def fetch(world: World, window: TimeWindow = WINDOW) -> Bars:
    answer = world.provider.fetch_bars([world.listing], world.interval, window, world.now)
    assert not answer.errors
    return answer.bars[world.listing.symbol]


def same(left: Bars, right: Bars) -> bool:
    pairs = zip((left.ts_us, *left.columns), (right.ts_us, *right.columns), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_bars_are_exactly_what_the_source_holds(world: World) -> None:
    bars = fetch(world)
    assert len(bars)
    if world.truth is not None:
        assert same(bars, world.truth)
    else:
        assert np.array_equal(bars.ts_us, CALENDARS.get(world.listing.mic).expected(WINDOW, world.interval))


def test_healthy_bars_pass_validation_whole_and_in_order(world: World) -> None:
    bars = fetch(world)
    good, rejected = validated(bars, WINDOW, world.interval)
    assert rejected == []
    assert same(good, bars)


@pytest.mark.parametrize("cut", [timedelta(hours=12), timedelta(hours=86, minutes=37), timedelta(hours=93)])
def test_two_windows_side_by_side_give_what_the_whole_gives(world: World, cut: timedelta) -> None:
    middle = WINDOW.start + cut
    parts = [TimeWindow(start=WINDOW.start, end=middle), TimeWindow(start=middle, end=WINDOW.end)]
    answers = [world.provider.fetch_bars([world.listing], world.interval, part, world.now) for part in parts]
    halves = [answer.bars.get(world.listing.symbol, Bars.empty()) for answer in answers]
    assert same(Bars.concat(halves), fetch(world))


@pytest.mark.parametrize("hours", [9.99, 10.0, 10.5, 11.26, 16.0, 40.0])
def test_only_bars_that_ended_by_now_are_given_and_all_of_them(world: World, hours: float) -> None:
    whole = fetch(world)
    now = WINDOW.start + timedelta(hours=hours)
    ends = CALENDARS.get(world.listing.mic).interval_end(whole.ts_us, world.interval)
    if world.provider.name == "databento" and world.interval is Interval.D1:  # its days are those of UTC
        ends = whole.ts_us + 86_400_000_000
    expected = whole.take(ends <= to_us(now - timedelta(seconds=world.provider.capabilities.delay_s)))
    try:
        answer = world.provider.fetch_bars([world.listing], world.interval, WINDOW, now)
    except NotYetError:
        assert not len(expected)
    else:
        assert same(answer.bars[world.listing.symbol], expected)


def test_asking_again_gives_the_same_also_from_a_new_instance(world: World, tmp_path: Path) -> None:
    first = fetch(world)
    assert same(fetch(world), first)
    if world.provider.name in SWITCHES:
        return
    again: World = {
        "simulator": lambda: simulator_world(tmp_path, world.listing, world.interval),
        "files": lambda: World(FilesProvider(tmp_path / "map.yaml", CALENDARS), world.listing, world.interval, None),
        "lean": lambda: World(LeanProvider(tmp_path, CALENDARS), world.listing, world.interval, None),
    }[world.provider.name]()
    assert same(fetch(again), first)


def test_every_symbol_asked_for_is_in_exactly_one_of_bars_and_errors(world: World) -> None:
    answer = world.provider.fetch_bars([world.listing, UNKNOWN], world.interval, WINDOW, world.now)
    if not world.tells_unknown:
        assert (set(answer.bars), answer.errors) == ({world.listing.symbol, UNKNOWN.symbol}, {})
        assert not len(answer.bars[UNKNOWN.symbol])
        return
    assert set(answer.bars) == {world.listing.symbol}
    assert set(answer.errors) == {UNKNOWN.symbol}
    error = answer.errors[UNKNOWN.symbol]
    assert isinstance(error, NoDataError)
    assert not error.retryable
    assert error.provider == world.provider.name


def test_what_is_unanswered_lies_in_the_window_and_holds_no_bar(world: World) -> None:
    wide = TimeWindow(start=WINDOW.start - timedelta(days=3), end=WINDOW.end + timedelta(days=3))
    answer = world.provider.fetch_bars([world.listing], world.interval, wide, world.now)
    parts = answered(answer, world.listing.symbol, wide)
    cuts = [cut.window for cut in answer.unanswered.get(world.listing.symbol, ())]
    pieces = sorted([*parts, *cuts], key=lambda piece: piece.start)
    assert pieces[0].start == wide.start
    assert pieces[-1].end == wide.end
    assert all(a.end == b.start for a, b in pairwise(pieces))
    bars = answer.bars[world.listing.symbol]
    assert sum(len(bars.within(part)) for part in parts) == len(bars)
    assert all(isinstance(cut.error, ProviderError) for cut in answer.unanswered.get(world.listing.symbol, ()))


def test_capabilities_are_declared_and_kept(world: World) -> None:
    capabilities = world.provider.capabilities
    assert world.interval in capabilities.intervals
    assert capabilities.max_symbols >= 1
    assert capabilities.complete or world.provider.name in {"finnhub", "yfinance", "databento"}
    assert world.provider.check()


def test_an_interval_that_is_not_declared_is_refused(world: World) -> None:
    for interval in set(Interval) - world.provider.capabilities.intervals:
        with pytest.raises(UnsupportedError):
            world.provider.fetch_bars([world.listing], interval, WINDOW, world.now)


def test_quotes_are_given_as_declared(world: World) -> None:
    if not world.provider.capabilities.quotes:
        with pytest.raises(UnsupportedError):
            world.provider.fetch_quotes([world.listing], world.now)
        return
    quotes = world.provider.fetch_quotes([world.listing, UNKNOWN], world.now)
    assert UNKNOWN.symbol not in quotes
    for quote in quotes.values():
        assert quote.ts <= world.now
        assert quote.bid is not None
        assert quote.ask is not None
        assert 0 < quote.bid < quote.ask


def test_corporate_actions_are_given_as_declared(world: World) -> None:
    days = Days(date(2022, 1, 1), date(2024, 5, 1))
    asked = [world.listing, UNKNOWN]
    if not world.provider.capabilities.actions:
        with pytest.raises(UnsupportedError):
            world.provider.fetch_actions(asked, days, world.now)
        return
    answer = world.provider.fetch_actions(asked, days, world.now)
    assert not set(answer.actions) & set(answer.errors)
    assert set(answer.actions) | set(answer.errors) == {listing.symbol for listing in asked}
    for found in answer.actions.values():
        assert all(each.ex_date in days for each in found)
        assert combined(found) == combined(reversed(found))


def test_a_listing_is_refused_where_none_is_declared(world: World) -> None:
    if not world.provider.capabilities.listing:
        with pytest.raises(UnsupportedError, match="does not list its instruments"):
            world.provider.listing(world.now)
    else:  # none of these worlds lists anything, and an empty listing is none
        with pytest.raises(ProviderError):
            world.provider.listing(world.now)
