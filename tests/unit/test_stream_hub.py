"""The hub and its clients, on a buffer and a feed of a few lines: seams, breaks, slow clients, what is shared."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import ormsgpack
import pytest

from mdtasks.domain.errors import BrokerUnavailableError, InvalidRequestError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Broken, LatestQuotes, Position, Published, StreamKey, Window
from mdtasks.domain.stream import Live
from mdtasks.web.stream.frames import Frame, Wire, batch
from mdtasks.web.stream.hub import Hub
from mdtasks.web.stream.session import Client
from mdtasks.web.stream.windows import Windows
from tests.unit.stream_model import KEY, Buffer

FeedEvent = Published | LatestQuotes | Broken


@dataclass
class World:
    """A buffer of streams, a feed that says what the test lets it, and a hub on both."""

    buffers: dict[StreamKey, Buffer] = field(default_factory=lambda: {KEY: Buffer()})
    readings: list[Mapping[StreamKey, Position | None]] = field(default_factory=list)
    away: bool = False

    def __post_init__(self) -> None:
        self.said: asyncio.Queue[FeedEvent] = asyncio.Queue()
        self.hub = Hub(self, Windows(self.read))

    @property
    def buffer(self) -> Buffer:
        return self.buffers[KEY]

    def read(self, asked: Mapping[StreamKey, Position | None]) -> dict[StreamKey, Window]:
        if self.away:
            raise BrokerUnavailableError("Redis does not answer", hint="wait")
        self.readings.append(dict(asked))
        return {key: self.buffers[key].read(since) for key, since in asked.items()}

    async def events(self) -> AsyncIterator[FeedEvent]:
        while True:
            yield await self.said.get()
            self.said.task_done()

    async def publish(self, ts_us: int, *, heard: bool = True) -> Live:
        live = self.buffer.publish(ts_us)
        if heard:
            await self.say(Published(0, [(KEY, live.epoch, live.entry)]))
        return live

    async def say(self, event: FeedEvent) -> None:
        """The feed brings this; returns when the hub has taken it."""
        self.said.put_nowait(event)
        await self.said.join()

    def client(self, *, queue_bytes: int = 100_000, most: int = 10) -> Reader:
        return Reader(Client(self.hub, queue_bytes=queue_bytes, most_symbols=most))


class Reader:
    """Drains a client, frame by frame."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._out = client.outgoing()
        self._had: deque[Frame] = deque()

    def follow(self, since: str | None = None, **options: Any) -> None:
        self.client.subscribe("SPY", KEY, Position.parse(since) if since else None, **options)

    async def frame(self) -> dict[str, Any]:
        while not self._had:
            self._had += await anext(self._out)
        document: dict[str, Any] = orjson.loads(self._had.popleft().text)
        return document

    async def positions(self, count: int) -> list[str]:
        return [(await self.frame())["position"] for _ in range(count)]


def run(story: Callable[[World], Awaitable[None]]) -> World:
    """Tell a story in a world whose hub runs; fails when it does not end."""
    worlds = []

    async def whole() -> None:
        world = World()
        worlds.append(world)
        async with asyncio.timeout(20), world.hub.running():
            await story(world)

    asyncio.run(whole())
    return worlds[0]


def test_a_client_gets_a_snapshot_and_then_what_is_live() -> None:
    async def story(world: World) -> None:
        world.buffer.publish(1)
        reader = world.client()
        reader.follow()
        snapshot = await reader.frame()
        assert snapshot == {
            "type": "snapshot",
            "symbol": "SPY",
            "interval": "1m",
            "position": "e0:1",
            "entries": [{"type": "bar", "ts": "2026-11-24T15:01:00Z", "close": 1}],
        }
        await world.publish(2)
        live = {"type": "bar", "ts": "2026-11-24T15:02:00Z", "close": 2, "symbol": "SPY", "interval": "1m"}
        assert await reader.frame() == {**live, "position": "e0:2"}

    run(story)


