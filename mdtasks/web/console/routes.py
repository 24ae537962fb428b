"""The console's paths. Whoever has no session gets one; what is not open wants it signed in where there is a token."""

from __future__ import annotations

from functools import partial

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route, Router

from mdtasks.web import runbooks
from mdtasks.web.calendars import CurrentCalendars
from mdtasks.web.console import (
    api,
    ask,
    assets,
    backfills,
    deadletters,
    events,
    login,
    overview,
    policy,
    policy_candidate,
    providers,
    slo,
    symbol,
    symbols,
    traces,
)
from mdtasks.web.console.session import Sessions
from mdtasks.web.traces import raw_trace

_OPEN = Middleware(Sessions, closed=False)
_CLOSED = [Middleware(Sessions), Middleware(CurrentCalendars)]


def routes() -> list[BaseRoute]:
    """All of them. What alerts link to, and what tells nothing of the data, is open."""
    pages = [
        Route("/events", events.stream),
        Route("/symbols", symbols.show),
        Route("/symbols/{symbol:path}", symbol.show),
        Route("/backfills", backfills.show),
        Route("/backfills", ask.ask, methods=["POST"]),
        Route("/backfills/new", ask.show),
        Route("/backfills/{request}", backfills.show_one),
        Route("/backfills/{request}/cancel", backfills.cancel, methods=["POST"]),
        Route("/dead-letters", deadletters.show),
        Route("/dead-letters/requeue", deadletters.plan, methods=["POST"]),
        Route("/dead-letters/requeue/{plan}", deadletters.show_plan),
        Route("/dead-letters/requeue/{plan}", deadletters.carry_out, methods=["POST"]),
        Route("/dead-letters/purge", deadletters.show_purge),
        Route("/dead-letters/purge", deadletters.purge, methods=["POST"]),
        Route("/dead-letters/{id:name}", deadletters.show_letter),
        Route("/dead-letters/{id:name}/requeue", deadletters.requeue, methods=["POST"]),
        Route("/providers", providers.show),
        Route("/providers/{name}", providers.show_one),
        Route("/providers/{name}/pause", providers.pause, methods=["POST"]),
        Route("/providers/{name}/resume", providers.resume, methods=["POST"]),
        Route("/slo", slo.show),
        Route("/policy", policy.show),
        Route("/policy/candidate", policy_candidate.show),
        Route("/policy/candidate", policy_candidate.judge, methods=["POST"]),
        Route("/policy/apply", policy_candidate.apply, methods=["POST"]),
        Route("/policy/canary/promote", policy.promote, methods=["POST"]),
        Route("/policy/canary/stop", policy.withdraw, methods=["POST"]),
        Route("/policy/versions/{version:int}", policy.show_version),
        Route("/policy/versions/{version:int}/rollback", policy.rollback, methods=["POST"]),
        Route("/traces/{id:int}.json", raw_trace),
        Route("/traces/{id:int}", traces.show),
    ]
    open_route = partial(Route, middleware=[_OPEN])
    return [
        Route("/", overview.show, middleware=[Middleware(Sessions)]),
        Route("/console/static/{version}/{name}", assets.show),
        open_route("/console/login", login.show),
        open_route("/console/login", login.sign_in, methods=["POST"]),
        open_route("/console/logout", login.sign_out, methods=["POST"]),
        open_route("/console/api", api.show),
        open_route("/runbooks", runbooks.list_runbooks),
        open_route("/runbooks/{alert}", runbooks.show_runbook),
        Mount("/console", Router(pages, redirect_slashes=False), middleware=_CLOSED),
    ]
