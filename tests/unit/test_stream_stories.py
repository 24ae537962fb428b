"""One client of the live stream through random stories: nothing is lost, doubled or out of order at their end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.client.course import Course
from mdtasks.client.frames import Bar
from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Broken, Position, Published, StreamKey, Window
from mdtasks.web.stream.hub import Hub
from mdtasks.web.stream.session import Client
from mdtasks.web.stream.windows import Windows
from tests.unit.stream_model import Buffer

SYMBOLS = {"A": StreamKey(1, Interval.M1), "B": StreamKey(2, Interval.M1)}

#: publish and have it heard, or lost with the feed's break; take one message; come back on a new connection; empty the
#: buffer (its bars stay in the store and fill it again).
_KINDS = ["publish", "publish", "publish", "publish", "lose", "take", "take", "settle", "reconnect", "empty"]
ACTIONS = st.lists(st.tuples(st.sampled_from(_KINDS), st.booleans()), max_size=50)


class _Store(Buffer):
    """A buffer that is filled again from a store when it was emptied: every bar is in it, in its newest version."""

    def anew(self) -> None:
        kept = sorted({entry.ts_us: entry for entry in self.log}.values(), key=lambda entry: entry.ts_us)
        super().anew()
        for entry in kept:
            self.append(entry.ts_us, entry.body)

    def append(self, ts_us: int, body: bytes) -> tuple[str, Any]:
        live = self.publish(ts_us)
        self.log[-1] = type(live.entry)(live.entry.offset, ts_us, body)
        return live.epoch, self.log[-1]


class _Story:
    """A world of two streams, a server, and a client that keeps what it was given."""

    def __init__(self) -> None:
        self.buffers = {key: _Store(key=key, kept=1000) for key in SYMBOLS.values()}
        self._one_at_a_time = threading.Lock()  # readings are made in threads, and what Redis does is done at once
        self.said: asyncio.Queue[Published | Broken] = asyncio.Queue()
        self.hub = Hub(self, Windows(self._read))
        self.course = Course(list(SYMBOLS), "1m")
        self.made = dict.fromkeys(SYMBOLS, 0)
        self.got: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}

    def _read(self, asked: Mapping[StreamKey, Position | None]) -> dict[StreamKey, Window]:
        with self._one_at_a_time:
            return {key: self.buffers[key].read(since) for key, since in asked.items()}

    async def events(self) -> Any:
        while True:
            yield await self.said.get()
            self.said.task_done()

    def connect(self) -> None:
        """A new connection of the same client, from where it is."""
        self.client = Client(self.hub, queue_bytes=600, most_symbols=10)
        self.out = self.client.outgoing(idle_s=0.001)
        for symbol, key in SYMBOLS.items():
            since = self.course.positions.get(symbol)
            self.client.subscribe(symbol, key, Position.parse(since) if since else None)

    def empty(self, symbol: str) -> None:
        """Redis loses the stream; who asks next finds it filled again, in another epoch."""
        with self._one_at_a_time:
            self.buffers[SYMBOLS[symbol]].anew()

    async def publish(self, symbol: str, *, heard: bool) -> None:
        self.made[symbol] += 1
        number = self.made[symbol]
        body: dict[str, object] = {"type": "bar", "ts": f"2026-11-24T{number // 60:02d}:{number % 60:02d}:00Z"}
        body |= dict.fromkeys(("open", "high", "low", "close", "volume"), number)
        body |= {"final": True, "provider": "p", "known_at": "2026-11-24T15:00:00Z"}
        key = SYMBOLS[symbol]
        with self._one_at_a_time:
            epoch, entry = self.buffers[key].append(number, orjson.dumps(body))
        self.said.put_nowait(Published(0, [(key, epoch, entry)]) if heard else Broken())
        await self.said.join()

    async def take(self) -> None:
        """One message, if there is any."""
        for frame in await anext(self.out):
            for update in self.course.take(frame.text):
                assert isinstance(update, Bar)
                got = self.got[update.symbol]
                got.append(int(update.close))
                assert got[-1] == len(got), f"{update.symbol}: lost, doubled or out of order: {got}"

    async def settle(self) -> None:
        """Take until the last bar of each is there."""
        while any(len(self.got[symbol]) < last for symbol, last in self.made.items()):
            await self.take()

    async def run(self, actions: list[tuple[str, bool]]) -> None:
        async with asyncio.timeout(60), self.hub.running():
            self.connect()
            for action, first in actions:
                symbol = "A" if first else "B"
                match action:
                    case "publish" | "lose":
                        await self.publish(symbol, heard=action == "publish")
                    case "take":
                        await self.take()
                    case "settle":
                        await self.settle()
                    case "reconnect":
                        self.client.close()
                        self.connect()
                    case "empty":
                        self.empty(symbol)
            for symbol in SYMBOLS:  # what comes last shows what was not noticed
                await self.publish(symbol, heard=True)
            await self.settle()


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_a_client_has_every_bar_once_and_in_order_at_the_end_of_every_story(actions: list[tuple[str, bool]]) -> None:
    asyncio.run(_Story().run(actions))
