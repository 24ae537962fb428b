"""How far back anything is kept: one horizon, and what a policy may not say of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.policy import Policy, examine
from mdtasks.domain.retention import day_before, horizon, kept_part, month_before, rules

NOW = datetime(2026, 11, 20, 22, 15, tzinfo=UTC)


def keeping(**days: int | None) -> Policy:
    return Policy.model_validate({"retention": {f"{name}_days": value for name, value in days.items()}})


def test_bars_are_kept_for_ever_unless_somebody_says_otherwise() -> None:
    assert {horizon(Policy(), interval, NOW) for interval in Interval} == {None}
    window = TimeWindow(start=datetime(1990, 1, 1, tzinfo=UTC), end=NOW)
    assert kept_part(window, Interval.M1, Policy(), NOW) == window
    assert {name for name, rule in rules(Policy()).items() if rule.days} == {
        "jobs",
        "letters",
        "quarantine",
        "reconciliation",
    }


def test_a_horizon_is_a_days_beginning_and_whole_months_before_it_go() -> None:
    kept_from = horizon(keeping(bars_1m=30), Interval.M1, NOW)
    assert kept_from == datetime(2026, 10, 21, tzinfo=UTC)
    assert month_before(kept_from) == datetime(2026, 10, 1, tzinfo=UTC)
    assert horizon(keeping(bars_1m=30), Interval.D1, NOW) is None
    assert month_before(datetime(2026, 10, 1, tzinfo=UTC)) == datetime(2026, 9, 1, tzinfo=UTC)


def test_a_window_is_cut_at_the_horizon_and_one_that_lies_before_it_is_refused_by_the_policys_field() -> None:
    policy = keeping(bars_1m=30)
    kept_from = datetime(2026, 10, 21, tzinfo=UTC)
    window = TimeWindow(start=datetime(2026, 1, 1, tzinfo=UTC), end=NOW)
    assert kept_part(window, Interval.M1, policy, NOW) == TimeWindow(start=kept_from, end=NOW)
    assert kept_part(window, Interval.D1, policy, NOW) == window
    with pytest.raises(InvalidRequestError, match=r"retention\.bars_1m_days is 30") as refused:
        kept_part(TimeWindow(start=window.start, end=kept_from), Interval.M1, policy, NOW)
    assert refused.value.field == "start"
    assert "2026-10-21" in refused.value.hint


@given(now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), days=st.integers(7, 40_000))  # noqa: DTZ001
def test_whoever_still_works_by_yesterdays_horizon_looks_at_nothing_that_is_deleted_today(
    now: datetime, days: int
) -> None:
    at = now.replace(tzinfo=UTC)
    deleted_before, yesterdays = month_before(day_before(days, at)), day_before(days, at - timedelta(days=1))
    assert deleted_before is not None
    assert yesterdays is not None
    assert deleted_before <= yesterdays <= at - timedelta(days=days) or yesterdays.year == 1
    assert (deleted_before.day, deleted_before.hour) == (1, 0)


@pytest.mark.parametrize(
    ("document", "field", "needs"),
    [
        ("retention: {bars_1m_days: 14}", "bars_1m", "gaps.back_sessions (5)"),
        ("retention: {bars_1d_days: 364}", "bars_1d", "gaps.back_days (365)"),
        ("{gaps: {back_sessions: 100}, retention: {bars_1m_days: 100}}", "bars_1m", "at least 154"),
        ("{replay: {ttl_s: 2592000}, retention: {bars_5m_days: 29}}", "bars_5m", "replay.ttl_s (2592000)"),
    ],
)
def test_what_is_looked_for_or_replayed_must_be_kept(document: str, field: str, needs: str) -> None:
    (wrong,) = examine(document).wrongs
    assert wrong.path == f"retention.{field}_days"
    assert needs in wrong.rule


def test_what_nobody_keeps_complete_may_go_soon() -> None:
    assert examine("retention: {bars_5m_days: 7, bars_1m_days: 21, bars_1d_days: 365}").policy is not None
