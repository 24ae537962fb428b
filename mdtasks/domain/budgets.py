"""Error budgets in trading time: what share of a month's sessions a tier's series may be late, and how much is used.

The unit is the minute of the whole tier: one minute in which every series is late, or two in which half of them are.
A month has as many of them as its series trade on average, so one that trades at night counts for itself alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.lateness import traded_s
from mdtasks.domain.sessions import Calendar

#: The oldest backfill that waits may be so old, seconds.
OLDEST_WAIT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Month:
    """Session minutes of a month, averaged over a tier's series: until now, and of all of it."""

    label: str
    so_far: float
    whole: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What a month allows and what is used, in minutes of the whole tier.

    ``allowed``: of the whole month; ``allowed_so_far``: of its sessions until now; ``left``: of the whole month's,
    negative when it is overdrawn; ``watched``: session minutes that were looked at, less than ``minutes_so_far``
    when the monitor stood still.
    """

    month: str
    minutes_so_far: float
    minutes: float
    allowed_so_far: float
    allowed: float
    consumed: float
    left: float
    watched: float

    def as_dict(self) -> dict[str, float | str]:
        return {name: value if isinstance(value, str) else round(value, 3) for name, value in asdict(self).items()}

    @property
    def left_share(self) -> float:
        """The part of the month's budget that is left: 1 at its start, 0 when used up, negative when overdrawn."""
        return self.left / self.allowed if self.allowed else 0.0


def month_of(now: datetime) -> TimeWindow:
    """The month in UTC that ``now`` lies in."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return TimeWindow(start=start, end=(start + timedelta(days=32)).replace(day=1))


def month(series: Mapping[Calendar, int], now: datetime) -> Month:
    """The month's session minutes over calendars weighted by their numbers of series.

    An exchange counts until its calendar's horizon. No series: 0 minutes.
    """
    window, total = month_of(now), sum(series.values())
    so_far = whole = 0.0
    for calendar, count in series.items():
        so_far += count * traded_s(calendar, window.start, min(now, calendar.horizon)) / 60
        whole += count * traded_s(calendar, window.start, min(window.end, calendar.horizon)) / 60
    return Month(f"{now:%Y-%m}", so_far / (total or 1), whole / (total or 1))


def budget(target: float, minutes: Month, *, late_s: float, watched_s: float) -> Budget:
    """The budget of a month. ``late_s``: seconds of the whole tier late so far, of ``watched_s`` looked at.

    Raises InvalidRequestError for a target outside (0, 1).
    """
    if not 0 < target < 1:
        raise InvalidRequestError(f"a target of {target}: give a share between 0 and 1", field="target")
    allowed, consumed = target * minutes.whole, late_s / 60
    return Budget(
        month=minutes.label,
        minutes_so_far=minutes.so_far,
        minutes=minutes.whole,
        allowed_so_far=target * minutes.so_far,
        allowed=allowed,
        consumed=consumed,
        left=allowed - consumed,
        watched=watched_s / 60,
    )


def burn(target: float, late_s: float, watched_s: float) -> float | None:
    """How many times faster than the target allows budget is used; 1 uses it up exactly. None: nothing looked at."""
    return late_s / watched_s / target if watched_s > 0 else None
