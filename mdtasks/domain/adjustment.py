"""Adjusting bars for corporate actions as they are read. Raw bars are what is stored; a new action changes no bar.

The formula is that of CRSP, as Yahoo states it for its "Adj Close" (https://help.yahoo.com/kb/SLN28256.html): every
price before a split is divided by its ratio, and every price before a dividend's ex-date multiplied by 1 - D/C, where
C is the close of the last day before the ex-date and D the dividend, both as they were then (CRSP's d(t) is for a share
held before that day, also when the day has a split). The factors of one day commute, so their order does not matter.
Volumes change by the number of shares alone: LEAN divides them by the dividends' factors too, which is no volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.actions import Action, Kind
from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.errors import CannotAdjustError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.schedules import Times
from mdtasks.domain.sessions import Calendar

#: In which money an exchange's prices are, where dividends may come in another. XNYS stands for all US exchanges.
PRICED_IN: Final[Mapping[str, str]] = {"XNYS": "USD", "XLON": "GBX", "XTKS": "JPY", "XHKG": "HKD", "XASX": "AUD"}
#: Of the money in which dividends are declared, how much makes one of that in which prices are.
_HUNDREDTHS: Final = {("GBP", "GBX"): 100.0}


class Adjust(StrEnum):
    """none: as it was traded. split: for the number of shares. total: for distributions as well."""

    NONE = "none"
    SPLIT = "split"
    TOTAL = "total"


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What turns each raw bar into the adjusted one; float64 of shape (n,).

    ``shares``: shares now for one then; prices are divided by it, volumes multiplied. ``kept``: the part of a price
    that was not distributed since; prices are multiplied by it.
    """

    shares: NDArray[np.float64]
    kept: NDArray[np.float64]

    @property
    def price(self) -> NDArray[np.float64]:
        """By which a raw price is multiplied."""
        return self.kept / self.shares

    @property
    def volume(self) -> NDArray[np.float64]:
        """By which a raw volume is multiplied."""
        return self.shares

    def adjusted(self, bars: Bars) -> Bars:
        """The adjusted bars of raw ones."""
        open_, high, low, close = (column / self.shares * self.kept for column in bars.columns[:4])
        return Bars(bars.ts_us, open_, high, low, close, bars.volume * self.shares)

    def raw(self, bars: Bars) -> Bars:
        """The raw bars of adjusted ones: what ``adjusted`` was given, but for the last bit."""
        open_, high, low, close = (column / self.kept * self.shares for column in bars.columns[:4])
        return Bars(bars.ts_us, open_, high, low, close, bars.volume / self.shares)


def factors(actions: Sequence[Action], days_us: Times, closes: Mapping[date, float], adjust: Adjust) -> Factors:
    """The factors of bars that were traded on ``days_us`` (00:00 UTC of the trading day, shape (n,), any order).

    ``actions``: those that stand and are in force, one to a key, in any order. ``closes``: per ex-date, the raw close
    of the last day before; asked for the dividends of ``needs_close`` only. A spin-off whose worth is not known is left
    out. Raises CannotAdjustError when a close is missing, or a dividend takes the whole of it.
    """
    counted = _counted(actions, days_us, adjust)
    exes = np.array([_label_us(each.ex_date) for each in counted], dtype=np.int64)
    later = np.searchsorted(exes, days_us, side="right")  # the first action that a bar does not have behind it
    shares = np.array([each.shares for each in counted], dtype=np.float64)
    kept = np.array([_kept(each, closes, adjust) for each in counted], dtype=np.float64)
    return Factors(_from_the_end(shares)[later], _from_the_end(kept)[later])


def needs_close(actions: Sequence[Action], days_us: Times, adjust: Adjust) -> list[date]:
    """The ex-dates before which a close must be known to adjust bars of these days, in order."""
    if adjust is not Adjust.TOTAL:
        return []
    return sorted({each.ex_date for each in _counted(actions, days_us, adjust) if each.kind is Kind.DIVIDEND})


