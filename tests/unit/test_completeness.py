"""How complete a symbol is: every expected interval is counted once, whatever is covered and stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.bars import to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.flows.gaps import DUE_AFTER_S, _judged

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
    barred=st.sets(minutes, max_size=40),
    now=st.integers(1, MINUTES * 60),
    interval=st.sampled_from([Interval.M1, Interval.M5, Interval.H1]),
    mic=st.sampled_from(["24/7", "XNYS", "XHKG"]),
)
def test_every_expected_interval_is_exactly_one_of_four(
    covered: list[tuple[int, int]], barred: set[int], now: int, interval: Interval, mic: str
) -> None:
    calendar, at = CALENDARS.get(mic), START + timedelta(seconds=now)
    window = _window(0, MINUTES)
    starts = calendar.expected(window, interval)
    ends = calendar.interval_end(starts, interval)
    kept = ends <= to_us(at)
    starts, ends = starts[kept], ends[kept]
    spans = [_window(a, b) for a, b in covered if a < b]
    bars = np.array(sorted(to_us(START) + 60_000_000 * minute for minute in barred), dtype=np.int64)
    found = _judged("X", (interval, window), (starts, ends), (spans, bars, at))
    assert found.expected == len(starts)
    assert found.present + found.no_trade + found.missing + found.pending == found.expected

    # The same by hand, interval by interval.
    due_us = to_us(at) - int(DUE_AFTER_S * 1_000_000)
    within = np.zeros(len(starts), dtype=bool)
    merged = sorted((to_us(span.start), to_us(span.end)) for span in spans)
    joined: list[list[int]] = []
    for first, last in merged:
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    for first, last in joined:
        within |= (starts >= first) & (ends <= last)
    barred_us = set(bars.tolist())
    has_bar = np.array([start in barred_us for start in starts.tolist()], dtype=bool)
    assert found.present == int((within & has_bar).sum())
    assert found.no_trade == int((within & ~has_bar).sum())
    assert found.missing == int((~within & (ends <= due_us)).sum())
    assert all(gap.missing > 0 for gap in found.gaps)
