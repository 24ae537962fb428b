"""The universe as a page: symbols by tier, with how their data stand."""

from __future__ import annotations

from typing import Annotated, Final, get_args

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.jobs import Tier
from mdtasks.store import symbol_reports
from mdtasks.store.symbol_reports import SymbolFilter, SymbolState
from mdtasks.web.console.forms import filled
from mdtasks.web.console.render import page
from mdtasks.web.console.symbol_paths import symbol_path
from mdtasks.web.parsing import Query

#: In a word, and the colour of it.
STATES: Final = {
    "dead": ("job dead", "warn"),
    "gaps": ("gaps", "warn"),
    "fetching": ("fetching", "quiet"),
    "empty": ("nothing yet", "quiet"),
    "quiet": ("no gap known", "good"),
}


class Listed(Query):
    """Which symbols, and how many at most."""

    search: Annotated[str, Field(max_length=32, pattern=r"^[^\x00]*$")] | None = None
    tier: Tier | None = None
    state: SymbolState | None = None
    limit: Annotated[int, Field(ge=1, le=5000)] = 200


def show(request: Request) -> Response:
    """The symbols by tier, each with its state; a page."""
    asked = filled(request, Listed)
    which = SymbolFilter(asked.search, asked.tier, asked.state)
    with request.state.deps.database.transaction() as connection:
        found = symbol_reports.symbols(connection, which, asked.limit)
        tiers = symbol_reports.by_tier(connection)
    return page(
        request,
        "symbols/list.html",
        asked=asked,
        found=found,
        tiers=tiers,
        states=STATES,
        kinds=get_args(SymbolState),
        symbol_path=symbol_path,
    )
