"""Holding bars of two sources against each other: how far apart, beyond which tolerance, and who is alone. Pure.

Distances are in basis points of the larger value, so neither source is the measure: 0 where both are the same, 10,000
where one of them is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import Bars

FIELDS: Final = ("open", "high", "low", "close", "volume")
#: What is compared: a daily bar with its minutes, a stored bar with another provider's.
MINUTES: Final = "minutes"
PROVIDER: Final = "provider"


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far apart two sources may be, basis points; None: that field is not compared."""

    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: float | None

    def as_array(self) -> NDArray[np.float64]:
        """Shape (5, 1), in the order of FIELDS; infinity where nothing is compared."""
        return np.array([[np.inf if (bp := getattr(self, name)) is None else bp] for name in FIELDS])


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """The bars that both sources have: ``held`` (stored) and ``other``, in time order, n of them.

    ``apart_bp``: float64 of shape (5, n), in the order of FIELDS. ``beyond``: bool, the same shape. ``wrong``: of
    each bar who is wrong in the eyes of a third source, "held" or "other"; None: nobody knows, or they agree.
    """

    held: Bars
    other: Bars
    apart_bp: NDArray[np.float64]
    beyond: NDArray[np.bool_]
    wrong: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.held)

    @property
    def disagreeing(self) -> NDArray[np.bool_]:
        """Which bars are beyond a tolerance, shape (n,)."""
        return np.asarray(self.beyond.any(axis=0))

    def fields_of(self, number: int) -> list[str]:
        """The fields of a bar that are beyond their tolerance."""
        return [name for name, is_beyond in zip(FIELDS, self.beyond[:, number], strict=True) if is_beyond]

    def judged_by(self, third: Bars, tolerances: Tolerances) -> Compared:
        """With what a third source says of the bars that disagree: the one that it contradicts alone is wrong."""
        wrong = list(self.wrong)
        for number in np.flatnonzero(self.disagreeing).tolist():
            at = third.ts_us == self.held.ts_us[number]
            if not at.any():
                continue
            one = third.take(at)
            sides = {"held": self.held, "other": self.other}
            bad = [
                name
                for name, bars in sides.items()
                if compared(bars.take(slice(number, number + 1)), one, tolerances).disagreeing.any()
            ]
            wrong[number] = bad[0] if len(bad) == 1 else None
        return replace(self, wrong=tuple(wrong))


def compared(held: Bars, other: Bars, tolerances: Tolerances) -> Compared:
    """Compare the bars of the same start that both have (each at most one a start).

    A volume of 0 beside one that is not is a feed without volumes (an index), and not compared.
    """
    _, mine, theirs = np.intersect1d(held.ts_us, other.ts_us, assume_unique=True, return_indices=True)
    held, other = held.take(mine), other.take(theirs)
    apart = np.vstack([_apart_bp(a, b) for a, b in zip(held.columns, other.columns, strict=True)])
    beyond = apart > tolerances.as_array()
    beyond[FIELDS.index("volume")] &= (held.volume != 0) & (other.volume != 0)
    return Compared(held, other, apart, beyond, (None,) * len(held))


def _apart_bp(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    larger = np.maximum(np.abs(left), np.abs(right))
    return np.abs(left - right) / np.where(larger > 0, larger, 1.0) * 10_000
