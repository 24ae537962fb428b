"""/ops/traces: slow provider calls, and where the time of the traced ones went."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mdtasks.domain.jobs import ProviderName
from mdtasks.flows.deps import Deps
from mdtasks.observe.flames import Flame, read_flame
from mdtasks.store import traces
from mdtasks.store.traces import TraceFilter
from mdtasks.web.answers import Json
from mdtasks.web.flame import flame_page, policy
from mdtasks.web.parsing import Query, QueryTime, parse_query

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class TraceQuery(Query):
    """Which slow calls, and how many at most."""

    provider: ProviderName | None = None
    capability: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")] | None = None
    job_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")] | None = None
    since: QueryTime | None = None
    min_latency_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


def list_traces(request: Request) -> Response:
    """Slow provider calls by filter, newest first; those with `trace` have one."""
    asked = parse_query(request, TraceQuery)
    which = TraceFilter(**asked.model_dump(exclude={"limit"}))
    with request.state.deps.database.transaction() as connection:
        rows = traces.matching(connection, which, asked.limit)
    return Json({"traces": [trace_entry(row) for row in rows]})


def show_trace(request: Request) -> Response:
    """The flame chart of a traced call, a page."""
    parse_query(request, Query)
    flame, title = flame_of(request.path_params["id"], request.state.deps)
    headers = {**_HEADERS, "Content-Security-Policy": f"{policy()}; frame-ancestors 'none'"}
    return HTMLResponse(flame_page(flame, title), headers=headers)


def raw_trace(request: Request) -> Response:
    """A trace as VizTracer writes it, for vizviewer or ui.perfetto.dev."""
    parse_query(request, Query)
    call_id = request.path_params["id"]
    name = {"Content-Disposition": f'attachment; filename="mdtasks-trace-{call_id}.json"'}
    return Response(_trace(call_id, request.state.deps), headers={**_HEADERS, **name}, media_type="application/json")


def flame_of(call_id: int, deps: Deps) -> tuple[Flame, str]:
    """A trace to be looked at, and what to call it. Raises NotFoundError."""
    flame = read_flame(_trace(call_id, deps))
    return flame, f"{flame.context['provider']} {flame.context['capability']}: slow call {call_id}"


def _trace(call_id: int, deps: Deps) -> bytes:
    with deps.database.transaction() as connection:
        return traces.trace_of(connection, call_id)


def trace_entry(row: dict[str, Any]) -> dict[str, Any]:
    """A slow call as lists show it; ``trace``: where its page is, null where there is none."""
    return {
        **{name: value for name, value in row.items() if name not in ("start", "end", "at", "bytes")},
        "started_at": row["at"],
        "start_ts": row["start"],
        "end_ts": row["end"],
        "trace_bytes": row["bytes"],
        "trace": None if row["bytes"] is None else f"/ops/traces/{row['id']}",
    }
