"""What machines ask about the stack itself: alive, ready, metrics."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.observe.metrics import Reading
from mdtasks.observe.scrape import exposition
from mdtasks.settings import Settings
from mdtasks.web.answers import Json
from mdtasks.web.gauges import look_for_scrape, readings
from mdtasks.web.looks import PARTS, look, read_depths, read_proof, read_waiting
from mdtasks.web.parsing import Query, parse_query


async def health(request: Request) -> Response:
    """The process is alive; asks nobody. Tells where Prometheus is, if one is known."""
    known = request.state.deps.settings.prometheus_url
    return Json({"ok": True, **({"prometheus": known} if known else {})})


async def ready(request: Request) -> Response:
    """Whether every part can be used: 200, or 503 with what is away and why."""
    parse_query(request, Query)
    found = await look(request.state.deps, broker=read_depths, redis=read_proof, postgresql=read_waiting)
    parts = {
        part: {"ok": True} if part in found.answers else {"ok": False, **found.errors[part].as_dict()} for part in PARTS
    }
    return Json({"ok": not found.errors, "parts": parts}, 503 if found.errors else 200)


async def metrics(request: Request) -> Response:
    """For Prometheus: events of every process, and the state as the parts tell it now."""
    deps, now = request.state.deps, datetime.now(UTC)
    found = await look_for_scrape(deps, now)
    content = await run_in_threadpool(_exposed, [*readings(found, now), *request.state.desk.readings()], deps.settings)
    # Format 0.0.4: every scraper reads it, and names and labels here need nothing newer.
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


def _exposed(state: list[Reading], settings: Settings) -> bytes:
    return exposition(lambda: state, settings.metrics_dir)
