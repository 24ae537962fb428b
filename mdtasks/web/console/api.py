"""The list of endpoints: what the app answers beside its pages."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.web.console.render import page
from mdtasks.web.endpoints import endpoints, is_page
from mdtasks.web.parsing import Query, parse_query


async def show(request: Request) -> Response:
    """Every endpoint and what it is for, a page."""
    parse_query(request, Query)
    groups: dict[str, list[object]] = {"For programs": [], "Below /ops: with the API token": [], "Pages": []}
    for each in endpoints(request.app.routes):
        ours = is_page(each.path)
        name = "Pages" if ours else "Below /ops: with the API token" if each.path.startswith("/ops") else "For programs"
        groups[name].append(each)
    return page(request, "api.html", groups=groups)
