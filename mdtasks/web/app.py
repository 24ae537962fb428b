"""The web app: ``uvicorn mdtasks.web.app:app``. Nothing is read from the environment before it starts."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from anyio.to_thread import current_default_thread_limiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mdtasks.domain.errors import MdtasksError
from mdtasks.flows.deps import open_deps
from mdtasks.flows.following import Follower
from mdtasks.observe.metrics import use_multiprocess_dir
from mdtasks.observe.ready import tell_ready
from mdtasks.settings import Settings, load_settings
from mdtasks.store.replay_feed import ReplayFeed
from mdtasks.web import (
    actions,
    backfills,
    bars,
    calendars,
    crosschecks,
    deadletters,
    described,
    gaps,
    live,
    policies,
    probes,
    provenance,
    providers,
    slo,
    traces,
    universe,
)
from mdtasks.web.access import LoopbackOnly, TokenGuard
from mdtasks.web.answers import on_disconnect, on_http_error, on_our_error, on_unexpected
from mdtasks.web.console import routes as console
from mdtasks.web.console.errors import for_people
from mdtasks.web.console.events import living
from mdtasks.web.downloads import Downloads
from mdtasks.web.endpoints import endpoints
from mdtasks.web.following import Followed, following
from mdtasks.web.stream import plain, sockets
from mdtasks.web.stream.desk import Desk, allow_sockets

#: Requests that work on the servers at the same time; more wait. Fewer than the pool of PostgreSQL has connections.
_MOST_AT_WORK: Final = 6

#: Objects that may be there for a moment beside those that stay: what waits of one tick for a few thousand clients.
_BURST: Final = 100_000


def create_app(settings: Settings | None = None) -> Starlette:
    """The app for these settings; default: this process's own, loaded when the server starts it."""
    routes = _routes()
    app = Starlette(
        routes=routes,
        lifespan=_lifespan(settings),
        middleware=[Middleware(OneLineStart), Middleware(LoopbackOnly), Middleware(Followed)],
        exception_handlers={
            MdtasksError: for_people(on_our_error),
            HTTPException: for_people(on_http_error(list(endpoints(routes)))),
            ClientDisconnect: on_disconnect,
            Exception: for_people(on_unexpected),
        },
    )
    app.router.redirect_slashes = False  # a path has one spelling; the other is told the nearest
    return app


def _routes() -> list[BaseRoute]:
    ops = [
        Route("/backfill", backfills.ask, methods=["POST"]),
        Route("/backfill/{request}", backfills.progress),
        Route("/jobs", backfills.list_jobs),
        Route("/jobs/{id:name}", backfills.show_job),
        Route("/gaps/accept", gaps.accept, methods=["POST"]),
        Route("/calendar/overrides", calendars.list_overrides),
        Route("/calendar/overrides", calendars.tell, methods=["POST"]),
        Route("/calendar/overrides/{id:int}", calendars.undo, methods=["DELETE"]),
        Route("/providers/{name}/pause", providers.pause, methods=["POST"]),
        Route("/providers/{name}/resume", providers.resume, methods=["POST"]),
        Route("/traces", traces.list_traces),
        Route("/traces/{id:int}.json", traces.raw_trace),
        Route("/traces/{id:int}", traces.show_trace),
        Route("/policy", policies.show),
        Route("/policy/history", policies.history),
        Route("/policy/canary", policies.canary),
        Route("/policy/canary/promote", policies.promote, methods=["POST"]),
        Route("/policy/canary/stop", policies.withdraw, methods=["POST"]),
        Route("/universe/refresh", universe.refresh, methods=["POST"]),
        Route("/universe/activate", universe.activate, methods=["POST"]),
        Route("/universe/rename", universe.rename, methods=["POST"]),
        Route("/validate", policies.validate, methods=["POST"]),
        Route("/reload", policies.reload, methods=["POST"]),
        Route("/dlq/stats", deadletters.stats),
        *deadletters.letter_routes("/dlq/backfills", backfills=True),
        *deadletters.letter_routes("/dlq/letters", backfills=False),
    ]
    current = Middleware(calendars.CurrentCalendars)
    return [
        Route("/health", probes.health),
        Route("/ready", probes.ready),
        Route("/metrics", probes.metrics),
        Route("/quotes", live.latest_quotes),
        Route("/replay/{symbol:path}", plain.replay),
        WebSocketRoute("/ws/bars", sockets.bars),
        Route("/asyncapi.yaml", plain.asyncapi),
        Route("/stats/cadence", live.cadence),
        Route("/stats/providers", providers.stats),
        Route("/stats/providers/{name}", providers.show),
        Route("/stats/policy", policies.status),
        Route("/actions/{symbol:path}", actions.show, middleware=[current]),
        Route("/openapi.json", described.show),
        Route("/bars", bars.many, middleware=[current]),
        Route("/bars/{symbol:path}/why", provenance.why, middleware=[current]),
        Route("/bars/{symbol:path}/diff", provenance.diff, middleware=[current]),
        Route("/bars/{symbol:path}", bars.one, middleware=[current]),
        Route("/stats/reconciliation", crosschecks.show),
        Route("/gaps/{symbol:path}", gaps.show, middleware=[current]),
        Route("/calendar/{mic:path}", calendars.show, middleware=[current]),
        Route("/universe", universe.show),
        Route("/universe/versions", universe.versions),
        Route("/universe/history", universe.history),
        Route("/universe/diff", universe.diff),
        Route("/universe/recompute", universe.recompute),
        Route("/universe/export", universe.export),
        Route("/universe/symbols/{symbol:path}", universe.symbols),
        Route("/slo", slo.show, middleware=[current]),
        *console.routes(),
        Mount("/ops", Router(ops, redirect_slashes=False), middleware=[Middleware(TokenGuard), current]),
    ]


def spare_collections() -> None:
    """Keep the garbage collector of a server's process from stopping the stream of all clients, for a moment each time.

    What is loaded by now stays, and need not be looked through again; and a bar of every symbol at once makes tens of
    thousands of objects that are gone a moment later, which is no reason to look through all clients' either.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_BURST)


def _lifespan(given: Settings | None) -> Callable[[Starlette], AbstractAsyncContextManager[dict[str, Any]]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
        settings = given or load_settings()
        _log_to_stderr()
        current_default_thread_limiter().total_tokens = _MOST_AT_WORK
        deps = open_deps(settings, application="mdtasks-web")
        downloads = Downloads(settings)
        use_multiprocess_dir(settings.metrics_dir)
        allow_sockets(settings.ws_max_clients)
        if given is None:
            spare_collections()
        tell_ready()
        try:
            follower = Follower(deps)
            desk = Desk(lambda: follower.deps, ReplayFeed(settings.require_redis_url()))
            async with following(follower), living(follower) as live, desk.hub.running():
                yield {"follower": follower, "deps": deps, "live": live, "downloads": downloads, "desk": desk}
        finally:
            downloads.close()
            deps.close()

    return lifespan


def _log_to_stderr() -> None:
    """Let our log lines be seen: uvicorn configures its own loggers only."""
    ours = logging.getLogger("mdtasks")
    if not ours.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)


class OneLineStart:
    """When one of our errors ends the start, its line is what the server logs, not a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: Message) -> None:
            error = sys.exception()  # Starlette sends this while it handles what ended the start
            if message["type"] == "lifespan.startup.failed" and isinstance(error, MdtasksError):
                message = {**message, "message": "; ".join(filter(None, (error.message, error.hint)))}
            await send(message)

        await self._app(scope, receive, send_plainly if scope["type"] == "lifespan" else send)


app = create_app()
