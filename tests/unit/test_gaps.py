"""Gap algebra against brute-force sets of minutes, and chunks that tile whatever they cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.gaps import Spans, chunks, intersect, merge, missing, spans_of, subtract, windows_of
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars

MINUTE = timedelta(minutes=1)
calendars = Calendars()

pairs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8).map(
    lambda rows: np.array(rows, dtype=np.int64).reshape(-1, 2)
)


def points(spans: Spans) -> set[int]:
    return {point for start, end in spans.tolist() for point in range(start, end)}


def spans(*rows: tuple[int, int]) -> Spans:
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def sound(found: Spans) -> bool:
    """Sorted, none empty, none touching another, of the promised shape and type."""
    edges = found.ravel()
    return found.dtype == np.int64 and found.shape[1:] == (2,) and bool((np.diff(edges) > 0).all())


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(start: str, end: str) -> TimeWindow:
    return TimeWindow(start=at(start), end=at(end))


# -- sets of time ----------------------------------------------------------------------------------


@given(a=pairs)
def test_merging_keeps_every_point_and_adds_none(a: Spans) -> None:
    merged = merge(a)
    assert sound(merged)
    assert points(merged) == points(a)
    assert np.array_equal(merge(merged), merged)


@given(a=pairs, b=pairs)
def test_intersection_and_difference_are_those_of_the_points(a: Spans, b: Spans) -> None:
    both, rest = intersect(a, b), subtract(a, b)
    assert sound(both)
    assert sound(rest)
    assert points(both) == points(a) & points(b)
    assert points(rest) == points(a) - points(b)
    assert np.array_equal(merge(np.concatenate([both, rest])), merge(a))


def test_windows_become_spans_and_come_back_joined() -> None:
    night, day = span("2024-01-01", "2024-01-01T12:00"), span("2024-01-01T12:00", "2024-01-02")
    assert windows_of(spans_of([day, night])) == [span("2024-01-01", "2024-01-02")]
    assert windows_of(spans_of([])) == []


# -- what is missing -------------------------------------------------------------------------------


@st.composite
def expectations(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Starts and ends of disjoint intervals with closed time between some of them."""
    edges = sorted(draw(st.sets(st.integers(0, 40), max_size=20)))
    return edges[: len(edges) // 2 * 2 : 2], edges[1::2]


@given(expected=expectations(), covered=pairs)
def test_each_interval_that_is_not_wholly_covered_is_missing_and_no_other(
    expected: tuple[list[int], list[int]], covered: Spans
) -> None:
    starts, ends = expected
    found = missing(np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), covered)
    held = points(covered)
    lacking = [not set(range(start, end)) <= held for start, end in zip(starts, ends, strict=True)]
    runs: list[tuple[int, int]] = []
    for i, lacks in enumerate(lacking):
        if lacks:
            first = runs.pop()[0] if i and lacking[i - 1] else starts[i]
            runs.append((first, ends[i]))
    assert found.dtype == np.int64
    assert [tuple(row) for row in found.tolist()] == runs


def test_missing_sessions_in_a_row_are_one_window_across_nights_and_the_weekend() -> None:
    xnys = calendars.get("XNYS")
    week = span("2019-11-20", "2019-12-04")
    expected = xnys.expected(week, Interval.M1)
    ends = xnys.interval_end(expected, Interval.M1)
    covered = spans_of([span("2019-11-20", "2019-11-25"), span("2019-12-02T14:40", "2019-12-02T15:00")])
    assert windows_of(missing(expected, ends, covered)) == [
        span("2019-11-25T14:30", "2019-12-02T14:40"),
        span("2019-12-02T15:00", "2019-12-03T21:00"),
    ]
    assert not len(missing(expected, ends, spans_of([week])))


def test_a_short_last_bar_is_covered_up_to_the_close() -> None:
    xlon = calendars.get("XLON")
    expected = xlon.expected(span("2021-12-24", "2021-12-25"), Interval.H1)
    ends = xlon.interval_end(expected, Interval.H1)
    assert not len(missing(expected, ends, spans_of([span("2021-12-24T08:00", "2021-12-24T12:30")])))
    assert len(missing(expected, ends, spans_of([span("2021-12-24T08:00", "2021-12-24T12:29")]))) == 1


# -- chunks ----------------------------------------------------------------------------------------


@st.composite
def cuttings(draw: st.DrawFn) -> tuple[str, TimeWindow, Interval, int]:
    mic = draw(st.sampled_from(["XNYS", "XHKG", "XTKS", "XASX", "XTAE", "XBOM", "24/5", "24/7"]))
    landmark = at(draw(st.sampled_from(["2021-03-12", "2019-11-27", "2020-12-30", "2021-02-10", "2022-12-30"])))
    start = landmark + draw(st.integers(-5 * 1440, 5 * 1440)) * MINUTE
    window = TimeWindow(start=start, end=start + draw(st.integers(1, 20 * 1440)) * MINUTE)
    return mic, window, draw(st.sampled_from(list(Interval))), draw(st.integers(1, 3000))


