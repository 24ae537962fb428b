"""Which silence is believed: an interval without a bar had no trade only where the instrument's own trading allows it.

With p the share of silent intervals among the n known ones of the sessions around, a run of k silent ones is expected
n * p^k times by chance (intervals taken as independent). Below the odds of the policy it is no silence but a hole, in
whatever answer it came, until somebody else agrees. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.gaps import Spans, merge
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import Times

Mask = NDArray[np.bool_]

#: What a person's word is recorded under, in place of a provider's name.
PERSON: Final = "person:"


@dataclass(frozen=True, slots=True)
class Silence:
    """A run of expected intervals without a bar, as a provider answered; ``believed``: it counts as no trade."""

    window: TimeWindow
    believed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """What is known of a series around an answer, which lies inside.

    ``expected``: starts of the expected intervals of the sessions around, sorted. ``covered``: time that was answered
    for before. ``bars_us``: starts of the bars stored. ``doubted``: time that was called silent and not believed.
    ``seconded``: time that somebody else than the answer's provider has called silent.
    """

    expected: Times
    covered: Spans
    bars_us: Times
    doubted: Spans
    seconded: Spans


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """Starts of intervals: those the answer is silent on and that are ``doubted``; those of the same runs that were
    covered as silence before the run had grown too long, ``retracted``; of the answer's silent ones those that somebody
    else has called silent too, ``seconded``, and those that were covered before, ``known``.

    ``runs``: first and last start of each doubted run, shape (n, 2), with what is known of it outside the answer.
    """

    doubted: Times
    retracted: Times
    seconded: Times
    known: Times
    runs: Times


def weigh(silent_us: Times, good_us: Times, around: Around, odds: float) -> Weighed:
    """Weigh the intervals that an answer is silent on; ``good_us``: the starts of its bars.

    A run goes on through what was called silent before: twenty minutes that come one by one are twenty minutes.
    """
    expected = around.expected
    covered = inside(expected, around.covered)
    barred = np.isin(expected, around.bars_us) | np.isin(expected, good_us)
    asked = np.isin(expected, silent_us)
    known = covered | asked | barred | inside(expected, around.doubted)
    implausible = _implausible(known & ~barred, int(known.sum()), asked, odds)
    seconded = inside(expected, around.seconded)
    doubted = implausible & ~seconded
    edges = np.flatnonzero(np.diff(doubted, prepend=False, append=False))
    return Weighed(
        doubted=expected[doubted & asked],
        retracted=expected[doubted & covered & ~asked],
        seconded=expected[seconded & asked],
        known=expected[covered & asked],
        runs=np.column_stack([expected[edges[::2]], expected[edges[1::2] - 1]]),
    )


def _implausible(silent: Mask, known: int, asked: Mask, odds: float) -> Mask:
    """Which intervals lie in a silent run that the answer has a part in and that chance does not explain."""
    edges = np.flatnonzero(np.diff(silent, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    found = np.zeros(len(silent), dtype=bool)
    share = silent.sum() / known if known else 1.0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if asked[start:end].any() and not plausible(end - start, share, known, odds):
            found[start:end] = True
    return found


def plausible(run: int, share: float, known: int, odds: float) -> bool:
    """Whether ``run`` silent intervals in a row are to be believed where a ``share`` of ``known`` ones is silent.

    >>> plausible(8, 1091 / 3560, 3560, 1e-6)  # a thin pair's longest silence
    True
    >>> plausible(20, 20 / 1560, 1560, 1e-6)  # twenty minutes of an index
    False
    """
    if odds <= 0:
        return True
    return math.log(max(known, 1)) + run * math.log(max(share, 1e-300)) > math.log(odds)


def inside(starts_us: Times, spans: Spans) -> Mask:
    """Which times lie in the spans (merged)."""
    found: Mask = np.searchsorted(spans.ravel(), starts_us, side="right") % 2 == 1
    return found


def slots(starts_us: Times, interval: Interval) -> Spans:
    """The intervals that start then, as spans; those that touch are one."""
    return merge(np.column_stack([starts_us, starts_us + interval.seconds * 1_000_000]))
