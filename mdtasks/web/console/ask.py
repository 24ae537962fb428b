"""Asking for a backfill: a form, a look at what would be asked for, and then the request itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import InvalidRequestError, UnknownSymbolError
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.flows.backfill import Answer, BackfillRequest, request_backfill
from mdtasks.flows.backfill_preview import preview
from mdtasks.web.console.backfills import request_path, words_of
from mdtasks.web.console.forms import filled, parsed
from mdtasks.web.console.render import after_post, page
from mdtasks.web.console.words import count
from mdtasks.web.parsing import Query, QueryTime

#: Sessions that the empty form proposes.
_SESSIONS: Final = 5
#: What a browser puts into an address; more symbols go through `mdtasks backfill @FILE`.
_LONGEST: Final = 4000
_BETWEEN: Final = re.compile(r"[\s,;]+")


class Ask(Query):
    """What the form asks for; ``symbols`` with blanks or commas between them, and a window as everywhere."""

    symbols: Annotated[str, Field(max_length=_LONGEST)] = ""
    interval: Interval = Interval.M1
    sessions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    start: QueryTime | None = None
    end: QueryTime | None = None
    tier: Tier | None = None

    def request(self, now: datetime) -> BackfillRequest:
        """The request, its end fixed. Raises InvalidRequestError naming the field."""
        sessions = self.sessions if self.sessions is not None or self.start is not None else _SESSIONS
        return BackfillRequest.parse(
            {
                "symbol": [each for each in _BETWEEN.split(self.symbols) if each],
                "interval": self.interval,
                "start": self.start,
                "end": self.end or now,
                "sessions": sessions,
                "priority": self.tier,
            }
        )


def show(request: Request) -> Response:
    """Ask for a backfill: the form, and what would become of what stands in it; a page."""
    now = datetime.now(UTC).replace(microsecond=0)
    values: dict[str, Any] = {"asked": None, "found": None, "error": None, "fields": {}}
    given = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    try:
        form = filled(request, Ask)
        if form.symbols:
            values["asked"] = asked = form.request(now)
            values["found"] = preview(asked, request.state.deps, now)
            values["fields"] = _fields(form, asked)
    except (InvalidRequestError, UnknownSymbolError) as error:
        values["error"] = error
    return page(
        request,
        "backfills/ask.html",
        status=422 if values["error"] else 200,
        given={"sessions": "" if given.get("start") else str(_SESSIONS), **given},
        intervals=list(Interval),
        tiers=list(Tier),
        words=lambda asked: words_of(asked.model_dump(mode="json")),
        **values,
    )


def ask(request: Request) -> Response:
    """Ask for a backfill: the form of that page, after the look."""
    form, state = parsed(request, Ask), request.state
    now = datetime.now(UTC)
    answer = request_backfill(form.request(now), state.actor, state.deps, now)
    return after_post(request_path(answer.request_id), _told(answer))


def _fields(form: Ask, asked: BackfillRequest) -> dict[str, str]:
    """The fields that ask for exactly what was looked at: its end is fixed by then."""
    said = form.model_dump(mode="json") | asked.model_dump(mode="json", include={"sessions", "end"})
    return {name: str(value) for name, value in said.items() if value is not None}


def _told(answer: Answer) -> str:
    said = [f"{count(answer.queued)} queued"]
    for number, words in (
        (answer.deferred, "waiting for room"),
        (answer.merged, "being fetched already"),
        (answer.covered, "complete already"),
    ):
        said += [f"{count(number)} {words}"] if number else []
    return ", ".join(said) + "."
