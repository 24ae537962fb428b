"""How a process works by the newest policy: its Deps are made anew when one holds, between two pieces of work.

Settings that are part of the policy have the policy's values then, so whoever reads ``deps.settings`` reads one policy
from the beginning of a piece of work to its end.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from mdtasks.flows.deps import Deps, equipped
from mdtasks.flows.policy_watch import Running


class Follower:
    """The Deps of one process; ``deps`` is what holds now."""

    def __init__(self, deps: Deps) -> None:
        self.deps = deps
        self._ready = deps
        deps.policy.fit = self._fit

    def refresh(self, now: datetime) -> Deps:
        """The Deps for a piece of work that begins now. Never fails: of what cannot be followed here the log and
        ``policy status`` tell, and the last good one holds.
        """
        self.deps.policy.refresh(now)
        self.deps = self._ready
        return self.deps

    def _fit(self, running: Running) -> None:
        """Make the Deps under a policy before it holds. Raises ConfigurationError where this process cannot."""
        self._ready = replace(self._ready, **equipped(self._ready, running))

    def close(self) -> None:
        """Close what the process opened."""
        self.deps.close()
