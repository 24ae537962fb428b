"""/actions/{symbol}: a symbol's corporate actions, as they stand or stood."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.flows.action_records import listed
from mdtasks.flows.deps import Deps
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, parse_query


class ActionsQuery(Query):
    """As of when, and whether with every statement."""

    as_of: QueryTime | None = None
    history: bool = False


def show(request: Request) -> Response:
    """The corporate actions of a symbol, now or as of an instant."""
    asked = parse_query(request, ActionsQuery)
    deps: Deps = request.state.deps
    symbol = request.path_params["symbol"]
    found = listed(deps.database, symbol, deps.calendars, datetime.now(UTC), asked.as_of)
    return Json(found.as_dict(history=asked.history))
