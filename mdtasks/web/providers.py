"""/stats/providers and /ops/providers: how providers stand, and leaving one aside."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.jobs import invalid_request
from mdtasks.flows import provider_past, provider_reports
from mdtasks.flows import providers as flow
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, has_body, parse_query, read_document, refuse_unknown


class ProvidersQuery(Query):
    """As of when; None: now."""

    as_of: QueryTime | None = None


class Why(BaseModel):
    """Why somebody pauses or resumes a provider."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reason: str = ""


def stats(request: Request) -> Response:
    """How every provider stands, or stood `as_of`: score with its parts, state, latency, errors, its last 60 looks."""
    asked = parse_query(request, ProvidersQuery)
    if asked.as_of is not None:
        return Json(provider_past.stood(request.state.deps.database, asked.as_of).as_dict())
    found = provider_reports.report(request.state.deps)
    return Json({"providers": [each.as_dict() for each in found]})


def show(request: Request) -> Response:
    """How one provider stands, or stood `as_of`, how its score is come to, its last transitions with their cases."""
    asked, name = parse_query(request, ProvidersQuery), request.path_params["name"]
    if asked.as_of is not None:
        then = provider_past.stood_one(request.state.deps.database, asked.as_of, name)
        return Json({"as_of": asked.as_of, **then.as_dict()})
    return Json(provider_reports.report_of(name, request.state.deps).as_dict())


async def pause(request: Request) -> Response:
    """Leave a provider aside, with a reason, until it is resumed; 409 when it is paused already, by whom."""
    return await _changed(request, flow.pause)


async def resume(request: Request) -> Response:
    """Let a paused provider be asked again; 409 when it is not paused."""
    return await _changed(request, flow.resume)


async def _changed(request: Request, change: Callable[..., flow.Change]) -> Response:
    parse_query(request, Query)
    document: Any = await read_document(request) if has_body(request) else {}
    refuse_unknown(document, Why, "field")
    try:
        why = Why.model_validate(document)
    except ValidationError as exc:
        raise invalid_request(exc) from exc
    name, actor = request.path_params["name"], request.state.actor
    made = await run_in_threadpool(change, name, why.reason, actor, request.state.deps, datetime.now(UTC))
    return Json({"ok": True, **made.as_dict()})
