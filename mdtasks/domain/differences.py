"""What changed between two answers about the same bars: those that came, those that went, those that are others. Pure.

``apply(diff(a, b), a)`` is ``b``, to the last bit: two NaN are the same, 0.0 and -0.0 are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import from_us
from mdtasks.domain.stored import StoredBars

#: The fields that are compared, in the order in which they are told.
FIELDS: Final = ("open", "high", "low", "close", "volume", "provider", "final", "known_at", "attempt_id")


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """``inserted``: only in the second answer; ``removed``: only in the first; ``before`` and ``after``: in both, as
    they were and as they are, bar for bar. ``promoted``: which of these became final and are the same else, shape (n,).
    """

    inserted: StoredBars
    removed: StoredBars
    before: StoredBars
    after: StoredBars
    promoted: NDArray[np.bool_]

    def __len__(self) -> int:
        """Bars that are not the same."""
        return len(self.inserted) + len(self.removed) + len(self.after)

    def revisions(self) -> Iterator[dict[str, Any]]:
        """Of each bar that is another its ``ts`` and ``fields``: name -> [before, after], where these differ. Not of
        those that only became final.
        """
        before, after = self.before.take(~self.promoted), self.after.take(~self.promoted)
        pairs = {name: (_told(before, name), _told(after, name)) for name in FIELDS}
        differ = {name: ~_same(before, after, name) for name in FIELDS}
        for number, ts_us in enumerate(after.bars.ts_us.tolist()):
            fields = {name: [a[number], b[number]] for name, (a, b) in pairs.items() if differ[name][number]}
            yield {"ts": from_us(ts_us), "fields": fields}


def diff(first: StoredBars, second: StoredBars) -> Difference:
    """What must happen to ``first`` for it to be ``second``; both in time order, one bar a start."""
    in_second = np.isin(first.bars.ts_us, second.bars.ts_us, assume_unique=True)
    in_first = np.isin(second.bars.ts_us, first.bars.ts_us, assume_unique=True)
    before, after = first.take(in_second), second.take(in_first)
    alike = np.ones(len(before), dtype=bool)
    for name in FIELDS:
        if name != "final":
            alike &= _same(before, after, name)
    same = alike & _same(before, after, "final")
    return Difference(
        inserted=second.take(~in_first),
        removed=first.take(~in_second),
        before=before.take(~same),
        after=after.take(~same),
        promoted=(alike & after.final)[~same],
    )


def apply(change: Difference, first: StoredBars) -> StoredBars:
    """``first`` with the change made to it."""
    gone = np.concatenate([change.removed.bars.ts_us, change.before.bars.ts_us])
    kept = first.take(~np.isin(first.bars.ts_us, gone))
    joined = StoredBars.concat([kept, change.inserted, change.after])
    return joined.take(np.argsort(joined.bars.ts_us, kind="stable"))


def _column(bars: StoredBars, name: str) -> NDArray[Any]:
    match name:
        case "provider" | "final" | "attempt_id":
            column: NDArray[Any] = getattr(bars, name)
        case "known_at":
            column = bars.known_at_us
        case _:
            column = getattr(bars.bars, name)
    return column


def _same(a: StoredBars, b: StoredBars, name: str) -> NDArray[np.bool_]:
    """Where a field of two answers is the same, to the last bit."""
    left, right = _column(a, name), _column(b, name)
    if left.dtype == np.float64:
        left, right = left.view(np.int64), right.view(np.int64)
    found: NDArray[np.bool_] = np.asarray(left == right, dtype=bool).reshape(len(a))
    return found


def _told(bars: StoredBars, name: str) -> list[Any]:
    column = _column(bars, name).tolist()
    return [from_us(us) for us in column] if name == "known_at" else column
