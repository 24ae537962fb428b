"""Backfill jobs at rest: the truth that the broker only carries.

A job's life: ``deferred`` or ``queued`` -> ``running`` (claimed: attempt counted, lease and fencing token given) ->
``done``; or back to ``deferred`` until its next attempt; or ``failed``, with a dead letter. Every change is conditional
on the state it starts from, so each function may be called twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row

from mdtasks.connections import load_statements, storable
from mdtasks.domain.errors import CircuitOpenError, NotYetError, RateSpentError, StaleClaimError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.universe import Listing

SQL: Final = load_statements("mdtasks.store.sql", "jobs.sql")

#: Jobs of a tier whose pause is over that one round lets go on: bounds its transaction when an outage has ended.
_MOST_RIPENED: Final = 20_000
#: Why a job waits when no provider was asked for it.
_HELD: Final = (CircuitOpenError.code, RateSpentError.code, NotYetError.code)


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt's hold on a job. ``fence`` is the token that every effect must still match."""

    job_id: str
    instrument_id: int
    listing: Listing
    interval: Interval
    window: TimeWindow
    tier: Tier
    provider_hint: str | None
    attempt: int
    max_attempts: int
    fence: int
    attempt_id: int


@dataclass(frozen=True, slots=True)
class Held:
    """A running claim seen from outside: what is needed to end it in its worker's place."""

    job_id: str
    attempts: int
    max_attempts: int
    fence: int
    attempt_id: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: ``outcome`` done, retry, failed, lost or released; the error when there was one."""

    outcome: str
    provider: str | None = None
    error_class: str | None = None
    message: str | None = None
    bars: int = 0
    #: Whom it asked, in order, and why not others; see ``job_attempts.route``.
    route: Sequence[Mapping[str, Any]] = ()


def _job(row: Row[Any]) -> BackfillJob:
    # model_construct: the row was validated when it was made, and thousands come at a time.
    return BackfillJob.model_construct(
        job_id=row.id,
        priority=Tier(row.tier),
        provider_hint=row.provider_hint,
        symbol=row.symbol,
        interval=Interval(row.interval),
        time_window=TimeWindow.model_construct(start=row.start, end=row.end),
    )


def defer(connection: Connection, job_ids: Sequence[str]) -> None:
    """Let queued jobs wait again: their queue had no room."""
    connection.execute(SQL["defer"], {"ids": list(job_ids)})


def claim(
    connection: Connection, job_id: str, worker: str, lease_s: float, policy_version: int | None = None
) -> Claim | None:
    """Take a job for one attempt, under a version of the policy; None when there is nothing to take (a stale or doubled
    message).
    """
    values = {"job_id": job_id, "worker": worker, "lease_s": lease_s, "policy_version": policy_version}
    row = connection.execute(SQL["claim"], values).one_or_none()
    if row is None:
        return None
    return Claim(
        job_id=row.id,
        instrument_id=row.instrument_id,
        listing=Listing(row.symbol, row.mic, row.kind),
        interval=Interval(row.interval),
        window=TimeWindow(start=row.start, end=row.end),
        tier=Tier(row.tier),
        provider_hint=row.provider_hint,
        attempt=row.attempts,
        max_attempts=row.max_attempts,
        fence=row.fence,
        attempt_id=row.attempt_id,
    )


def open_live_attempt(
    connection: Connection, job_id: str, job_type: str, worker: str, policy_version: int | None = None
) -> int:
    """The id of a new attempt of a live fetch."""
    values = {"job_id": job_id, "job_type": job_type, "worker": worker, "policy_version": policy_version}
    return int(connection.execute(SQL["live_attempt"], values).scalar_one())


def close_attempt(connection: Connection, attempt_id: int, ending: Ending) -> None:
    """End an attempt; one that has ended stays as it was."""
    connection.execute(
        SQL["close_attempt"],
        {
            "attempt_id": attempt_id,
            "outcome": ending.outcome,
            "provider": ending.provider,
            "error_class": ending.error_class,
            "message": ending.message and storable(ending.message),
            "bars": ending.bars,
            "route": json.dumps(ending.route) if ending.route else None,
        },
    )


def finish(connection: Connection, claimed: Claim, ending: Ending) -> None:
    """Close the attempt and the job in the caller's transaction.

    Raises StaleClaimError when the claim was taken over: the caller's whole transaction must roll back.
    """
    values = {"job_id": claimed.job_id, "fence": claimed.fence, "bars": ending.bars}
    if connection.execute(SQL["finish"], values).one_or_none() is None:
        raise StaleClaimError(f"job {claimed.job_id}: attempt {claimed.attempt} no longer holds it")
    close_attempt(connection, claimed.attempt_id, ending)


def fail(connection: Connection, held: Held | Claim, ending: Ending, pause_s: float | None) -> bool:
    """End an attempt that failed: the job is tried again after ``pause_s`` seconds, or (None) failed for good.

    False when the claim no longer holds the job: then nothing was changed but its attempt closed.
    """
    values = {
        "job_id": held.job_id,
        "fence": held.fence,
        "pause_s": pause_s,
        "message": ending.message and storable(ending.message),
        "error_class": ending.error_class,
        "bars": ending.bars,
    }
    holds = connection.execute(SQL["fail"], values).one_or_none() is not None
    close_attempt(connection, held.attempt_id, ending)
    return holds


def hold(connection: Connection, claimed: Claim, ending: Ending, pause_s: float, *, forget: bool = True) -> bool:
    """Put a job back whose providers are held back: it waits ``pause_s`` seconds, and the attempt does not count.

    ``forget``: nobody was asked, so it is no attempt; else the history would fill with what was not done. False as
    ``fail``.
    """
    values = {
        "job_id": claimed.job_id,
        "fence": claimed.fence,
        "pause_s": pause_s,
        "message": ending.message and storable(ending.message),
        "error_class": ending.error_class,
        "bars": ending.bars,
        "attempt_id": claimed.attempt_id,
        "forget": forget,
    }
    holds = connection.execute(SQL["hold"], values).one_or_none() is not None
    close_attempt(connection, claimed.attempt_id, ending)
    return holds


def running_under(connection: Connection, job_id: str, worker: str) -> Held | None:
    """The claim on a job that this worker process holds, locked; None when it does not hold it (any more)."""
    row = connection.execute(SQL["running_under"], {"job_id": job_id, "worker": worker}).one_or_none()
    return None if row is None else Held(*row)


def expired(connection: Connection, limit: int = 1000) -> list[Held]:
    """Claims whose lease has run out, locked."""
    return [Held(*row) for row in connection.execute(SQL["expired"], {"limit": limit})]


def held_by_node(connection: Connection, node: str, alive_pids: Sequence[int] = ()) -> list[Held]:
    """Every claim that processes of a node hold, locked; those of ``alive_pids`` are left out."""
    escaped = node.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    alive = [f"{node}/{pid}" for pid in alive_pids]
    return [Held(*row) for row in connection.execute(SQL["held_by_node"], {"node": escaped, "alive": alive})]


def dispatchable(connection: Connection, tier: Tier, room: int) -> list[BackfillJob]:
    """Take due deferred jobs, newest window first; the caller pushes them after the commit."""
    connection.execute(SQL["ripen"], {"tier": tier, "most": _MOST_RIPENED})
    return [_job(row) for row in connection.execute(SQL["dispatch"], {"tier": tier, "room": room})]


def wake_held(connection: Connection, names: Sequence[str]) -> int:
    """Let jobs go out at once that wait because nobody could be asked, but those that wait for another by its name.

    Returns how many. The dispatcher sends them, as their queues have room.
    """
    return connection.execute(SQL["wake_held"], {"held": list(_HELD), "names": list(names)}).rowcount


def queued_before(connection: Connection, grace_s: float) -> list[str]:
    """Ids of jobs that have been queued for longer than ``grace_s`` seconds."""
    return list(connection.execute(SQL["queued_before"], {"grace_s": grace_s}).scalars())


def send_again(connection: Connection, job_ids: Sequence[str], grace_s: float) -> list[str]:
    """Hand lost jobs to the dispatcher; returns those that were still lost."""
    return list(connection.execute(SQL["lost"], {"ids": list(job_ids), "grace_s": grace_s}).scalars())


def statuses(connection: Connection, job_ids: Sequence[str]) -> dict[str, str]:
    """How these jobs stand, by id; an id that is no backfill job is absent."""
    return {row.id: row.status for row in connection.execute(SQL["statuses"], {"ids": list(job_ids)})}


def cancel(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """Cancel jobs that have not started; returns which."""
    return list(connection.execute(SQL["cancel"], {"ids": list(job_ids)}).scalars())
