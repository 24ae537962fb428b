"""One client of the live stream: what it follows, what waits for it, and what becomes of it when it is slow.

What waits is bounded in bytes. A client that lets more pile up loses all that waits, is told so by a ``gap``, and gets
what it missed out of the buffer at its own pace: it costs the others nothing and the process no memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import Final

from mdtasks.domain.errors import InvalidRequestError, UnavailableError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Position, StreamKey, Window
from mdtasks.domain.stream import Event, Live
from mdtasks.observe import metrics
from mdtasks.web.stream.frames import Frame, Told, error_frame, gap_frame, resumed_frame
from mdtasks.web.stream.hub import Hub, Topic
from mdtasks.web.stream.subscription import Subscription

#: Streams that a client catches up with at a time: their windows are in memory while they are sent.
_AT_ONCE: Final = 16
#: Frames that are handed to the socket at a time, by their length together.
_CHUNK: Final = 65_536
#: How long a client waits for a window before it is told what keeps it, seconds.
_PATIENCE_S: Final = 2.0


#: Answers to what a client said that wait for it at most.
_MOST_NOTES: Final = 64


class Client:
    """What one connection follows and what waits for it. ``outgoing`` is drained by whoever owns its socket."""

    def __init__(self, hub: Hub, *, queue_bytes: int, most_symbols: int) -> None:
        self.queue_bytes = queue_bytes
        self._hub = hub
        self._most = most_symbols
        self._subscriptions: dict[tuple[str, Interval], Subscription] = {}
        self._behind: dict[Subscription, None] = {}
        self._windows: deque[tuple[Subscription, asyncio.Future[Window]]] = deque()
        self._readings = 0
        #: The trouble that the client was told of.
        self._told: UnavailableError | None = None
        self._notes: deque[Frame] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._queue: deque[tuple[Subscription, Frame, Position, int]] = deque()
        self._waiting = 0
        self._held = 0
        self._quotes: dict[str, Frame] = {}
        self._wake = asyncio.Event()

    def refuse_over_limit(self, asked: Iterable[tuple[str, Interval]]) -> None:
        """Raise InvalidRequestError when these streams beside those that it follows are more than it may follow."""
        if len(self._subscriptions.keys() | set(asked)) > self._most:
            raise InvalidRequestError(
                f"more than {self._most} streams on one connection",
                field="symbols",
                hint="open another connection, or set WS_MAX_SYMBOLS",
            )

    def subscribe(
        self, symbol: str, key: StreamKey, since: Position | None, *, last: int | None = None, quotes: bool = False
    ) -> None:
        """Follow a stream; anew, if it is followed already."""
        self.unsubscribe(symbol, key.interval)
        made = self._subscriptions[symbol, key.interval] = Subscription(self, since, last, quotes=quotes)
        made.topic = self._hub.follow(key, symbol, made)
        self.catch_up(made)

    def unsubscribe(self, symbol: str, interval: Interval) -> bool:
        """Follow it no longer; whether it was followed."""
        found = self._subscriptions.pop((symbol, interval), None)
        if found is None:
            return False
        if found.end():
            self._readings -= 1
        self._behind.pop(found, None)
        self._hub.leave(found.topic, found)
        return True

    def close(self) -> None:
        """Follow nothing any more."""
        self._room.set()
        for place in list(self._subscriptions):
            self.unsubscribe(*place)

    def note(self, frame: Frame) -> None:
        """An answer to the client itself, before whatever else waits."""
        self._notes.append(frame)
        if len(self._notes) >= _MOST_NOTES:
            self._room.clear()
        self._wake.set()

    async def room(self) -> None:
        """Wait until the client has read most of the answers to what it said, or nobody drains them any more: who says
        more than it reads is not heard.
        """
        await self._room.wait()

    def catch_up(self, which: Subscription) -> None:
        """It must be read before it goes on."""
        if which not in self._behind:
            self._behind[which] = None
            self._wake.set()

    def push(self, which: Subscription, live: Live) -> None:
        """Queue what is live; over the bound everything that waits is let go of instead."""
        frame = _frame_of(live, which.topic)
        self._queue.append((which, frame, live.position, live.committed_us if isinstance(live, Told) else 0))
        self._waiting += len(frame.text)
        if self._waiting > self.queue_bytes:
            self._drop_behind()
        self._wake.set()

    def push_quote(self, symbol: str, frame: Frame) -> None:
        """Only the newest of a symbol waits."""
        self._quotes[symbol] = frame
        self._wake.set()

    def hold(self, length: int) -> bool:
        """Count bytes (below 0: no longer) that wait for windows; whether there is room for them."""
        self._held += length
        if self._held > self.queue_bytes:
            metrics.WS_DROPPED.inc()
            return False
        return True

    def _drop_behind(self) -> None:
        metrics.WS_DROPPED.inc(len(self._queue))
        for which in {item[0] for item in self._queue}:
            if not which.over:
                which.slow = True
                which.seam.fall(which.sent)
                self._behind[which] = None
        self._queue.clear()
        self._waiting = 0

    async def outgoing(self, *, idle_s: float | None = None) -> AsyncIterator[list[Frame]]:
        """What is to be sent, a few frames at a time, each time the last ones are sent. [] after ``idle_s`` of nothing.

        Ends never: whoever drains it stops. Raises RuntimeError when windows cannot be read, by a fault of ours.
        """
        while True:
            self._read_windows()
            if self._notes:
                frame = self._notes.popleft()
                self._room.set()
                yield [frame]
            elif self._queue:  # before the windows: what waits of a stream is older than its window
                frames, oldest_us = self._popped()
                yield frames
                if oldest_us:
                    metrics.WS_PUBLISH_LATENCY.observe(max(time.time() - oldest_us / 1e6, 0.0))
            elif self._windows:
                which, reading = self._windows.popleft()
                for frames in _chunks(self._arrived(which, reading.result())):
                    yield frames
            elif self._quotes:
                frames = list(self._quotes.values())
                self._quotes.clear()
                yield frames
            elif await self._idle(idle_s):
                yield [error_frame(self._told)] if self._told else []

    async def _idle(self, idle_s: float | None) -> bool:
        """Wait until there is something to do; True: the time is over, or there is trouble to tell of."""
        self._wake.clear()
        patience_s = _PATIENCE_S if self._readings and self._told is None else None
        waits_s = min((each for each in (idle_s, patience_s) if each is not None), default=None)
        try:
            await asyncio.wait_for(self._wake.wait(), waits_s)
        except TimeoutError:
            before, self._told = self._told, self._hub.windows.trouble if self._readings else None
            return idle_s is not None or (self._told is not None and before is None)
        return False

    def _popped(self) -> tuple[list[Frame], int]:
        """The next frames of the queue, and when the oldest of them was committed."""
        frames: list[Frame] = []
        length, oldest_us = 0, 0
        while self._queue and length < _CHUNK:
            which, frame, position, committed_us = self._queue.popleft()
            self._waiting -= len(frame.text)
            if which.over:
                continue
            which.sent = position
            length += len(frame.text)
            frames.append(frame)
            if committed_us and (not oldest_us or committed_us < oldest_us):
                oldest_us = committed_us
        return frames, oldest_us

    def _read_windows(self) -> None:
        """Begin to read what is behind, a few streams at a time."""
        for which in [each for each in self._behind if each.reading is None]:
            if self._readings >= _AT_ONCE:
                return
            del self._behind[which]
            self._readings += 1
            which.reading = self._hub.windows.of(which.topic.key, which.begin())
            which.reading.add_done_callback(partial(self._read, which))

    def _read(self, which: Subscription, reading: asyncio.Future[Window]) -> None:
        if not reading.cancelled():
            self._windows.append((which, reading))
            self._wake.set()

    def _arrived(self, which: Subscription, window: Window) -> list[Frame]:
        """The frames that a window brings; the subscription is live after it, or behind again."""
        self._readings -= 1
        which.reading = self._told = None
        if which.over:
            return []
        at = which.sent
        events = which.arrive(window)
        if which.seam.behind:
            self.catch_up(which)
        if events:
            which.sent = events[-1].position
        frames = [*self._head(which, at, events, window), *(self._written(which, event, at) for event in events)]
        which.answered, which.slow, which.overflowed = True, which.overflowed, False
        return frames

    def _head(
        self, which: Subscription, at: Position | None, events: Sequence[Event], window: Window
    ) -> Iterable[Frame]:
        """What goes before the entries: that the position was served, or that some come late."""
        begins_anew = bool(events) and isinstance(events[0], Window)
        if which.slow:
            yield gap_frame(at, window.position, which.topic.name)
        if which.answered:
            return
        outcome = "snapshot" if which.since is None else "resync" if begins_anew else "resumed"
        metrics.WS_RESUMES.labels(outcome=outcome).inc()
        if which.since is not None and not begins_anew:
            missed = window.position.offset - which.since.offset
            yield resumed_frame(which.since, window.position, missed, which.topic.name)

    def _written(self, which: Subscription, event: Event, at: Position | None) -> Frame:
        if not isinstance(event, Window):
            return _frame_of(event, which.topic)
        if which.since is None and not which.answered:
            return self._hub.window_frame("snapshot", event, which.topic.name, last=which.last)
        return self._hub.window_frame("resync", event, which.topic.name, reason=_why_anew(at, event))


def _why_anew(at: Position | None, window: Window) -> str:
    """Why a client at ``at`` is told a stream as a whole."""
    return "out_of_reach" if at is not None and at.epoch == window.position.epoch else "epoch_changed"


def _frame_of(live: Live, topic: Topic) -> Frame:
    if isinstance(live, Told):
        return live.frame
    return Told(live.epoch, live.entry, topic.name).frame


def _chunks(frames: Iterable[Frame]) -> Iterable[list[Frame]]:
    """Frames in lists that are sent at a time."""
    chunk: list[Frame] = []
    length = 0
    for frame in frames:
        chunk.append(frame)
        length += len(frame.text)
        if length >= _CHUNK:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk
