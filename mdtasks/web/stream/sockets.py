"""``WS /ws/bars``: the live stream on a WebSocket."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from mdtasks.domain.errors import MdtasksError, TooManyClientsError, UnavailableError
from mdtasks.domain.replay import StreamKey
from mdtasks.web.parsing import parse_query
from mdtasks.web.stream.desk import Desk
from mdtasks.web.stream.frames import Frame, Wire, batch, error_frame, hello_frame, now_utc, told
from mdtasks.web.stream.protocol import Ping, StreamQuery, Subscribe, asked_of, parse_message
from mdtasks.web.stream.session import Client

log = logging.getLogger(__name__)

#: Why a socket is closed by us; 1012 (the server restarts) and 1011 for a client that answers no ping are uvicorn's.
REFUSED: Final = 1008
OUR_FAULT: Final = 1011
TRY_LATER: Final = 1013

#: Frames that are one message at most: the head of an array in msgpack counts so far.
_MOST_IN_BATCH: Final = 65_535


async def bars(websocket: WebSocket) -> None:
    """Bars as they are committed, from where a client was."""
    desk: Desk = websocket.state.desk
    address = websocket.client.host if websocket.client else "unknown"
    in_arrays = True  # as a client expects it that has not said otherwise
    try:
        query = parse_query(websocket, StreamQuery)
        in_arrays = query.batch
        asked = asked_of(query)
        with desk.seat(address) as client:
            connection = _Connection(websocket, desk, client, query.format, batch=query.batch)
            await connection.serve(asked)
    except MdtasksError as error:
        later = isinstance(error, TooManyClientsError | UnavailableError)
        await _refuse(websocket, error, TRY_LATER if later else REFUSED, in_arrays=in_arrays)


async def _refuse(websocket: WebSocket, error: MdtasksError, code: int, *, in_arrays: bool) -> None:
    """Accept, say what is wrong, close: a browser shows nothing of a refused handshake."""
    with suppress(WebSocketDisconnect, RuntimeError):  # it may have gone
        if websocket.application_state is WebSocketState.CONNECTING:
            await websocket.accept()
        frame = error_frame(error)
        await websocket.send({"type": "websocket.send", "text": batch([frame], Wire.JSON) if in_arrays else frame.text})
        await websocket.close(code, reason=error.message[:100])


class _Connection:
    """One WebSocket, from its acceptance to its end."""

    def __init__(self, websocket: WebSocket, desk: Desk, client: Client, wire: Wire, *, batch: bool) -> None:
        self._websocket = websocket
        self._desk = desk
        self._client = client
        self._wire = wire
        self._batch = batch

    async def serve(self, asked: Subscribe | None) -> None:
        """Until the client has gone. Raises what is wrong with what it asked for at first, and UnavailableError."""
        positions: dict[str, str | None] = {}
        if asked is not None:
            keys = await self._subscribe(asked)
            positions = self._desk.hub.positions((key, symbol) for symbol, key in keys.items())
        await self._websocket.accept()
        settings = self._desk.settings
        limits = {"symbols": settings.ws_max_symbols, "queue_bytes": settings.ws_queue_bytes}
        self._client.note(hello_frame(now_utc(), limits, positions))
        writing = asyncio.create_task(self._write())
        try:
            await self._listen()
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    async def _listen(self) -> None:
        while True:
            await self._client.room()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            try:
                await self._do(text if text is not None else message["bytes"])
            except UnavailableError:
                raise  # what it asked for is not followed: it had better come again
            except MdtasksError as error:
                self._client.note(error_frame(error))

    async def _do(self, data: str | bytes) -> None:
        message = parse_message(data)
        if isinstance(message, Subscribe):
            await self._subscribe(message)
        elif isinstance(message, Ping):
            given = {} if message.id is None else {"id": message.id}
            self._client.note(told("pong", {"server_time": now_utc(), **given}))
        else:
            gone = [each for each in message.symbols if self._client.unsubscribe(each, message.interval)]
            self._client.note(told("unsubscribed", {"symbols": gone, "interval": message.interval}))

    async def _subscribe(self, asked: Subscribe) -> dict[str, StreamKey]:
        """All of it or, where something is wrong with it, nothing. Raises InvalidRequestError, UnavailableError."""
        positions = asked.positions()
        self._client.refuse_over_limit((symbol, asked.interval) for symbol in positions)
        instruments = await self._desk.instruments(positions)
        keys = {symbol: StreamKey(instruments[symbol], asked.interval) for symbol in positions}
        for symbol, since in positions.items():
            self._client.subscribe(symbol, keys[symbol], since, last=asked.last, quotes=asked.quotes)
        return keys

    async def _write(self) -> None:
        try:
            async for frames in self._client.outgoing():
                await self._send(frames)
        except WebSocketDisconnect:
            self._client.close()  # gone: the other task is told, also while it waits for room
        except RuntimeError as error:
            self._client.close()
            # Closing: the other task is told. A window that cannot be read is our fault.
            if self._websocket.client_state is WebSocketState.CONNECTED:
                log.warning("a client of the live stream is let go: %s", error)
                with suppress(WebSocketDisconnect, RuntimeError):
                    await self._websocket.close(OUR_FAULT, reason="a fault of mdtasks: its log has the traceback")

    async def _send(self, frames: list[Frame]) -> None:
        if self._batch:
            for first in range(0, len(frames), _MOST_IN_BATCH):
                await self._message(batch(frames[first : first + _MOST_IN_BATCH], self._wire))
            return
        for frame in frames:
            await self._message(frame.on(self._wire))

    async def _message(self, data: str | bytes) -> None:
        message: dict[str, Any] = {"type": "websocket.send"}
        message["text" if isinstance(data, str) else "bytes"] = data
        await self._websocket.send(message)
