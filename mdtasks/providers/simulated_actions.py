"""Made-up corporate actions for the simulator: the same of a symbol on every machine, by its hash alone.

One equity of three has split once, in the years before 2023, so that bars since then are what they always were. Most
pay a dividend each quarter. Prices before a split are higher by its ratio, as they must; a dividend of less than a
percent is lost among the simulator's noises, as it mostly is among real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np

from mdtasks.domain.actions import Action, Days, Kind
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.universe import Listing
from mdtasks.providers.faults import key, mixed, unit
from mdtasks.providers.shaping import session_from

_RATIOS: Final = (2.0, 3.0, 4.0, 10.0)
_FIRST: Final = date(2012, 1, 1)
#: Splits lie within so many days of the first: before 2023.
_SPREAD: Final = 4000
_SPLIT_SHARE: Final = 1 / 3
_PAYING_SHARE: Final = 0.75


@dataclass(frozen=True, slots=True)
class SimulatedSplit:
    """``ratio`` new shares for one from the session on or after ``day`` on."""

    day: date
    ratio: float


def split_of(seed: int, listing: Listing) -> SimulatedSplit | None:
    """The split of a listing; None where it never had one."""
    if listing.kind != "equity" or listing.mic == "24/7" or _drawn(seed, listing, "splits") >= _SPLIT_SHARE:
        return None
    ratio = _RATIOS[int(_drawn(seed, listing, "ratio") * len(_RATIOS))]
    return SimulatedSplit(_FIRST + timedelta(days=int(_drawn(seed, listing, "split day") * _SPREAD)), ratio)


def simulated_actions(seed: int, listing: Listing, calendar: Calendar, days: Days, level: float) -> list[Action]:
    """The actions of a listing in these days; ``level``: about its price since its split."""
    split = split_of(seed, listing)
    found = list(_dividends(seed, listing, calendar, days, level, split))
    if split is not None:
        found.append(Action(Kind.SPLIT, session_from(calendar, split.day), split.ratio))
    return [each for each in found if each.ex_date in days]


def _dividends(  # noqa: PLR0917 - all that fixes them
    seed: int, listing: Listing, calendar: Calendar, days: Days, level: float, split: SimulatedSplit | None
) -> Iterator[Action]:
    """One each quarter, in the same month of it and about the same day."""
    if listing.kind != "equity" or listing.mic == "24/7" or _drawn(seed, listing, "pays") >= _PAYING_SHARE:
        return
    month, day = 1 + int(3 * _drawn(seed, listing, "month")), 5 + int(20 * _drawn(seed, listing, "day"))
    amount = max(round(level * (0.002 + 0.006 * _drawn(seed, listing, "amount")), 2), 0.01)
    last = min(days.last, (calendar.horizon - timedelta(days=30)).date())
    for year in range(days.first.year, last.year + 1):
        for quarter in range(4):
            due = date(year, month + 3 * quarter, day)
            if days.first - timedelta(days=14) <= due <= last:
                before = split is not None and due < split.day
                yield Action(
                    Kind.DIVIDEND,
                    session_from(calendar, due),
                    round(amount * split.ratio, 2) if split is not None and before else amount,
                    declared_on=due - timedelta(days=21),
                    pay_on=due + timedelta(days=14),
                )


def _drawn(seed: int, listing: Listing, what: str) -> float:
    return float(unit(mixed(np.array([key(seed, listing.symbol, what)])))[0])
