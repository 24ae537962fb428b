"""Wall clocks: every instant finds its way from UTC to a wall and back, and no hour that a change spoils is guessed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.bars import to_us
from mdtasks.providers.wallclock import DAY_US, LocalTimeError, day_bounds_us, local_to_utc, midnight_us, utc_to_local

ZONES = st.sampled_from(
    ["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia"]
)
INSTANTS = st.lists(
    st.datetimes(datetime(1972, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    min_size=1,
    max_size=30,
)


@given(INSTANTS, ZONES)
def test_walls_show_what_zoneinfo_says(instants: list[datetime], zone: str) -> None:
    utc_us = np.array([to_us(at) for at in instants], dtype=np.int64)
    shown = [to_us(at.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC)) for at in instants]
    assert utc_to_local(utc_us, zone).tolist() == shown


@given(INSTANTS, ZONES)
def test_a_wall_clock_leads_back_to_its_instant_in_one_of_its_two_passes(instants: list[datetime], zone: str) -> None:
    utc_us = np.array([to_us(at) for at in instants], dtype=np.int64)
    local_us = utc_to_local(utc_us, zone)
    first, second = local_to_utc(local_us, zone, "first"), local_to_utc(local_us, zone, "second")
    assert ((first == utc_us) | (second == utc_us)).all()
    assert (first <= second).all()


@given(st.dates(date(1990, 1, 1), date(2035, 1, 1)), ZONES)
def test_days_follow_each_other_without_gap_or_overlap(day: date, zone: str) -> None:
    start, end = day_bounds_us(day, zone)
    assert end == day_bounds_us(day + timedelta(days=1), zone)[0]
    assert start <= end <= start + 26 * 3_600_000_000


def minutes_of_fallback() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Wall clock minutes of New York's night of 2024-11-03, as a 24-hour feed would write them: 01:xx twice."""
    start = to_us(datetime(2024, 11, 3, 4, tzinfo=UTC))
    return utc_to_local(start + np.arange(240, dtype=np.int64) * 60_000_000, "America/New_York")


def test_the_passes_of_a_repeated_hour_are_told_apart_by_their_order() -> None:
    local_us = minutes_of_fallback()
    start = to_us(datetime(2024, 11, 3, 4, tzinfo=UTC))
    assert np.array_equal(local_to_utc(local_us, "America/New_York", "infer"), start + np.arange(240) * 60_000_000)


def test_a_repeated_hour_is_refused_by_its_row() -> None:
    with pytest.raises(LocalTimeError, match="2024-11-03 01:00:00 exists twice") as refused:
        local_to_utc(minutes_of_fallback(), "America/New_York")
    assert refused.value.row == 60


def test_a_skipped_hour_is_refused_by_its_row() -> None:
    local_us = midnight_us(date(2024, 3, 10)) + np.array([3, 1, 2], dtype=np.int64) * 3_600_000_000
    with pytest.raises(LocalTimeError, match="2024-03-10 02:00:00 does not exist") as refused:
        local_to_utc(local_us, "America/New_York", "first")
    assert refused.value.row == 2


def test_the_day_that_samoa_skipped_does_not_exist() -> None:
    with pytest.raises(LocalTimeError):
        local_to_utc(np.array([midnight_us(date(2011, 12, 30)) + DAY_US // 2]), "Pacific/Apia")
