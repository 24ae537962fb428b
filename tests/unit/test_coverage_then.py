"""Coverage with its changes undone is what it was, moment by moment."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.coverage import Change, Turned, undone
from mdtasks.domain.silence import inside
from mdtasks.domain.spans import Spans, merge

STEP = 3
END = 30

Pairs: TypeAlias = list[tuple[int, int]]
Event: TypeAlias = tuple[Pairs, Pairs, set[int]]

#: What comes to be answered for, what is doubted, and the bars that are final now.
_spans = st.lists(st.tuples(st.integers(0, END), st.integers(0, 8)).map(lambda p: (p[0], sum(p))), max_size=3)
_event = st.tuples(_spans, _spans, st.sets(st.integers(0, END // STEP - 1), max_size=3))


def points(spans: Pairs) -> set[int]:
    return {point for start, end in spans for point in range(start, end)}


def runs(found: set[int]) -> Spans:
    return merge(np.array([(point, point + 1) for point in sorted(found)], dtype=np.int64))


@given(st.lists(_event, max_size=8))
def test_every_moment_is_told_of_whatever_came_after(events: list[Event]) -> None:
    held: set[int] = set()
    final: dict[int, int] = {}
    states = [held]
    changes: list[Change] = []
    for at, (gained, lost, bars) in enumerate(events, start=1):
        after = (held - points(lost)) | points(gained)
        turned = bars - final.keys()
        told = {point for bar in turned for point in range(bar * STEP, bar * STEP + STEP)}
        final |= dict.fromkeys(turned, at)
        before, open_ = (held - after) | (held & told), after - held - told
        if before or open_:
            changes.append(Change(at, runs(before), runs(open_)))
        held = after
        states.append(held)
    for moment, state in enumerate(states):
        later = sorted((bar * STEP, at) for bar, at in final.items() if at > moment)
        starts, times = np.array(later, dtype=np.int64).reshape(-1, 2).T
        since = [change for change in reversed(changes) if change.at_us > moment]
        found = undone(runs(held), since, Turned(starts, times), STEP)
        everywhere = np.arange(END + 10)
        assert set(everywhere[inside(everywhere, found)].tolist()) == state
