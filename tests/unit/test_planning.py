"""The plan of calls: everything wanted is in exactly one call or named with why not, within what is declared."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import NotYetError, UnsupportedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import Capabilities
from mdtasks.providers.planning import Declaration, Plan, Wanted, in_reach, plan, points

NOW = datetime(2024, 6, 5, 15, 30, 20, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR_US = 3_600_000_000
LISTINGS = [Listing(f"S{number}", "XNYS") for number in range(7)]


def window(start: datetime, length: timedelta) -> TimeWindow:
    return TimeWindow(start=start, end=start + length)


def planned(capabilities: Capabilities, interval: Interval, *wanted: tuple[Listing, TimeWindow]) -> Plan:
    return plan(Declaration("v", capabilities), interval, [Wanted(*each) for each in wanted], NOW)


def test_symbols_of_one_window_share_a_call_as_far_as_it_takes_them() -> None:
    told = Capabilities(frozenset(Interval), max_symbols=3)
    when, other = window(datetime(2024, 6, 3, tzinfo=UTC), DAY), window(datetime(2024, 6, 4, tzinfo=UTC), DAY)
    found = planned(told, Interval.M1, *((listing, when) for listing in LISTINGS), (LISTINGS[0], other))
    assert [(len(call.listings), call.window) for call in found.calls] == [(3, when), (3, when), (1, when), (1, other)]
    assert found.not_asked == ()


def test_a_window_that_is_too_long_is_cut() -> None:
    told = Capabilities(frozenset(Interval), windows={Interval.M1: timedelta(days=30)})
    when = window(datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=70))
    found = planned(told, Interval.M1, (LISTINGS[0], when))
    assert [(call.window.end - call.window.start).days for call in found.calls] == [30, 30, 10]
    assert [call.window for call in planned(told, Interval.D1, (LISTINGS[0], when)).calls] == [when]


def test_a_call_holds_no_more_bars_than_few_pages_do() -> None:
    told = Capabilities(frozenset(Interval), max_symbols=500, points=50_000)
    many = [Listing(f"S{number}", "XNYS") for number in range(120)]
    when = window(datetime(2024, 6, 3, tzinfo=UTC), DAY)  # a Monday: 960 minutes at most
    found = planned(told, Interval.M1, *((listing, when) for listing in many))
    assert [len(call.listings) for call in found.calls] == [52, 52, 16]
    year = window(datetime(2023, 1, 2, tzinfo=UTC), timedelta(days=364))
    calls = planned(told, Interval.M1, *((listing, year) for listing in many)).calls
    assert max(sum(points(each, Interval.M1, call.window) for each in call.listings) for call in calls) <= 50_000
    assert len(planned(told, Interval.D1, *((listing, year) for listing in many)).calls) == 1


def test_round_the_clock_and_weekdays_are_counted_as_such() -> None:
    week = window(datetime(2024, 6, 3, tzinfo=UTC), timedelta(days=7))
    stock, pair = Listing("A", "XNYS"), Listing("BTC-USD", "24/7")
    assert (points(stock, Interval.M1, week), points(pair, Interval.M1, week)) == (5 * 960, 7 * 1440)
    assert (points(stock, Interval.D1, week), points(pair, Interval.D1, week)) == (5, 7)
    assert points(stock, Interval.M1, window(week.start, timedelta(minutes=3))) == 3
    assert points(stock, Interval.M1, window(datetime(2024, 6, 8, tzinfo=UTC), DAY)) == 1  # a Saturday


def test_what_is_too_old_is_named_and_the_rest_is_asked_for() -> None:
    told = Capabilities(frozenset(Interval), history=timedelta(days=30), histories={Interval.M1: timedelta(days=10)})
    when = window(datetime(2024, 5, 1, tzinfo=UTC), timedelta(days=30))
    found = planned(told, Interval.M1, (LISTINGS[0], when))
    edge = datetime(2024, 5, 26, 15, 31, tzinfo=UTC)  # the first whole minute within reach
    assert [call.window for call in found.calls] == [TimeWindow(start=edge, end=when.end)]
    (left,) = found.not_asked
    assert left.window == TimeWindow(start=when.start, end=edge)
    assert isinstance(left.error, UnsupportedError)
    assert "reaches back 10 days only" in left.error.message


def test_what_is_too_young_waits_and_says_how_long() -> None:
    told = Capabilities(frozenset(Interval), delay_s=900.0)
    when = TimeWindow(start=datetime(2024, 6, 5, 15, tzinfo=UTC), end=NOW)
    found = planned(told, Interval.M1, (LISTINGS[0], when))
    assert found.calls[0].window.end == datetime(2024, 6, 5, 15, 15, tzinfo=UTC)
    (left,) = found.not_asked
    assert isinstance(left.error, NotYetError)
    assert left.error.retryable
    assert left.window == TimeWindow(start=found.calls[0].window.end, end=datetime(2024, 6, 5, 15, 30, tzinfo=UTC))
    assert left.error.retry_after_s == pytest.approx(880)


def test_what_has_not_ended_is_neither_asked_for_nor_missed() -> None:
    told = Capabilities(frozenset(Interval))
    ahead = TimeWindow(start=NOW + timedelta(minutes=1), end=NOW + timedelta(hours=1))
    assert planned(told, Interval.M1, (LISTINGS[0], ahead)) == Plan()
    today = TimeWindow(start=datetime(2024, 6, 5, tzinfo=UTC), end=datetime(2024, 6, 6, tzinfo=UTC))
    assert planned(told, Interval.D1, (LISTINGS[0], today)).calls[0].window == today  # it may have ended at the close


def test_an_exchange_or_an_interval_that_is_not_served_is_named() -> None:
    told = Capabilities(frozenset({Interval.D1}), mics=frozenset({"XNYS"}))
    when = window(datetime(2024, 6, 3, tzinfo=UTC), DAY)
    found = planned(told, Interval.D1, (LISTINGS[0], when), (Listing("7203", "XTKS"), when))
    assert [call.listings for call in found.calls] == [(LISTINGS[0],)]
    assert "does not serve XTKS, where 7203 trades" in found.not_asked[0].error.message
    found = planned(told, Interval.M1, (LISTINGS[0], when))
    assert not found.calls
    assert "has no 1m bars, only 1d" in found.not_asked[0].error.message
    with pytest.raises(UnsupportedError):
        in_reach(Declaration("v", told), Interval.M1, when, NOW)


_FIRST = datetime(2024, 4, 1, tzinfo=UTC)
_TIMES = st.integers(to_us(_FIRST) // 60_000_000, to_us(NOW) // 60_000_000 + 60)
_WINDOWS = st.tuples(_TIMES, _TIMES).filter(lambda each: each[0] < each[1]).map(
    lambda each: TimeWindow(start=from_us(each[0] * 60_000_000), end=from_us(each[1] * 60_000_000))
)  # fmt: skip
_TOLD = st.builds(
    Capabilities,
    intervals=st.just(frozenset(Interval)),
    max_symbols=st.integers(1, 5),
    delay_s=st.sampled_from([0.0, 900.0, 86_400.0]),
    history=st.sampled_from([None, timedelta(days=10), timedelta(days=40)]),
    windows=st.sampled_from([{}, {Interval.M1: timedelta(days=3)}, {Interval.H1: timedelta(days=8)}]),
    points=st.sampled_from([None, 2000, 50_000]),
)


@settings(deadline=None)  # two months of minutes take their time
@given(
    told=_TOLD,
    interval=st.sampled_from(list(Interval)),
    wanted=st.lists(st.tuples(st.sampled_from(LISTINGS), _WINDOWS), min_size=1, max_size=6),
)
def test_each_interval_that_is_wanted_and_ended_is_in_one_call_or_named_and_none_is_beyond_reach(
    told: Capabilities, interval: Interval, wanted: list[tuple[Listing, TimeWindow]]
) -> None:
    found = planned(told, interval, *wanted)
    step_us = interval.seconds * 1_000_000

    every = np.arange(to_us(_FIRST) // step_us * step_us, to_us(NOW) + HOUR_US + step_us, step_us)

    def times(parts: Iterable[tuple[Listing, TimeWindow]]) -> dict[str, NDArray[np.int64]]:
        """How often each interval of a symbol starts in one of the parts, shape of ``every``."""
        counts = {each.symbol: np.zeros(len(every), dtype=np.int64) for each in LISTINGS}
        for each, part in parts:
            counts[each.symbol] += (every >= to_us(part.start)) & (every < to_us(part.end))
        return counts

    called = times((each, call.window) for call in found.calls for each in call.listings)
    named = times((left.listing, left.window) for left in found.not_asked)
    asked = times(wanted)
    ended = every <= to_us(NOW) - step_us
    oldest_us = to_us(NOW - told.history) if told.history else 0
    reached = (every >= oldest_us) & (every <= to_us(NOW) - told.delay_s * 1_000_000)
    for symbol in called:
        counted = ended & (asked[symbol] > 0)
        assert np.array_equal((called[symbol] + named[symbol])[counted], asked[symbol][counted])
        assert not np.any(called[symbol][~reached])
    for call in found.calls:
        assert len(call.listings) <= told.max_symbols
        assert call.window.end - call.window.start <= told.windows.get(interval, timedelta.max)
        if told.points is not None:
            size = sum(points(each, interval, call.window) for each in call.listings)
            assert size <= told.points or len(call.listings) == 1
