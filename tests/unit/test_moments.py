"""Single moments and arrays of them against trading counted minute by minute, and against each other."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain import moments
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import NEVER, Calendars
from tests.unit.minutes import DAY, KINDS, MINUTE, at, minutes_of, span, windows

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
calendars = Calendars()
MOMENTS = {"mic": st.sampled_from(KINDS), "window": windows(days=12), "jitter": st.integers(0, MINUTE_US - 1)}


def labels(calendar_mic: str, window: TimeWindow) -> list[tuple[datetime, datetime]]:
    """Label and close of each session around the window."""
    wide = TimeWindow(start=window.start - 20 * DAY, end=window.end + 5 * DAY)
    sessions = calendars.get(calendar_mic).sessions(wide)
    return [(datetime.fromisoformat(f"{each.label}T00:00+00:00"), each.close) for each in sessions]


@settings(deadline=None)  # the first that asks loads the years
@given(**MOMENTS)
def test_a_moment_snaps_to_the_last_minute_that_had_begun_to_trade(mic: str, window: TimeWindow, jitter: int) -> None:
    calendar, moment = calendars.get(mic), to_us(window.start) + jitter
    traded = minutes_of(calendar, TimeWindow(start=window.start - 20 * DAY, end=window.end + DAY))
    last = traded[bisect_right(traded, moment) - 1]
    for _ in range(2):  # found, and remembered
        assert calendar.align_minute(moment) == last
    assert calendar.is_open(moment) == calendar.is_open(from_us(moment)) == (to_us(window.start) in traded)
    assert calendar.session_of(moment) == calendar.session_of(from_us(moment))


@settings(deadline=None)
@given(**MOMENTS)
def test_arrays_say_what_single_moments_say(mic: str, window: TimeWindow, jitter: int) -> None:
    calendar, start, end = calendars.get(mic), to_us(window.start), to_us(window.end) + jitter
    asked = np.random.default_rng(jitter).integers(start - 9 * DAY_US, end + 1, 60)
    assert calendar.align(asked).tolist() == [calendar.align_minute(int(us)) for us in asked]
    assert calendar.are_open(asked).tolist() == [calendar.is_open(int(us)) for us in asked]
    for interval in Interval:
        one_by_one = [calendar.elapsed(int(us), end, interval) for us in asked]
        assert calendar.elapsed_each(asked, end, interval).tolist() == one_by_one


@settings(deadline=None)
@given(**MOMENTS)
def test_elapsed_time_is_minutes_traded(mic: str, window: TimeWindow, jitter: int) -> None:
    calendar, start, end = calendars.get(mic), to_us(window.start), to_us(window.end)
    minutes = len(minutes_of(calendar, window))
    assert calendar.elapsed(start, end, Interval.M1) == minutes
    assert calendar.elapsed(start, end, Interval.H1) == minutes / 60
    assert calendar.elapsed(end, start, Interval.M1) == calendar.elapsed(end, end, Interval.D1) == 0
    middle = start + jitter * (end - start) // MINUTE_US
    halves = calendar.elapsed(start, middle, Interval.M1) + calendar.elapsed(middle, end, Interval.M1)
    assert halves == pytest.approx(minutes, abs=1e-6)


@settings(deadline=None)
@given(**MOMENTS)
def test_daily_bars_fall_behind_by_the_sessions_that_closed_since(mic: str, window: TimeWindow, jitter: int) -> None:
    calendar, now = calendars.get(mic), to_us(window.end) + jitter
    known = [(to_us(label), to_us(close)) for label, close in labels(mic, window)]
    for number, (label, _) in enumerate(known):
        if label + DAY_US <= now:
            later = sum(close <= now for _, close in known[number + 1 :])
            assert calendar.elapsed(label + DAY_US, now, Interval.D1) == later


@settings(deadline=None)
@given(**MOMENTS, traded_us=st.integers(0, 3000 * MINUTE_US))
def test_since_is_the_latest_moment_from_which_so_much_was_traded(
    mic: str, window: TimeWindow, jitter: int, traded_us: int
) -> None:
    calendar, now = calendars.get(mic), to_us(window.end) + jitter

    def between(moment: int) -> int:
        before, after = calendar.schedule(moment, now).traded_us(np.array([moment, now])).tolist()
        return int(after - before)

    found = calendar.since(now, traded_us)
    assert between(found) >= traded_us
    assert found == now or between(found + 1) < traded_us


@settings(deadline=None)
@given(**MOMENTS, n=st.integers(1, 30))
def test_sessions_back_is_the_latest_moment_since_which_so_many_closed(
    mic: str, window: TimeWindow, jitter: int, n: int
) -> None:
    calendar, now = calendars.get(mic), to_us(window.end) + jitter
    found = calendar.sessions_back(now, n)
    assert calendar.elapsed(found, now, Interval.D1) >= n
    assert calendar.elapsed(found + 1, now, Interval.D1) < n


def test_nobody_lacks_more_than_was_ever_traded() -> None:
    xsau = calendars.get("XSAU")  # known since 2021
    now = to_us(at("2021-01-10"))
    assert xsau.since(now, 365 * DAY_US) == xsau.sessions_back(now, 100) == NEVER
    assert xsau.elapsed(NEVER, now, Interval.D1) == xsau.elapsed_each(np.array([NEVER]), now, Interval.D1)[0] == 5
    with pytest.raises(ValueError, match="not negative"):
        xsau.since(now, -1)
    with pytest.raises(ValueError, match="at least one"):
        xsau.sessions_back(now, 0)


def test_before_the_first_session_no_minute_ever_traded() -> None:
    xsau, day = calendars.get("XSAU"), to_us(at("2020-06-01"))
    assert not xsau.is_open(day)
    assert xsau.session_of(day) is None
    for ask in (lambda: xsau.align_minute(day), lambda: xsau.align(np.array([day, day + 500 * DAY_US]))):
        with pytest.raises(InvalidRequestError, match="XSAU traded no minute before 2020-06-01"):
            ask()


def test_questions_past_the_horizon_are_refused_and_those_up_to_it_answered() -> None:
    xshg = calendars.get("XSHG")
    horizon = to_us(xshg.horizon)
    assert xshg.align_minute(horizon) == xshg.align(np.array([horizon]))[0] == to_us(at("2026-12-31T06:59"))
    assert not xshg.is_open(horizon)
    for ask in (xshg.align_minute, xshg.is_open, xshg.session_of):
        with pytest.raises(InvalidRequestError, match="XSHG is known until"):
            ask(horizon + 1)
    with pytest.raises(InvalidRequestError, match="XSHG is known until"):
        xshg.elapsed(horizon - 1, horizon + 1, Interval.M1)
    xshg.preload(horizon - DAY_US, horizon + 40 * DAY_US)
    xshg.preload(horizon + DAY_US, horizon + 40 * DAY_US)


def test_a_month_without_trading_is_passed_over() -> None:
    closed = calendars.get("24/7").without(np.array([[to_us(at("2024-03-01")), to_us(at("2024-05-20"))]]))
    moment = to_us(at("2024-05-19T10:00"))
    last = to_us(at("2024-02-29T23:59"))
    assert closed.align_minute(moment) == closed.align(np.array([moment]))[0] == last
    assert closed.since(moment, 90 * MINUTE_US) == to_us(at("2024-02-29T22:30"))
    assert closed.sessions_back(moment, 1) == to_us(at("2024-03-01")) - 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "MOST_BLOCKS", 3)
    monkeypatch.setattr(moments, "MOST_MINUTES", 10)
    calendar = calendars.get("XNYS").without(np.array([[0, 1]]))
    start = at("2020-06-01")
    for number in range(400):
        calendar.align_minute(to_us(start + number * timedelta(hours=11)))
        assert len(calendar._blocks) <= 3
        assert all(len(block.aligned) <= 10 for block in calendar._blocks.values())


def test_what_was_preloaded_is_not_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Calendars()
    window = span("2021-02-01", "2021-03-20")
    fresh.preload(["XHKG", "24/7"], window)
    for mic in ("XHKG", "24/7"):
        calendar = fresh.get(mic)
        monkeypatch.setattr(calendar._source, "covering", None)
        for minutes in range(0, 47 * 1440, 97):
            calendar.is_open(window.start + minutes * MINUTE)
            assert calendar.elapsed(to_us(window.start), to_us(window.start + minutes * MINUTE), Interval.M5) >= 0
