"""Dead letters at rest: the record that people list, group, requeue and purge.

A failed backfill has exactly one open letter, its id ``<job>:<fence>``; any other message that died has one named after
its envelope. Recording twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements, storable
from mdtasks.domain.errors import NotFoundError
from mdtasks.domain.jobs import Tier
from mdtasks.store.job_reports import known_uuid

SQL: Final = load_statements("mdtasks.store.sql", "letters.sql")
#: The kind of letters that are findings about what is stored: nothing was sent, so nothing can be sent again. What they
#: say settles them, and then they close by themselves.
FINDING: Final = "action"
#: A purge deletes letters older than so many days where nobody says otherwise, and at least and at most so many.
PURGE_DAYS: Final = 30
LEAST_DAYS, MOST_DAYS = 1, 36_500


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter to be recorded."""

    id: str
    kind: str
    envelope: str
    error_class: str
    message: str
    traceback: str = ""
    job_id: str | None = None
    task: str | None = None
    queue: str | None = None
    tier: str | None = None
    symbol: str | None = None
    interval: str | None = None
    window: str | None = None
    provider: str | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which open letters. ``backfills``: only those of backfills (True), only others (False), or both (None).

    A ``provider`` or ``task`` of "": letters that have none.
    """

    backfills: bool | None = None
    tier: Tier | None = None
    symbol: str | None = None
    provider: str | None = None
    error_class: str | None = None
    since: datetime | None = None
    task: str | None = None

    def as_dict(self) -> dict[str, object]:
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Plan:
    """A frozen set of letters to requeue; ``result`` is there once it was carried out."""

    id: str
    letter_ids: list[str]
    result: dict[str, Any] | None


def record(connection: Connection, letter: Letter) -> bool:
    """Keep a letter; False when it was kept before."""
    values = {name: storable(value) if isinstance(value, str) else value for name, value in asdict(letter).items()}
    return connection.execute(SQL["record"], values).scalar_one_or_none() is not None


def letter_of_failed(connection: Connection, job_id: str, envelope: str, traceback: str, queue: str) -> Letter | None:
    """The letter of a failed backfill; None when the job is not failed (any more)."""
    row = connection.execute(SQL["failed_job"], {"job_id": job_id}).one_or_none()
    if row is None:
        return None
    return Letter(
        id=f"{row.job_id}:{row.fence}",
        kind="backfill",
        envelope=envelope,
        error_class=row.error_class,
        message=row.message,
        traceback=traceback,
        job_id=row.job_id,
        task="mdtasks.backfill",
        queue=queue,
        tier=row.tier,
        symbol=row.symbol,
        interval=row.interval,
        window=row.window,
        provider=row.provider,
        attempts=row.attempts,
    )


def unlettered(connection: Connection, grace_s: float) -> list[str]:
    """Failed jobs whose letter never arrived."""
    return list(connection.execute(SQL["unlettered"], {"grace_s": grace_s}).scalars())


def matching(
    connection: Connection, which: LetterFilter, limit: int = 100, *, jobs: bool = False
) -> list[dict[str, Any]]:
    """Open letters, newest first, at most ``limit``; ``jobs``: without findings."""
    asked = {**asdict(which), "limit": limit, "jobs": jobs, "finding": FINDING}
    rows = connection.execute(SQL["matching"], asked)
    return [dict(row._mapping) for row in rows]


def by_ids(connection: Connection, letter_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Those of these letters that are still open, newest first."""
    rows = connection.execute(SQL["by_ids"], {"ids": json.dumps(list(letter_ids))})
    return [dict(row._mapping) for row in rows]


def one(connection: Connection, letter_or_job_id: str) -> dict[str, Any]:
    """One letter whole, by its id or its job's. Raises NotFoundError."""
    row = connection.execute(SQL["one"], {"id": letter_or_job_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"no dead letter {letter_or_job_id}", hint="`mdtasks dlq list` shows the open ones")
    return dict(row._mapping)


def groups(connection: Connection, backfills: bool | None = None) -> list[dict[str, Any]]:
    """Open letters by cause, the largest group first; ``findings``: how many of them are such."""
    asked = {"backfills": backfills, "finding": FINDING}
    return [dict(row._mapping) for row in connection.execute(SQL["groups"], asked)]


def kinds(connection: Connection) -> dict[str, int]:
    """How many letters are open of which kind, most first; a kind without any is absent."""
    return {row.kind: row.letters for row in connection.execute(SQL["kinds"])}


def stats(connection: Connection) -> dict[str, Any]:
    """How many letters are open and since when."""
    return dict(connection.execute(SQL["stats"]).one()._mapping)


def freeze(connection: Connection, which: LetterFilter, letter_ids: Sequence[str], planned_by: str) -> str:
    """Keep a set of letters as a plan; returns its id."""
    values = {
        "planned_by": planned_by,
        "filter": json.dumps(which.as_dict()),
        "letter_ids": json.dumps(list(letter_ids)),
    }
    return str(connection.execute(SQL["plan_create"], values).scalar_one())


def take_plan(connection: Connection, plan_id: str) -> Plan:
    """A plan, locked against a second execution at the same time. Raises NotFoundError."""
    plan_id = known_uuid(plan_id, "requeue plan", hint="make one with a dry run")
    row = connection.execute(SQL["plan_take"], {"id": plan_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"no requeue plan {plan_id}", hint="make one with a dry run")
    return Plan(row.id, list(row.letter_ids), row.result)


def close_plan(connection: Connection, plan_id: str, result: dict[str, object]) -> None:
    """Remember that a plan was carried out, and with what result: doing it again only tells that result."""
    connection.execute(SQL["plan_close"], {"id": plan_id, "result": json.dumps(result)})


def plan_progress(connection: Connection, plan_id: str) -> dict[str, int]:
    """How many backfills of a plan's letters stand in which status. Raises NotFoundError."""
    frozen = take_plan(connection, plan_id)
    rows = connection.execute(SQL["plan_progress"], {"ids": json.dumps(frozen.letter_ids)})
    return {row.status: row.jobs for row in rows}


def requeue_jobs(connection: Connection, letter_ids: Sequence[str], actor: str, max_attempts: int) -> dict[str, str]:
    """Give failed jobs another life: job id -> new status (deferred; cancelled when their window is already wanted)."""
    values = {"ids": json.dumps(list(letter_ids)), "actor": actor, "max_attempts": max_attempts}
    return {row.id: row.status for row in connection.execute(SQL["requeue_jobs"], values)}


def requeueable(connection: Connection, letter_ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """(id, queue, envelope) of open letters that are no backfills, locked."""
    rows = connection.execute(SQL["requeueable"], {"ids": json.dumps(list(letter_ids))})
    return [(row.id, row.queue, row.envelope) for row in rows]


def mark_requeued(connection: Connection, letter_ids: Sequence[str], actor: str) -> None:
    """Close letters whose messages are back on their queues."""
    connection.execute(SQL["mark_requeued"], {"ids": json.dumps(list(letter_ids)), "actor": actor})


def older(connection: Connection, before: datetime, backfills: bool | None = None) -> list[dict[str, Any]]:
    """What a purge with this ``before`` would delete now: a row per state and cause, with the jobs it would give up."""
    rows = connection.execute(SQL["older"], {"before": before, "backfills": backfills})
    return [dict(row._mapping) for row in rows]


def purge(connection: Connection, before: datetime, actor: str, backfills: bool | None = None) -> int:
    """Delete letters that died earlier than ``before`` and leave an audit row; returns how many."""
    values = {"before": before, "actor": actor, "backfills": backfills}
    return int(connection.execute(SQL["purge"], values).scalar_one())
