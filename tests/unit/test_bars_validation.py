"""The rules a batch of bars must satisfy: each bar is either stored or quarantined, and never twice."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdtasks.domain.bars import Bars, RejectedBar, from_us, to_us, validated
from mdtasks.domain.jobs import Interval, TimeWindow

START = datetime(2024, 1, 2, tzinfo=UTC)
START_US = to_us(START)
WINDOW = TimeWindow(start=START, end=START + timedelta(minutes=20))
MINUTE_US = 60_000_000

# A coarse grid of times and few prices, so that every rule, and every pair of rules, is met often.
TIMES = st.integers(-3, 45).map(lambda half_minutes: START_US + half_minutes * 30_000_000)
PRICES = st.sampled_from([1.0, 2.0, 3.0, -1.0, 0.0, float("nan"), float("inf"), float("-inf")])
SOUND_PRICES = st.sampled_from([1.0, 2.0, 3.0])
ROWS = st.lists(
    st.tuples(TIMES, PRICES, PRICES, PRICES, PRICES, PRICES)
    | st.tuples(TIMES, SOUND_PRICES, st.just(4.0), st.just(0.5), SOUND_PRICES, st.just(10.0)),
    max_size=40,
)
Row = tuple[int, float, float, float, float, float]


def batch(rows: list[Row]) -> Bars:
    ts, open_, high, low, close, volume = ([row[i] for row in rows] for i in range(6))
    return Bars.of(np.array(ts, dtype=np.int64), open_, high, low, close, volume)


def rows_of(bars: Bars) -> list[Row]:
    return [
        (int(ts), *(float(column[i]) for column in bars.columns))  # type: ignore[misc]
        for i, ts in enumerate(bars.ts_us)
    ]


def row_of(bar: RejectedBar) -> Row:
    return (bar.ts_us, bar.open, bar.high, bar.low, bar.close, bar.volume)


def reason_of(row: Row, seen: set[int]) -> str | None:
    """The rules once more, one bar at a time, as their docstring states them."""
    ts, _, high, low, _, volume = row
    if not all(np.isfinite(value) for value in row[1:]):
        return "not_finite"
    if not WINDOW.start <= from_us(ts) < WINDOW.end:
        return "outside_window"
    if ts % MINUTE_US:
        return "misaligned"
    if volume < 0:
        return "negative_volume"
    if high < low:
        return "high_below_low"
    if ts in seen:
        return "duplicate"
    seen.add(ts)
    return None


@given(ROWS)
@example([])
def test_every_bar_is_either_kept_or_rejected_and_none_is_changed(rows: list[Row]) -> None:
    good, rejected = validated(batch(rows), WINDOW, Interval.M1)
    assert Counter(map(repr, [*rows_of(good), *map(row_of, rejected)])) == Counter(map(repr, rows))


@given(ROWS)
def test_the_first_broken_rule_is_named(rows: list[Row]) -> None:
    good, rejected = validated(batch(rows), WINDOW, Interval.M1)
    seen: set[int] = set()
    judged = [(row, reason_of(row, seen)) for row in rows]
    assert [repr((row_of(bar), bar.reason)) for bar in rejected] == [repr(j) for j in judged if j[1] is not None]
    assert rows_of(good) == sorted(row for row, reason in judged if reason is None)


@given(ROWS)
def test_what_is_kept_is_in_time_order_without_doubles(rows: list[Row]) -> None:
    good, _ = validated(batch(rows), WINDOW, Interval.M1)
    assert (np.diff(good.ts_us) > 0).all()


@given(ROWS)
def test_validating_again_changes_nothing(rows: list[Row]) -> None:
    good, _ = validated(batch(rows), WINDOW, Interval.M1)
    again, rejected = validated(good, WINDOW, Interval.M1)
    assert rejected == []
    assert rows_of(again) == rows_of(good)


@given(ROWS)
def test_a_batch_is_left_as_it_was(rows: list[Row]) -> None:
    bars = batch(rows)
    before = repr(rows_of(bars))
    for column in (bars.ts_us, *bars.columns):
        column.flags.writeable = False  # as a provider's cache hands them out
    validated(bars, WINDOW, Interval.M1)
    assert repr(rows_of(bars)) == before


def test_of_two_bars_with_one_start_the_first_sound_one_is_kept() -> None:
    broken, first, second = (
        (START_US, 2.0, 1.0, 3.0, 2.0, 1.0),
        (START_US, 2.0, 3.0, 1.0, 2.0, 1.0),
        (START_US, 2.5, 3.0, 1.0, 2.0, 1.0),
    )
    good, rejected = validated(batch([broken, first, second]), WINDOW, Interval.M1)
    assert rows_of(good) == [first]
    assert [bar.reason for bar in rejected] == ["high_below_low", "duplicate"]


@pytest.mark.parametrize("interval", list(Interval))
def test_a_bar_off_the_interval_grid_is_misaligned(interval: Interval) -> None:
    start = datetime(2024, 1, 2, tzinfo=UTC)
    window = TimeWindow(start=start, end=start + timedelta(days=2))
    step_us = interval.seconds * 1_000_000
    at = [START_US, START_US + step_us // 2, START_US + step_us - 1]
    good, rejected = validated(batch([(ts, 1.0, 1.0, 1.0, 1.0, 0.0) for ts in at]), window, interval)
    assert list(good.ts_us) == [START_US]
    assert [bar.reason for bar in rejected] == ["misaligned", "misaligned"]


def test_the_window_holds_its_start_and_not_its_end() -> None:
    flat = [(ts, 1.0, 1.0, 1.0, 1.0, 0.0) for ts in (to_us(WINDOW.start), to_us(WINDOW.end))]
    good, rejected = validated(batch(flat), WINDOW, Interval.M1)
    assert list(good.ts_us) == [START_US]
    assert [bar.reason for bar in rejected] == ["outside_window"]


def test_an_open_below_the_low_is_stored_as_it_came() -> None:
    # Yahoo's SPY of 2015-03-05: the open is a print that its low leaves out.
    spy = (START_US, 209.419998, 210.800003, 209.850006, 210.460007, 76873000.0)
    good, rejected = validated(batch([spy]), WINDOW, Interval.M1)
    assert rows_of(good) == [spy]
    assert rejected == []


def test_negative_prices_are_prices() -> None:
    # Crude oil settled at -37.63 on 2020-04-20; a spread may always be negative.
    good, rejected = validated(batch([(START_US, -1.0, 2.0, -40.0, -37.63, 5.0)]), WINDOW, Interval.M1)
    assert len(good) == 1
    assert not rejected


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_microseconds_and_datetimes_are_the_same_instants(at: datetime) -> None:
    assert from_us(to_us(at)) == at