def trading_days(calendar: Calendar, ts_us: Times, interval: Interval) -> Times:
    """The session to which each bar belongs, as its label (00:00 UTC of its date), shape of ``ts_us``.

    An ex-date begins with its session, not at midnight UTC: on the evening before in UTC where a session opens then
    (XASX), and for bars before the open at the midnight of the exchange's own clock. Daily bars bear the label.
    """
    if interval is Interval.D1 or not len(ts_us):
        return ts_us
    last = ts_us + interval.seconds * 1_000_000 - 1
    held = calendar.schedule(int(ts_us.min()), int(last.max()))
    first, after = np.searchsorted(held.opens, [int(ts_us.min()), int(last.max())], side="right")
    part = slice(max(int(first) - 1, 0), int(after) + 1)
    labels, opens, zone = held.labels[part], held.opens[part], ZoneInfo(calendar.zone)
    midnights = [to_us(from_us(int(each)).replace(tzinfo=zone).astimezone(UTC)) for each in labels]
    begins = np.minimum(opens, np.array(midnights, dtype=np.int64))
    at = np.searchsorted(begins, last, side="right") - 1
    floors = ts_us // 86_400_000_000 * 86_400_000_000
    return np.where(at >= 0, labels[np.maximum(at, 0)], floors) if len(labels) else floors


def trading_day(calendar: Calendar, at: datetime) -> date:
    """The trading day that has begun last by ``at``."""
    at_us = to_us(at) // 60_000_000 * 60_000_000
    return from_us(int(trading_days(calendar, np.array([at_us], dtype=np.int64), Interval.M1)[0])).date()


def in_money_of(actions: Sequence[Action], mic: str) -> list[Action]:
    """The actions with dividends in the money of the exchange's prices.

    Raises CannotAdjustError for a dividend in another money, where the exchange's is known.
    """
    return [_in_money(each, PRICED_IN.get(mic)) if each.kind is Kind.DIVIDEND else each for each in actions]


def _in_money(action: Action, priced_in: str | None) -> Action:
    if action.currency is None or priced_in is None or action.currency == priced_in:
        return action
    hundredths = _HUNDREDTHS.get((action.currency, priced_in))
    if hundredths is None or action.value is None:
        raise CannotAdjustError(
            f"the dividend of {action.ex_date} is in {action.currency}, prices are in {priced_in}",
            hint=f"tell it in {priced_in}: `mdtasks actions add SYMBOL {action.ex_date} dividend VALUE --reason …`",
        )
    return replace(action, value=action.value * hundredths, currency=priced_in)


def _counted(actions: Sequence[Action], days_us: Times, adjust: Adjust) -> list[Action]:
    """Those that change a factor of some bar of these days, by ex-date."""
    if adjust is Adjust.NONE or not len(days_us):
        return []
    first_us = int(days_us.min())
    counted = [
        each
        for each in actions
        if _label_us(each.ex_date) > first_us
        and (each.shares != 1.0 or (adjust is Adjust.TOTAL and each.kind in _DISTRIBUTED and each.value is not None))
    ]
    return sorted(counted, key=lambda each: each.key)


_DISTRIBUTED: Final = frozenset({Kind.DIVIDEND, Kind.SPIN_OFF})


def _kept(action: Action, closes: Mapping[date, float], adjust: Adjust) -> float:
    if adjust is not Adjust.TOTAL or action.kind not in _DISTRIBUTED:
        return 1.0
    assert action.value is not None, "those without a value are not counted"
    if action.kind is Kind.SPIN_OFF:
        return action.value
    close = closes.get(action.ex_date)
    if close is None:
        raise CannotAdjustError(
            f"no close is known before the dividend of {action.ex_date}",
            hint="fetch daily bars of the days before it (`mdtasks backfill SYMBOL --interval 1d --start …`), or read "
            "with --adjust split",
        )
    if action.value >= close:
        raise CannotAdjustError(
            f"the dividend of {action.ex_date} is {action.value:g}, the close before it {close:g}: one must be wrong",
            hint=f"`mdtasks actions withdraw SYMBOL {action.ex_date} dividend --reason …`, or fetch that day again",
        )
    return 1.0 - action.value / close


def _from_the_end(each: NDArray[np.float64]) -> NDArray[np.float64]:
    """The product of each and all after it, and 1 at the end, shape (m + 1,)."""
    return np.append(np.cumprod(each[::-1])[::-1], 1.0)


def _label_us(day: date) -> int:
    return to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))
