"""Which silence is believed, held against a count by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.gaps import merge
from mdtasks.domain.jobs import Interval
from mdtasks.domain.silence import Around, plausible, slots, weigh

MINUTE = 60_000_000
ODDS = 1e-6
#: A minute of a series: asked for and a bar, asked and silent; stored before, covered in silence before, called silent
#: and doubted before; not known.
STATES = st.sampled_from("BSbcd.")


def _at(minutes: list[int]) -> np.ndarray:
    return np.array(minutes, dtype=np.int64) * MINUTE


@given(
    states=st.lists(STATES, min_size=1, max_size=120),
    seconded=st.sets(st.integers(0, 119)),
    odds=st.sampled_from([ODDS, 1e-3, 0.5]),
)
def test_a_run_is_doubted_when_chance_does_not_explain_it(states: list[str], seconded: set[int], odds: float) -> None:
    where = {state: [i for i, found in enumerate(states) if found == state] for state in "BSbcd."}
    around = Around(
        expected=_at(list(range(len(states)))),
        covered=slots(_at(sorted(where["b"] + where["c"])), Interval.M1),
        bars_us=_at(where["b"]),
        doubted=slots(_at(where["d"]), Interval.M1),
        seconded=slots(_at(sorted(seconded)), Interval.M1),
    )
    found = weigh(_at(where["S"]), _at(where["B"]), around, odds)

    silent = [state in "Scd" for state in states]
    known = sum(state != "." for state in states)
    doubted, retracted = set(), set()
    start = 0
    while start < len(states):
        end = start
        while end < len(states) and silent[end]:
            end += 1
        run = range(start, end)
        if any(states[i] == "S" for i in run) and not known * (sum(silent) / known) ** len(run) > odds:
            doubted |= {i for i in run if states[i] == "S" and i not in seconded}
            retracted |= {i for i in run if states[i] == "c" and i not in seconded}
        start = end + 1
    assert set((found.doubted // MINUTE).tolist()) == doubted
    assert set((found.retracted // MINUTE).tolist()) == retracted
    assert set((found.seconded // MINUTE).tolist()) == set(where["S"]) & seconded


@given(known=st.integers(1, 10_000), run=st.integers(1, 500), share=st.floats(1e-4, 1))
def test_longer_silence_is_never_likelier_nor_is_one_interval_ever_doubted(known: int, run: int, share: float) -> None:
    if plausible(run + 1, share, known, ODDS):
        assert plausible(run, share, known, ODDS)
    assert plausible(1, max(share, 1 / known), known, ODDS)


def test_odds_of_zero_believe_everything() -> None:
    assert plausible(10_000, 1e-9, 10, 0.0)


def test_slots_that_touch_are_one() -> None:
    assert slots(_at([1, 2, 5]), Interval.M1).tolist() == merge(_at([1, 3, 5, 6]).reshape(-1, 2)).tolist()
