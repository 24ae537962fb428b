"""What a backfill would ask for, told before it is asked for. Writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.jobs import Tier
from mdtasks.flows import dispatch
from mdtasks.flows.backfill import BATCH, BackfillRequest, wanted_of
from mdtasks.flows.deps import Deps
from mdtasks.store import requests


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of a request: new jobs by tier, windows merged with jobs that are on their way, symbols
    ``covered`` already. ``room``: free places under the caps now; None: not known, Redis is away, and all would wait.
    """

    by_tier: Mapping[Tier, int]
    room: Mapping[Tier, int] | None
    merged: int
    covered: int

    @property
    def jobs(self) -> int:
        """How many jobs it would make."""
        return sum(self.by_tier.values())

    def deferred(self, tier: Tier) -> int:
        """How many of a tier's would wait for room."""
        return max(self.by_tier.get(tier, 0) - (self.room or {}).get(tier, 0), 0)


def preview(asked: BackfillRequest, deps: Deps, now: datetime) -> Preview:
    """What ``request_backfill`` would make of a request now. Raises as that one does."""
    by_tier: Counter[Tier] = Counter()
    merged = covered = 0
    with deps.database.transaction() as connection:
        wanted, _ = wanted_of(connection, asked, deps, now)
        while batch := list(islice(wanted, BATCH)):
            jobs = [each for each in batch if each is not None]
            covered += len(batch) - len(jobs)
            made, met = requests.preview(connection, jobs)
            by_tier += made
            merged += met
    return Preview(by_tier, _room(deps), merged, covered)


def _room(deps: Deps) -> Mapping[Tier, int] | None:
    try:
        return dispatch.room(deps)
    except UnavailableError:
        return None
