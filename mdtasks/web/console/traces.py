"""A slow provider call as a page of the console: its flame chart."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.web.console.render import page
from mdtasks.web.flame import chart
from mdtasks.web.parsing import Query, parse_query
from mdtasks.web.traces import flame_of


def show(request: Request) -> Response:
    """The flame chart of a traced call, a page."""
    parse_query(request, Query)
    call_id = request.path_params["id"]
    flame, title = flame_of(call_id, request.state.deps)
    return page(request, "trace.html", raw=f"{request.url.path}.json", **chart(flame, title))
