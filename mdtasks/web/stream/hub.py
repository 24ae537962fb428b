"""One reader of the feed for all clients of this web process: it hands each entry to those who follow its stream.

What the feed could not deliver (its connection broke) is read again from where the hub was, so no client misses it. A
stream that began anew is told to each as a whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Broken, LatestQuotes, Position, Published, StreamKey, Window
from mdtasks.domain.stream import Event, Seam
from mdtasks.web.stream.frames import Frame, Told, quote_frame, stream_name, window_frame
from mdtasks.web.stream.windows import Windows

log = logging.getLogger(__name__)

#: Before the feed is begun again after a fault, seconds.
_PAUSE_S: Final = 1.0
#: Written windows that are kept for the next client that wants the same.
_KEPT: Final = 512


class Feed(Protocol):
    """Where entries come from, as they are published: ``store.replay_feed.ReplayFeed``."""

    def events(self) -> AsyncIterator[Published | LatestQuotes | Broken]: ...


class Follower(Protocol):
    """Who follows a stream."""

    def take(self, event: Event) -> None: ...

    def take_quote(self, frame: Frame) -> None: ...


class Topic:
    """A stream that somebody follows, under the symbol they know it by."""

    def __init__(self, key: StreamKey, symbol: str) -> None:
        self.key = key
        self.symbol = symbol
        self.name = stream_name(symbol, key.interval)
        self.seam = Seam()
        self.followers: set[Follower] = set()
        #: Whether a reading for the hub itself is under way.
        self.catching_up = False

    @property
    def position(self) -> Position | None:
        """Where the stream is as far as this process knows."""
        return self.seam.position


class Hub:
    """All topics of a process. Everything here runs on the event loop; ``run`` while the app does."""

    def __init__(self, feed: Feed, windows: Windows) -> None:
        self.windows = windows
        self._feed = feed
        self._topics: dict[StreamKey, dict[str, Topic]] = {}
        self._written: dict[tuple[object, ...], Frame] = {}
        self._wanted = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._started: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while this lasts. The feed is read from the first client on."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._start(self.windows.run())
            self._start(self._read_feed())
            try:
                yield
            finally:
                self._topics.clear()
                # Again until they have ended: a cancellation that meets redis-py at connecting may get lost.
                while left := list(self._started):
                    for task in left:
                        task.cancel()
                    await asyncio.wait(left, timeout=_PAUSE_S)

    def follow(self, key: StreamKey, symbol: str, follower: Follower) -> Topic:
        """From now on the follower gets what is live in the stream."""
        self._wanted.set()
        by_symbol = self._topics.setdefault(key, {})
        topic = by_symbol.get(symbol)
        if topic is None:
            topic = by_symbol[symbol] = Topic(key, symbol)
            self._catch_up(topic)
        topic.followers.add(follower)
        return topic

    def leave(self, topic: Topic, follower: Follower) -> None:
        """No more of it. Safe to repeat."""
        topic.followers.discard(follower)
        by_symbol = self._topics.get(topic.key, {})
        if not topic.followers and by_symbol.get(topic.symbol) is topic:
            del by_symbol[topic.symbol]
            if not by_symbol:
                del self._topics[topic.key]

    def positions(self, asked: Iterable[tuple[StreamKey, str]]) -> dict[str, str | None]:
        """By symbol, where these streams are as far as this process knows."""
        topics = {symbol: self._topics.get(key, {}).get(symbol) for key, symbol in asked}
        return {symbol: str(each.position) if each and each.position else None for symbol, each in topics.items()}

    def window_frame(self, kind: str, window: Window, name: str, *, last: int | None = None, reason: str = "") -> Frame:
        """As ``frames.window_frame``, written once for all who get the same."""
        asked = (kind, name, window.position, len(window.entries), last, reason)
        frame = self._written.get(asked)
        if frame is None:
            while len(self._written) >= _KEPT:
                del self._written[next(iter(self._written))]
            frame = self._written[asked] = window_frame(kind, window, name, last=last, reason=reason)
        return frame

    async def _read_feed(self) -> None:
        await self._wanted.wait()
        while True:
            try:
                async for event in self._feed.events():
                    self._take(event)
            except Exception:  # one message that cannot be read must not end the stream of all clients
                log.exception("the feed of the live stream is begun again")
            await asyncio.sleep(_PAUSE_S)

    def _take(self, event: Published | LatestQuotes | Broken) -> None:
        if isinstance(event, Published):
            for key, epoch, entry in event.entries:
                for topic in self._topics.get(key, {}).values():
                    live = Told(epoch, entry, topic.name, event.committed_us)
                    self._tell(topic, (live,) if topic.seam.offer(live) else ())
        elif isinstance(event, LatestQuotes):
            self._tell_quotes(event)
        else:
            for topic in [each for by_symbol in self._topics.values() for each in by_symbol.values()]:
                topic.seam.fall()
                self._catch_up(topic)

    def _tell_quotes(self, latest: LatestQuotes) -> None:
        for instrument_id, body in latest.quotes:
            for interval in Interval:
                for topic in self._topics.get(StreamKey(instrument_id, interval), {}).values():
                    frame = quote_frame(body, topic.symbol)
                    for follower in topic.followers:
                        follower.take_quote(frame)

    def _tell(self, topic: Topic, events: Sequence[Event]) -> None:
        for event in events:
            told = event if isinstance(event, Told | Window) else Told(event.epoch, event.entry, topic.name)
            for follower in topic.followers:
                follower.take(told)
        if topic.seam.behind:
            self._catch_up(topic)

    def _catch_up(self, topic: Topic) -> None:
        if not topic.catching_up:
            topic.catching_up = True
            # Asked for at once: who follows it from now on shares this reading.
            self._start(self._read_again(topic, self.windows.of(topic.key, topic.seam.begin())))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None, "a hub works while it is running"
        task = self._tasks.create_task(work)
        self._started.add(task)
        task.add_done_callback(self._started.discard)

    async def _read_again(self, topic: Topic, reading: asyncio.Future[Window]) -> None:
        try:
            events = topic.seam.arrive(await reading)
        except RuntimeError:
            topic.seam.fall()  # the log has it; the next entry makes it try again
            topic.catching_up = False
            return
        topic.catching_up = False
        if self._is_followed(topic):
            self._tell(topic, events)

    def _is_followed(self, topic: Topic) -> bool:
        return self._topics.get(topic.key, {}).get(topic.symbol) is topic
