"""/quotes and /stats/cadence: what live fetching brought, and how often it asks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.jobs import Symbol
from mdtasks.flows import ticks
from mdtasks.store import quotes
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, comma_separated, parse_query


class QuotesQuery(Query):
    """Of which symbols, with commas between them."""

    symbols: Annotated[tuple[Symbol, ...], BeforeValidator(comma_separated), Field(min_length=1, max_length=1000)]


def latest_quotes(request: Request) -> Response:
    """The newest stored quote of each symbol."""
    asked = parse_query(request, QuotesQuery)
    with request.state.deps.database.transaction() as connection:
        return Json({"quotes": quotes.latest_rows(connection, asked.symbols)})


def cadence(request: Request) -> Response:
    """How often each tier is fetched live, when it last was, and how many ticks were skipped."""
    parse_query(request, Query)
    return Json(ticks.report(request.state.deps))
