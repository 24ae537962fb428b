"""/gaps: what is missing of a symbol and why; /ops/gaps/accept: a person's word that there was silence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.jobs import Interval, Symbol, UtcDatetime, invalid_request
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.gaps import Question, accept_gaps, explain_gaps
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, parse_query, read_document, refuse_unknown

#: The last sessions that are looked at when no window is given.
_SESSIONS = 5


class GapQuery(Query):
    """Which interval, and which window: from ``start``, or the last ``sessions`` (default: 5), to ``end``; now, or as
    it would have been answered at ``as_of``.
    """

    interval: Interval = Interval.M1
    start: QueryTime | None = None
    end: QueryTime | None = None
    sessions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    as_of: QueryTime | None = None

    @property
    def window(self) -> AskedWindow:
        """The window asked for."""
        sessions = self.sessions if self.sessions is not None or self.start is not None else _SESSIONS
        return AskedWindow(self.start, self.end, sessions)


class Acceptance(BaseModel):
    """A person's word: what is missing of the symbol in the window was no trade, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Symbol
    interval: Interval = Interval.M1
    start: UtcDatetime
    end: UtcDatetime
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


def show(request: Request) -> Response:
    """What is missing of a symbol: verdicts, the ledger of gaps with their jobs, and who said what."""
    asked = parse_query(request, GapQuery)
    symbol = request.path_params["symbol"]
    question = Question([symbol], asked.interval, asked.window, asked.as_of)
    return Json(explain_gaps(symbol, question, request.state.deps, datetime.now(UTC)).as_dict())


async def accept(request: Request) -> Response:
    """Count what is missing of a symbol in a window as no trade, on your word. Audited."""
    parse_query(request, Query)
    document = await read_document(request)
    refuse_unknown(document, Acceptance, "field")
    try:
        said = Acceptance.model_validate(document)
    except ValidationError as exc:
        raise invalid_request(exc) from exc
    question = Question([said.symbol], said.interval, AskedWindow(said.start, said.end))
    state = request.state
    word = (state.actor, said.reason)
    done = await run_in_threadpool(accept_gaps, said.symbol, question, word, state.deps, datetime.now(UTC))
    return Json({"ok": True, **done.as_dict()})
