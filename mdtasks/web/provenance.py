"""/bars/{symbol}/why: where a bar comes from, or why there is none."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.jobs import Interval
from mdtasks.flows.why import why as explained
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, parse_query


class WhyQuery(Query):
    """Which interval: the one of this length that holds ``ts``."""

    ts: QueryTime
    interval: Interval = Interval.M1


def why(request: Request) -> Response:
    """All that is known of one interval of a symbol."""
    asked = parse_query(request, WhyQuery)
    found = explained(request.path_params["symbol"], asked.ts, asked.interval, request.state.deps, datetime.now(UTC))
    return Json(found.as_dict())
