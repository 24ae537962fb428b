"""Overrides: a calendar less some time is, for every question, what is left of its minutes; undone it is as before."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.gaps import chunks
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.known_sessions import verify
from mdtasks.domain.overrides import NO_OVERRIDES, Overrides
from mdtasks.domain.schedules import Schedule
from mdtasks.domain.sessions import Calendar, Calendars
from mdtasks.domain.spans import Spans
from tests.unit.minutes import DAY, KINDS, MINUTE, at, minutes_of, span, windows

plain = Calendars()
WIDE = 15 * DAY


@st.composite
def told(draw: st.DrawFn) -> tuple[str, TimeWindow, Overrides]:
    """An exchange, a window, and what people say of the time around: whole sessions, parts of some, anything."""
    mic, window = draw(st.sampled_from(KINDS)), draw(windows(days=8))
    sessions = plain.get(mic).sessions(TimeWindow(start=window.start - 3 * DAY, end=window.end + 3 * DAY))
    spans = []
    for session in draw(st.lists(st.sampled_from(sessions), max_size=4)) if sessions else []:
        length = (session.close - session.open) // MINUTE
        first, last = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
        first, last = draw(st.sampled_from([(0, length), (0, last), (first, length), (first, last)]))
        spans.append((session.open + first * MINUTE, session.open + last * MINUTE))
    for start in draw(st.lists(st.integers(-2000, 12_000), max_size=2)):
        begin = window.start + start * MINUTE
        spans.append((begin, begin + draw(st.integers(1, 4000)) * MINUTE))
    return mic, window, Overrides.of(7, [(mic, (to_us(start), to_us(end))) for start, end in spans])


def changed(mic: str, overrides: Overrides) -> Calendar:
    calendars = Calendars()
    calendars.apply(overrides)
    return calendars.get(mic)


def left_of(mic: str, window: TimeWindow, overrides: Overrides) -> list[int]:
    """Minutes of the plain calendar that lie in no override, microseconds."""
    minutes = np.array(minutes_of(plain.get(mic), window), dtype=np.int64)
    for start, end in overrides.shut.get(mic, np.empty((0, 2))).tolist():
        minutes = minutes[(minutes < start) | (minutes >= end)]
    left: list[int] = minutes.tolist()
    return left


def columns(schedule: Schedule) -> list[bytes]:
    names = ("labels", "opens", "closes", "part_opens", "part_closes")
    return [getattr(schedule, name).tobytes() for name in names]


# -- every question --------------------------------------------------------------------------------


@settings(deadline=None)  # the first that asks loads the years
@given(told=told())
def test_sessions_are_what_is_left_of_them(told: tuple[str, TimeWindow, Overrides]) -> None:
    mic, window, overrides = told
    calendar = changed(mic, overrides)
    wide = TimeWindow(start=window.start - WIDE, end=window.end + WIDE)
    left = left_of(mic, TimeWindow(start=wide.start - 2 * DAY, end=wide.end + 2 * DAY), overrides)
    assert minutes_of(calendar, wide) == left[bisect_left(left, to_us(wide.start)) : bisect_left(left, to_us(wide.end))]
    found = {session.label: session for session in calendar.sessions(wide)}
    for whole in plain.get(mic).sessions(wide):
        minutes = left[bisect_left(left, to_us(whole.open)) : bisect_left(left, to_us(whole.close))]
        if minutes:
            session = found.pop(whole.label)
            assert (to_us(session.open), to_us(session.close - MINUTE)) == (minutes[0], minutes[-1])
            assert all(pause.start < pause.end for pause in session.breaks)
    assert not found


@settings(deadline=None)
@given(told=told(), interval=st.sampled_from(list(Interval)))
def test_intervals_moments_and_trading_time_agree_with_the_minutes_left(
    told: tuple[str, TimeWindow, Overrides], interval: Interval
) -> None:
    mic, window, overrides = told
    calendar = changed(mic, overrides)
    start, end = to_us(window.start), to_us(window.end)
    left = left_of(mic, TimeWindow(start=window.start - WIDE, end=window.end + 2 * DAY), overrides)
    inside = [us for us in left if start <= us < end]
    starts = calendar.expected(window, interval)
    if interval is Interval.D1:
        wide = calendar.sessions(TimeWindow(start=window.start - 2 * DAY, end=window.end + 2 * DAY))
        closes = {to_us(at(str(each.label))): to_us(each.close) for each in wide}
        assert starts.tolist() == [label for label in closes if start <= label < end]
        assert calendar.interval_end(starts, interval).tolist() == [closes[label] for label in starts.tolist()]
    else:
        step = interval.seconds * 1_000_000
        last = {us // step * step: us for us in left}
        assert starts.tolist() == [us for us in last if start <= us < end]
        assert calendar.interval_end(starts, interval).tolist() == [last[us] + 60_000_000 for us in starts.tolist()]
        assert calendar.elapsed(start, end, interval) == len(inside) / (interval.seconds // 60)
    assert calendar.session_minutes(window) == len(inside)
    assert calendar.is_open(window.start) == (start in inside)
    assert calendar.align_minute(start) == left[bisect_right(left, start) - 1]
    if inside:
        since = calendar.since(end, len(inside) * 60_000_000)
        assert start <= since <= inside[0]


@settings(deadline=None)
@given(told=told(), interval=st.sampled_from(list(Interval)), minutes=st.integers(1, 900))
def test_chunks_of_what_is_left_tile_the_window_and_hold_what_they_may(
    told: tuple[str, TimeWindow, Overrides], interval: Interval, minutes: int
) -> None:
    mic, window, overrides = told
    calendar = changed(mic, overrides)
    cut = chunks(window, calendar, interval, minutes)
    assert [each.end for each in cut] == [*[each.start for each in cut[1:]], window.end]
    assert cut[0].start == window.start
    expected = [len(calendar.expected(each, interval)) for each in cut]
    assert sum(expected) == len(calendar.expected(window, interval))
    for piece, count in zip(cut, expected, strict=True):
        if interval is Interval.D1:
            assert count <= minutes or count <= 1
            continue
        # One that starts in the piece may have all of its minutes after it, where the window ends off the grid.
        step = timedelta(seconds=interval.seconds)
        starts = [from_us(us) for us in calendar.expected(piece, interval).tolist()]
        within = (TimeWindow(start=max(each, piece.start), end=min(each + step, piece.end)) for each in starts)
        begun = sum(calendar.session_minutes(each) > 0 for each in within)
        assert calendar.session_minutes(piece) <= minutes or begun <= 1  # or none, where it starts off the grid


@settings(deadline=None)
@given(told=told(), last=st.integers(-30, 0))
def test_daily_bars_are_behind_by_what_is_left_of_the_sessions(
    told: tuple[str, TimeWindow, Overrides], last: int
) -> None:
    mic, window, overrides = told
    calendar, now = changed(mic, overrides), to_us(window.end)
    label = to_us(window.end.replace(hour=0, minute=0) + last * DAY)
    later = calendar.expected(TimeWindow(start=from_us(label) + DAY, end=window.end + 3 * DAY), Interval.D1)
    behind = int(np.sum(np.maximum(calendar.interval_end(later, Interval.D1), later + 1) <= now))
    assert calendar.elapsed(label + to_us(at("1970-01-02")), now, Interval.D1) == behind


@settings(deadline=None)
@given(told=told())
def test_undone_every_array_is_as_it_was(told: tuple[str, TimeWindow, Overrides]) -> None:
    mic, window, overrides = told
    calendars = Calendars()
    bounds = to_us(window.start), to_us(window.end)
    before = columns(calendars.get(mic).schedule(*bounds))
    calendars.apply(overrides)
    calendars.get(mic).align_minute(bounds[0])
    calendars.apply(NO_OVERRIDES)
    assert columns(calendars.get(mic).schedule(*bounds)) == before
    moments = calendars.get(mic), plain.get(mic)
    assert moments[0].align_minute(bounds[0]) == moments[1].align_minute(bounds[0])


# -- what happened ---------------------------------------------------------------------------------


def us(start: str, end: str) -> tuple[int, int]:
    return to_us(at(start)), to_us(at(end))


def test_the_typhoon_of_september_2023_shut_hong_kong_though_the_calendar_says_it_traded() -> None:
    days = span("2023-08-31", "2023-09-11")
    assert [str(each.label) for each in plain.get("XHKG").sessions(days)][1] == "2023-09-01"
    shut = [("XHKG", us(f"{day}T01:30", f"{day}T08:00")) for day in ("2023-09-01", "2023-09-08")]
    xhkg = changed("XHKG", Overrides.of(2, shut))
    labels = [f"2023-{day}" for day in ("08-31", "09-04", "09-05", "09-06", "09-07")]
    assert [str(each.label) for each in xhkg.sessions(days)] == labels
    assert len(xhkg.expected(days, Interval.D1)) == 5
    assert not len(xhkg.expected(span("2023-09-01", "2023-09-04"), Interval.M1))
    assert xhkg.elapsed(*us("2023-08-31T07:00", "2023-09-04T01:31"), Interval.M1) == 61


def test_a_late_open_an_early_close_and_a_hole_change_the_session_alone() -> None:
    hole = changed("XHKG", Overrides.of(1, [("XHKG", us("2021-02-10T05:30", "2021-02-10T06:00"))]))
    (session,) = hole.sessions(span("2021-02-10", "2021-02-11"))
    assert session.breaks == (
        span("2021-02-10T04:00", "2021-02-10T05:00"),
        span("2021-02-10T05:30", "2021-02-10T06:00"),
    )
    late = changed("XHKG", Overrides.of(1, [("XHKG", us("2021-02-10T01:30", "2021-02-10T05:30"))]))
    (session,) = late.sessions(span("2021-02-10", "2021-02-11"))
    assert (session.open, session.close, session.breaks) == (at("2021-02-10T05:30"), at("2021-02-10T08:00"), ())
    early = changed("XHKG", Overrides.of(1, [("XHKG", us("2021-02-10T04:00", "2021-02-10T08:00"))]))
    (session,) = early.sessions(span("2021-02-10", "2021-02-11"))
    assert (session.open, session.close, session.breaks) == (at("2021-02-10T01:30"), at("2021-02-10T04:00"), ())


def test_a_session_cut_off_on_the_evening_before_its_label_still_closes() -> None:
    xasx = changed("XASX", Overrides.of(1, [("XASX", us("2025-01-06T23:20", "2025-01-07T05:00"))]))
    monday_ends = to_us(at("2025-01-07"))
    assert xasx.elapsed(monday_ends, to_us(at("2025-01-07T01:00")), Interval.D1) == 1


# -- versions --------------------------------------------------------------------------------------


def test_a_version_is_seen_by_all_who_ask_from_then_on_and_by_nobody_in_the_midst_of_work() -> None:
    calendars = Calendars()
    held, other = calendars.get("XNYS"), calendars.get("24/7")
    noon = at("2021-03-12T17:00")
    assert held.align_minute(to_us(noon)) == to_us(noon)
    calendars.apply(Overrides.of(3, [("XNYS", us("2021-03-12T14:30", "2021-03-12T21:00"))]))
    assert calendars.overrides.version == 3
    assert held.is_open(noon)
    for name in ("XNYS", "XNAS", "nyse"):
        assert not calendars.get(name).is_open(noon)
        assert calendars.get(name).align_minute(to_us(noon)) == to_us(at("2021-03-11T20:59"))
        assert calendars.get(name) is calendars.get("XNYS")
    assert calendars.get("24/7") is other  # what it remembers is still true
    assert calendars.plain("XNAS").is_open(noon)
    calendars.apply(Overrides.of(4, []))
    assert calendars.get("XNYS").is_open(noon)


def test_a_halt_is_of_one_instrument() -> None:
    calendars = Calendars()
    calendars.apply(Overrides.of(1, [(7, us("2021-03-12T15:00", "2021-03-12T15:30"))]))
    day = span("2021-03-12", "2021-03-13")
    assert calendars.halts(7).tolist() == [list(us("2021-03-12T15:00", "2021-03-12T15:30"))]
    assert not len(calendars.halts(8))
    assert calendars.get_of("XNYS", 7).session_minutes(day) == 360
    assert calendars.get_of("XNYS", 7) is calendars.get_of("XNAS", 7)
    assert calendars.get_of("XNYS", 8) is calendars.get("XNYS")
    assert calendars.get("XNYS").session_minutes(day) == 390


def test_two_overrides_of_one_time_are_as_one_until_both_are_gone() -> None:
    both = Overrides.of(
        2, [("XNYS", us("2021-03-12T14:30", "2021-03-12T16:00")), ("XNYS", us("2021-03-12T15:00", "2021-03-12T17:00"))]
    )
    assert both.shut["XNYS"].tolist() == [list(us("2021-03-12T14:30", "2021-03-12T17:00"))]
    with pytest.raises(ValueError, match="read-only"):
        both.shut["XNYS"][0] = 0


def test_the_self_test_asks_the_library_whatever_people_have_changed() -> None:
    calendars = Calendars()
    calendars.apply(Overrides.of(1, [("XNYS", us("2019-11-29T14:30", "2019-11-29T18:00"))]))
    verify(calendars)


def test_time_outside_sessions_changes_nothing() -> None:
    held = plain.get("XNYS").schedule(*us("2021-03-12", "2021-03-13"))
    night: Spans = np.array([us("2021-03-12T21:00", "2021-03-15T13:30")])
    assert held.without(night) is held
    assert held.without(night[:0]) is held
