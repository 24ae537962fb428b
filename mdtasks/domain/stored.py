"""Bars as the store holds them, each with where it came from. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import Bars


@dataclass(frozen=True, slots=True, eq=False)
class StoredBars:
    """Bars as the store holds them, with where each came from; columns of shape (n,), in time order.

    ``provider``: object array of str. ``final``: bool. ``known_at_us``: int64, microseconds since 1970.
    ``attempt_id``: int64, ``job_attempts.id``.
    """

    bars: Bars
    provider: NDArray[np.object_]
    final: NDArray[np.bool_]
    known_at_us: NDArray[np.int64]
    attempt_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bars)

    def take(self, index: NDArray[np.bool_] | NDArray[np.intp] | slice) -> StoredBars:
        """The bars at ``index`` (mask, positions or slice), in that order."""
        return StoredBars(
            self.bars.take(index),
            self.provider[index],
            self.final[index],
            self.known_at_us[index],
            self.attempt_id[index],
        )

    @classmethod
    def concat(cls, parts: Iterable[StoredBars]) -> StoredBars:
        """The bars of all parts, one after the other. At least one part."""
        found = list(parts)
        return cls(
            Bars.concat(part.bars for part in found),
            np.concatenate([part.provider for part in found]),
            np.concatenate([part.final for part in found]),
            np.concatenate([part.known_at_us for part in found]),
            np.concatenate([part.attempt_id for part in found]),
        )
