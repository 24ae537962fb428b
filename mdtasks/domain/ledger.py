"""The ledger of gaps: what is missing now, held against the gaps that stand open. Pure.

A gap is one stretch of missing time from the moment it was found until all of it was answered for: it grows while an
outage lasts, and stays one when its middle is repaired first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

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


def may_ask(
    whole: Sequence[Run], unasked: Sequence[Run], held: tuple[Sequence[Run], Sequence[Run]], least: int
) -> list[Run]:
    """Those of the ``unasked`` runs that a job may be made of now; each lies in one of the ``whole`` ones.

    ``held``: the runs that jobs are to fetch, and those whose jobs have died. Of a whole run with the former nothing is
    asked for: it is one job more when they have ended. Of one with the latter only when as much is unasked as has
    died, and at least ``least``: a symbol that nobody knows makes letters by the logarithm of time, not by the minute.
    """
    firsts = np.array([run.stretch[0] for run in whole], dtype=np.int64)

    def owners(runs: Sequence[Run]) -> NDArray[np.intp]:
        return np.searchsorted(firsts, [run.stretch[0] for run in runs], side="right") - 1

    busy, dead, new = (
        np.bincount(owners(runs), [run.missing for run in runs], len(whole)) if runs else np.zeros(len(whole))
        for runs in (*held, unasked)
    )
    open_ = (busy == 0) & ((dead == 0) | (new >= np.maximum(dead, least)))
    return [run for run, owner in zip(unasked, owners(unasked), strict=True) if open_[owner]]


def settle(standing: Sequence[OpenGap], runs: Sequence[Run]) -> Settled:
    """Hold the runs found missing against the gaps that stand open.

    A run that meets a standing gap belongs to it (to the earliest, when it meets several) and may make it grow. A gap
    that no run meets is closed: what of it lies before the look is not looked for any more.
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
    closed = (gap.id for gap in standing if gap.id not in met)
    return Settled(tuple(new), tuple(grown.items()), tuple(closed))


def _meet(a: Stretch, b: Stretch) -> bool:
    return a[0] < b[1] and b[0] < a[1]
