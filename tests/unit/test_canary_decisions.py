"""When a canary is promoted, withdrawn, or watched on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.policy.canaries import LEAST, TOLERANCE, Decision, Seen, Tally, decide

GOOD = Seen(elapsed_s=300, watch_s=300, under=Tally(40, 0), beside=Tally(400, 4))

tallies = st.integers(0, 2000).flatmap(lambda n: st.builds(Tally, st.just(n), st.integers(0, n)))
seens = st.builds(Seen, elapsed_s=st.floats(0, 2000), watch_s=st.floats(1, 1000), under=tallies, beside=tallies)


def test_what_does_as_well_as_elsewhere_holds_when_its_time_is_over() -> None:
    assert decide(replace(GOOD, elapsed_s=299))[0] is Decision.WAIT
    assert decide(GOOD) == (
        Decision.PROMOTED,
        "0 of 40 attempts did not end well under it, 4 of 400 attempts did not end well beside it",
    )


def test_what_is_clearly_worse_is_taken_back_before_its_time() -> None:
    assert decide(replace(GOOD, elapsed_s=20, under=Tally(10, 6)))[0] is Decision.WITHDRAWN


def test_an_outage_that_all_meet_is_not_its_fault() -> None:
    assert decide(replace(GOOD, under=Tally(40, 20), beside=Tally(400, 200)))[0] is Decision.PROMOTED


def test_an_outage_as_long_as_the_watch_shows_nothing() -> None:
    out = replace(GOOD, under=Tally(50, 50), beside=Tally(50, 50))
    assert decide(out)[0] is Decision.WAIT
    assert decide(replace(out, elapsed_s=600)) == (
        Decision.WITHDRAWN,
        "only 0 attempts ended well under it: it has shown nothing",
    )


def test_who_cannot_follow_it_ends_it() -> None:
    decision, why = decide(replace(GOOD, elapsed_s=1, under=Tally(), refused=("worker@a/1: no such provider",)))
    assert decision is Decision.WITHDRAWN
    assert why == "it cannot be followed: worker@a/1: no such provider"


@pytest.mark.parametrize(
    ("elapsed_s", "decision"), [(299, Decision.WAIT), (301, Decision.WAIT), (600, Decision.WITHDRAWN)]
)
def test_what_showed_too_little_gets_its_time_once_more(elapsed_s: float, decision: Decision) -> None:
    assert decide(replace(GOOD, elapsed_s=elapsed_s, under=Tally(LEAST - 1, 0)))[0] is decision


def test_wilsons_bound_is_that_of_the_tables() -> None:
    # Newcombe, R. G. (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    assert Tally(263, 81).at_least() == pytest.approx(0.2553, abs=5e-5)
    assert Tally(148, 15).at_least() == pytest.approx(0.0624, abs=5e-5)
    assert Tally(20, 0).at_least() == pytest.approx(0.0, abs=5e-5)
    assert Tally(29, 1).at_least() == pytest.approx(0.0061, abs=5e-5)


@given(seens)
def test_a_decision_has_its_reason(seen: Seen) -> None:
    decision, why = decide(seen)
    assert why
    if decision is Decision.PROMOTED:
        assert seen.elapsed_s >= seen.watch_s
        assert seen.under.attempts - seen.under.errors >= LEAST
        assert seen.under.at_least() <= seen.beside.share + TOLERANCE
    if seen.elapsed_s >= 2 * seen.watch_s:
        assert decision is not Decision.WAIT


@given(seens, st.integers(1, 50))
def test_more_errors_never_make_it_better(seen: Seen, more: int) -> None:
    worse = replace(seen, under=Tally(seen.under.attempts + more, seen.under.errors + more))
    if seen.under.attempts >= LEAST and decide(seen)[0] is Decision.WITHDRAWN:
        assert decide(worse)[0] is Decision.WITHDRAWN


@given(tallies)
def test_the_bound_lies_below_what_was_seen(tally: Tally) -> None:
    assert 0 <= tally.at_least() <= tally.share
