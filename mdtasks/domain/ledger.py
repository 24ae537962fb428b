"""The ledger of gaps: what is missing now, held against the gaps that stand open. Pure.

A gap is one stretch of missing time from the moment it was found until all of it was answered for: it grows while an
outage lasts, and stays one when its middle is repaired first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mdtasks.domain import gaps
from mdtasks.domain.bars import from_us
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.schedules import Times

#: Microseconds since 1970, half-open.
Stretch: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class OpenGap:
    """A gap that stands open."""

    id: int
    stretch: Stretch


@dataclass(frozen=True, slots=True)
class Run:
    """Missing intervals that follow one another in the expected list, nights between; ``missing``: how many."""

    stretch: Stretch
    missing: int

    @property
    def window(self) -> TimeWindow:
        """The stretch as a window."""
        return TimeWindow(start=from_us(self.stretch[0]), end=from_us(self.stretch[1]))


@dataclass(frozen=True, slots=True)
class Settled:
    """What a look at one series found: runs that are ``new`` gaps, open gaps that have ``grown``, ids ``closed``."""

    new: tuple[Run, ...] = ()
    grown: tuple[tuple[int, Run], ...] = ()
    closed: tuple[int, ...] = ()


def runs_of(missing: gaps.Spans, expected: Times, ends: Times) -> list[Run]:
    """Missing time as runs: of the expected intervals ``[expected[i], ends[i])`` those that start in it."""
    lacking = np.append(np.searchsorted(missing.ravel(), expected, side="right") % 2 == 1, False)
    edges = np.flatnonzero(np.diff(lacking, prepend=False))
    return [
        Run((int(expected[first]), int(ends[after - 1])), int(after - first))
        for first, after in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]


def settle(standing: Sequence[OpenGap], runs: Sequence[Run], since_us: int) -> Settled:
    """Hold the runs found missing against the gaps that stand open.

    A run that meets a standing gap belongs to it (to the earliest, when it meets several) and may make it grow. A gap
    that no run meets is closed, unless a part of it lies before ``since_us``, from where on was looked, and so is not
    known; one that lies before it wholly is closed too.
    """
    new: list[Run] = []
    grown: dict[int, Run] = {}
    met: set[int] = set()
    stretches = {gap.id: gap.stretch for gap in standing}
    for run in runs:
        mine = [gap for gap in standing if _meet(gap.stretch, run.stretch)]
        met |= {gap.id for gap in mine}
        if not mine:
            new.append(run)
            continue
        owner = min(mine, key=lambda gap: gap.stretch)
        start, end = stretches[owner.id]
        wider = (min(start, run.stretch[0]), max(end, run.stretch[1]))
        if wider != (start, end):
            counted = grown[owner.id].missing if owner.id in grown else 0
            stretches[owner.id] = wider
            grown[owner.id] = Run(wider, counted + run.missing)
    closed = (g.id for g in standing if g.id not in met and (g.stretch[0] >= since_us or g.stretch[1] <= since_us))
    return Settled(tuple(new), tuple(grown.items()), tuple(closed))


def _meet(a: Stretch, b: Stretch) -> bool:
    return a[0] < b[1] and b[0] < a[1]
