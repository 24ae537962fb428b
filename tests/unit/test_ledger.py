"""The ledger of gaps: whatever comes and goes, each missing interval lies in exactly one open gap, found once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.gaps import merge
from mdtasks.domain.ledger import OpenGap, Run, Settled, may_ask, runs_of, settle

LENGTH = 60
#: Which minutes are missing, look after look.
looks = st.lists(st.sets(st.integers(0, LENGTH - 1)), min_size=1, max_size=8)


def _runs(missing: set[int], expected: list[int]) -> list[Run]:
    spans = merge(np.array([(minute, minute + 1) for minute in sorted(missing)], dtype=np.int64).reshape(-1, 2))
    starts = np.array(expected, dtype=np.int64)
    return runs_of(spans, starts, starts + 1)


def _apply(standing: dict[int, tuple[int, int]], found: Settled) -> None:
    for gap in found.closed:
        del standing[gap]
    for gap, run in found.grown:
        standing[gap] = run.stretch
    for run in found.new:
        standing[max(standing, default=0) + 1000] = run.stretch


@given(looks=looks, night=st.sets(st.integers(0, LENGTH - 1), max_size=20))
def test_every_missing_interval_lies_in_an_open_gap_and_every_open_gap_misses_something(
    looks: list[set[int]], night: set[int]
) -> None:
    expected = [minute for minute in range(LENGTH) if minute not in night]
    standing: dict[int, tuple[int, int]] = {}
    for missing in looks:
        lacking = missing - night
        runs = _runs(lacking, expected)
        assert sum(run.missing for run in runs) == len(lacking)
        found = settle([OpenGap(*each) for each in standing.items()], runs)
        _apply(standing, found)
        for minute in lacking:
            assert any(start <= minute < end for start, end in standing.values())
        for start, end in standing.values():
            assert any(start <= minute < end for minute in lacking)
        # Looking again at the same finds nothing new.
        assert settle([OpenGap(*each) for each in standing.items()], runs) == Settled()


@given(missing=st.sets(st.integers(0, LENGTH - 1)), night=st.sets(st.integers(0, LENGTH - 1), max_size=20))
def test_runs_go_on_across_nights_and_no_further(missing: set[int], night: set[int]) -> None:
    expected = [minute for minute in range(LENGTH) if minute not in night]
    lacking = [minute in missing for minute in expected]
    firsts = [i for i, each in enumerate(lacking) if each and (i == 0 or not lacking[i - 1])]
    assert [run.stretch[0] for run in _runs(missing - night, expected)] == [expected[i] for i in firsts]


def test_an_outage_that_lasts_is_one_gap_that_grows() -> None:
    first = settle([], [Run((0, 5), 5)])
    assert first.new == (Run((0, 5), 5),)
    assert settle([OpenGap(1, (0, 5))], [Run((0, 9), 9)]) == Settled(grown=((1, Run((0, 9), 9)),))


def test_a_gap_repaired_in_its_middle_stays_one() -> None:
    assert settle([OpenGap(1, (0, 9))], [Run((0, 2), 2), Run((7, 9), 2)]) == Settled()


def test_a_gap_that_nobody_misses_anything_of_is_closed_also_where_it_began_before_the_look() -> None:
    assert settle([OpenGap(1, (0, 9))], []) == Settled(closed=(1,))


@given(unasked=st.sets(st.integers(0, 59)), busy=st.sets(st.integers(0, 59)), dead=st.sets(st.integers(0, 59)))
def test_a_run_is_asked_for_when_no_job_of_it_waits_and_as_much_again_is_missing_as_has_died(
    unasked: set[int], busy: set[int], dead: set[int]
) -> None:
    busy, dead = busy - unasked, dead - unasked - busy
    everything = list(range(LENGTH))
    whole = _runs(unasked | busy | dead, everything)
    asked = may_ask(whole, _runs(unasked, everything), (_runs(busy, everything), _runs(dead, everything)), 3)
    minutes = {minute for run in asked for minute in range(*run.stretch)}
    assert minutes <= unasked
    for run in whole:
        within = set(range(*run.stretch))
        died, new = len(within & dead), len(within & unasked)
        free = not within & busy and (not died or new >= max(died, 3))
        assert within & minutes == (within & unasked if free else set())


def test_a_symbol_that_nobody_knows_is_asked_for_by_the_logarithm_of_time() -> None:
    asked, died = 0, 0
    for minute in range(1, 60 * 24):
        runs = may_ask([Run((0, minute), minute)], [Run((died, minute), minute - died)], ([], _dead(died)), 30)
        if runs:
            asked, died = asked + 1, minute
    assert asked == 7  # after 1 minute, 31, 62, 124, 248, 496 and 992


def _dead(minutes: int) -> list[Run]:
    return [Run((0, minutes), minutes)] if minutes else []
