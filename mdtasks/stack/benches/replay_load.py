"""Clients of a stream that cost as little as they can, many in one process: what the stream's benchmark looks with.

``python -m mdtasks.stack.benches.replay_load`` is told by a line of JSON on standard input whom to follow (``Load``).
It says ``{"ready": …}`` once every client has the snapshots of its symbols, and at the next line what came: how long
each entry was under way, by the ``sent_us`` in its body, which whoever published it put there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

_SENT: Final = re.compile(rb'"sent_us":(\d+)')
#: The last bars may be on their way when the publishing is over, seconds.
_PATIENCE_S: Final = 20.0
_PONG: Final = b"\x8a\x80\x00\x00\x00\x00"


@dataclass(frozen=True)
class Load:
    """Whom to follow. ``each``: symbols of a client; ``stalled``: more clients that follow all and never read on."""

    port: int
    query: str
    symbols: list[str]
    clients: int
    each: int
    stalled: int
    #: Whether there are snapshots to wait for.
    snapshots: bool

    def of(self, client: int) -> list[str]:
        """The symbols of a client; all are followed by about as many."""
        return [self.symbols[(client * self.each + number) % len(self.symbols)] for number in range(self.each)]


class _Client(asyncio.Protocol):
    """A WebSocket of which only what the benchmark asks is understood."""

    def __init__(self, load: Load, symbols: list[str], waits_us: list[int]) -> None:
        self._load = load
        self._symbols = symbols
        self._waits_us = waits_us
        self._buffer = b""
        self._upgraded = False
        self._awaited = len(symbols) if load.snapshots else 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(handshake(self._load, self._symbols))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError(f"closed: {self._buffer[:200]!r}"))

    def data_received(self, data: bytes) -> None:
        now_us = time.time_ns() // 1000
        self._buffer += data
        if not self._upgraded:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._upgraded = b" 101 " in head
            self._buffer = rest
        at = 0
        while (end := _frame_end(self._buffer, at)) is not None:
            start, stop = end
            self._take(self._buffer[at] & 0x0F, self._buffer[start:stop], now_us)
            at = stop
        self._buffer = self._buffer[at:]

    def _take(self, opcode: int, payload: bytes, now_us: int) -> None:
        if opcode == 9:
            self._transport.write(_PONG)
        elif opcode == 1:
            if self._awaited:
                self._awaited -= payload.count(b'"type":"snapshot"')
            else:
                self._waits_us += [now_us - int(sent) for sent in _SENT.findall(payload)]
            if not self._awaited and not self.ready.done():
                self.ready.set_result(None)


def _frame_end(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame at ``at`` begins and ends; None: it is not there yet as a whole."""
    if len(data) < at + 2:
        return None
    length, start = data[at + 1] & 0x7F, at + 2
    if length >= 126:
        width = 2 if length == 126 else 8
        if len(data) < start + width:
            return None
        length, start = int.from_bytes(data[start : start + width], "big"), start + width
    return (start, start + length) if len(data) >= start + length else None


def handshake(load: Load, symbols: list[str]) -> bytes:
    """The request of a WebSocket that follows these."""
    key = base64.b64encode(os.urandom(16)).decode()
    query = f"symbols={','.join(symbols)}{load.query}"
    lines = (
        f"GET /ws/bars?{query} HTTP/1.1",
        f"Host: 127.0.0.1:{load.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "\r\n",
    )
    return "\r\n".join(lines).encode()


def _stall(load: Load) -> socket.socket:
    """A client that asks for everything and reads nothing."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", load.port))
    made.sendall(handshake(load, load.symbols))
    return made


async def _run(load: Load, lines: asyncio.StreamReader) -> None:
    loop = asyncio.get_running_loop()
    waits_us: list[int] = []
    stalled = [_stall(load) for _ in range(load.stalled)]
    took_s: list[float] = []

    async def connect(number: int) -> _Client:
        began = time.perf_counter()
        _, client = await loop.create_connection(
            lambda: _Client(load, load.of(number), waits_us), "127.0.0.1", load.port
        )
        await client.ready
        took_s.append(time.perf_counter() - began)
        return client

    clients = await asyncio.gather(*(connect(number) for number in range(load.clients)))
    waits_us.clear()
    _say({"ready": sorted(took_s)})
    wanted = json.loads(await lines.readline())["wanted"]
    until = time.monotonic() + _PATIENCE_S
    while len(waits_us) < wanted and time.monotonic() < until:
        await asyncio.sleep(0.05)
    _say({"waits_us": sorted(waits_us), "lost": sum(client.lost for client in clients)})
    for each in stalled:
        each.close()


def _say(document: Any) -> None:
    print(json.dumps(document), flush=True)


async def main() -> None:
    """Follow, and tell."""
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    await _run(Load(**json.loads(await lines.readline())), lines)


if __name__ == "__main__":
    asyncio.run(main())
