"""Whether what is kept reaches as far back as what is looked for.

Else it would be deleted and fetched again for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.policy.model import Policy
from mdtasks.domain.policy.wrongs import Wrong, shown

_DAY_S: Final = 86_400


def days_of_sessions(sessions: int) -> int:
    """Days that surely hold so many sessions of an exchange that trades five days a week: two weeks for holidays."""
    return -(-sessions * 7 // 5) + 14


def keeping(policy: Policy) -> Iterator[Wrong]:
    """What is kept for too short a time, each with the field that needs it longer."""
    for interval in Interval:
        field, days = f"retention.bars_{interval}_days", policy.retention.bars_days(interval)
        if days is None:
            continue
        least, other, value = _least(policy, interval)
        if days < least:
            rule = f"must be at least {least:,} or null: {other} ({shown(value)}) reaches so far back"
            yield Wrong(field, shown(days), rule, None, (field, other))


def _least(policy: Policy, interval: Interval) -> tuple[int, str, int]:
    """Days that bars of the interval must be kept, and the field that says so with its value."""
    needs = [(-(-policy.replay.ttl_s // _DAY_S), "replay.ttl_s", policy.replay.ttl_s)]
    if any(interval in policy.tiers[tier].keep for tier in Tier):
        sessions, days = policy.gaps.back_sessions, policy.gaps.back_days
        if interval is Interval.D1:
            needs.append((days, "gaps.back_days", days))
        else:
            needs.append((days_of_sessions(sessions), "gaps.back_sessions", sessions))
    return max(needs)
