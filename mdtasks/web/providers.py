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
from mdtasks.flows import provider_reports
from mdtasks.flows import providers as flow
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, has_body, parse_query, read_document, refuse_unknown


class Why(BaseModel):
    """Why somebody pauses or resumes a provider."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reason: str = ""


def stats(request: Request) -> Response:
    """How every provider stands: score with its parts, state, latency, errors, its last 60 looks."""
    parse_query(request, Query)
    found = provider_reports.report(request.state.deps)
    return Json({"providers": [each.as_dict() for each in found]})


def show(request: Request) -> Response:
    """How one provider stands, how its score is come to, and its last transitions with their case files."""
    parse_query(request, Query)
    return Json(provider_reports.report_of(request.path_params["name"], request.state.deps).as_dict())


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
