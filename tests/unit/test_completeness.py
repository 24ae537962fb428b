"""How complete a symbol is: every expected interval is counted once, whatever is covered and stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.completeness import Series, Verdict
from mdtasks.domain.gaps import spans_of
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTES = 1800
CALENDARS = Calendars()

minutes = st.integers(0, MINUTES)
stretches = st.lists(st.tuples(minutes, minutes), max_size=6)


def _window(first: int, last: int) -> TimeWindow:
    return TimeWindow(start=START + timedelta(minutes=first), end=START + timedelta(minutes=last))


@settings(deadline=None)  # the first example loads a calendar
@given(
    covered=stretches,
    halted=stretches,
    barred=st.sets(minutes, max_size=40),
    rejected=st.sets(minutes, max_size=40),
    now=st.integers(1, MINUTES * 60),
    interval=st.sampled_from([Interval.M1, Interval.M5, Interval.H1]),
    mic=st.sampled_from(["24/7", "XNYS", "XHKG"]),
)
def test_every_expected_interval_is_exactly_one_verdict(
    covered: list[tuple[int, int]],
    halted: list[tuple[int, int]],
    barred: set[int],
    rejected: set[int],
    now: int,
    interval: Interval,
    mic: str,
) -> None:
    calendar, at = CALENDARS.get(mic), START + timedelta(seconds=now)
    window = _window(0, MINUTES)
    starts = calendar.expected(window, interval)
    ends = calendar.interval_end(starts, interval)
    kept = ends <= to_us(at)
    starts, ends = starts[kept], ends[kept]
    # Coverage and halts are on the interval's grid, as they are in the store.
    step = interval.seconds * 1_000_000
    grid = [[_on_grid(a, b, step) for a, b in each if a < b] for each in (covered, halted)]
    bars, broken = (np.array(sorted(to_us(START) + 60_000_000 * each for each in some)) for some in (barred, rejected))
    due_us = to_us(at) - 420_000_000
    series = Series(
        symbol="X",
        interval=interval,
        window=window,
        starts=starts,
        ends=ends,
        covered=spans_of(grid[0]),
        halted=spans_of(grid[1]),
        bars_us=bars.astype(np.int64),
        rejected_us=broken.astype(np.int64),
        due_us=due_us,
    )
    found = series.judged()

    # The same by hand, interval by interval.
    counts = dict.fromkeys(("present", "no_trade", "halted", "missing", "quarantined", "pending"), 0)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        in_cover, in_halt = (any(to_us(w.start) <= start < to_us(w.end) for w in some) for some in grid)
        barred_now = start in set(bars.tolist())
        if in_halt:
            counts["halted"] += 1
        elif in_cover:
            counts["present" if barred_now else "no_trade"] += 1
        elif end <= due_us:
            counts["missing"] += 1
            counts["quarantined"] += start in set(broken.tolist())
        else:
            counts["pending"] += 1
    assert {name: getattr(found, name) for name in counts} == counts
    told = [Verdict(each).name.lower() for each in series.verdicts()]
    assert {name: told.count(name) for name in counts if name != "quarantined"} == {
        name: count for name, count in counts.items() if name != "quarantined"
    }
    assert found.expected == sum(counts.values()) - counts["quarantined"] == len(starts)
    assert all(gap.missing > 0 for gap in found.gaps)
    firsts = [gap.window.start for gap in found.gaps]
    assert firsts == sorted(firsts)


def _on_grid(first: int, last: int, step_us: int) -> TimeWindow:
    start, end = (to_us(START + timedelta(minutes=each)) for each in (first, last))
    return TimeWindow(start=from_us(start // step_us * step_us), end=from_us(-(-end // step_us) * step_us))
