"""The market that the local vendors sell: bars and quotes of a few symbols, and how keys and pages are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np

from mdtasks.domain.bars import Bars, Quote, to_us
from mdtasks.domain.jobs import Interval

NEW_YORK = "America/New_York"
#: The keys that the vendors take.
KEYS: Mapping[str, str] = {
    "alpaca": "ak-good",
    "alpaca_secret": "as-good",
    "massive": "mk-good",
    "finnhub": "fk-good",
    "databento": "db-good",
}


@dataclass(frozen=True, slots=True)
class Split:
    """``ratio`` new shares for one, from ``at`` on."""

    at: datetime
    ratio: float


@dataclass(frozen=True, slots=True)
class Dividend:
    """``amount`` for one share as it was at ``at``, the open of the ex-date; ``paid`` where a vendor tells."""

    at: datetime
    amount: float
    paid: date | None = None


@dataclass(slots=True)
class Market:
    """Raw bars by symbol and interval, quotes, splits and dividends by symbol; since when a symbol is one (databento
    says so); how many bars a page holds; what a call costs.
    """

    bars: dict[tuple[str, Interval], Bars] = field(default_factory=dict)
    quotes: dict[str, Quote] = field(default_factory=dict)
    splits: dict[str, tuple[Split, ...]] = field(default_factory=dict)
    dividends: dict[str, tuple[Dividend, ...]] = field(default_factory=dict)
    since: dict[str, datetime] = field(default_factory=dict)
    page: int = 10_000
    cost: float = 0.01
    #: What is listed: symbol, MIC, an id of the vendor's own.
    listed: tuple[tuple[str, str, str], ...] = ()

    def knows(self, symbol: str) -> bool:
        """Whether there is such a symbol."""
        return symbol in self.quotes or any(symbol == known for known, _ in self.bars)

    def between(self, symbol: str, interval: Interval, start_us: int, end_us: int) -> Bars:
        """The symbol's bars whose stamp (see ``stamps``) lies in the half-open range."""
        bars = self.bars.get((symbol, interval), Bars.empty())
        stamped = stamps(bars, interval)
        return bars.take((stamped >= start_us) & (stamped < end_us))

    def adjusted(self, symbol: str, bars: Bars) -> Bars:
        """The bars as a vendor has them that adjusts for all splits."""
        for split in self.splits.get(symbol, ()):
            factor = np.where(bars.ts_us < to_us(split.at) // 86_400_000_000 * 86_400_000_000, split.ratio, 1.0)
            open_, high, low, close = (column / factor for column in bars.columns[:4])
            bars = Bars(bars.ts_us, open_, high, low, close, bars.volume * factor)
        return bars


def stamps(bars: Bars, interval: Interval, hour: int = 0) -> np.ndarray:
    """What vendors stamp bars with: a daily one with ``hour`` o'clock in New York on its session's date."""
    if interval is not Interval.D1:
        return bars.ts_us
    from mdtasks.providers.wallclock import local_to_utc

    return local_to_utc(bars.ts_us + hour * 3_600_000_000, NEW_YORK)
