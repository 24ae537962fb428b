"""/stats/reconciliation: how far stored bars agree with other sources."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.flows.crosscheck_reports import report
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, parse_query


class ReconciliationQuery(Query):
    """Of which symbols (comma separated; all where none is named), since when (a week ago), how many disagreements."""

    symbols: str = ""
    since: QueryTime | None = None
    limit: Annotated[int, Field(ge=0, le=1000)] = 50


def show(request: Request) -> Response:
    """Which sources were compared, how often they disagreed and by how much, with the newest disagreements."""
    asked = parse_query(request, ReconciliationQuery)
    symbols = [each.strip() for each in asked.symbols.split(",") if each.strip()]
    since = asked.since or datetime.now(UTC) - timedelta(days=7)
    return Json(report(request.state.deps.database, symbols, since, asked.limit).as_dict())
