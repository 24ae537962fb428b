"""Sessions against the exchanges' own days on file, and every question against a brute-force set of minutes."""

from __future__ import annotations

import csv
import subprocess
import sys
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from exchange_calendars import calendar_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import ConfigurationError, InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.known_sessions import verify
from mdtasks.domain.library import Library
from mdtasks.domain.schedules import AlwaysOpen, Schedule, Session, Source
from mdtasks.domain.sessions import Calendar, Calendars
from mdtasks.domain.spans import merge
from tests.unit.minutes import DAY, KINDS, MINUTE, at, minutes_traded, span, windows

INTRADAY = [interval for interval in Interval if interval is not Interval.D1]
calendars = Calendars()


def fresh(mic: str) -> Calendar:
    """A calendar that holds nothing yet and shares nothing."""
    return Calendar(mic, Library(mic, calendar_utils._default_calendar_factories[mic]))


def times(calendar: Calendar, window: TimeWindow, interval: Interval) -> list[str]:
    return [f"{from_us(us):%m-%d %H:%M}" for us in calendar.expected(window, interval)]


# -- truth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mic", ["XNYS", "XLON", "XHKG", "XTKS", "XASX", "XTAE", "24/7"])
def test_every_session_open_close_and_break_on_file_is_as_the_file_says(shared_data: Path, mic: str) -> None:
    path = shared_data / "calendars" / f"{mic.lower().replace('/', '-')}.csv"
    with path.open(newline="") as file:
        rows = [[datetime.fromisoformat(cell) if cell else None for cell in row] for row in list(csv.reader(file))[1:]]
    first, last = rows[0][0], rows[-1][0]
    assert first is not None
    assert last is not None
    found = [
        [
            datetime(s.label.year, s.label.month, s.label.day, tzinfo=UTC),
            s.open,
            s.close,
            *((s.breaks[0].start, s.breaks[0].end) if s.breaks else (None, None)),
        ]
        for s in calendars.get(mic).sessions(TimeWindow(start=first - DAY, end=last + 2 * DAY))
        if first.date() <= s.label <= last.date()
    ]
    assert len(rows) > 300
    assert found == rows


def test_a_session_that_opens_the_day_before_bears_its_own_date() -> None:
    (session,) = calendars.get("XASX").sessions(span("2025-01-05T23:30", "2025-01-06T01:00"))
    assert session == Session(date(2025, 1, 6), at("2025-01-05T23:00"), at("2025-01-06T05:00"))
    assert times(calendars.get("XASX"), span("2025-01-05", "2025-01-07"), Interval.D1) == ["01-06 00:00"]


def test_sundays_are_sessions_in_tel_aviv() -> None:
    assert at("2019-01-06").weekday() == 6
    assert len(calendars.get("XTAE").sessions(span("2019-01-06", "2019-01-07"))) == 1


# -- expected intervals ----------------------------------------------------------------------------


def test_an_early_close_ends_the_expected_bars_and_shortens_the_last_one() -> None:
    xlon = calendars.get("XLON")  # 24 December 2021: 8:00 to 12:30
    assert times(xlon, span("2021-12-24", "2021-12-25"), Interval.H1) == [f"12-24 {h:02}:00" for h in range(8, 13)]
    (end,) = xlon.interval_end(np.array([to_us(at("2021-12-24T12:00"))]), Interval.H1)
    assert from_us(end) == at("2021-12-24T12:30")


def test_thanksgiving_expects_nothing_and_the_day_after_210_minutes() -> None:
    xnys = calendars.get("XNYS")
    assert not len(xnys.expected(span("2019-11-28", "2019-11-29"), Interval.M1))
    assert len(xnys.expected(span("2019-11-29", "2019-11-30"), Interval.M1)) == 210
    assert xnys.session_minutes(span("2019-11-28", "2019-11-30")) == 210


def test_the_first_hour_of_new_york_is_the_clock_hour_that_holds_the_open() -> None:
    xnys = calendars.get("XNYS")
    assert times(xnys, span("2021-03-12", "2021-03-13"), Interval.H1)[0] == "03-12 14:00"
    assert times(xnys, span("2021-03-15", "2021-03-16"), Interval.H1)[0] == "03-15 13:00"
    assert times(xnys, span("2021-03-12", "2021-03-16"), Interval.M1)[389:391] == ["03-12 20:59", "03-15 13:30"]


