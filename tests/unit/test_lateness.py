"""Lateness: never while an exchange is shut, monotone, and equal to a walk over its minutes one by one."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.lateness import NEVER, Allowance, lags_s, last_whole, mark, traded_s
from mdtasks.domain.sessions import Calendars

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
INTRADAY = [Interval.M1, Interval.M5, Interval.M15, Interval.H1]
#: DST and early closes, lunch breaks, labels of the day after, Sundays, always.
KINDS = ["XNYS", "XHKG", "XTKS", "XASX", "XTAE", "XLON", "24/7"]
#: Three weeks each: Thanksgiving with its early close and New York's change of clocks before it; the change in spring
#: (London's comes two weeks later, Sydney's in between); the turn of the lunar year; the turn of the year.
STARTS = ["2019-10-28", "2019-11-18", "2021-03-08", "2021-03-22", "2021-02-01", "2018-12-17"]

calendars = Calendars()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def allowance(interval: Interval = Interval.M1, *, cadence_s: float = 60.0, delay_s: float = 0.0) -> Allowance:
    return Allowance(interval, delay_s=delay_s, settle_s=60, grace_s=30, cadence_s=cadence_s)


def parts_of(mic: str, around: datetime, days: int = 20) -> list[tuple[datetime, datetime]]:
    """The stretches of trading around a moment, breaks taken out by hand."""
    found = []
    for session in calendars.get(mic).sessions(TimeWindow(start=around - days * DAY, end=around + 4 * DAY)):
        edges = [session.open, *(edge for pause in session.breaks for edge in (pause.start, pause.end)), session.close]
        found += list(zip(edges[::2], edges[1::2], strict=True))
    return found


def traded_by_hand(mic: str, start: datetime, end: datetime) -> float:
    overlaps = (min(close, end) - max(open_, start) for open_, close in parts_of(mic, end))
    return sum((each for each in overlaps if each > timedelta(0)), timedelta(0)).total_seconds()


@st.composite
def moments(draw: st.DrawFn) -> datetime:
    start = at(draw(st.sampled_from(STARTS)))
    return start + draw(st.integers(0, 21 * 86_400 - 1)) * SECOND


# -- one rule, two ways ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(
    mic=st.sampled_from(KINDS),
    now=moments(),
    behind_s=st.one_of(st.integers(0, 3600), st.integers(0, 5 * 86_400)),
    interval=st.sampled_from(INTRADAY),
    cadence_s=st.sampled_from([0.0, 60.0, 300.0]),
    delay_s=st.sampled_from([0.0, 0.5, 900.0]),
)
def test_a_series_is_late_exactly_when_more_was_traded_than_it_may_lag(
    mic: str, now: datetime, behind_s: int, interval: Interval, cadence_s: float, delay_s: float
) -> None:
    calendar, fresh = calendars.get(mic), now - behind_s * SECOND
    allowed = allowance(interval, cadence_s=cadence_s, delay_s=delay_s)
    found = mark(calendar, allowed, now)
    trading = any(open_ <= now < close for open_, close in parts_of(mic, now))
    assert (found is not None) == trading
    lag = traded_by_hand(mic, fresh, now)
    assert lags_s(calendar, interval, [fresh], now) == [pytest.approx(lag)]
    assert traded_s(calendar, fresh, now) == pytest.approx(lag)
    if found is not None:
        assert (fresh < found.late_before) == (lag > allowed.trading_s)


@settings(deadline=None, max_examples=200)
@given(mic=st.sampled_from(KINDS), now=moments(), interval=st.sampled_from(INTRADAY))
def test_at_the_mark_itself_nothing_is_late_and_a_microsecond_earlier_it_is(
    mic: str, now: datetime, interval: Interval
) -> None:
    calendar, allowed = calendars.get(mic), allowance(interval)
    found = mark(calendar, allowed, now)
    if found is None:
        return
    just, before = (
        lags_s(calendar, interval, [at_], now)[0] for at_ in (found.late_before, found.late_before - SECOND)
    )
    assert just == pytest.approx(allowed.trading_s)
    assert before == pytest.approx(allowed.trading_s + 1)  # the second before it was traded: no closed time is skipped


@settings(deadline=None, max_examples=200)
@given(
    mic=st.sampled_from(KINDS), first=moments(), later_s=st.integers(0, 2 * 86_400), interval=st.sampled_from(Interval)
)
def test_what_is_late_stays_late_while_nothing_comes(
    mic: str, first: datetime, later_s: int, interval: Interval
) -> None:
    calendar, later = calendars.get(mic), first + later_s * SECOND
    marks = [mark(calendar, allowance(interval), now) for now in (first, later)]
    fresh = [first - 8 * DAY, first - DAY, first - MINUTE]
    assert lags_s(calendar, interval, fresh, first) <= lags_s(calendar, interval, fresh, later)
    if marks[0] is not None and marks[1] is not None:
        assert marks[0].late_before <= marks[1].late_before


@settings(deadline=None, max_examples=200)
@given(mic=st.sampled_from(KINDS), now=moments(), behind=st.integers(0, 12), delay_s=st.sampled_from([0.0, 3600.0]))
def test_a_daily_series_is_late_when_three_sessions_are_due(
    mic: str, now: datetime, behind: int, delay_s: float
) -> None:
    calendar = calendars.get(mic)
    allowed = allowance(Interval.D1, delay_s=delay_s)
    found = mark(calendar, allowed, now)
    if found is None:
        return
    fresh = now.replace(hour=0, minute=0, second=0) - behind * DAY
    due = [
        session
        for session in calendar.sessions(TimeWindow(start=now - 30 * DAY, end=now))
        if session.close + (delay_s + 90) * SECOND < now
        and datetime(session.label.year, session.label.month, session.label.day, tzinfo=UTC) >= fresh
    ]
    assert (fresh < found.late_before) == (len(due) > 2)


# -- the exchanges' own days -----------------------------------------------------------------------


def on_file(folder: Path, mic: str, start: datetime) -> tuple[set[datetime], list[tuple[datetime, datetime]]]:
    """By the file of the exchange: its minutes of trading in three weeks, and its stretches of trading."""
    with (folder / "calendars" / f"{mic.lower().replace('/', '-')}.csv").open(newline="") as file:
        rows = [[datetime.fromisoformat(cell) if cell else None for cell in row] for row in list(csv.reader(file))[1:]]
    minutes, parts = set(), []
    for _, open_, close, pause, resume in rows:
        assert open_ is not None
        assert close is not None
        if not start - 5 * DAY <= open_ < start + 21 * DAY:
            continue
        for first, last in [(open_, pause), (resume, close)] if pause and resume else [(open_, close)]:
            assert first is not None
            assert last is not None
            parts.append((first, last))
            minutes |= {first + n * MINUTE for n in range(int((last - first) / MINUTE))}
    return {minute for minute in minutes if start <= minute < start + 21 * DAY}, parts


@pytest.mark.parametrize(
    ("mic", "start"),
    [
        *((mic, start) for mic in ("XNYS", "XLON", "XHKG", "XTKS", "XASX") for start in ("2018-11-12", "2018-10-22")),
        ("XNYS", "2021-03-01"),
        ("XHKG", "2021-02-01"),
        ("XTAE", "2019-10-14"),
        ("24/7", "2016-11-14"),
    ],
)
def test_at_no_minute_of_three_weeks_is_a_shut_exchange_late_nor_a_series_that_is_kept_fresh(
    shared_data: Path, mic: str, start: str
) -> None:
    """Around Thanksgiving and changes of clocks, with lunch breaks and early closes, by the exchanges' own files.

    The series is asked for each minute, and a minute's bar comes two minutes after its end.
    """
    calendar, begin = calendars.get(mic), at(start)
    trading, parts = on_file(shared_data, mic, begin)
    assert len(trading) > 3000
    allowed = allowance()
    fresh = max(min(close, begin) for open_, close in parts if open_ < begin)
    for number in range(21 * 1440):
        now = begin + number * MINUTE
        found = mark(calendar, allowed, now)
        assert (found is not None) == (now in trading), f"{mic} at {now}"
        if found is not None:
            assert fresh >= found.late_before, f"{mic} is late at {now}: fresh until {fresh}"
        if now - 3 * MINUTE in trading:
            fresh = now - 2 * MINUTE


@pytest.mark.parametrize(("cadence_s", "interval"), [(60, Interval.M1), (300, Interval.M1), (60, Interval.M5)])
@pytest.mark.parametrize("mic", ["XNYS", "XHKG", "XASX"])
def test_what_is_asked_for_at_its_cadence_is_never_late_even_when_all_is_silent(
    mic: str, cadence_s: int, interval: Interval
) -> None:
    """Silence becomes coverage only when it has settled: the slowest way in which a healthy series grows."""
    calendar, allowed = calendars.get(mic), allowance(interval, cadence_s=cadence_s)
    start, step = at("2019-11-25"), 30 * SECOND
    fresh = start
    for number in range(5 * 2880):
        now = start + number * step
        found = mark(calendar, allowed, now)
        assert found is None or fresh >= found.late_before, f"{mic} is late at {now}: fresh until {fresh}"
        asked = now - 20 * SECOND  # the answer takes a while
        if (asked - start).total_seconds() % cadence_s < step.total_seconds():
            settled = asked - 60 * SECOND
            fresh = max(
                fresh,
                start + (settled - start) // timedelta(seconds=interval.seconds) * timedelta(seconds=interval.seconds),
            )


def test_a_series_that_stops_is_late_after_what_it_may_lag_and_across_the_night() -> None:
    calendar, allowed = calendars.get("XNYS"), allowance()  # 2 x 60 + 60 + 30 = 210 s
    friday = at("2019-11-29T17:58")  # two minutes before the early close
    monday = at("2019-12-02T14:30")
    late = {}
    for name, now in {
        "a minute in": monday + 60 * SECOND,
        "90 s": monday + 90 * SECOND,
        "91 s": monday + 91 * SECOND,
    }.items():
        found = mark(calendar, allowed, now)
        assert found is not None
        late[name] = friday < found.late_before
    assert late == {"a minute in": False, "90 s": False, "91 s": True}


def test_where_less_was_traded_than_a_series_may_lag_nothing_is_late() -> None:
    calendar = calendars.get("24/7")
    found = mark(calendar, allowance(delay_s=2500 * 366 * 86_400.0), at("2019-11-29T12:00"))
    assert found is not None
    assert found.late_before == NEVER


def test_a_lag_is_counted_a_year_back_at_most() -> None:
    now = at("2019-11-29T12:00")
    assert lags_s(calendars.get("24/7"), Interval.M1, [NEVER], now) == [366 * 86_400]
    assert lags_s(calendars.get("24/7"), Interval.M1, [], now) == []
    assert lags_s(calendars.get("24/7"), Interval.M1, [now + DAY], now) == [0]


def test_a_daily_lag_counts_from_the_open_of_the_first_session_that_is_missing() -> None:
    calendar = calendars.get("XASX")  # its sessions open on the evening before their label
    now = at("2019-11-28T01:00")  # two hours into the session of the 28th
    assert lags_s(calendar, Interval.D1, [at("2019-11-28"), at("2019-11-29")], now) == [7200, 0]


# -- the last session that is over -----------------------------------------------------------------


def test_the_last_whole_session_is_the_last_that_is_due_with_its_lunch_left_out() -> None:
    whole = last_whole(calendars.get("XHKG"), allowance(), at("2021-02-10T08:01:30"))
    assert whole is not None
    assert whole.session == date(2021, 2, 9)  # the 10th closed 90 s ago: it is due from now on
    whole = last_whole(calendars.get("XHKG"), allowance(), at("2021-02-10T08:01:31"))
    assert whole is not None
    assert whole.session == date(2021, 2, 10)
    assert [(part.start, part.end) for part in whole.parts] == [
        (at("2021-02-10T01:30"), at("2021-02-10T04:00")),
        (at("2021-02-10T05:00"), at("2021-02-10T08:00")),
    ]


def test_the_last_whole_day_of_a_daily_series_reaches_from_its_open_but_not_from_before_its_label() -> None:
    whole = last_whole(calendars.get("XNYS"), allowance(Interval.D1), at("2019-11-27T23:30"))
    assert whole is not None
    assert [(part.start, part.end) for part in whole.parts] == [(at("2019-11-27T14:30"), at("2019-11-27T21:00"))]
    whole = last_whole(calendars.get("XASX"), allowance(Interval.D1), at("2019-11-28T23:30"))
    assert whole is not None
    assert (whole.session, len(whole.parts)) == (date(2019, 11, 28), 1)
    assert (whole.parts[0].start, whole.parts[0].end) == (at("2019-11-28"), at("2019-11-28T05:00"))
