"""Sets of time: int64 arrays of shape (n, 2), microseconds since 1970 UTC, and what can be done with them.

Each row is a half-open ``[start, end)``; rows are sorted, disjoint and not touching (``merge`` makes them so; every
function gives them so).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

#: int64, shape (n, 2).
Spans = NDArray[np.int64]

#: No time at all.
NO_TIME: Final[Spans] = np.empty((0, 2), dtype=np.int64)
NO_TIME.setflags(write=False)


def merge(pairs: Spans) -> Spans:
    """Any pairs (n, 2) as spans: sorted, overlapping and touching ones joined, empty ones (start >= end) dropped."""
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    if not len(pairs):
        return pairs
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    reach = np.maximum.accumulate(pairs[:, 1])
    first = np.flatnonzero(np.append(True, pairs[1:, 0] > reach[:-1]))
    return np.column_stack([pairs[first, 0], reach[np.append(first[1:], len(pairs)) - 1]])


def intersect(a: Spans, b: Spans) -> Spans:
    """The time that lies in both."""
    edges, in_a, in_b = _swept(a, b)
    return _where(edges, in_a & in_b)


def subtract(a: Spans, b: Spans) -> Spans:
    """The time of ``a`` that does not lie in ``b``."""
    edges, in_a, in_b = _swept(a, b)
    return _where(edges, in_a & ~in_b)


def _swept(a: Spans, b: Spans) -> tuple[Spans, np.ndarray, np.ndarray]:
    """All edges of both, sorted, and for the time after each edge whether it lies in ``a`` and in ``b``."""
    a, b = merge(a), merge(b)
    edges = np.unique(np.concatenate([a.ravel(), b.ravel()]))
    # Spans are disjoint and apart, so a time lies inside when an odd number of their edges is behind it.
    in_a, in_b = (np.searchsorted(spans.ravel(), edges, side="right") % 2 == 1 for spans in (a, b))
    return edges, in_a, in_b


def _where(edges: Spans, inside: np.ndarray) -> Spans:
    """The spans between edges that are inside; the last edge always ends one."""
    turns = np.flatnonzero(np.diff(inside, prepend=False))
    return edges[turns].reshape(-1, 2)
