"""/ops/backfill and /ops/jobs: ask for bars, and see what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.jobs import Symbol, Tier
from mdtasks.flows.backfill import BackfillRequest, request_backfill
from mdtasks.flows.deps import Deps
from mdtasks.store import job_reports
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, parse_query, read_document, refuse_unknown


class JobQuery(Query):
    """Which jobs, newest change first."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    status: Literal["deferred", "queued", "running", "done", "failed", "cancelled"] | None = None
    tier: Tier | None = None
    symbol: Symbol | None = None


async def ask(request: Request) -> Response:
    """Ask for bars: 202 with what became of it. Safe to repeat: what is stored or wanted is not asked for again."""
    parse_query(request, Query)
    document = await read_document(request)
    refuse_unknown(document, BackfillRequest, "field")
    asked = BackfillRequest.parse(document)
    state = request.state
    answer = await run_in_threadpool(request_backfill, asked, state.actor, state.deps, datetime.now(UTC))
    progress = f"{request.url.path}/{answer.request_id}"
    return Json({"ok": True, **answer.as_dict(), "progress": progress}, 202, {"Location": progress})


def progress(request: Request) -> Response:
    """How a backfill request stands: jobs by status, bars stored, and whether all have ended."""
    parse_query(request, Query)
    with request.state.deps.database.transaction() as connection:
        found = job_reports.progress(connection, request.path_params["request"])
    return Json(
        {
            "request": found.request_id,
            "jobs": found.jobs,
            "total": found.total,
            "ended": found.ended,
            "finished": found.ended == found.total,
            "bars": found.bars,
            "last_error": found.last_error,
        }
    )


def list_jobs(request: Request) -> Response:
    """Backfill jobs by filter, newest change first."""
    asked = parse_query(request, JobQuery)
    with request.state.deps.database.transaction() as connection:
        rows = job_reports.list_jobs(connection, **asked.model_dump())
    return Json([job_entry(row) for row in rows])


def show_job(request: Request) -> Response:
    """A job whole, with every attempt of all its lives."""
    parse_query(request, Query)
    return Json(_job(request.path_params["id"], request.state.deps))


def _job(job_id: str, deps: Deps) -> dict[str, Any]:
    with deps.database.transaction() as connection:
        row = job_reports.one_job(connection, job_id)
        history = job_reports.attempts(connection, job_id)
    times = {name: row[name] for name in ("queued_at", "lease_until")}
    return {**job_entry(row), **times, "history": history}


def job_entry(row: dict[str, Any]) -> dict[str, Any]:
    """A job as lists show it, under the names that users know."""
    return {
        "id": row["id"],
        "symbol": row["symbol"],
        "interval": row["interval"],
        "start_ts": row["start"],
        "end_ts": row["end"],
        "priority": row["tier"],
        "status": row["status"],
        "attempts": row["attempts"],
        "max_attempts": row["max_attempts"],
        "bars": row["bars"],
        "provider_hint": row["provider_hint"],
        "error_class": row["last_error_class"],
        "last_error": row["last_error"],
        "not_before": row["not_before"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
