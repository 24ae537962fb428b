"""A series in trading time: a place for every interval that is expected or has a bar, and what is said of each.

As data for a script that draws candles, and as strips of SVG that need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import orjson
from markupsafe import Markup
from numpy.typing import NDArray

from mdtasks.domain.bars import to_us
from mdtasks.domain.completeness import Verdict
from mdtasks.domain.schedules import Session, Times
from mdtasks.flows.gaps import Explanation

#: Beside the domain's verdicts: a bar that is not expected.
OUTSIDE: Final = len(Verdict)
#: What each verdict is called, and its class in the style.
NAMES: Final = (*(each.name.lower() for each in Verdict), "outside")
#: Of several intervals in one cell the gravest is shown.
_GRAVITY: Final = np.array([0, 2, 3, 5, 4, 1])
_BY_GRAVITY: Final = np.argsort(_GRAVITY)
#: Heights of the cells of a strip, so that no one has to tell them by colour.
HEIGHTS: Final = {"present": 10, "no_trade": 3, "halted": 3, "missing": 10, "pending": 6, "outside": 6}
_CELLS: Final = 480
#: Places that are drawn: so many take a browser some tenths of a second.
DRAWN: Final = 3000


@dataclass(frozen=True, slots=True, eq=False)
class TradingTime:
    """The places, in order of time. ``at_us``: starts; ``verdicts``: a ``Verdict`` or OUTSIDE each; ``bar``: which of
    the stored bars it has, -1: none. All of shape (n,).
    """

    at_us: Times
    verdicts: NDArray[np.int8]
    bar: NDArray[np.intp]

    def count(self, name: str) -> int:
        """How many places have a verdict."""
        return int((self.verdicts == NAMES.index(name)).sum())


def trading_time(explained: Explanation) -> TradingTime:
    """The places of a series."""
    starts, bars_us = explained.series.starts, explained.stored.bars.ts_us
    at_us = np.union1d(starts, bars_us).astype(np.int64)
    verdicts = np.full(len(at_us), OUTSIDE, dtype=np.int8)
    verdicts[np.searchsorted(at_us, starts)] = explained.series.verdicts()
    bar = np.full(len(at_us), -1, dtype=np.intp)
    bar[np.searchsorted(at_us, bars_us)] = np.arange(len(bars_us))
    return TradingTime(at_us, verdicts, bar)


def chart_data(explained: Explanation, places: TradingTime) -> str:
    """The newest places as JSON that may stand in a page: ``at`` in ms since 1970, values null without a bar."""
    stored, which = explained.stored, places.bar[-DRAWN:]

    def values(column: NDArray[Any]) -> list[Any]:
        known = column.tolist()
        return [known[at] if at >= 0 else None for at in which.tolist()]

    names = ("open", "high", "low", "close", "volume")
    data = {
        "step_s": explained.completeness.interval.seconds,
        "at": (places.at_us[-DRAWN:] // 1000).tolist(),
        **{name: values(column) for name, column in zip(names, stored.bars.columns, strict=True)},
        "final": values(stored.final),
        "provider": values(stored.provider),
    }
    return orjson.dumps(data).decode().replace("<", "\\u003c")


def strip(verdicts: NDArray[np.int8], label: str) -> Markup:
    """Verdicts from left to right, in at most 480 cells. ``label`` says them in words."""
    number = min(len(verdicts), _CELLS)
    if not number:
        return Markup("")
    edges = np.arange(number) * len(verdicts) // number
    cells = _BY_GRAVITY[np.maximum.reduceat(_GRAVITY[verdicts], edges)]
    turns = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), number]
    runs = [(NAMES[cells[start]], start, end - start) for start, end in pairwise(turns)]
    rects = Markup("").join(
        Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
            name, at, 10 - HEIGHTS[name], width, HEIGHTS[name]
        )
        for name, at, width in runs
    )
    return Markup(
        '<svg class="strip" viewBox="0 0 {} 10" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(number, label, rects)


def in_words(verdicts: NDArray[np.int8]) -> str:
    """How many intervals have which verdict."""
    counts = np.bincount(verdicts, minlength=len(NAMES)).tolist()
    said = [f"{number:,} {name.replace('_', ' ')}" for name, number in zip(NAMES, counts, strict=True) if number]
    return ", ".join(said) or "nothing expected yet"


def by_session(places: TradingTime, sessions: Sequence[Session]) -> list[NDArray[np.int8]]:
    """The verdicts of each session; what is outside belongs to the nearest one."""
    closes = np.array([to_us(each.close) for each in sessions[:-1]], dtype=np.int64)
    opens = np.array([to_us(each.open) for each in sessions[1:]], dtype=np.int64)
    edges = np.searchsorted(places.at_us, closes + (opens - closes) // 2)
    return np.split(places.verdicts, edges) if len(sessions) else []
