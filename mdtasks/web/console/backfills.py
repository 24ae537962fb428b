"""Backfills as pages: requests with their progress; one with its jobs, of which those that wait can be cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.flows.scan import ACTOR
from mdtasks.store import request_reports, requests
from mdtasks.store.request_reports import Asked
from mdtasks.web.console.forms import filled, parsed
from mdtasks.web.console.render import after_post, page
from mdtasks.web.console.symbol_paths import symbol_path
from mdtasks.web.console.words import count
from mdtasks.web.parsing import Query

PATH: Final = "/console/backfills"
#: Requests and jobs that a page lists.
_SHOWN: Final = 50
_JOBS: Final = 100
#: Symbols of a request that are named.
_NAMED: Final = 3

JobStatus = Literal["deferred", "queued", "running", "done", "failed", "cancelled"]
#: What the colour of a job's status is.
LEVELS: Final[Mapping[str, str]] = {"done": "good", "failed": "warn"}


class Listed(Query):
    """Whose requests: of all but the gap scan, of the gap scan alone, or (blank) of both."""

    by: Literal["people", "scan"] | None = None


class Shown(Query):
    """Which of a request's jobs."""

    status: JobStatus | None = None


class Cancel(Query):
    """That it is meant."""

    confirmed: Literal["yes"]


def show(request: Request) -> Response:
    """Backfill requests with their progress, the newest first; a page."""
    asked = filled(request, Listed)
    by, but = (ACTOR if asked.by == "scan" else None), (ACTOR if asked.by == "people" else None)
    with request.state.deps.database.transaction() as connection:
        found = request_reports.newest(connection, _SHOWN, by=by, but=but)
    return page(request, "backfills/list.html", found=found, by=asked.by, most=_SHOWN, words=words_of, level=level_of)


def show_one(request: Request) -> Response:
    """A backfill request: its progress, its jobs with their last errors and dead letters; a page."""
    asked, request_id = filled(request, Shown), request.path_params["request"]
    with request.state.deps.database.transaction() as connection:
        found = request_reports.one(connection, request_id)
        jobs = request_reports.jobs_of(connection, found.id, asked.status, _JOBS)
        alone, shared = request_reports.cancellable(connection, found.id)
    values: dict[str, Any] = {"found": found, "jobs": jobs, "only": asked.status, "alone": alone, "shared": shared}
    about: dict[str, Any] = {"states": get_args(JobStatus), "levels": LEVELS, "most": _JOBS}
    return page(
        request, "backfills/one.html", **values, **about, words=words_of, level=level_of, symbol_path=symbol_path
    )


def cancel(request: Request) -> Response:
    """Cancel what a request asked for and nobody has begun: the form of its page."""
    if "confirmed" not in request.state.form:
        raise InvalidRequestError("nothing was cancelled: the box was not ticked", field="confirmed", hint="go back")
    parsed(request, Cancel)
    with request.state.deps.database.transaction() as connection:
        found = request_reports.one(connection, request.path_params["request"])
        gone = requests.cancel(connection, found.id)
    return after_post(request_path(found.id), f"{count(gone)} {'job was' if gone == 1 else 'jobs were'} cancelled.")


def request_path(request_id: str) -> str:
    """Where a request's page is."""
    return f"{PATH}/{request_id}"


def level_of(found: Asked) -> str:
    """What the colour of a request is."""
    if found.jobs.get("failed"):
        return "warn"
    return "good" if found.ended == found.total else "quiet"


def words_of(spec: Mapping[str, Any]) -> str:
    """What was asked for, in a line."""
    if "scan" in spec:
        number = spec.get("series", 0)
        return f"{number:,} {spec['scan']} {'symbol' if number == 1 else 'symbols'}, {spec.get('interval', '')}"
    if "symbol" not in spec:
        return f"{spec.get('jobs', 0):,} ready-made jobs"
    names = list(spec["symbol"])
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    said = [", ".join(names[:_NAMED]) + more, str(spec["interval"]), _window(spec)]
    said += [f"from {spec['provider']} alone"] if spec.get("provider") else []
    said += ["asked again"] if spec.get("refetch") else []
    return ", ".join(said)


def _window(spec: Mapping[str, Any]) -> str:
    start, end = (_minute(spec.get(name)) for name in ("start", "end"))
    if number := spec.get("sessions"):
        return f"{number:,} {'session' if number == 1 else 'sessions'}" + (f" to {end}" if end else "")
    return f"{start} to {end or 'now'}"


def _minute(at: str | None) -> str:
    return at[:16].replace("T", " ") if at else ""
