"""/slo: how the objectives stand."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.jobs import Tier
from mdtasks.flows import objectives
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, parse_query


class SloQuery(Query):
    """Of which tier; all where none is named."""

    tier: Tier | None = None


def show(request: Request) -> Response:
    """How late each tier is, against its target and this month's budget, with the worst series and why."""
    asked = parse_query(request, SloQuery)
    return Json(objectives.report(request.state.deps, datetime.now(UTC), asked.tier).as_dict())
