"""How a process works by the newest policy: its Deps are made anew when one holds, between two pieces of work.

Settings that are part of the policy have the policy's values then, so whoever reads ``deps.settings`` reads one policy
from the beginning of a piece of work to its end.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from mdtasks.domain.errors import MdtasksError
from mdtasks.flows.deps import Deps, equipped

log = logging.getLogger(__name__)


class Follower:
    """The Deps of one process; ``deps`` is what holds now."""

    def __init__(self, deps: Deps) -> None:
        self.deps = deps

    def refresh(self, now: datetime) -> Deps:
        """The Deps for a piece of work that begins now. Never fails: of what cannot be followed here the log and
        ``policy status`` tell, and the last good one holds.
        """
        self.deps.policy.refresh(now)
        running = self.deps.policy.current
        if running.version != self.deps.running.version:
            try:
                self.deps = replace(self.deps, **equipped(self.deps, running))
            except MdtasksError as error:  # an order that names a provider which only this process lacks
                self.deps.policy.reject(running.version, error.message, self.deps.running)
        return self.deps

    def close(self) -> None:
        """Close what the process opened."""
        self.deps.close()
