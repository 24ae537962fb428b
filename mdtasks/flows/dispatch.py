"""Keeps rows and messages in step: what waits is sent when there is room, what was lost is sent again, with a proof.

``run_once`` style: each function does one round and returns counts; beat repeats it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from mdtasks.connections import translated_redis_errors
from mdtasks.domain.jobs import Tier
from mdtasks.flows.attempts import end_lost
from mdtasks.flows.deps import Deps
from mdtasks.flows.routing import anybody_well
from mdtasks.observe import metrics
from mdtasks.queue import backlog
from mdtasks.queue.app import backfill_queue
from mdtasks.queue.letters import Reason
from mdtasks.store import jobs, letters

#: Redis key of the last reconciliation's result.
PROOF_KEY: Final = "mdtasks:reconciler:proof"
#: A message may be on its way between two places for this long, seconds; a row without one for longer was lost.
GRACE_S: Final = 10.0
#: The reconciler runs every 10 s: a proof older than this says that it does not.
PROOF_LATE_S: Final = 60.0
#: Jobs taken per round and tier: bounds the size of a transaction, not the rate (rounds follow each other).
ROUND: Final = 20_000
#: Jobs taken per round and tier while every provider is left aside.
PROBING: Final = 4


def room(deps: Deps) -> dict[Tier, int]:
    """Free places under the cap of each tier's queue now."""
    depths = backlog.depths(deps.broker)
    return {tier: max(deps.settings.cap(tier) - depths[backfill_queue(tier)], 0) for tier in Tier}


def dispatch_once(deps: Deps) -> dict[str, int]:
    """Send due deferred jobs, newest window first, as far as the caps allow. Returns how many per tier.

    While no provider is well, a few a round: one of them probes, the others would only come back.
    """
    most = ROUND if anybody_well(deps) else PROBING
    return {str(tier): _dispatch(tier, min(places, most), deps) for tier, places in room(deps).items() if places}


def _dispatch(tier: Tier, places: int, deps: Deps) -> int:
    with deps.database.transaction() as connection:
        taken = jobs.dispatchable(connection, tier, places)
    if not taken:
        return 0
    pushed = deps.enqueuer.push_backfills(tier, taken)
    if pushed < len(taken):
        with deps.database.transaction() as connection:
            jobs.defer(connection, [job.job_id for job in taken[pushed:]])
    return pushed


@dataclass(frozen=True, slots=True)
class Proof:
    """What a reconciliation found and mended.

    ``queued``: rows whose message was looked for; ``lost``: rows without one, or with one that a worker took and never
    began, sent again; ``doubled``: jobs with more than one message (harmless: only one can claim); ``orphans``: waiting
    messages of jobs that are over (they will be dropped); ``expired``: claims whose worker was lost; ``unlettered``:
    failed jobs whose letter was made up for.
    """

    at: str
    queued: int
    lost: int
    doubled: int
    orphans: int
    expired: int
    unlettered: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def reconcile_once(deps: Deps, now: datetime, grace_s: float = GRACE_S) -> Proof:
    """Compare rows with the broker, mend what differs, and keep the proof with its time.

    Order matters: rows are read before the broker, so that a row that became 'queued' meanwhile cannot look lost; those
    that look lost are compared again, by their ``queued_at``, when they are taken.
    """
    expired = _end_expired(deps)
    with deps.database.transaction() as connection:
        queued = jobs.queued_before(connection, grace_s)
    seen = backlog.sightings(deps.broker)
    taken_before = now.timestamp() - grace_s
    missing = [each for each in queued if each not in seen or seen.held_since.get(each, taken_before) < taken_before]
    with deps.database.transaction() as connection:
        lost = jobs.send_again(connection, missing, grace_s) if missing else []
        standing = jobs.statuses(connection, list(seen.counts)) if seen.counts else {}
    over = {job_id for job_id, status in standing.items() if status in ("done", "failed", "cancelled")}
    proof = Proof(
        at=now.astimezone(UTC).isoformat(),
        queued=len(queued),
        lost=len(lost),
        doubled=sum(count > 1 for job_id, count in seen.counts.items() if job_id in standing.keys() - over),
        orphans=len(over & seen.waiting),
        expired=expired,
        unlettered=_make_up_letters(deps, grace_s),
    )
    metrics.JOBS_LOST_RESENT.inc(len(lost))
    with translated_redis_errors():
        deps.state.set(PROOF_KEY, json.dumps(proof.as_dict()))
    if lost:
        dispatch_once(deps)
    return proof


def _end_expired(deps: Deps) -> int:
    """End the attempts of workers that were lost without a word."""
    with deps.database.transaction() as connection:
        held = jobs.expired(connection)
        for claim in held:
            reason = Reason("worker_lost", "its lease ran out: the worker was lost")
            end_lost(connection, claim, reason, deps.settings)
    return len(held)


def release_node(deps: Deps, node: str, alive_pids: Collection[int] = ()) -> int:
    """End the attempts that processes of a node held when it stopped: called when the node starts.

    ``alive_pids``: processes that still run under that name, beside the one that starts; they keep what they hold.
    """
    with deps.database.transaction() as connection:
        held = jobs.held_by_node(connection, node, list(alive_pids))
        for claim in held:
            reason = Reason("worker_lost", f"{node} was stopped while it ran this")
            end_lost(connection, claim, reason, deps.settings)
    return len(held)


def _make_up_letters(deps: Deps, grace_s: float) -> int:
    """Record the letter of each failed job whose message never got buried."""
    with deps.database.transaction() as connection:
        made = 0
        for job_id in letters.unlettered(connection, max(grace_s, 5.0)):
            letter = letters.letter_of_failed(connection, job_id, "", "", "")
            made += letter is not None and letters.record(connection, letter)
    return made


def last_proof(deps: Deps) -> Proof | None:
    """The last reconciliation's result; None when there was none yet."""
    with translated_redis_errors():
        raw = deps.state.get(PROOF_KEY)
    return None if raw is None else Proof(**json.loads(raw))
