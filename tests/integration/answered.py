"""Which time an answer speaks for: its window without the cuts it names."""

from __future__ import annotations

from mdtasks.domain.jobs import TimeWindow
from mdtasks.providers.base import BarsAnswer


def answered(answer: BarsAnswer, symbol: str, window: TimeWindow) -> list[TimeWindow]:
    """The parts of ``window`` that the answer speaks for, in time order; [] for a symbol that failed."""
    if symbol not in answer.bars:
        return []
    parts: list[TimeWindow] = []
    start = window.start
    for cut in answer.unanswered.get(symbol, ()):
        if start < cut.window.start:
            parts.append(TimeWindow(start=start, end=min(cut.window.start, window.end)))
        start = max(start, cut.window.end)
    if start < window.end:
        parts.append(TimeWindow(start=start, end=window.end))
    return parts
