"""Service level objectives: what share of series may be late or incomplete, and how fast that budget may burn. Pure.

A budget is spent in trading time. The usual burn rates (14.4 for an hour) take a month for 720 hours; an exchange that
trades 133 of them would have spent a tenth of its budget before such an alert says a word. So the factors are computed
from the calendar's own sessions: a window's factor is the share of the budget it may burn, times a month's trading
hours, divided by the trading hours that the window holds at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from mdtasks.domain.jobs import Interval, Tier, TimeWindow

if TYPE_CHECKING:
    from mdtasks.domain.sessions import Calendar

Severity = Literal["page", "ticket"]

#: Share of a tier's series that may be late, averaged over a month of trading time.
TARGETS: Final[Mapping[Tier, float]] = {Tier.T0: 0.005, Tier.T1: 0.02, Tier.T2: 0.05}
#: The interval whose lateness is a tier's objective.
WATCHED: Final[Mapping[Tier, Interval]] = {Tier.T0: Interval.M1, Tier.T1: Interval.M1, Tier.T2: Interval.D1}
#: A budget is for so many days.
MONTH_DAYS: Final = 30
#: The year whose sessions stand for any: rules made from it do not change with the day on which they are made.
YEAR: Final = 2025


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise about one tier: of its series of an interval, at most ``target`` are late (``gap``) or lack something
    of their last session (``coverage``).
    """

    name: Literal["gap", "coverage"]
    tier: Tier
    interval: Interval
    target: float


def objectives(targets: Mapping[Tier, float] = TARGETS) -> tuple[Objective, ...]:
    """Every objective, with these shares in place of the usual ones."""
    return tuple(
        Objective(name, tier, WATCHED[tier], targets[tier]) for name in ("gap", "coverage") for tier in WATCHED
    )


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """Say so when ``budget``, a share of the month's, is burnt within ``long_s`` seconds and still burns in the last
    ``short_s``: the short one ends the alert soon after the burning ends.
    """

    severity: Severity
    budget: float
    long_s: int
    short_s: int


_HOUR: Final = 3600
#: For intervals that are looked at all day long: 2 % of a month's budget in an hour, 5 % in six, 10 % in a session.
INTRADAY: Final = (
    BurnWindow("page", 0.02, _HOUR, 300),
    BurnWindow("page", 0.05, 6 * _HOUR, 1800),
    BurnWindow("ticket", 0.10, 24 * _HOUR, 2 * _HOUR),
    BurnWindow("ticket", 0.10, 72 * _HOUR, 6 * _HOUR),
)
#: A daily bar that is late is late for a session: an hour of it says no more than its first minute.
DAILY: Final = (
    BurnWindow("page", 0.10, 24 * _HOUR, 2 * _HOUR),
    BurnWindow("ticket", 0.10, 72 * _HOUR, 6 * _HOUR),
)


def burn_windows(interval: Interval) -> tuple[BurnWindow, ...]:
    """The windows in which an interval's budget is watched."""
    return DAILY if interval is Interval.D1 else INTRADAY


def month_hours(calendar: Calendar, year: int = YEAR) -> float:
    """Trading hours in 30 days, averaged over a year of real sessions: 720 for 24/7, about 133 for XNYS."""
    whole = _year(year)
    return calendar.session_minutes(whole) / 60 * MONTH_DAYS / (whole.end - whole.start).days


def window_hours(calendar: Calendar, length_s: int, year: int = YEAR) -> float:
    """The most trading hours that a window of ``length_s`` of wall clock holds, which it does when it ends at some
    session's close.
    """
    length = timedelta(seconds=length_s)
    closes = (session.close for session in calendar.sessions(_year(year)))
    return max(calendar.session_minutes(TimeWindow(start=close - length, end=close)) for close in closes) / 60


def burn_factor(calendar: Calendar, window: BurnWindow, year: int = YEAR) -> float:
    """How many times the objective's share must be late in the window for its part of the budget to burn.

    Never below 1: three sessions of New York are a seventh of its month, and a tenth of the budget in them is thrift.
    """
    share = month_hours(calendar, year) / window_hours(calendar, window.long_s, year)
    return max(round(window.budget * share, 2), 1.0)


def _year(year: int) -> TimeWindow:
    return TimeWindow(start=datetime(year, 1, 1, tzinfo=UTC), end=datetime(year + 1, 1, 1, tzinfo=UTC))
