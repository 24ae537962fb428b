"""/bars/{symbol}/why: where a bar comes from, or why there is none; /bars/{symbol}/diff: what changed meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.jobs import Interval
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.differences import MOST_ROWS, ROWS, Between, differences
from mdtasks.flows.why import why as explained
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, parse_query

#: The last sessions that are compared when no window is given.
_SESSIONS = 5


class WhyQuery(Query):
    """Which interval: the one of this length that holds ``ts``."""

    ts: QueryTime
    interval: Interval = Interval.M1


class DiffQuery(Query):
    """Which bars, and the two moments of knowledge: ``as_of_from``, and ``as_of_to`` (default: now)."""

    as_of_from: QueryTime
    as_of_to: QueryTime | None = None
    interval: Interval = Interval.M1
    start: QueryTime | None = None
    end: QueryTime | None = None
    sessions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = ROWS

    @property
    def window(self) -> AskedWindow:
        """The window asked for."""
        sessions = self.sessions if self.sessions is not None or self.start is not None else _SESSIONS
        return AskedWindow(self.start, self.end, sessions)


def why(request: Request) -> Response:
    """All that is known of one interval of a symbol."""
    asked = parse_query(request, WhyQuery)
    found = explained(request.path_params["symbol"], asked.ts, asked.interval, request.state.deps, datetime.now(UTC))
    return Json(found.as_dict())


def diff(request: Request) -> Response:
    """What changed of a symbol between two moments of knowledge, a part for each section."""
    asked = parse_query(request, DiffQuery)
    symbol = request.path_params["symbol"]
    between = Between(symbol, asked.interval, asked.window, asked.as_of_from, asked.as_of_to, asked.limit)
    return Json(differences(between, request.state.deps, datetime.now(UTC)))
