"""What an answer covers: which time it speaks for, and which it was asked about and leaves open. Pure span algebra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from mdtasks.domain import gaps
from mdtasks.domain.bars import Bars, RejectedBar
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import Times
from mdtasks.domain.sessions import Calendar


@dataclass(frozen=True, slots=True)
class Judgement:
    """``covered``: settled time that the answer speaks for. ``doubted``: settled trading time whose bars were rejected.

    ``cut``: for each cut of the answer, in its order, the settled part of it in which the exchange trades (None: none).
    """

    covered: tuple[TimeWindow, ...]
    doubted: tuple[TimeWindow, ...]
    cut: tuple[TimeWindow | None, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer to one window: sound bars, rejected ones, the cuts it names itself, and whether its silence counts."""

    window: TimeWindow
    interval: Interval
    good: Bars
    rejected: Sequence[RejectedBar]
    cuts: Sequence[TimeWindow]
    complete: bool


def judge(answer: Answered, calendar: Calendar, settled: datetime) -> Judgement:
    """Say what an answer covers of its window before ``settled``: later time is neither covered nor missed yet.

    Not covered are the cuts, the intervals whose only bars were rejected, and, where silence does not count, the
    expected intervals without a bar.
    """
    window = answer.window
    if window.start >= settled:
        return Judgement((), (), (None,) * len(answer.cuts))
    asked = TimeWindow(start=window.start, end=min(window.end, settled))
    expected = calendar.expected(asked, answer.interval)
    doubted = _slots(np.intersect1d(_rejected_us(answer), expected), answer.interval)
    silent = _slots(expected[:0] if answer.complete else np.setdiff1d(expected, answer.good.ts_us), answer.interval)
    spans = gaps.spans_of([asked])
    open_ = np.concatenate([gaps.spans_of(answer.cuts), doubted, silent])
    cuts = (gaps.windows_of(gaps.intersect(spans, gaps.spans_of([cut]))) for cut in answer.cuts)
    return Judgement(
        covered=tuple(gaps.windows_of(gaps.subtract(spans, open_))),
        doubted=tuple(gaps.windows_of(gaps.merge(doubted))),
        cut=tuple(part[0] if part and len(calendar.expected(part[0], answer.interval)) else None for part in cuts),
    )


def _rejected_us(answer: Answered) -> Times:
    """Starts of the intervals of which only rejected bars came; a bar off the grid doubts the interval it lies in."""
    step_us = answer.interval.seconds * 1_000_000
    starts = np.array([bar.ts_us // step_us * step_us for bar in answer.rejected], dtype=np.int64)
    return np.setdiff1d(starts, answer.good.ts_us)


def _slots(starts_us: Times, interval: Interval) -> gaps.Spans:
    return np.column_stack([starts_us, starts_us + interval.seconds * 1_000_000])
