"""How far two sources are apart, what is beyond a tolerance, and who is alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.bars import Bars
from mdtasks.domain.crosschecks import Tolerances, compared
from mdtasks.domain.policy import Policy

TEN = Tolerances(10, 10, 10, 10, 10)
MINUTE_US = 60_000_000


def bars(*close: float, first: int = 0, volume: float = 100.0) -> Bars:
    ts = (first + np.arange(len(close))) * MINUTE_US
    return Bars.of(ts, close, close, close, close, [volume] * len(close))


def test_only_what_both_have_is_compared() -> None:
    found = compared(bars(1, 2, 3), bars(3, 4, first=2), TEN)
    assert len(found) == 1
    assert found.held.ts_us.tolist() == [2 * MINUTE_US]
    assert not found.disagreeing.any()
    assert len(compared(bars(1), bars(), TEN)) == 0


def test_distances_are_in_basis_points_of_the_larger_and_a_tolerance_is_still_within() -> None:
    found = compared(bars(100.0, 100.0, 0.0), bars(99.9, 99.89, 5.0), TEN)
    assert found.apart_bp[3] == pytest.approx([10.0, 11.0, 10_000.0])
    assert found.disagreeing.tolist() == [False, True, True]
    assert found.fields_of(1) == ["open", "high", "low", "close"]


@given(
    held=st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=5),
    other=st.lists(st.floats(-1e12, 1e12), min_size=5, max_size=5),
)
def test_it_is_the_same_from_both_sides(held: list[float], other: list[float]) -> None:
    other = other[: len(held)]
    one, two = compared(bars(*held), bars(*other), TEN), compared(bars(*other), bars(*held), TEN)
    assert one.apart_bp.tolist() == two.apart_bp.tolist()
    assert one.beyond.tolist() == two.beyond.tolist()
    assert np.isfinite(one.apart_bp).all()
    assert not compared(bars(*held), bars(*held), Tolerances(0, 0, 0, 0, 0)).disagreeing.any()


def test_what_is_not_to_be_compared_is_not() -> None:
    assert not compared(bars(1.0), bars(2.0), Tolerances(None, None, None, None, 10)).disagreeing.any()


def test_a_feed_without_volumes_disagrees_with_none() -> None:
    assert not compared(bars(1.0, volume=0.0), bars(1.0, volume=5e8), TEN).disagreeing.any()
    assert compared(bars(1.0, volume=1.0), bars(1.0, volume=2.0), TEN).fields_of(0) == ["volume"]


def test_who_is_alone_is_wrong_and_where_nobody_is_nobody_is() -> None:
    found = compared(bars(1.0, 1.0, 1.0, 1.0, 1.0), bars(2.0, 2.0, 2.0, 2.0, 1.0), TEN)
    third = bars(1.0, 2.0, 3.0, 0.0, 5.0).take(np.array([True, True, True, False, True]))
    assert found.judged_by(third, TEN).wrong == ("other", "held", None, None, None)
    assert found.wrong == (None,) * 5


def test_the_policy_says_the_tolerances() -> None:
    checks = Policy().cross_checks
    assert checks.day.rules == Tolerances(100, 50, 50, 50, 4000)
    assert checks.provider.rules == Tolerances(25, 25, 25, 25, None)
