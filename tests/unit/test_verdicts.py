"""The verdict on one interval: one word for each way that a bar can be there or not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mdtasks.domain.completeness import Completeness, Gap
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.verdicts import MEANINGS, Bounds, Verdict, slot_of, verdict_of

AT = datetime(2026, 11, 2, 15, 7, 23, tzinfo=UTC)
SLOT = slot_of(AT, Interval.M1)


def told(**counts: int) -> Completeness:
    names = ("expected", "present", "no_trade", "halted", "quarantined", "pending")
    gaps = (Gap(SLOT, 1),) if counts.pop("missing", 0) else ()
    values = {**dict.fromkeys(names, 0), **counts}
    return Completeness("A", Interval.M1, SLOT, **values, gaps=gaps)


@pytest.mark.parametrize(
    ("counts", "barred", "verdict"),
    [
        ({"present": 1}, True, Verdict.PRESENT),
        ({"no_trade": 1}, False, Verdict.NO_TRADE),
        ({"halted": 1}, False, Verdict.HALTED),
        ({"missing": 1}, False, Verdict.MISSING),
        ({"missing": 1, "quarantined": 1}, False, Verdict.QUARANTINED),
        ({"missing": 1}, True, Verdict.UNSETTLED),
        ({"pending": 1}, False, Verdict.PENDING),
        ({"pending": 1}, True, Verdict.UNSETTLED),
    ],
)
def test_an_expected_interval_has_the_verdict_of_its_completeness(
    counts: dict[str, int], barred: bool, verdict: Verdict
) -> None:
    assert verdict_of(SLOT, told(expected=1, **counts), Bounds(), barred=barred, trades=True) is verdict


@pytest.mark.parametrize(
    ("bounds", "barred", "trades", "verdict"),
    [
        (Bounds(), False, False, Verdict.OUTSIDE),
        (Bounds(), True, False, Verdict.EXTENDED),
        (Bounds(), False, True, Verdict.NOT_ENDED),
        (Bounds(), True, True, Verdict.UNSETTLED),
        (Bounds(listed_from=SLOT.end), False, True, Verdict.NOT_LISTED),
        (Bounds(delisted_on=SLOT.start), False, True, Verdict.NOT_LISTED),
        (Bounds(kept_from=SLOT.end), False, True, Verdict.NOT_KEPT),
    ],
)
def test_one_that_nobody_expects_says_why(bounds: Bounds, barred: bool, trades: bool, verdict: Verdict) -> None:
    for known in (told(), None):
        assert verdict_of(SLOT, known, bounds, barred=barred, trades=trades) is verdict


def test_every_verdict_has_its_sentence() -> None:
    assert set(MEANINGS) == set(Verdict)


def test_a_moment_lies_in_one_interval_of_the_grid() -> None:
    assert TimeWindow(start=AT.replace(second=0), end=AT.replace(second=0) + timedelta(minutes=1)) == SLOT
    assert slot_of(AT, Interval.H1).start == AT.replace(minute=0, second=0)
    assert slot_of(AT, Interval.D1).start == AT.replace(hour=0, minute=0, second=0)
    with pytest.raises(InvalidRequestError):
        slot_of(datetime(9999, 12, 31, 23, 59, tzinfo=UTC), Interval.D1)