def test_of_a_snapshot_only_the_last_entries_are_told_where_so_many_are_asked_for() -> None:
    async def story(world: World) -> None:
        for ts in range(4):
            world.buffer.publish(ts)
        for last in (0, 2, 9):
            reader = world.client()
            reader.follow(last=last)
            snapshot = await reader.frame()
            assert [entry["close"] for entry in snapshot["entries"]] == [1, 2, 3, 4][4 - min(last, 4) :]
            assert snapshot["position"] == "e0:4"

    run(story)


def test_a_client_that_comes_back_gets_what_it_missed_or_is_told_that_it_cannot() -> None:
    async def story(world: World) -> None:
        for ts in range(8):
            world.buffer.publish(ts)
        reader = world.client()
        reader.follow("e0:6")
        resumed = await reader.frame()
        assert (resumed["type"], resumed["from"], resumed["position"], resumed["missed"]) == (
            "resumed",
            "e0:6",
            "e0:8",
            2,
        )
        assert await reader.positions(2) == ["e0:7", "e0:8"]
        for since, reason in (("e0:1", "out_of_reach"), ("old:7", "epoch_changed"), ("e0:99", "out_of_reach")):
            late = world.client()
            late.follow(since)
            told = await late.frame()
            assert (told["type"], told["reason"], told["position"]) == ("resync", reason, "e0:8")
            assert len(told["entries"]) == 5

    run(story)


def test_after_a_break_of_the_feed_nobody_misses_anything() -> None:
    async def story(world: World) -> None:
        readers = [world.client() for _ in range(3)]
        for reader in readers:
            reader.follow()
            await reader.frame()
        for ts in (1, 2):
            await world.publish(ts, heard=False)
        await world.say(Broken())
        await world.publish(3)
        for reader in readers:
            assert await reader.positions(3) == ["e0:1", "e0:2", "e0:3"]

    world = run(story)
    assert len(world.readings) < 6, "the streams are read again once, not once for each client"


def test_an_entry_that_the_feed_lost_is_read_as_soon_as_the_next_one_comes() -> None:
    async def story(world: World) -> None:
        reader = world.client()
        reader.follow()
        await reader.frame()
        await world.publish(1, heard=False)
        await world.publish(2)
        assert await reader.positions(2) == ["e0:1", "e0:2"]

    run(story)


def test_a_stream_that_began_anew_is_told_as_a_whole() -> None:
    async def story(world: World) -> None:
        reader = world.client()
        reader.follow()
        await reader.frame()
        await world.publish(1)
        world.buffer.anew()
        await world.publish(2)
        assert await reader.positions(1) == ["e0:1"]
        told = await reader.frame()
        assert (told["type"], told["reason"], told["position"]) == ("resync", "epoch_changed", "e1:1")
        await world.publish(3)
        assert await reader.positions(1) == ["e1:2"]

    run(story)


def test_a_slow_client_is_told_of_its_gap_and_gets_what_it_missed_and_others_feel_nothing() -> None:
    async def story(world: World) -> None:
        world.buffer.kept = 100
        slow, quick = world.client(queue_bytes=500), world.client()
        for reader in (slow, quick):
            reader.follow()
            await reader.frame()
        for ts in range(20):
            await world.publish(ts)
        assert await quick.positions(20) == [f"e0:{number}" for number in range(1, 21)]
        told = await slow.frame()
        assert (told["type"], told["from"], told["to"]) == ("gap", "e0:0", "e0:20")
        assert await slow.positions(20) == [f"e0:{number}" for number in range(1, 21)]
        await world.publish(21)
        assert await slow.positions(1) == ["e0:21"]

    run(story)


def test_a_client_that_is_too_slow_for_the_buffer_is_told_the_stream_as_a_whole() -> None:
    async def story(world: World) -> None:
        slow = world.client(queue_bytes=500)
        slow.follow()
        await slow.frame()
        for ts in range(20):
            await world.publish(ts)
        assert (await slow.frame())["type"] == "gap"
        told = await slow.frame()
        assert (told["type"], told["reason"], len(told["entries"])) == ("resync", "out_of_reach", 5)

    run(story)


def test_what_a_slow_client_has_in_hand_is_not_sent_again() -> None:
    async def story(world: World) -> None:
        world.buffer.kept = 100
        slow = world.client(queue_bytes=500)
        slow.follow()
        await slow.frame()
        await world.publish(0)
        assert await slow.positions(1) == ["e0:1"]
        for ts in range(20):
            await world.publish(ts)
        assert (await slow.frame())["from"] == "e0:1"
        assert await slow.positions(20) == [f"e0:{number}" for number in range(2, 22)]

    run(story)


