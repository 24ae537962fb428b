"""/calendar and /ops/calendar: when exchanges trade, and telling them what calendars do not know."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Symbol, TimeWindow
from mdtasks.flows import overrides as flow
from mdtasks.flows.deps import Deps
from mdtasks.flows.overrides import OverrideRequest, Reason
from mdtasks.store import overrides, reference
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, parse_query, read_document, refuse_unknown

#: The longest window of one answer: 20 years of sessions.
_LONGEST: Final = timedelta(days=7305)

Mic = Annotated[str, Field(min_length=1, max_length=32)]


class ShowQuery(Query):
    """Which days."""

    start: QueryTime | None = None
    end: QueryTime | None = None


class ListQuery(Query):
    """Which overrides: of an exchange, of a symbol, or all; ``all`` with those that were undone."""

    mic: Mic | None = None
    symbol: Symbol | None = None
    all: bool = False


class UndoQuery(Query):
    """Why."""

    reason: Reason


class CurrentCalendars:
    """Lets a request see what people told of calendars up to a second ago."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deps: Deps = scope["state"]["deps"]
        if deps.watch.is_due():
            await run_in_threadpool(deps.watch.refresh, datetime.now(UTC))
        await self._app(scope, receive, send)


def show(request: Request) -> Response:
    """The sessions of an exchange, closed ones too, with what was told of them."""
    asked = parse_query(request, ShowQuery)
    return Json(_shown(request.path_params["mic"], asked, request.state.deps, datetime.now(UTC)))


def list_overrides(request: Request) -> Response:
    """What was told of calendars: what holds, or with all=true what was undone too."""
    asked = parse_query(request, ListQuery)
    deps: Deps = request.state.deps
    if asked.mic is not None and asked.symbol is not None:
        raise InvalidRequestError("give mic or symbol, not both", field="symbol", hint="leave one of them out")
    mic = None if asked.mic is None else deps.calendars.plain(asked.mic).mic
    with deps.database.transaction() as connection:
        member = None if asked.symbol is None else reference.resolve(connection, [asked.symbol])[asked.symbol]
        found = overrides.matching(connection, mic=mic, instrument_id=member.id if member else None, undone=asked.all)
    return Json([each.as_dict() for each in found])


async def tell(request: Request) -> Response:
    """Tell of a session that was closed, late or cut short, or of a halt: 201 with the override."""
    parse_query(request, Query)
    document = await read_document(request)
    refuse_unknown(document, OverrideRequest, "field")
    asked = OverrideRequest.parse(document)
    deps: Deps = request.state.deps
    made = await run_in_threadpool(flow.tell, asked, request.state.actor, deps.database, deps.calendars)
    return Json({"ok": True, **made.as_dict()}, 201)


def undo(request: Request) -> Response:
    """Let an override no longer hold; 404 when there is none, 409 when it was undone before."""
    asked = parse_query(request, UndoQuery)
    deps: Deps = request.state.deps
    override_id = request.path_params["id"]
    undone = flow.undo(override_id, asked.reason, request.state.actor, deps.database, deps.calendars)
    return Json({"ok": True, **undone.as_dict()})


def _shown(mic: str, asked: ShowQuery, deps: Deps, now: datetime) -> dict[str, Any]:
    calendar, settings = deps.calendars.get(mic), deps.settings
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    start = asked.start or today - timedelta(days=settings.calendar_back_days)
    end = asked.end or min(today + timedelta(days=settings.calendar_forward_days + 1), calendar.horizon)
    if start >= end:
        raise InvalidRequestError(
            f"end {end.isoformat()} is not after start {start.isoformat()}",
            field="end",
            hint="windows are half-open: [start, end)",
        )
    if end - start > _LONGEST:
        raise InvalidRequestError(
            f"more than {_LONGEST.days} days at a time", field="start", hint="ask for a part at a time"
        )
    with deps.database.transaction() as connection:
        told = overrides.matching(connection, mic=calendar.mic)
    found = flow.shown(mic, TimeWindow(start=start, end=end), told, deps.calendars)
    about = {"mic": calendar.mic, "zone": calendar.zone, "version": deps.calendars.overrides.version}
    sessions = [each.as_dict() for each in found]
    return {**about, "horizon": calendar.horizon, "start": start, "end": end, "sessions": sessions}


def read_horizons(deps: Deps) -> dict[str, float]:
    """Days until each exchange of the universe is no longer known. Reads no library where years are kept."""
    now = datetime.now(UTC)
    with deps.database.transaction() as connection:
        mics = reference.exchanges(connection, day=now.date())
    found = {}
    for mic in mics:
        with suppress(InvalidRequestError):  # one that this library no longer knows does not hide the others
            found[mic] = (deps.calendars.plain(mic).horizon - now) / timedelta(days=1)
    return found
