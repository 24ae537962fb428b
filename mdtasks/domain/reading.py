"""What somebody reads of the bars, and the rows of the answer: which hours, and whether silence is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.adjustment import Adjust
from mdtasks.domain.bars import Bars
from mdtasks.domain.jobs import Interval
from mdtasks.domain.schedules import Times
from mdtasks.domain.windows import AskedWindow

#: What ``BarRows.status`` counts.
STATUSES: Final = ("provisional", "final", "no_trade")
NO_TRADE: Final = 2
#: Symbols of one reading at most.
MOST_SYMBOLS: Final = 1000


class Hours(StrEnum):
    """Which hours: regular ones, the intervals that the exchange's sessions make us expect, or all."""

    REGULAR = "regular"
    ALL = "all"


class Fill(StrEnum):
    """Whether an interval in which nobody traded has a row: ``no_trade``, where a provider's silence is believed."""

    NONE = "none"
    NO_TRADE = "no_trade"


@dataclass(frozen=True, slots=True)
class Reading:
    """A question for bars. ``as_of``: as they were known then, None: as they stand; so is what is known of silence and
    of sessions. ``adjust``: for splits, or for dividends too, by the actions that were known then.
    """

    symbols: tuple[str, ...]
    interval: Interval
    window: AskedWindow
    as_of: datetime | None = None
    hours: Hours = Hours.ALL
    fill: Fill = Fill.NONE
    adjust: Adjust = Adjust.NONE


@dataclass(frozen=True, slots=True, eq=False)
class BarRows:
    """Rows of an answer as columns of shape (n,), by symbol and time.

    ``symbol``: object array of str. ``provider``: object array of str, None where nobody traded; prices are NaN and
    the volume is 0 there. ``status``: int8, an index into STATUSES. ``known_at_us``: int64, microseconds since 1970,
    of no meaning where nobody traded.
    """

    symbol: NDArray[np.object_]
    bars: Bars
    provider: NDArray[np.object_]
    status: NDArray[np.int8]
    known_at_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bars)

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Which rows say that nobody traded."""
        found: NDArray[np.bool_] = self.status == NO_TRADE
        return found

    def take(self, index: NDArray[np.bool_] | NDArray[np.intp] | slice) -> BarRows:
        """The rows at ``index`` (mask, positions or slice), in that order."""
        others = (self.provider[index], self.status[index], self.known_at_us[index])
        return BarRows(self.symbol[index], self.bars.take(index), *others)

    @classmethod
    def concat(cls, parts: Iterable[BarRows]) -> BarRows:
        """The rows of all parts, one after the other; at least one part."""
        held = list(parts)
        if len(held) == 1:
            return held[0]
        return cls(
            np.concatenate([each.symbol for each in held]),
            Bars.concat(each.bars for each in held),
            np.concatenate([each.provider for each in held]),
            np.concatenate([each.status for each in held]),
            np.concatenate([each.known_at_us for each in held]),
        )

    @classmethod
    def silence(cls, symbol: str, starts_us: Times) -> BarRows:
        """A row for each of these intervals that says that nobody traded."""
        count = len(starts_us)
        nothing = np.full(count, np.nan)
        return cls(
            np.full(count, symbol, dtype=object),
            Bars(starts_us, nothing, nothing, nothing, nothing, np.zeros(count)),
            np.full(count, None, dtype=object),
            np.full(count, NO_TRADE, dtype=np.int8),
            np.zeros(count, dtype=np.int64),
        )


def filled(rows: BarRows, symbol: str, silent_us: Times) -> BarRows:
    """The rows of one symbol, in time order, with one more for each silent interval that has none."""
    missing = silent_us[~np.isin(silent_us, rows.bars.ts_us)]
    if not len(missing):
        return rows
    both = BarRows.concat([rows, BarRows.silence(symbol, missing)])
    return both.take(np.argsort(both.bars.ts_us, kind="stable"))
