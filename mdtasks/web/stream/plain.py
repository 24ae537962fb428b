"""``GET /replay/{symbol}``: the stream without a WebSocket: once, by long polling, or as Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from importlib.resources import files
from typing import Annotated, Final

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.jobs import Interval, Symbol, invalid_request
from mdtasks.domain.replay import Position, StreamKey, Window
from mdtasks.domain.stream import Event
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, parse_query
from mdtasks.web.stream.desk import Desk
from mdtasks.web.stream.frames import Frame, entries_text
from mdtasks.web.stream.protocol import Last
from mdtasks.web.stream.session import Client

#: A server that is away for longer is told of, seconds.
_PATIENCE_S: Final = 4.0
#: A comment is sent when there was nothing else for so long: proxies close what is silent, seconds.
_KEEPALIVE_S: Final = 15.0
#: How soon a browser comes back when it was cut off, ms.
_RETRY_MS: Final = 1000

_SYMBOL: Final[TypeAdapter[str]] = TypeAdapter(Symbol)


class ReplayQuery(Query):
    """``since``: a position; ``last``: of a snapshot so many entries; ``wait``: for the next entry, seconds."""

    interval: Interval = Interval.M1
    last: Last | None = None
    since: str = ""
    wait: Annotated[float, Field(ge=0, le=60)] = 0.0


class _Bell:
    """Rings when something is live in a stream."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()

    def take(self, _event: Event) -> None:
        self.rung.set()

    def take_quote(self, _frame: Frame) -> None:
        """Quotes have no position: they are no news here."""


async def replay(request: Request) -> Response:
    """What a stream kept since a position, or its newest bars; also as Server-Sent Events."""
    asked = parse_query(request, ReplayQuery)
    desk: Desk = request.state.desk
    try:
        symbol = _SYMBOL.validate_python(request.path_params["symbol"])
    except ValidationError as exc:
        error = invalid_request(exc)
        error.field = "symbol"
        raise error from exc
    since = request.headers.get("last-event-id", "") or asked.since
    position = Position.parse(since) if since else None
    key = StreamKey((await desk.instruments([symbol]))[symbol], asked.interval)
    if "text/event-stream" in request.headers.get("accept", ""):
        return _as_events(request, desk, symbol, key, (position, asked.last))
    if position is None or not asked.wait:
        window = await _read(desk, key, position)
    else:
        with desk.seat(_address(request)):
            window = await _news(desk, symbol, key, position, asked.wait)
    entries = window.entries
    if asked.last is not None and not window.resumed:
        entries = entries[max(len(entries) - asked.last, 0) :]
    return Json(
        {
            "symbol": symbol,
            "interval": asked.interval,
            "position": str(window.position),
            "resumed": window.resumed,
            "entries": orjson.Fragment(entries_text(entries)),
        }
    )


async def _news(desk: Desk, symbol: str, key: StreamKey, since: Position, wait_s: float) -> Window:
    """The window since a position; of one that brings nothing new, the first that does within ``wait_s``."""
    bell = _Bell()
    topic = desk.hub.follow(key, symbol, bell)
    try:
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            bell.rung.clear()
            window = await _read(desk, key, since)
            if window.entries or not window.resumed:
                return window
            try:
                async with asyncio.timeout_at(until):
                    await bell.rung.wait()
            except TimeoutError:
                return window
    finally:
        desk.hub.leave(topic, bell)


async def _read(desk: Desk, key: StreamKey, since: Position | None) -> Window:
    reading = desk.hub.windows.of(key, since)
    try:
        return await asyncio.wait_for(reading, _PATIENCE_S)
    except TimeoutError:
        known = desk.hub.windows.trouble
        raise known or UnavailableError("the buffer could not be read in time", hint="`mdtasks doctor`") from None


def _as_events(
    request: Request, desk: Desk, symbol: str, key: StreamKey, begin: tuple[Position | None, int | None]
) -> Response:
    seat = ExitStack()
    client = seat.enter_context(desk.seat(_address(request)))
    client.subscribe(symbol, key, begin[0], last=begin[1])
    return _EventStream(client, seat)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


class _EventStream(StreamingResponse):
    """Server-Sent Events of one client; its seat is free when they end, in whatever way."""

    def __init__(self, client: Client, seat: ExitStack) -> None:
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Accel-Buffering": "no"}
        super().__init__(_events(client), media_type="text/event-stream", headers=headers)
        self._seat = seat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._seat:
            await super().__call__(scope, receive, send)


async def _events(client: Client) -> AsyncIterator[str]:
    yield f"retry: {_RETRY_MS}\n\n"
    async for frames in client.outgoing(idle_s=_KEEPALIVE_S):
        yield "".join(map(_event, frames)) or ": still here\n\n"


def _event(frame: Frame) -> str:
    place = f"id: {frame.position}\n" if frame.position else ""
    return f"{place}event: {frame.kind}\ndata: {frame.text}\n\n"


def asyncapi(request: Request) -> Response:
    """The live stream as an AsyncAPI document."""
    parse_query(request, Query)
    text = files("mdtasks.web.stream").joinpath("asyncapi.yaml").read_bytes()
    return Response(text, media_type="application/yaml", headers={"X-Content-Type-Options": "nosniff"})
