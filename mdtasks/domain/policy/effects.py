"""What a change of the policy would do to what runs: to beat's entries, to queues over a new cap, to providers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy.facts import Facts
from mdtasks.domain.policy.leaves import Change, diff, needs_restart
from mdtasks.domain.policy.model import Policy


@dataclass(frozen=True, slots=True)
class Effects:
    """What would be other than before. ``beat``: an entry, seconds before and after (None: there is none).

    ``over_cap``: a tier, its new cap and how many wait now. ``leave`` and ``come``: an order, and a provider.
    """

    changes: tuple[Change, ...] = ()
    beat: tuple[tuple[str, float | None, float | None], ...] = ()
    over_cap: tuple[tuple[str, int, int], ...] = ()
    leave: tuple[tuple[str, str], ...] = ()
    come: tuple[tuple[str, str], ...] = ()
    #: Paths that change and that a variable of the environment sets all the same: it wins.
    hidden: tuple[tuple[str, str], ...] = ()

    @property
    def restart(self) -> list[str]:
        """The paths that take effect only in processes that are started afterwards."""
        return [change.path for change in needs_restart(list(self.changes))]

    @property
    def deletes(self) -> list[str]:
        """The paths by which something is kept for a shorter time than before: what is older goes for good."""
        return [change.path for change in self.changes if _is_shorter(change)]

    def as_dict(self) -> dict[str, Any]:
        return {
            "changes": [change.as_dict() for change in self.changes],
            "beat": [{"entry": name, "before_s": was, "after_s": now} for name, was, now in self.beat],
            "over_cap": [{"tier": tier, "cap": cap, "waiting": depth} for tier, cap, depth in self.over_cap],
            "leave": [{"order": order, "provider": name} for order, name in self.leave],
            "come": [{"order": order, "provider": name} for order, name in self.come],
            "hidden": [{"path": path, "variable": name} for path, name in self.hidden],
            "restart": self.restart,
            "deletes": self.deletes,
        }


def _is_shorter(change: Change) -> bool:
    """Whether a change is of what is kept, and keeps less of it; None is for ever."""
    if not change.path.startswith("retention.") or not isinstance(change.after, int):
        return False
    return not isinstance(change.before, int) or change.after < change.before


def effects(old: Policy, new: Policy, facts: Facts) -> Effects:
    """What it would do to put ``new`` in the place of ``old``."""
    before, after = beat_entries(old), beat_entries(new)
    names = [*before, *(name for name in after if name not in before)]
    caps = {tier: new.tiers[tier].max_queue for tier in Tier}
    depths = {tier: facts.depths.get(tier, 0) for tier in Tier}
    return Effects(
        changes=tuple(diff(old, new)),
        beat=tuple((n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)),
        over_cap=tuple(
            (tier.value, caps[tier], depths[tier])
            for tier in Tier
            if caps[tier] != old.tiers[tier].max_queue and depths[tier] > caps[tier]
        ),
        leave=tuple(_gone(old, new, facts)),
        come=tuple(_gone(new, old, facts)),
    )


def beat_entries(policy: Policy) -> dict[str, float]:
    """Beat's entries that a policy decides, by the names that they have in beat's table: seconds between two runs."""
    found: dict[str, float | None] = {"monitor": policy.slo.every_s, "derive": policy.derived.every_s}
    found["cross_check"] = policy.cross_checks.every_s
    for tier in Tier:
        cadence = policy.tiers[tier].cadence
        found |= {f"live_{tier}_bars_1m": cadence.bars_1m, f"live_{tier}_quotes_l1": cadence.quotes_l1}
    found |= {f"gaps_{tier}": policy.gaps.scan_s for tier in Tier}
    return {name: every_s for name, every_s in found.items() if every_s is not None}


def _gone(old: Policy, new: Policy, facts: Facts) -> Iterator[tuple[str, str]]:
    """Providers that an order of ``old`` has and that of ``new`` has not."""
    for order in ("bars_1m", "eod", "quotes_l1"):
        had, has = (getattr(each.orders, order) or facts.default_order for each in (old, new))
        yield from ((order, name) for name in had if name not in has)
