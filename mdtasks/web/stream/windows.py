"""Reading windows for many clients at once: those that want the same stream at the same moment share one reading.

A thousand clients that come back after a restart ask a few hundred streams, not a thousand times each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import anyio
from anyio.to_thread import run_sync

from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.replay import Position, StreamKey, Window
from mdtasks.domain.stream import oldest, serving

log = logging.getLogger(__name__)

#: Reads windows: ``flows.replay.windows`` with its Deps and the clock. Runs in a thread. Raises UnavailableError.
Read = Callable[[Mapping[StreamKey, Position | None]], Mapping[StreamKey, Window]]

#: Streams in one reading: Redis answers nobody else meanwhile.
_MOST: Final = 100
#: Pause before a server that is away is asked again, seconds; doubles up to the second.
_PAUSES_S: Final = (0.1, 2.0)

_Waiter = tuple["Position | None", "asyncio.Future[Window]"]


class Windows:
    """Reads for all clients of a process, one reading at a time. ``run`` does the work until it is cancelled."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: dict[StreamKey, list[_Waiter]] = {}
        self._asked = asyncio.Event()
        #: What keeps readings from being made now; None while they are.
        self.trouble: UnavailableError | None = None

    def of(self, key: StreamKey, since: Position | None) -> asyncio.Future[Window]:
        """The window since a position (None: a snapshot), by a reading that begins after this call.

        Waits while a server is away.
        """
        found: asyncio.Future[Window] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((since, found))
        self._asked.set()
        return found

    async def run(self) -> None:
        """Answer whoever asks."""
        alone = anyio.CapacityLimiter(1)  # takes no place from the requests
        while True:
            await self._asked.wait()
            taken = {key: self._waiting.pop(key) for key in list(self._waiting)[:_MOST]}
            if not self._waiting:
                self._asked.clear()
            asked = {key: oldest(since for since, found in waiters) for key, waiters in taken.items()}
            try:
                windows = await self._patiently(asked, alone)
            except Exception as error:
                log.exception("windows could not be read")
                for found in (found for waiters in taken.values() for _, found in waiters if not found.done()):
                    found.set_exception(RuntimeError(f"windows could not be read: {error}"))
                continue
            for key, waiters in taken.items():
                self._answer(key, waiters, windows[key], asked[key])

    async def _patiently(
        self, asked: Mapping[StreamKey, Position | None], alone: anyio.CapacityLimiter
    ) -> Mapping[StreamKey, Window]:
        pause_s, longest_s = _PAUSES_S
        while True:
            try:
                found = await run_sync(self._read, asked, limiter=alone, abandon_on_cancel=True)
            except UnavailableError as error:
                self.trouble = error
            else:
                self.trouble = None
                return found
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    def _answer(self, key: StreamKey, waiters: list[_Waiter], window: Window, asked: Position | None) -> None:
        """Give each what the window is to them; the others wait for a reading that begins where they are."""
        for since, found in waiters:
            if found.done():  # its client has gone
                continue
            served = serving(since, window, asked)
            if served is not None:
                found.set_result(served)
            else:
                self._waiting.setdefault(key, []).append((since, found))
                self._asked.set()
