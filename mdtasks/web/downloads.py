"""Answers that are sent while they are made: as fast as the client reads, for as long as it reads, and a few at a time.

A download holds a transaction of PostgreSQL, so it has a pool and threads of its own, and ends: with the client, when
that stops reading, or after LONGEST_S. A thread works for it only while a piece is made, never while one is sent.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
from anyio.to_thread import run_sync
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mdtasks.connections import Database
from mdtasks.domain.errors import BusyError, MdtasksError, UnknownSymbolError
from mdtasks.settings import Settings
from mdtasks.web.answers import refusal

log = logging.getLogger(__name__)

#: Downloads at the same time, each with a connection of its own; one more waits so long, seconds, and is refused.
MOST: Final = 4
_WAIT_S: Final = 5.0
#: A download ends after this, seconds: 100 MB at 1 Mbit/s pass.
LONGEST_S: Final = 900.0
#: A client that takes no further _SENT bytes in so many seconds has stopped reading.
_STALLED_S: Final = 30.0
_SENT: Final = 1 << 18


class Downloads:
    """What all downloads of this process share."""

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings.require_database_url(), application="mdtasks-web-bars", pool_size=MOST)
        self.threads = anyio.CapacityLimiter(MOST)
        self._places = anyio.Semaphore(MOST)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of the places, waited for a moment. Raises BusyError."""
        with anyio.move_on_after(_WAIT_S) as waited:
            await self._places.acquire()
        if waited.cancelled_caught:
            raise BusyError(f"{MOST} downloads are under way", hint="ask again when one has ended, or ask for JSON")
        try:
            yield
        finally:
            self._places.release()

    def close(self) -> None:
        """Close the pool."""
        self.database.close()


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer of which the first bytes are still to be made. ``held``: what is closed after the last."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    held: ExitStack

    def whole(self) -> Response:
        """The answer made to its end."""
        with self.held:
            return _named(Response(b"".join(self.chunks), self.status), self.headers)


class Download:
    """The response: ``begin`` is called in a thread, with a pool; what it raises is answered as any error is."""

    def __init__(self, downloads: Downloads, begin: Callable[[Database], Begun]) -> None:
        self._downloads, self._begin = downloads, begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(LONGEST_S) as all_of_it:
            async with self._downloads.place():
                await self._within_a_place(scope, receive, send)
        if all_of_it.cancelled_caught:
            log.warning("download of %s cut off: it took longer than %.0f s", scope["path"], LONGEST_S)

    async def _within_a_place(self, scope: Scope, receive: Receive, send: Send) -> None:
        in_thread = partial(run_sync, limiter=self._downloads.threads)
        try:
            begun = await in_thread(self._begin, self._downloads.database)
        except UnknownSymbolError as error:
            await refusal(error, 404)(scope, receive, send)
            return
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_when_gone, receive, tasks.cancel_scope)
                await self._send(begun, scope, send)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(begun.held.close)

    async def _send(self, begun: Begun, scope: Scope, send: Send) -> None:
        headers = _named(Response(status_code=begun.status), begun.headers).headers
        del headers["content-length"]
        head = scope["method"] == "HEAD"
        await send({"type": "http.response.start", "status": begun.status, "headers": headers.raw})
        try:
            while not head and (chunk := await run_sync(_next, begun.chunks, limiter=self._downloads.threads)):
                for start in range(0, len(chunk), _SENT):
                    with anyio.fail_after(_STALLED_S):
                        part = chunk[start : start + _SENT]
                        await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            log.warning("download of %s cut off: the client stopped reading", scope["path"])
            return  # unfinished: the server closes the connection, and the client sees that it is not whole
        except MdtasksError as error:
            log.warning("download of %s cut off: %s", scope["path"], error)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _next(chunks: Iterator[bytes]) -> bytes:
    """The next piece that has bytes; b"" after the last."""
    return next((chunk for chunk in chunks if chunk), b"")


def _named(response: Response, headers: Mapping[str, str]) -> Response:
    response.headers.update(headers)
    return response
