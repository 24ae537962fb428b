"""Which minutes make which longer bar, held against brute force over every kind of session."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.derived import slots_of
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from tests.unit.minutes import DAY, KINDS, at, minutes_of, span, windows

CALENDARS = Calendars()
LONGER = [Interval.M5, Interval.M15, Interval.H1, Interval.D1]
EVER = 2**62


@given(mic=st.sampled_from(KINDS), interval=st.sampled_from(LONGER), window=windows(days=3))
@settings(max_examples=150, deadline=None)
def test_every_minute_makes_one_bar_and_every_bar_has_all_its_minutes(
    mic: str, interval: Interval, window: TimeWindow
) -> None:
    calendar = CALENDARS.get(mic)
    slots = slots_of(calendar, interval, window)
    around = TimeWindow(start=window.start - 3 * DAY, end=window.end + 3 * DAY)
    # A session's label may lie before its first minute, and after its last.
    expected = calendar.expected(TimeWindow(start=around.start - 15 * DAY, end=around.end + 3 * DAY), interval)
    ends = calendar.interval_end(expected, interval)
    made: dict[int, list[int]] = {}
    minutes = minutes_of(calendar, around)
    for ts, minute in zip(expected[np.searchsorted(ends, minutes, side="right")].tolist(), minutes, strict=True):
        made.setdefault(ts, []).append(minute)
    bounds = to_us(window.start), to_us(window.end)
    wanted = {ts: all_ for ts, all_ in made.items() if any(bounds[0] <= us < bounds[1] for us in all_)}
    found: dict[int, list[int]] = {}
    for number, (start, end) in zip(slots.owner.tolist(), slots.parts.tolist(), strict=True):
        found.setdefault(int(slots.starts[number]), []).extend(range(start, end, 60_000_000))
    assert {ts: found[ts] for ts in wanted} == wanted
    assert set(found) == set(slots.starts.tolist())
    # What is found beside is of a bar that reaches into the window without a minute there: across a break.
    for ts in set(found) - set(wanted):
        assert min(found[ts]) < bounds[1]
        assert max(found[ts]) >= bounds[0] - 60_000_000


@given(mic=st.sampled_from(KINDS), interval=st.sampled_from(LONGER), window=windows(days=3))
@settings(max_examples=60, deadline=None)
def test_between_a_bar_and_the_one_before_nothing_is_expected(mic: str, interval: Interval, window: TimeWindow) -> None:
    calendar = CALENDARS.get(mic)
    slots = slots_of(calendar, interval, window)
    for since, ts in zip(slots.since.tolist(), slots.starts.tolist(), strict=True):
        if since < ts:
            between = TimeWindow(start=from_us(since), end=from_us(ts))
            assert calendar.expected(between, interval).size == 0


def test_an_hour_of_an_equity_session_begins_on_the_clock_and_holds_what_trades_of_it() -> None:
    slots = slots_of(CALENDARS.get("XNYS"), Interval.H1, span("2024-01-08 14:00", "2024-01-08 22:00"))
    assert from_us(int(slots.starts[0])) == at("2024-01-08 14:00")
    assert from_us(int(slots.parts[0, 0])) == at("2024-01-08 14:30")
    assert from_us(int(slots.since[0])) == at("2024-01-05 21:00")
    assert len(slots) == 7


def test_a_break_within_an_hour_is_left_out() -> None:
    slots = slots_of(CALENDARS.get("XTKS"), Interval.H1, span("2023-06-01 02:00", "2023-06-01 03:31"))
    parts = [[from_us(us) for us in pair] for pair in slots.parts.tolist()]
    assert parts[0] == [at("2023-06-01 02:00"), at("2023-06-01 02:30")]
    assert at("2023-06-01 03:30") in [start for start, _ in parts]


@pytest.mark.parametrize(
    ("changed", "now", "bars"),
    [
        (("14:31", "14:33"), "14:34", []),  # it goes on still
        (("14:31", "14:33"), "14:35", ["14:30"]),
        (("14:33", "14:36"), "14:36", ["14:30"]),
        (("14:33", "14:40"), "14:36", ["14:30", "14:35"]),  # the writer's clock is ahead
        (("14:35", "14:36"), "15:00", ["14:35"]),  # its neighbour is not touched
        (("12:00", "14:30"), "15:00", []),
    ],
)
def test_what_a_change_touches_is_what_has_ended_of_the_bars_it_lies_in(
    changed: tuple[str, str], now: str, bars: list[str]
) -> None:
    start, end = (to_us(at(f"2024-01-08 {clock}")) for clock in changed)
    slots = slots_of(CALENDARS.get("XNYS"), Interval.M5, span("2024-01-08 12:00", "2024-01-08 16:00"))
    who, which = slots.touched(np.array([[start, end]]), to_us(at(f"2024-01-08 {now}")))
    assert who.tolist() == [0] * len(bars)
    assert [f"{from_us(int(slots.starts[n])):%H:%M}" for n in which] == bars


def test_time_without_a_session_has_no_bars() -> None:
    weekend = slots_of(CALENDARS.get("XNYS"), Interval.M5, span("2024-01-06 00:00", "2024-01-07 00:00"))
    assert len(weekend) == 0
    assert weekend.touched(np.array([[0, EVER]]), EVER)[0].size == 0
    calendar = CALENDARS.get("XNYS")
    beyond = TimeWindow(start=calendar.horizon + 60 * DAY, end=calendar.horizon + 61 * DAY)
    assert len(slots_of(calendar, Interval.D1, beyond)) == 0
    assert len(slots_of(calendar, Interval.D1, TimeWindow(start=at("2024-01-08"), end=at("2024-01-08") + timedelta(1))))
