"""How jobs stand: what people, pages and metrics read of requests, the backlog and a job's history. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from mdtasks.domain.errors import NotFoundError
from mdtasks.domain.jobs import Tier
from mdtasks.store.jobs import SQL


@dataclass(frozen=True, slots=True)
class Progress:
    """How a request stands: jobs by status, bars stored, the newest error."""

    request_id: str
    jobs: dict[str, int]
    bars: int
    last_error: str | None

    @property
    def total(self) -> int:
        return sum(self.jobs.values())

    @property
    def ended(self) -> int:
        return sum(self.jobs.get(status, 0) for status in ("done", "failed", "cancelled"))


def progress(connection: Connection, request_id: str) -> Progress:
    """How a request stands. Raises NotFoundError when nobody asked for it."""
    request_id = known_uuid(request_id, "request", hint="`mdtasks jobs` lists what is being done")
    rows = connection.execute(SQL["request_progress"], {"request_id": request_id}).all()
    if not rows and connection.execute(SQL["request_exists"], {"request_id": request_id}).one_or_none() is None:
        raise NotFoundError(f"no request {request_id}", hint="`mdtasks jobs` lists what is being done")
    return Progress(
        request_id=request_id,
        jobs={row.status: row.jobs for row in rows},
        bars=int(sum(row.bars for row in rows)),
        last_error=next((row.last_error for row in rows if row.last_error), None),
    )


def known_uuid(text: str, what: str, *, hint: str) -> str:
    """``text`` as a UUID. Raises NotFoundError when it is none: nothing can bear it, and PostgreSQL would not ask."""
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFoundError(f"no {what} {text}", hint=hint) from None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs of one tier and status, and the age of the oldest, seconds."""

    tier: Tier
    status: str
    jobs: int
    oldest_age_s: float


def backlog(connection: Connection) -> list[Backlog]:
    """What waits and runs per tier and status; a tier without jobs has no entry."""
    rows = connection.execute(SQL["backlog"])
    return [Backlog(Tier(row.tier), row.status, row.jobs, float(row.oldest_age_s)) for row in rows]


def list_jobs(
    connection: Connection,
    *,
    status: str | None = None,
    tier: Tier | None = None,
    symbol: str | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Jobs as plain rows, newest change first."""
    rows = connection.execute(SQL["list"], {"status": status, "tier": tier, "symbol": symbol, "limit": limit})
    return [dict(row._mapping) for row in rows]


def one_job(connection: Connection, job_id: str) -> dict[str, Any]:
    """A job as a plain row. Raises NotFoundError."""
    job = any_job(connection, job_id)
    if job is None:
        raise NotFoundError(f"no job {job_id}", hint="`mdtasks jobs` lists them")
    return job


def any_job(connection: Connection, job_id: str) -> dict[str, Any] | None:
    """A job as a plain row; None: it has none, as live fetches, of which attempts alone are kept."""
    row = connection.execute(SQL["one"], {"job_id": job_id}).one_or_none()
    return None if row is None else dict(row._mapping)


def attempts(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    """Every attempt of a job, oldest first."""
    return [dict(row._mapping) for row in connection.execute(SQL["attempts"], {"job_id": job_id})]