@settings(deadline=None)  # a minute a chunk makes many
@given(cutting=cuttings())
def test_chunks_tile_their_window_within_the_bound_and_none_is_without_work(
    cutting: tuple[str, TimeWindow, Interval, int],
) -> None:
    mic, window, interval, minutes = cutting
    calendar = calendars.get(mic)
    found = chunks(window, calendar, interval, minutes)
    assert [c.start for c in found] == [window.start, *(c.end for c in found[:-1])]
    assert found[-1].end == window.end
    loads = [len(calendar.expected(c, interval)) for c in found]
    assert sum(loads) == len(calendar.expected(window, interval))
    if interval is Interval.D1:
        assert max(loads) <= minutes
    else:
        assert all(to_us(c.start) % (interval.seconds * 1_000_000) == 0 for c in found[1:])
        # One interval is never cut, so a bound below it gives way.
        assert max(calendar.session_minutes(c) for c in found) <= max(minutes, interval.seconds // 60)
    if len(found) > 1:
        assert (
            min(
                calendar.session_minutes(c) if interval is not Interval.D1 else n
                for c, n in zip(found, loads, strict=True)
            )
            > 0
        )


@settings(deadline=None)  # a minute a chunk makes many
@given(cutting=cuttings())
def test_a_session_that_fits_is_cut_only_by_the_window(cutting: tuple[str, TimeWindow, Interval, int]) -> None:
    mic, window, interval, minutes = cutting
    calendar = calendars.get(mic)
    if interval is Interval.D1:
        return
    cuts = [c.end for c in chunks(window, calendar, interval, minutes)[:-1]]
    for session in calendar.sessions(window):
        whole = TimeWindow(start=session.open, end=session.close)
        if calendar.session_minutes(whole) <= minutes:
            assert not [cut for cut in cuts if session.open < cut < session.close]


def test_a_day_of_minutes_takes_three_whole_sessions_of_new_york() -> None:
    xnys = calendars.get("XNYS")
    window = span("2021-03-08", "2021-03-20")  # ten sessions; the clocks change between them
    found = chunks(window, xnys, Interval.M1, 1440)
    assert [xnys.session_minutes(c) for c in found] == [1170, 1170, 1170, 390]
    assert [c.start for c in found[1:]] == [at("2021-03-11T14:30"), at("2021-03-16T13:30"), at("2021-03-19T13:30")]


def test_hours_are_cut_where_the_hour_that_holds_the_open_starts() -> None:
    found = chunks(span("2021-03-08", "2021-03-13"), calendars.get("XNYS"), Interval.H1, 390)
    assert [c.start for c in found[1:]] == [at(f"2021-03-{day:02}T14:00") for day in (9, 10, 11, 12)]


def test_a_session_too_long_for_a_chunk_is_cut_on_the_grid_and_ends_with_its_own_chunk() -> None:
    xnys = calendars.get("XNYS")
    found = chunks(span("2021-03-11", "2021-03-13"), xnys, Interval.M15, 100)
    assert [xnys.session_minutes(c) for c in found] == [90, 90, 90, 90, 30] * 2


def test_daily_chunks_hold_as_many_sessions_as_minutes_are_given() -> None:
    xnys = calendars.get("XNYS")
    found = chunks(span("2019-01-01", "2020-01-01"), xnys, Interval.D1, 100)
    assert [len(xnys.expected(c, Interval.D1)) for c in found] == [100, 100, 52]


@pytest.mark.parametrize("interval", list(Interval))
def test_a_window_without_session_time_is_one_chunk(interval: Interval) -> None:
    weekend = span("2021-03-12T22:00", "2021-03-15T13:00")
    if interval is Interval.D1:
        weekend = span("2021-03-13", "2021-03-15")
    assert chunks(weekend, calendars.get("XNYS"), interval, 1) == [weekend]


def test_a_window_before_the_first_session_is_one_chunk() -> None:
    window = span("1960-01-01", "1970-01-01")
    assert chunks(window, calendars.get("XSHG"), Interval.M1, 1) == [window]


def test_a_window_that_starts_within_an_interval_keeps_its_bounds() -> None:
    window = span("2021-03-11T15:07:30", "2021-03-11T16:01:10")
    found = chunks(window, calendars.get("XNYS"), Interval.M5, 30)
    assert [c.start for c in found] == [window.start, at("2021-03-11T15:35"), at("2021-03-11T16:00")][: len(found)]
    assert found[-1].end == window.end


def test_chunks_of_nothing_and_beyond_the_horizon_are_refused() -> None:
    xshg = calendars.get("XSHG")
    with pytest.raises(InvalidRequestError, match="at least one"):
        chunks(span("2021-03-11", "2021-03-12"), xshg, Interval.M1, 0)
    with pytest.raises(InvalidRequestError, match="is known until"):
        chunks(TimeWindow(start=xshg.horizon, end=xshg.horizon + MINUTE), xshg, Interval.M1, 60)


def test_five_sessions_missing_become_jobs_that_cover_each_of_their_minutes_once() -> None:
    xnys, now = calendars.get("XNYS"), at("2021-03-17T12:00")
    window = xnys.last_sessions(5, now)
    expected = xnys.expected(window, Interval.M1)
    (gap,) = windows_of(missing(expected, xnys.interval_end(expected, Interval.M1), spans_of([])))
    jobs = chunks(gap, xnys, Interval.M1, 1440)
    asked = np.concatenate([xnys.expected(job, Interval.M1) for job in jobs])
    assert np.array_equal(asked, expected)
    assert from_us(expected[0]) == gap.start
    assert len(jobs) == 2
