"""Following the replay buffer: what is published comes in order, and a break is told so that nothing is missed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import orjson
import pytest
import redis

from mdtasks.domain.bars import Quote, to_us
from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Broken, Draft, Entry, LatestQuotes, Position, Published, StreamKey
from mdtasks.flows import replay
from mdtasks.flows.deps import Deps
from mdtasks.store.replay import ReplayBuffer, channel_of
from mdtasks.store.replay_feed import Event, ReplayFeed, event_of

ONE, TWO = StreamKey(1, Interval.M1), StreamKey(2, Interval.D1)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def bar(number: int) -> Draft:
    return Draft(number * 60_000_000, 1, b'{"type": "bar", "close": %d}' % number)


@pytest.fixture
def buffer(redis_client: redis.Redis) -> ReplayBuffer:
    """A buffer with two streams that have begun and are empty."""
    found = ReplayBuffer(redis_client, 10, 100)
    found.refill({ONE: [], TWO: []}, found.read({ONE: None, TWO: None}).births)
    return found


Follow = Callable[[Callable[[], Awaitable[Event]]], Awaitable[None]]


def following(url: str, follow: Follow, patience_s: float = 10.0) -> None:
    """Run ``follow`` with a function that waits for the next event."""

    async def work() -> None:
        events: AsyncIterator[Event] = ReplayFeed(url, patience_s=patience_s).events()
        try:
            await follow(lambda: asyncio.wait_for(anext(events), 30))
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(work())


def entries(event: Event, key: StreamKey = ONE) -> Sequence[Entry]:
    assert isinstance(event, Published)
    return [entry for at, _, entry in event.entries if at == key]


def test_a_follower_hears_of_every_entry_in_order_with_its_position(buffer: ReplayBuffer, redis_url: str) -> None:
    async def follow(next_event: Callable[[], Awaitable[Event]]) -> None:
        assert await next_event() == Broken()
        buffer.publish({ONE: [bar(1), bar(2)], TWO: [bar(3)]}, 77)
        buffer.publish({ONE: [bar(2)]}, 78)  # nothing new: nothing is told
        buffer.publish({ONE: [bar(4)]}, 79)
        first, second = await next_event(), await next_event()
        windows = buffer.read({ONE: None, TWO: None}).windows
        assert isinstance(first, Published)
        assert isinstance(second, Published)
        assert [(key, epoch) for key, epoch, _ in first.entries] == [
            (key, windows[key].position.epoch) for key in (ONE, ONE, TWO)
        ]
        assert [*entries(first), *entries(second)] == list(windows[ONE].entries)
        assert (first.committed_us, second.committed_us) == (77, 79)

    following(redis_url, follow)


def test_a_stream_that_begins_anew_is_told_so_that_its_followers_read_again(
    buffer: ReplayBuffer, redis_client: redis.Redis, redis_url: str
) -> None:
    async def follow(next_event: Callable[[], Awaitable[Event]]) -> None:
        before = buffer.read({ONE: None}).windows[ONE].position
        await next_event()
        redis_client.flushall()
        told = buffer.publish({ONE: [bar(3)]}, 0)
        buffer.refill({ONE: [bar(1), bar(2), bar(3)]}, told.births)
        event = await next_event()
        assert isinstance(event, Published)
        assert [(epoch != before.epoch, entry.offset) for _, epoch, entry in event.entries] == [(True, 3)]
        assert entries(event)[0].body == bar(3).body

    following(redis_url, follow)


def test_a_lost_connection_is_told_and_reading_on_from_there_misses_nothing(
    buffer: ReplayBuffer, redis_client: redis.Redis, redis_url: str
) -> None:
    async def follow(next_event: Callable[[], Awaitable[Event]]) -> None:
        epoch = buffer.read({ONE: None}).windows[ONE].position.epoch
        assert await next_event() == Broken()
        buffer.publish({ONE: [bar(1)]}, 0)
        seen = list(entries(await next_event()))
        redis_client.client_kill_filter(_type="pubsub")
        buffer.publish({ONE: [bar(2), bar(3)]}, 0)
        assert await next_event() == Broken()
        window = buffer.read({ONE: Position(epoch, seen[-1].offset)}).windows[ONE]
        assert window.resumed
        seen += window.entries
        buffer.publish({ONE: [bar(4)]}, 0)
        seen += entries(await next_event())
        assert [entry.offset for entry in seen] == [1, 2, 3, 4]

    following(redis_url, follow)


def test_a_server_that_says_nothing_more_is_left(redis_client: redis.Redis, redis_url: str) -> None:
    async def follow(next_event: Callable[[], Awaitable[Event]]) -> None:
        assert await next_event() == Broken()
        redis_client.client_pause(2000)
        assert await next_event() == Broken()

    following(redis_url, follow, patience_s=0.05)


def test_a_quiet_server_that_answers_is_not_left(buffer: ReplayBuffer, redis_url: str) -> None:
    async def follow(next_event: Callable[[], Awaitable[Event]]) -> None:
        assert await next_event() == Broken()
        upcoming = asyncio.ensure_future(next_event())
        await asyncio.to_thread(pinged, 3)
        buffer.publish({ONE: [bar(1)]}, 0)
        assert [entry.offset for entry in entries(await upcoming)] == [1]

    def pinged(times: int) -> None:
        """Return when the server has been asked so often whether it is there."""
        with redis.Redis.from_url(redis_url) as client, client.monitor() as monitor:
            heard = (command["command"] for command in monitor.listen())
            for _ in itertools.islice((each for each in heard if each.upper() == "PING"), times):
                pass

    buffer.read({ONE: None})
    following(redis_url, follow, patience_s=0.02)


def test_only_quotes_that_are_newer_are_told(deps: Deps, redis_url: str) -> None:
    def quote(seconds: int, bid: float) -> Quote:
        return Quote(NOON + timedelta(seconds=seconds), bid, 100.0, None, None)

    async def follow(next_event: Callable[[], Awaitable[Event]]) -> None:
        await next_event()
        assert replay.publish_quotes(deps, {1: quote(1, 5.0), 2: quote(1, 6.0)}, "simulator", NOON) == 2
        assert replay.publish_quotes(deps, {1: quote(1, 5.0), 2: quote(0, 7.0)}, "simulator", NOON) == 0
        assert replay.publish_quotes(deps, {1: quote(2, 8.0), 2: quote(1, 6.0)}, "simulator", NOON) == 1
        first, second = await next_event(), await next_event()
        assert isinstance(first, LatestQuotes)
        assert first.committed_us == to_us(NOON)
        assert [(instrument, orjson.loads(body)) for instrument, body in first.quotes] == [
            (instrument, {"type": "quote", "ts": "2026-11-20T12:00:01Z", "bid": bid, "bid_size": 100.0, "ask": None,
                          "ask_size": None, "provider": "simulator"})
            for instrument, bid in ((1, 5.0), (2, 6.0))
        ]  # fmt: skip
        assert isinstance(second, LatestQuotes)
        assert [instrument for instrument, _ in second.quotes] == [1]

    following(redis_url, follow)


def test_stacks_that_share_a_server_do_not_hear_each_other(redis_url: str) -> None:
    names = set()
    for number in (0, 1):
        with redis.Redis.from_url(f"{redis_url.rpartition('/')[0]}/{number}") as client:
            names.add(channel_of(client))
    assert names == {"mdtasks:replay:told:0", "mdtasks:replay:told:1"}


def test_a_body_may_hold_what_it_likes_but_a_line_end() -> None:
    told = event_of(b'bars 5\n1 1m abc 7 60000000 {"a": "b c"}\n2 1d def 8 0 {}')
    assert told == Published(5, [(ONE, "abc", Entry(7, 60_000_000, b'{"a": "b c"}')), (TWO, "def", Entry(8, 0, b"{}"))])
    assert event_of(b'quotes 6\n3 {"x": 1}') == LatestQuotes(6, [(3, b'{"x": 1}')])
