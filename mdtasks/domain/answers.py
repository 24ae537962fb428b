"""What an answer covers: which time it speaks for, and which it was asked about and leaves open. Pure span algebra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np

from mdtasks.domain import gaps
from mdtasks.domain.bars import Bars, RejectedBar, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import Times
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.silence import Silence, Weighed, inside, slots
from mdtasks.domain.spans import NO_TIME, Spans

_NONE: Final = np.empty(0, dtype=np.int64)
#: What is found of an answer without silence.
UNWEIGHED: Final = Weighed(_NONE, _NONE, _NONE, _NONE, _NONE.reshape(0, 2))


@dataclass(frozen=True, slots=True)
class Judgement:
    """``covered``: settled time that the answer speaks for. Settled trading time that it leaves open: ``quarantined``,
    whose bars were rejected, and ``doubted``, runs of silence that are not believed, as far as they are known.

    ``cut``: for each cut of the answer, in its order, the settled part of it in which the exchange trades (None: none).
    ``expected``: settled intervals asked for; ``failed``: how many of them the answer owes: cut off, rejected, or
    called silent against the odds; ``behind``: how many of them end after the newest bar that came.
    ``retracted``: time that was covered as silence and is doubted now. ``silences``: what the answer was silent on,
    as far as it is news.
    """

    covered: tuple[TimeWindow, ...] = ()
    quarantined: tuple[TimeWindow, ...] = ()
    doubted: tuple[TimeWindow, ...] = ()
    cut: tuple[TimeWindow | None, ...] = ()
    retracted: tuple[TimeWindow, ...] = ()
    silences: tuple[Silence, ...] = ()
    expected: int = 0
    failed: int = 0
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer to one window: sound bars, rejected ones, the cuts it names itself, whether its silence counts.

    Intervals that start before ``settled`` have settled; before ``settled_twice`` twice the settle delay has passed:
    then silence counts of a provider that does not declare complete answers, too. ``untraded``: time that is not
    expected because somebody said so; it stays open, for whoever said so may take it back.
    """

    window: TimeWindow
    interval: Interval
    good: Bars
    rejected: Sequence[RejectedBar]
    cuts: Sequence[TimeWindow]
    complete: bool
    settled: datetime
    settled_twice: datetime
    untraded: Spans = field(default_factory=lambda: NO_TIME)

    @property
    def asked(self) -> TimeWindow | None:
        """The settled part of the window: later time is neither covered nor missed yet."""
        if self.window.start >= self.settled:
            return None
        return TimeWindow(start=self.window.start, end=min(self.window.end, self.settled))


def silent(answer: Answered, calendar: Calendar) -> Times:
    """Starts of the settled expected intervals that the answer speaks for and has no bar of, sound or rejected."""
    if answer.asked is None:
        return _NONE
    expected = calendar.expected(answer.asked, answer.interval)
    # All are sorted and hold nothing twice; told so, numpy need not sort them again for every job.
    empty = np.setdiff1d(expected, answer.good.ts_us, assume_unique=True)
    empty = np.setdiff1d(empty, _rejected_us(answer), assume_unique=True)
    return empty[~inside(empty, gaps.spans_of(answer.cuts))]


def judge(answer: Answered, calendar: Calendar, empty: Times, weighed: Weighed = UNWEIGHED) -> Judgement:
    """Say what an answer covers of its window; ``empty``: what it is ``silent`` on, ``weighed``: what to think of that.

    Not covered are the cuts, the intervals whose only bars were rejected, and the silence that is not believed or,
    of a provider whose answers may be incomplete, has settled once only and that nobody seconds.
    """
    asked = answer.asked
    if asked is None:
        return Judgement(cut=(None,) * len(answer.cuts))
    expected = calendar.expected(asked, answer.interval)
    rejected = slots(np.intersect1d(_rejected_us(answer), expected), answer.interval)
    waiting = _NONE if answer.complete else empty[empty >= to_us(answer.settled_twice)]
    unbelieved = np.union1d(np.setdiff1d(waiting, weighed.seconded), weighed.doubted)
    news = np.setdiff1d(np.setdiff1d(empty, unbelieved), weighed.known)
    spans = gaps.spans_of([asked])
    open_ = np.concatenate([gaps.spans_of(answer.cuts), rejected, slots(unbelieved, answer.interval), answer.untraded])
    step_us = answer.interval.seconds * 1_000_000
    doubted = tuple(gaps.windows_of(weighed.runs + np.array([0, step_us])))
    waiting = np.setdiff1d(unbelieved, weighed.doubted)
    owed = np.concatenate([gaps.spans_of(answer.cuts), rejected, gaps.spans_of(doubted)])
    cuts = (gaps.windows_of(gaps.intersect(spans, gaps.spans_of([cut]))) for cut in answer.cuts)
    return Judgement(
        covered=tuple(gaps.windows_of(gaps.subtract(spans, open_))),
        quarantined=tuple(gaps.windows_of(rejected)),
        doubted=doubted,
        cut=tuple(part[0] if part and len(calendar.expected(part[0], answer.interval)) else None for part in cuts),
        retracted=tuple(gaps.windows_of(slots(weighed.retracted, answer.interval))),
        silences=(
            *(Silence(run, True) for run in _runs(news, expected, answer.interval)),
            *(Silence(run, False) for run in (*doubted, *_runs(waiting, expected, answer.interval))),
        ),
        expected=len(expected),
        behind=len(expected) - int(np.searchsorted(expected, answer.good.ts_us[-1:].max(initial=-1), side="right")),
        failed=int(inside(expected, gaps.merge(owed)).sum()) if len(owed) else 0,
    )


def _runs(starts_us: Times, expected: Times, interval: Interval) -> tuple[TimeWindow, ...]:
    """Windows of intervals that follow one another in the expected list, nights between."""
    if not len(starts_us):
        return ()
    at = np.searchsorted(expected, starts_us)
    first = np.flatnonzero(np.diff(at, prepend=-2) != 1)
    last = np.append(first[1:], len(at)) - 1
    step_us = interval.seconds * 1_000_000
    return tuple(gaps.windows_of(np.column_stack([starts_us[first], starts_us[last] + step_us])))


def _rejected_us(answer: Answered) -> Times:
    """Starts of the intervals of which only rejected bars came; a bar off the grid doubts the interval it lies in."""
    if not answer.rejected:
        return _NONE
    step_us = answer.interval.seconds * 1_000_000
    starts = np.array([bar.ts_us // step_us * step_us for bar in answer.rejected], dtype=np.int64)
    return np.setdiff1d(starts, answer.good.ts_us)
