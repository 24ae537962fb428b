"""A look at the stack's parts, all at once and never for long: what /ready, /metrics and the overview go by.

Each part is asked in a thread of its own. One that is away, or does not answer in time, is a fact to be shown, and
does not keep the others from being seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import anyio
from anyio.to_thread import run_sync

from mdtasks.domain.errors import MdtasksError, UnavailableError
from mdtasks.domain.jobs import Tier
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import Proof, last_proof
from mdtasks.queue import backlog
from mdtasks.store import job_reports
from mdtasks.store.schema import current_revision, head_revision

log = logging.getLogger(__name__)

#: A part that takes longer than this counts as away, seconds: probes and scrapes give up after about 10.
PATIENCE_S: Final = 4.0
#: What a stack cannot do without; all else that is looked at is read from these.
PARTS: Final = ("broker", "redis", "postgresql")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Backfills of a tier in PostgreSQL: jobs by status, and how long the oldest that has not started waits."""

    deferred: int = 0
    queued: int = 0
    running: int = 0
    oldest_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What the parts said: by part either its answer or the error that it ended in."""

    answers: Mapping[str, Any]
    errors: Mapping[str, MdtasksError]

    def of(self, part: str) -> Any:
        """A part's answer; None when it gave none."""
        return self.answers.get(part)


async def look(deps: Deps, **parts: Callable[[Deps], Any]) -> Look:
    """Ask every part at once; takes PATIENCE_S at most and never fails."""
    answers: dict[str, Any] = {}
    errors: dict[str, MdtasksError] = {}

    async def ask(part: str, read: Callable[[Deps], Any]) -> None:
        with anyio.move_on_after(PATIENCE_S) as waited:
            try:
                # Left alone when it is late: its thread ends with the driver's own time limits.
                answers[part] = await run_sync(partial(read, deps), abandon_on_cancel=True, limiter=limiter)
            except MdtasksError as error:
                errors[part] = error
            except Exception as error:
                log.exception("%s could not be read", part)
                errors[part] = MdtasksError(f"{part} could not be read: {type(error).__name__}", hint="see the log")
        if waited.cancelled_caught:
            errors[part] = UnavailableError(f"{part} did not answer within {PATIENCE_S:.0f} s", hint="`mdtasks doctor`")

    # Places of its own: a probe must not wait behind requests that do real work.
    limiter = anyio.CapacityLimiter(len(parts))
    async with anyio.create_task_group() as tasks:
        for part, read in parts.items():
            tasks.start_soon(ask, part, read)
    return Look(answers, errors)


def read_depths(deps: Deps) -> dict[str, int]:
    """Messages waiting in each queue. Raises BrokerUnavailableError."""
    return backlog.depths(deps.broker)


def read_intake(deps: Deps) -> dict[str, int]:
    """Jobs in the outside coordinator's lists; {} without one. Raises BrokerUnavailableError."""
    return deps.coordinator.depths() if deps.coordinator is not None else {}


def read_proof(deps: Deps) -> Proof | None:
    """The reconciler's last proof. Raises BrokerUnavailableError."""
    return last_proof(deps)


def read_waiting(deps: Deps) -> dict[Tier, Waiting]:
    """The backlog of each tier. Raises UnavailableError, also when the schema is not the one this version needs."""
    at, head = current_revision(deps.database), head_revision()
    if at != head:
        raise UnavailableError(
            f"the database is at revision {at or 'none'}, this mdtasks needs {head}", hint="run `mdtasks migrate`"
        )
    with deps.database.transaction() as connection:
        rows = job_reports.backlog(connection)
    by_tier: dict[Tier, dict[str, job_reports.Backlog]] = {tier: {} for tier in Tier}
    for row in rows:
        by_tier[row.tier][row.status] = row
    return {tier: _waiting(found) for tier, found in by_tier.items()}


def _waiting(found: Mapping[str, job_reports.Backlog]) -> Waiting:
    counts = {status: row.jobs for status, row in found.items()}
    waits = [found[status].oldest_age_s for status in ("deferred", "queued") if status in found]
    return Waiting(**counts, oldest_age_s=max(waits, default=0.0))


def proof_age_s(proof: Proof, now: datetime) -> float:
    """Seconds since the reconciler's last proof."""
    return max((now - datetime.fromisoformat(proof.at)).total_seconds(), 0.0)
