"""How requests stand: what people read of who asked for what, and what has become of it. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row

from mdtasks.connections import load_statements
from mdtasks.domain.errors import NotFoundError
from mdtasks.store.job_reports import known_uuid

_SQL: Final = load_statements("mdtasks.store.sql", "request_reports.sql")
#: The states of a job, in the order of its life.
STATES: Final = ("deferred", "queued", "running", "done", "failed", "cancelled")
_HINT: Final = "`mdtasks jobs` lists what is being done"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and its jobs by status, where there are any. ``spec``: what was asked for, as it was asked."""

    id: str
    requested_by: str
    spec: Mapping[str, Any]
    created_at: datetime
    jobs: Mapping[str, int]
    bars: int

    @property
    def total(self) -> int:
        return sum(self.jobs.values())

    @property
    def ended(self) -> int:
        return sum(self.jobs.get(status, 0) for status in ("done", "failed", "cancelled"))


def newest(connection: Connection, limit: int, *, by: str | None = None, but: str | None = None) -> list[Asked]:
    """The newest requests; ``by``: of this actor alone, ``but``: of all others."""
    about = {"id": None, "limit": limit, "by": by, "but": but}
    return [_asked(row) for row in connection.execute(_SQL["asked"], about)]


def one(connection: Connection, request_id: str) -> Asked:
    """A request. Raises NotFoundError."""
    request_id = known_uuid(request_id, "request", hint=_HINT)
    row = connection.execute(_SQL["asked"], {"id": request_id, "limit": 1, "by": None, "but": None}).one_or_none()
    if row is None:
        raise NotFoundError(f"no request {request_id}", hint=_HINT)
    return _asked(row)


def cancellable(connection: Connection, request_id: str) -> tuple[int, int]:
    """Of the jobs that have not begun: how many a cancel would end, and how many go on because another request waits
    for them too.
    """
    alone, shared = connection.execute(_SQL["cancellable"], {"id": request_id}).one()
    return int(alone), int(shared)


def jobs_of(connection: Connection, request_id: str, status: str | None, limit: int) -> list[dict[str, Any]]:
    """Jobs of a request as plain rows, newest change first; ``letter``: the open letter of one that died, or None."""
    about = {"id": request_id, "status": status, "limit": limit}
    return [dict(row._mapping) for row in connection.execute(_SQL["jobs"], about)]


def _asked(row: Row[Any]) -> Asked:
    counts = {status: int(getattr(row, status)) for status in STATES}
    jobs = {status: count for status, count in counts.items() if count}
    return Asked(row.id, row.requested_by, row.spec, row.created_at, jobs, int(row.bars))
