"""Error budgets: in session minutes of a month, whatever its holidays, weighted by who trades when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mdtasks.domain.budgets import Month, budget, burn, month, month_of
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.sessions import Calendars

calendars = Calendars()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_month_ends_where_the_next_begins() -> None:
    for text, start, end in (
        ("2019-11-30T23:59:59", "2019-11-01", "2019-12-01"),
        ("2019-12-01", "2019-12-01", "2020-01-01"),
        ("2020-02-29T12:00", "2020-02-01", "2020-03-01"),
    ):
        window = month_of(at(text))
        assert (window.start, window.end) == (at(start), at(end))


def test_the_minutes_of_a_month_leave_out_its_holidays_and_early_closes() -> None:
    found = month({calendars.get("XNYS"): 500}, at("2019-11-29T15:30"))
    # 20 sessions of November 2019: 19 whole ones and the 210 minutes after Thanksgiving, one hour of which is over.
    assert found == Month("2019-11", so_far=19 * 390 + 60, whole=19 * 390 + 210)


def test_an_exchange_counts_by_its_number_of_series() -> None:
    found = month({calendars.get("XNYS"): 999, calendars.get("24/7"): 1}, at("2019-12-01"))
    assert found.whole == pytest.approx((999 * (20 * 390 + 210) + 31 * 1440) / 1000, rel=0.1)
    assert month({}, at("2019-12-01")).whole == 0


def test_a_calendar_that_ends_counts_until_its_end() -> None:
    calendar = calendars.get("XSHG")
    assert month({calendar: 1}, calendar.horizon - timedelta(days=5)).whole > 0
    assert month({calendar: 1}, calendar.horizon + timedelta(days=40)).whole == 0


def test_a_budget_says_what_is_allowed_used_and_left() -> None:
    # 0.5 % of 7620 minutes: 38.1; 2 % of the tier late for 10 hours use 12 of them.
    found = budget(0.005, Month("2019-11", 3900, 7620), late_s=0.02 * 36_000, watched_s=36_000)
    assert found.as_dict() == {
        "month": "2019-11",
        "minutes_so_far": 3900,
        "minutes": 7620,
        "allowed_so_far": 19.5,
        "allowed": 38.1,
        "consumed": 12,
        "left": 26.1,
        "watched": 600,
    }
    assert found.left_share == pytest.approx(26.1 / 38.1)
    assert budget(0.005, Month("2019-11", 0, 0), late_s=0, watched_s=0).left_share == 0


@pytest.mark.parametrize("target", [0, 1, -0.1, 2])
def test_a_target_that_is_no_share_is_refused(target: float) -> None:
    with pytest.raises(InvalidRequestError, match="target"):
        budget(target, Month("2019-11", 1, 1), late_s=0, watched_s=0)


def test_a_burn_of_one_uses_a_budget_up_exactly() -> None:
    assert burn(0.005, late_s=18, watched_s=3600) == pytest.approx(1)
    assert burn(0.005, late_s=0, watched_s=3600) == 0
    assert burn(0.005, late_s=0, watched_s=0) is None