def test_lunch_is_not_expected() -> None:
    xtks = times(calendars.get("XTKS"), span("2021-06-01", "2021-06-02"), Interval.M15)
    assert xtks[9:11] == ["06-01 02:15", "06-01 03:30"]


def test_a_daily_bar_ends_when_its_session_closes() -> None:
    xnys = calendars.get("XNYS")
    labels = xnys.expected(span("2019-11-27", "2019-12-02"), Interval.D1)
    assert [from_us(us) for us in labels] == [at("2019-11-27"), at("2019-11-29")]
    assert [from_us(us) for us in xnys.interval_end(labels, Interval.D1)] == [
        at("2019-11-27T21:00"),
        at("2019-11-29T18:00"),
    ]


def test_an_interval_outside_sessions_ends_on_the_grid() -> None:
    xnys = calendars.get("XNYS")
    pre_market, after_hours = to_us(at("2019-11-29T10:00")), to_us(at("2019-11-29T18:00"))
    ends = xnys.interval_end(np.array([pre_market, after_hours]), Interval.H1)
    assert [from_us(us) for us in ends] == [at("2019-11-29T11:00"), at("2019-11-29T19:00")]
    assert list(xnys.interval_end(np.array([], dtype=np.int64), Interval.M1)) == []


@settings(deadline=None)  # the first that asks loads the years
@given(mic=st.sampled_from(KINDS), window=windows(), interval=st.sampled_from(INTRADAY))
def test_intervals_are_expected_exactly_where_a_minute_trades(mic: str, window: TimeWindow, interval: Interval) -> None:
    calendar, step = calendars.get(mic), interval.seconds * 1_000_000
    wide = TimeWindow(start=window.start - DAY, end=window.end + DAY)
    last_minute = {to_us(m) // step * step: m for m in minutes_traded(calendar, wide)}
    starts = calendar.expected(window, interval)
    assert starts.tolist() == [us for us in last_minute if window.start <= from_us(us) < window.end]
    ends = calendar.interval_end(starts, interval)
    assert ends.tolist() == [to_us(last_minute[us] + MINUTE) for us in starts.tolist()]


@settings(deadline=None)  # the first that asks loads the years
@given(mic=st.sampled_from(KINDS), window=windows())
def test_daily_bars_are_expected_for_every_label_in_the_window(mic: str, window: TimeWindow) -> None:
    calendar = calendars.get(mic)
    wide = calendar.sessions(TimeWindow(start=window.start - 2 * DAY, end=window.end + 2 * DAY))
    labels = {datetime(s.label.year, s.label.month, s.label.day, tzinfo=UTC): s.close for s in wide}
    starts = calendar.expected(window, Interval.D1)
    assert [from_us(us) for us in starts] == [label for label in labels if window.start <= label < window.end]
    assert [from_us(us) for us in calendar.interval_end(starts, Interval.D1)] == [labels[from_us(us)] for us in starts]


@settings(deadline=None)  # the first that asks loads the years
@given(mic=st.sampled_from(KINDS), window=windows(days=2))
def test_minutes_counted_are_minutes_traded_and_each_is_open(mic: str, window: TimeWindow) -> None:
    calendar = calendars.get(mic)
    traded = set(minutes_traded(calendar, window))
    assert calendar.session_minutes(window) == len(traded)
    for minute in (window.start, window.end - MINUTE, *sorted(traded)[:1], *sorted(traded)[-1:]):
        assert calendar.is_open(minute) == (minute in traded)
        session = calendar.session_of(minute)
        if minute in traded:
            assert session is not None
            assert session.open <= minute < session.close


def test_a_break_is_shut_but_belongs_to_its_session() -> None:
    xhkg = calendars.get("XHKG")
    lunch = at("2021-02-10T04:30")
    assert not xhkg.is_open(lunch)
    session = xhkg.session_of(lunch)
    assert session is not None
    assert session.label == date(2021, 2, 10)
    assert xhkg.session_of(at("2021-02-10T08:00")) is None


# -- the last sessions -----------------------------------------------------------------------------


def test_the_last_sessions_reach_back_over_the_weekend_and_count_the_running_one() -> None:
    xnys = calendars.get("XNYS")
    sunday, monday = at("2021-03-14T12:00"), at("2021-03-15T13:31")
    assert xnys.last_sessions(1, sunday) == TimeWindow(start=at("2021-03-12T14:30"), end=sunday)
    assert xnys.last_sessions(2, monday) == TimeWindow(start=at("2021-03-12T14:30"), end=monday)
    assert xnys.last_sessions(1, at("2021-03-15T13:30")).start == at("2021-03-12T14:30")  # opens now: not yet started
    assert calendars.get("24/7").last_sessions(5, sunday).start == at("2021-03-10")


def test_the_last_sessions_start_with_an_expected_interval() -> None:
    xnys, now = calendars.get("XNYS"), at("2021-03-12T23:00")
    for interval, start in {Interval.H1: "2021-03-12T14:00", Interval.D1: "2021-03-12T00:00"}.items():
        window = xnys.last_sessions(1, now, interval)
        assert window == TimeWindow(start=at(start), end=now)
        assert from_us(xnys.expected(window, interval)[0]) == window.start


def test_a_daily_session_whose_label_is_still_to_come_has_not_started() -> None:
    xasx, sunday_evening = calendars.get("XASX"), at("2025-01-05T23:30")
    assert xasx.last_sessions(1, sunday_evening, Interval.D1).start == at("2025-01-03")
    assert xasx.last_sessions(1, sunday_evening).start == at("2025-01-05T23:00")


@pytest.mark.parametrize("n", [1, 260, 5000])
@pytest.mark.parametrize("mic", ["XNYS", "24/7"])
def test_as_many_last_sessions_as_asked_for_are_found(mic: str, n: int) -> None:
    window = calendars.get(mic).last_sessions(n, at("2025-06-01T12:00"))
    assert len(calendars.get(mic).sessions(window)) == n


def test_more_sessions_than_there_ever_were_give_all() -> None:
    xsau = calendars.get("XSAU")  # known since 2021
    assert xsau.last_sessions(100_000, at("2021-02-01T12:00")).start == at("2021-01-03T07:00")
    with pytest.raises(InvalidRequestError, match="no session before"):
        xsau.last_sessions(1, at("2020-01-01"))
    with pytest.raises(InvalidRequestError, match="at least one"):
        xsau.last_sessions(0, at("2022-01-01"))


# -- what is known, and how it is loaded -----------------------------------------------------------


def test_past_the_horizon_is_an_error_that_names_it_and_before_the_first_session_is_silence() -> None:
    xshg = calendars.get("XSHG")
    with pytest.raises(InvalidRequestError, match=f"XSHG is known until {xshg.horizon:%Y-%m-%d}") as caught:
        xshg.expected(TimeWindow(start=xshg.horizon - DAY, end=xshg.horizon + MINUTE), Interval.M1)
    assert caught.value.field == "end"
    assert xshg.sessions(TimeWindow(start=xshg.horizon - 30 * DAY, end=xshg.horizon))
    assert xshg.sessions(span("1970-01-01", "1990-01-01")) == []
    assert xshg.sessions(span("1985-01-01", "1990-12-20"))[0].label == date(1990, 12, 3)
    assert xshg.session_minutes(span("1970-01-01", "1971-01-01")) == 0
    assert not len(fresh("XSHG").expected(span("1970-01-01", "1970-02-01"), Interval.M5))


def test_always_open_has_neither_beginning_nor_end() -> None:
    always = calendars.get("24/7")
    for day in ("0100-02-28", "1969-12-31", "2024-02-29", "9000-01-01"):
        window = TimeWindow(start=at(day), end=at(day) + DAY)
        assert len(always.expected(window, Interval.H1)) == 24
        assert always.session_minutes(window) == 1440
        assert always.is_open(at(day))


@settings(max_examples=20, deadline=None)
@given(order=st.lists(st.sampled_from(range(1991, 2027)), min_size=1, max_size=4))
def test_what_was_asked_before_never_changes_an_answer(order: list[int]) -> None:
    calendar, settled = fresh("XSHG"), calendars.get("XSHG")
    for year in order:
        around = span(f"{year - 1}-12-15", f"{year}-01-15")
        assert calendar.sessions(around) == settled.sessions(around)
        assert np.array_equal(calendar.expected(around, Interval.M5), settled.expected(around, Interval.M5))


@pytest.mark.parametrize("mic", ["XNYS", "XHKG", "XASX", "CMES"])
def test_years_loaded_one_by_one_are_those_loaded_at_once(mic: str) -> None:
    piecemeal, at_once = fresh(mic), fresh(mic)
    for year in range(2014, 2026, 3):
        piecemeal.sessions(span(f"{year}-06-01", f"{year}-06-02"))
    whole = span("2014-01-01", "2026-01-01")
    assert piecemeal.sessions(whole) == at_once.sessions(whole)


def test_threads_that_ask_a_new_calendar_at_once_get_the_same_answer() -> None:
    calendar, expected, start = fresh("XSHG"), calendars.get("XSHG"), threading.Barrier(8)
    wrong: list[int] = []

    def ask(year: int) -> None:
        window = span(f"{year}-01-01", f"{year + 1}-01-01")
        start.wait()
        if calendar.sessions(window) != expected.sessions(window):
            wrong.append(year)

    threads = [threading.Thread(target=ask, args=(1995 + 4 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_exchange_has_one_calendar_whatever_it_is_called() -> None:
    assert calendars.get("XNAS") is calendars.get("XNYS") is calendars.get("NYSE") is calendars.get("xnys")
    assert calendars.get("XNAS").mic == "XNYS"


@pytest.mark.parametrize("mic", ["XNSY", "", "NASDQ", "24-7", "nonsense at all"])
def test_an_unknown_exchange_is_refused_with_the_nearest_names(mic: str) -> None:
    with pytest.raises(InvalidRequestError, match="unknown exchange") as caught:
        calendars.get(mic)
    assert caught.value.field == "mic"
    if mic == "XNSY":
        assert "XNYS" in caught.value.message


def test_what_never_closes_needs_no_calendar_library() -> None:
    code = (
        "import sys; from datetime import datetime, UTC; from mdtasks.domain.sessions import Calendars\n"
        "Calendars().get('24/7').last_sessions(5, datetime(2026, 1, 1, tzinfo=UTC))\n"
        "assert not {'pandas', 'exchange_calendars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- the self-test ---------------------------------------------------------------------------------


class Lying:
    """A source that loses the sessions at weekends, as pandas 3.1 makes the library do."""

    def __init__(self, source: Source) -> None:
        self.horizon_us, self.first_us, self._source = source.horizon_us, source.first_us, source
        self.zone = source.zone

    def covering(self, start_us: int, end_us: int) -> Schedule:
        held = self._source.covering(start_us, end_us)
        at_weekends = (held.labels // to_us(at("1970-01-02")) + 3) % 7 >= 5
        return held.without(merge(np.column_stack([held.opens, held.closes])[at_weekends]))


def test_the_self_test_passes_here() -> None:
    verify(Calendars())


def test_the_self_test_refuses_a_library_that_loses_sessions() -> None:
    class Lost(Calendars):
        def plain(self, mic: str) -> Calendar:
            calendar = super().plain(mic)
            return Calendar(calendar.mic, Lying(calendar._source))

    with pytest.raises(ConfigurationError, match="XBOM is wrong on 2025-02-01: no session instead of"):
        verify(Lost())


def test_a_library_that_fails_says_which_exchange_and_years() -> None:
    class Failing:
        bound_min = bound_max = staticmethod(lambda: None)

        def __init__(self, start: str, end: str) -> None:
            raise NotImplementedError("offset")

    with pytest.raises(ConfigurationError, match="cannot say when XTAE trades from 2023-01-01 to 2025-12-31: offset"):
        Calendar("XTAE", Library("XTAE", Failing)).is_open(at("2024-06-03"))


def test_the_schedule_cannot_be_written_to() -> None:
    held = AlwaysOpen().covering(0, 1)
    with pytest.raises(ValueError, match="read-only"):
        held.labels[0] = 0
