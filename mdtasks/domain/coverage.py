"""What was answered for at an instant: what is answered for now, with every change since undone. Pure.

A change tells what was answered for just before it and what was not. A bar that becomes final is a change too: nobody
had answered for its interval before, unless a change of the same instant says otherwise. So an interval was at an
instant what the first change after it says, and what it is now where there was none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdtasks.domain.schedules import Times
from mdtasks.domain.spans import Spans, merge


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What coverage was just before ``at_us``, as far as it was another then: ``covered``, and ``uncovered``."""

    at_us: int
    covered: Spans
    uncovered: Spans


@dataclass(frozen=True, slots=True, eq=False)
class Turned:
    """Bars that became final: their starts, sorted, and when, shape (n,) each; microseconds since 1970."""

    starts_us: Times
    at_us: Times


def undone(covered: Spans, changes: Sequence[Change], turned: Turned, step_us: int) -> Spans:
    """What was answered for before these ``changes``, the last of them first, and before those bars were final.

    ``covered``: what is answered for now. ``step_us``: the length of a bar's interval.
    """
    slots = np.column_stack([turned.starts_us, turned.starts_us + step_us])
    told = [spans for each in changes for spans in (each.covered, each.uncovered)]
    edges = np.unique(np.concatenate([covered.ravel(), slots.ravel(), *(spans.ravel() for spans in told)]))
    if not len(edges):
        return covered
    starts, never = edges[:-1], np.iinfo(np.int64).max
    held = np.searchsorted(covered.ravel(), starts, side="right") % 2 == 1
    first_us = np.full(len(starts), never)
    for change in changes:  # an earlier one takes the place of a later one
        for spans, was in ((change.covered, True), (change.uncovered, False)):
            for begin, end in np.searchsorted(edges, spans).tolist():
                held[begin:end] = was
                first_us[begin:end] = change.at_us
    within = np.searchsorted(slots.ravel(), starts, side="right")
    final_us = np.append(turned.at_us, never)[np.where(within % 2 == 1, within // 2, len(slots))]
    held &= ~(final_us < first_us)
    return merge(np.column_stack([starts, edges[1:]])[held])
