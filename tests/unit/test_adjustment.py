"""Adjustment: Yahoo's own series out of raw prices and actions, and rules that hold for any."""

from __future__ import annotations

import csv
import itertools
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.actions import Action, Kind
from mdtasks.domain.adjustment import (
    Adjust,
    factors,
    in_money_of,
    needs_close,
    trading_day,
    trading_days,
)
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.errors import CannotAdjustError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.sessions import Calendars

CALENDARS = Calendars()
DAY_US = 86_400_000_000
MONDAY = date(2024, 3, 11)


def label_us(day: date) -> int:
    return to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))


def daily(first: date, closes: list[float]) -> Bars:
    """Bars of consecutive days, all prices the close, 100 shares each."""
    ts = [label_us(first) + i * DAY_US for i in range(len(closes))]
    return Bars.of(ts, closes, closes, closes, closes, [100.0] * len(closes))


def closes_before(bars: Bars, actions: list[Action]) -> dict[date, float]:
    found = {}
    for each in actions:
        before = np.flatnonzero(bars.ts_us < label_us(each.ex_date))
        if len(before):
            found[each.ex_date] = float(bars.close[before[-1]])
    return found


def test_raw_aapl_and_its_actions_give_yahoos_close_and_adjusted_close_every_day(shared_data: Path) -> None:
    """13 years: what Yahoo shows is undone to raw prices by the splits, then made again."""
    with (shared_data / "actions" / "AAPL.csv").open() as stream:
        actions = [
            Action(Kind(row["kind"]), date.fromisoformat(row["ex_date"]), float(row["value"]))
            for row in csv.DictReader(stream)
        ]
    with (shared_data / "mplfinance" / "yahoofinance-AAPL-20040819-20180120.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    days = np.array([label_us(date.fromisoformat(row["Date"])) for row in rows])
    close, adjusted_close, volume = (
        np.array([float(row[name]) for row in rows]) for name in ("Close", "Adj Close", "Volume")
    )
    ratio = np.ones(len(days))
    for each in actions:
        if each.kind is Kind.SPLIT:
            assert each.value is not None
            ratio[days < label_us(each.ex_date)] *= each.value
    assert ratio[0] == 14
    traded = close * ratio
    raw = Bars.of(days, traded, traded, traded, traded, volume / ratio)
    assert len(raw) == 3379
    assert sum(each.kind is Kind.DIVIDEND for each in actions) == 22

    assert factors(actions, days, {}, Adjust.NONE).adjusted(raw).close.tolist() == traded.tolist()
    split = factors(actions, days, {}, Adjust.SPLIT).adjusted(raw)
    assert np.abs(split.close - close).max() < 1e-12
    assert np.abs(split.volume - volume).max() < 1e-6
    total = factors(actions, days, closes_before(raw, actions), Adjust.TOTAL).adjusted(raw)
    # Yahoo prints six decimals, and keeps its factors in single precision: half a unit for each dividend to come.
    dividends = np.array([label_us(each.ex_date) for each in actions if each.kind is Kind.DIVIDEND])
    to_come = len(dividends) - np.searchsorted(dividends, days, side="right")
    assert (np.abs(total.close - adjusted_close) <= 1e-6 + to_come * 2.0**-24 * adjusted_close).all()
    assert total.volume.tolist() == split.volume.tolist()


def test_prices_and_volumes_before_a_split_change_and_those_of_its_day_do_not() -> None:
    bars = daily(MONDAY, [645.57, 93.7])
    split = factors([Action(Kind.SPLIT, MONDAY + timedelta(days=1), 7.0)], bars.ts_us, {}, Adjust.SPLIT)
    assert split.adjusted(bars).close.tolist() == [645.57 / 7, 93.7]
    assert split.adjusted(bars).volume.tolist() == [700.0, 100.0]


def test_a_dividend_goes_by_the_close_of_the_day_before_as_it_was_then() -> None:
    # 0.08 of 24.96, Yahoo's own example; a split later on changes neither.
    bars = daily(MONDAY, [24.96, 25.0, 12.5])
    actions = [
        Action(Kind.DIVIDEND, MONDAY + timedelta(days=1), 0.08),
        Action(Kind.SPLIT, MONDAY + timedelta(days=2), 2.0),
    ]
    found = factors(actions, bars.ts_us, {MONDAY + timedelta(days=1): 24.96}, Adjust.TOTAL)
    assert found.price.tolist() == [(1 - 0.08 / 24.96) / 2, 0.5, 1.0]
    assert found.volume.tolist() == [2.0, 2.0, 1.0]


def test_two_splits_multiply_and_a_reverse_one_divides() -> None:
    bars = daily(MONDAY, [28.0, 4.0, 40.0])
    actions = [
        Action(Kind.SPLIT, MONDAY + timedelta(days=1), 7.0),
        Action(Kind.SPLIT, MONDAY + timedelta(days=2), 0.1),
    ]
    assert factors(actions, bars.ts_us, {}, Adjust.SPLIT).shares.tolist() == pytest.approx([0.7, 0.1, 1.0])


def test_stock_dividends_are_shares_and_spin_offs_are_worth() -> None:
    bars = daily(MONDAY, [21.0, 20.0])
    tuesday = MONDAY + timedelta(days=1)
    stock, spun, unknown = (
        Action(Kind.STOCK_DIVIDEND, tuesday, 0.05),
        Action(Kind.SPIN_OFF, tuesday, 0.8, symbol="NEW"),
        Action(Kind.SPIN_OFF, tuesday, symbol="OTHER"),
    )
    every = [stock, spun, unknown, Action(Kind.RENAME, tuesday, symbol="AA"), Action(Kind.DELISTING, tuesday)]
    assert factors(every, bars.ts_us, {}, Adjust.SPLIT).price.tolist() == pytest.approx([1 / 1.05, 1.0])
    total = factors(every, bars.ts_us, {}, Adjust.TOTAL)
    assert total.price.tolist() == pytest.approx([0.8 / 1.05, 1.0])
    assert total.volume.tolist() == pytest.approx([1.05, 1.0])


def test_a_dividend_without_a_close_or_above_it_is_refused_and_one_before_all_bars_needs_none() -> None:
    bars, day = daily(MONDAY, [10.0, 10.0]), MONDAY + timedelta(days=1)
    with pytest.raises(CannotAdjustError, match="no close is known before the dividend of 2024-03-12"):
        factors([Action(Kind.DIVIDEND, day, 1.0)], bars.ts_us, {}, Adjust.TOTAL)
    with pytest.raises(CannotAdjustError, match="is 11, the close before it 10"):
        factors([Action(Kind.DIVIDEND, day, 11.0)], bars.ts_us, {day: 10.0}, Adjust.TOTAL)
    old = [Action(Kind.DIVIDEND, MONDAY, 1.0)]
    assert needs_close(old, bars.ts_us, Adjust.TOTAL) == []
    assert factors(old, bars.ts_us, {}, Adjust.TOTAL).price.tolist() == [1.0, 1.0]
    assert needs_close([Action(Kind.DIVIDEND, day, 1.0)], bars.ts_us, Adjust.TOTAL) == [day]
    assert needs_close([Action(Kind.DIVIDEND, day, 1.0)], bars.ts_us, Adjust.SPLIT) == []


def test_money_is_that_of_the_exchange() -> None:
    pounds = Action(Kind.DIVIDEND, MONDAY, 0.5, currency="GBP")
    assert in_money_of([pounds], "XLON")[0].value == 50.0
    assert in_money_of([pounds], "XFRA") == [pounds]
    with pytest.raises(CannotAdjustError, match="is in GBP, prices are in USD"):
        in_money_of([pounds], "XNYS")


def minutes_of(mic: str, *times: str) -> list[str]:
    ts = np.array([to_us(datetime.fromisoformat(time)) for time in times])
    days = trading_days(CALENDARS.get(mic), ts, Interval.M1)
    return [f"{datetime.fromtimestamp(int(each) // 1_000_000, UTC):%m-%d}" for each in days]


def test_an_ex_date_begins_with_its_session_and_not_at_midnight_utc() -> None:
    # After hours of Friday, past midnight UTC; before hours of Monday; in between.
    new_york = minutes_of(
        "XNYS", "2024-03-08T23:59Z", "2024-03-09T00:30Z", "2024-03-10T12:00Z", "2024-03-11T08:00Z", "2024-03-11T19:59Z"
    )
    assert new_york == ["03-08", "03-08", "03-08", "03-11", "03-11"]
    # Sydney opens at 23:00 UTC of the evening before in summer.
    assert minutes_of("XASX", "2024-01-15T04:59Z", "2024-01-15T22:59Z", "2024-01-15T23:00Z") == [
        "01-15",
        "01-16",
        "01-16",
    ]
    assert minutes_of("24/7", "2024-03-09T23:59Z", "2024-03-10T00:00Z") == ["03-09", "03-10"]
    hour = np.array([to_us(datetime(2024, 3, 8, 14, tzinfo=UTC))])
    assert trading_days(CALENDARS.get("XNYS"), hour, Interval.H1).tolist() == [label_us(date(2024, 3, 8))]


def test_the_trading_day_of_a_moment() -> None:
    calendar = CALENDARS.get("XNYS")
    assert trading_day(calendar, datetime(2024, 3, 10, 12, tzinfo=UTC)) == date(2024, 3, 8)
    assert trading_day(calendar, datetime(2024, 3, 11, 3, 59, tzinfo=UTC)) == date(2024, 3, 8)
    assert trading_day(calendar, datetime(2024, 3, 11, 4, 0, tzinfo=UTC)) == date(2024, 3, 11)


PRICES = st.lists(st.floats(0.01, 1e5), min_size=2, max_size=12)
SPLITS = st.sampled_from([0.1, 0.5, 1.5, 2.0, 3.0, 7.0, 20.0])


@st.composite
def histories(draw: st.DrawFn) -> tuple[Bars, list[Action]]:
    """Some days of bars, with splits, stock dividends and dividends smaller than the closes before them."""
    bars = daily(MONDAY, draw(PRICES))
    made = []
    for i, kind in draw(
        st.lists(
            st.tuples(st.integers(1, len(bars) - 1), st.sampled_from([Kind.SPLIT, Kind.DIVIDEND, Kind.STOCK_DIVIDEND])),
            max_size=8,
            unique=True,
        )
    ):
        share = draw(st.floats(0.001, 0.9))
        value = {Kind.SPLIT: draw(SPLITS), Kind.DIVIDEND: share * bars.close[i - 1], Kind.STOCK_DIVIDEND: share}[kind]
        made.append(Action(kind, MONDAY + timedelta(days=i), value))
    return bars, made


@given(histories(), st.sampled_from(Adjust))
def test_undoing_an_adjustment_gives_the_raw_bars_back(history: tuple[Bars, list[Action]], adjust: Adjust) -> None:
    bars, actions = history
    found = factors(actions, bars.ts_us, closes_before(bars, actions), adjust)
    again = found.raw(found.adjusted(bars))
    for mine, theirs in zip(again.columns, bars.columns, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=5e-16 * 4)


@given(histories())
def test_none_changes_no_bit_and_split_no_turnover(history: tuple[Bars, list[Action]]) -> None:
    bars, actions = history
    closes = closes_before(bars, actions)
    none = factors(actions, bars.ts_us, closes, Adjust.NONE).adjusted(bars)
    assert [column.tobytes() for column in none.columns] == [column.tobytes() for column in bars.columns]
    split = factors(actions, bars.ts_us, closes, Adjust.SPLIT).adjusted(bars)
    np.testing.assert_allclose(split.close * split.volume, bars.close * bars.volume, rtol=1e-12)


@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_actions_does_not_matter(history: tuple[Bars, list[Action]], random: Random) -> None:
    bars, actions = history
    closes = closes_before(bars, actions)
    expected = factors(actions, bars.ts_us, closes, Adjust.TOTAL).price
    mixed = list(actions)
    random.shuffle(mixed)
    assert factors(mixed, bars.ts_us, closes, Adjust.TOTAL).price.tobytes() == expected.tobytes()


@given(histories())
def test_returns_are_those_of_a_holder_who_reinvests(history: tuple[Bars, list[Action]]) -> None:
    """From one close to the next, the total-adjusted return is what a share and what it was given came to."""
    bars, actions = history
    total = factors(actions, bars.ts_us, closes_before(bars, actions), Adjust.TOTAL).adjusted(bars)
    for i, j in itertools.pairwise(range(len(bars))):
        here = [each for each in actions if each.ex_date == MONDAY + timedelta(days=j)]
        shares = math.prod(each.shares for each in here)
        cash = sum(each.value or 0.0 for each in here if each.kind is Kind.DIVIDEND)
        grown = bars.close[j] * shares / (bars.close[i] - cash)
        assert total.close[j] / total.close[i] == pytest.approx(grown, rel=1e-9)


@given(histories(), st.data())
def test_a_part_is_adjusted_as_the_whole_is(history: tuple[Bars, list[Action]], data: st.DataObject) -> None:
    bars, actions = history
    closes = closes_before(bars, actions)
    whole = factors(actions, bars.ts_us, closes, Adjust.TOTAL).adjusted(bars)
    start = data.draw(st.integers(0, len(bars) - 1))
    part = slice(start, data.draw(st.integers(start + 1, len(bars))))
    alone = bars.take(part)
    found = factors(actions, alone.ts_us, closes, Adjust.TOTAL).adjusted(alone)
    assert found.close.tobytes() == whole.take(part).close.tobytes()