def test_many_clients_that_come_at_once_share_a_reading() -> None:
    async def story(world: World) -> None:
        world.buffer.kept = 100
        for ts in range(30):
            world.buffer.publish(ts)
        readers = [world.client() for _ in range(30)]
        for number, reader in enumerate(readers):
            reader.follow(f"e0:{number}")
        told = await asyncio.gather(*(reader.frame() for reader in readers))
        assert [each["missed"] for each in told] == [30 - number for number in range(30)]
        assert await readers[7].positions(2) == ["e0:8", "e0:9"]

    assert len(run(story).readings) <= 3


def test_while_a_server_is_away_a_client_is_told_and_served_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdtasks.web.stream.session._PATIENCE_S", 0.01)
    monkeypatch.setattr("mdtasks.web.stream.windows._PAUSES_S", (0.01, 0.01))

    async def story(world: World) -> None:
        world.away = True
        reader = world.client()
        reader.follow()
        told = await reader.frame()
        assert (told["type"], told["code"]) == ("error", "broker_unavailable")
        world.away = False
        assert (await reader.frame())["type"] == "snapshot"

    run(story)


def test_of_quotes_only_the_newest_waits_and_only_for_who_asked() -> None:
    async def story(world: World) -> None:
        asked, other = world.client(), world.client()
        asked.follow(quotes=True)
        other.follow()
        for reader in (asked, other):
            await reader.frame()
        for bid in (1, 2, 3):
            await world.say(LatestQuotes(0, [(KEY.instrument_id, b'{"type":"quote","bid":%d}' % bid)]))
        assert await asked.frame() == {"type": "quote", "bid": 3, "symbol": "SPY"}
        await world.publish(1)
        assert await other.positions(1) == ["e0:1"]

    run(story)


def test_a_stream_that_is_followed_no_longer_is_silent() -> None:
    async def story(world: World) -> None:
        reader = world.client()
        reader.follow()
        await reader.frame()
        await world.publish(1)
        assert reader.client.unsubscribe("SPY", Interval.M1)
        assert not reader.client.unsubscribe("SPY", Interval.M1)
        await world.publish(2)
        reader.follow("e0:1")
        assert (await reader.frame())["missed"] == 1
        assert await reader.positions(1) == ["e0:2"]

    run(story)


def test_a_client_follows_no_more_streams_than_it_may() -> None:
    async def story(world: World) -> None:
        reader = world.client(most=1)
        reader.follow()
        reader.client.refuse_over_limit([("SPY", Interval.M1)])
        with pytest.raises(InvalidRequestError, match="more than 1 stream") as refused:
            reader.client.refuse_over_limit([("QQQ", Interval.M1)])
        assert refused.value.field == "symbols"

    run(story)


@pytest.mark.parametrize("count", [1, 15, 16, 300])
def test_frames_go_together_as_an_array_in_both_forms(count: int) -> None:
    frames = [Frame("pong", f'{{"type":"pong","id":{number}}}') for number in range(count)]
    wanted = [{"type": "pong", "id": number} for number in range(count)]
    assert orjson.loads(batch(frames, Wire.JSON)) == wanted
    packed = batch(frames, Wire.MSGPACK)
    assert isinstance(packed, bytes)
    assert ormsgpack.unpackb(packed) == wanted


def test_a_hub_ends_though_its_feed_takes_a_cancellation_for_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdtasks.web.stream.hub._PAUSE_S", 0.01)

    class Deaf(World):
        cancelled = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            self.listening = asyncio.Event()

        async def events(self) -> AsyncIterator[FeedEvent]:
            yield Broken()
            self.listening.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled == 2:
                    raise
                raise BrokerUnavailableError("cancelled while connecting", hint="wait") from None

    async def whole() -> None:
        world = Deaf()
        async with asyncio.timeout(20), world.hub.running():
            world.client().follow()
            await world.listening.wait()

    asyncio.run(whole())
