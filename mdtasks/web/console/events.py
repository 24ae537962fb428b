"""/console/events: the overview's news as server-sent events, from one reader for all browsers of this process.

It reads only while somebody looks. A browser gets every section when it comes, then those that changed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, Final

import anyio
import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mdtasks.flows.following import Follower
from mdtasks.web.console import overview
from mdtasks.web.console.render import HEADERS
from mdtasks.web.console.view import read
from mdtasks.web.parsing import Query, parse_query

log = logging.getLogger(__name__)

#: Seconds between two looks.
EVERY_S: Final = 2.0
#: A browser that heard nothing for so long gets a comment, so that no proxy takes the line for dead, seconds.
_QUIET_S: Final = 15.0
#: After a line that broke a browser tries again in so many milliseconds.
_RETRY: Final = b"retry: 2000\n\n"
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Live:
    """The sections of the overview as they were at the last look, and a bell that rings when one changed."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._sections: dict[str, str] = {}
        self._listeners = 0
        self._wanted = anyio.Event()
        self._bell = anyio.Event()
        self._ended = False

    async def run(self) -> None:
        """Look while anybody listens."""
        while True:
            await self._wanted.wait()
            try:
                await self._look()
            except Exception:
                log.exception("the overview could not be read")
            await anyio.sleep(EVERY_S)

    async def _look(self) -> None:
        found = overview.fragments(await read(self._follower.deps))
        if not self._listeners:  # the last one left meanwhile: who comes next shall not get old news
            return
        if {name: overview.steady(each) for name, each in found.items()} != {
            name: overview.steady(each) for name, each in self._sections.items()
        }:
            self._sections = found
            self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = anyio.Event()

    def end(self) -> None:
        """Let every listener go: the process stops."""
        self._ended = True
        self._ring()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, somebody listens."""
        self._listeners += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._wanted = anyio.Event()
                self._sections = {}  # who comes next shall not get old news

    async def events(self) -> AsyncIterator[bytes]:
        """What one browser is sent."""
        sent: dict[str, str] = {}
        yield _RETRY
        with self.listening():
            while not self._ended:
                bell = self._bell
                news = {name: each for name, each in self._sections.items() if overview.steady(each) != sent.get(name)}
                if news:
                    sent.update({name: overview.steady(each) for name, each in news.items()})
                    yield b"event: sections\ndata: " + orjson.dumps(news) + b"\n\n"
                    continue
                with anyio.move_on_after(_QUIET_S) as waited:
                    await bell.wait()
                if waited.cancelled_caught:
                    yield b": still here\n\n"


async def stream(request: Request) -> Response:
    """The overview's news, as server-sent events."""
    parse_query(request, Query)
    live: Live = request.state.live
    headers = {**HEADERS, "X-Accel-Buffering": "no"}
    return StreamingResponse(live.events(), headers=headers, media_type="text/event-stream")


@asynccontextmanager
async def living(follower: Follower) -> AsyncIterator[Live]:
    """While this lasts there is a reader."""
    live = Live(follower)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live.run)
        with _told_of_the_end(live.end):
            yield live
        tasks.cancel_scope.cancel()


@contextmanager
def _told_of_the_end(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` when a signal asks the server to stop: it waits for open answers, and these have no end.

    The server's own handler runs as before.
    """
    if threading.current_thread() is not threading.main_thread():  # signals reach no other
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {each: signal.getsignal(each) for each in _SIGNALS}

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for each, handler in before.items():
        if callable(handler):
            signal.signal(each, heard)
    try:
        yield
    finally:
        for each, handler in before.items():
            if callable(handler):
                signal.signal(each, handler)
