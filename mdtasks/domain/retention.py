"""How far back anything is kept: one horizon for what is looked for, asked for and deleted. Pure.

A horizon is 00:00 UTC of a day, so all who ask on one day get one answer. Bars and quotes are deleted by whole months
that lie a day or more before it: whoever still works by yesterday's horizon finds nothing missing that was deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.policy.model import Policy

_EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the policy: ``subject`` as the record of what was deleted names it, ``days`` None: for ever."""

    subject: str
    days: int | None

    @property
    def field(self) -> str:
        """The field of the policy that says it."""
        return f"retention.{self.subject}_days"


#: What is kept for so many days of its own, bars aside.
OTHERS: Final = ("revisions", "quotes", "jobs", "letters", "quarantine", "reconciliation")
#: What goes, or is thinned out, beside these: the objectives' snapshots, of which a few stay of those that are old.
SNAPSHOTS: Final = ("slo", "slo_whole")


def subject_of(interval: Interval) -> str:
    """What the bars of an interval are called: ``bars_1m``."""
    return f"bars_{interval.value}"


def rules(policy: Policy) -> dict[str, Rule]:
    """Every rule by its subject: the bars of each interval, then the others."""
    return {name: rule(policy, name) for name in (*(subject_of(interval) for interval in Interval), *OTHERS)}


def rule(policy: Policy, subject: str) -> Rule:
    """The rule of a subject, snapshots' too."""
    return Rule(subject, getattr(policy.retention, f"{subject}_days"))


def horizon(policy: Policy, interval: Interval, now: datetime) -> datetime | None:
    """Bars of the interval that start before it are neither looked for nor asked for, and not kept. None: for ever."""
    return day_before(policy.retention.bars_days(interval), now)


def day_before(days: int | None, now: datetime) -> datetime | None:
    """00:00 UTC of the day ``days`` before ``now``; None for None. Never before the year 1."""
    if days is None:
        return None
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=days) if (midnight - _EARLIEST).days > days else _EARLIEST


def month_before(kept_from: datetime | None) -> datetime | None:
    """What whole months are deleted before, by a horizon: the first instant of the month of the day before it."""
    if kept_from is None or kept_from <= _EARLIEST:
        return kept_from
    return (kept_from - timedelta(days=1)).replace(day=1)


def kept_part(window: TimeWindow, interval: Interval, policy: Policy, now: datetime) -> TimeWindow:
    """The part of a window that is kept; all of it where nothing was ever to be deleted.

    Raises InvalidRequestError naming the policy's field when none of it is: what was fetched would be deleted at once.
    """
    since = horizon(policy, interval, now)
    if since is None or window.start >= since:
        return window
    if window.end <= since:
        held = rule(policy, subject_of(interval))
        raise InvalidRequestError(
            f"{interval} bars before {since:%Y-%m-%d} are not kept: {held.field} is {held.days}",
            field="start",
            hint=f"ask for time from {since:%Y-%m-%d} on, or raise {held.field} with `mdtasks policy apply` first",
        )
    return TimeWindow(start=since, end=window.end)
