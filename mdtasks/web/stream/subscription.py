"""A client's place in one stream: between the hub, which hands on what is live, and the client, who takes it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mdtasks.domain.replay import Position, Window
from mdtasks.domain.stream import Event, Live, Seam
from mdtasks.web.stream.frames import Frame
from mdtasks.web.stream.hub import Topic


class Owner(Protocol):
    """The client of a subscription."""

    def push(self, which: Subscription, live: Live) -> None:
        """Queue what is live; over its bound it lets the seam fall instead."""

    def push_quote(self, symbol: str, frame: Frame) -> None:
        """Queue the newest quote of a symbol."""

    def catch_up(self, which: Subscription) -> None:
        """Read the subscription's window."""

    def hold(self, length: int) -> bool:
        """Count bytes (below 0: no longer) that wait for windows; whether there is room for them."""


class Subscription:
    """A client's place in a stream."""

    def __init__(self, client: Owner, since: Position | None, last: int | None, *, quotes: bool) -> None:
        self.topic: Topic  # set when the hub knows it
        self.seam = Seam(since)
        #: Where the client is once it has all that was handed to its socket.
        self.sent = since
        self.since = since
        self.last = last
        self.quotes = quotes
        self.answered = False
        self.slow = False
        #: More than it may keep came while its window was read.
        self.overflowed = False
        self.over = False
        #: The reading of its window that is under way.
        self.reading: asyncio.Future[Window] | None = None
        self._client = client
        self._held = 0
        #: Where the hub found it begun anew while its window was read.
        self._anew: Position | None = None

    def take(self, event: Event) -> None:
        """Something is live in the stream."""
        if isinstance(event, Window):
            self._begun_anew(event.position)
            return
        if self.seam.offer(event):
            self._client.push(self, event)
        elif self.seam.holds:
            self._held += len(event.entry.body)
            if not self._client.hold(len(event.entry.body)):
                self.overflowed = True
                self.seam.fall()
            return
        if self.seam.behind and self.reading is None:
            self._client.catch_up(self)

    def _begun_anew(self, position: Position) -> None:
        """The hub found it begun anew, or read it for the first time. Each client reads it at its own pace: the windows
        of all its streams at once would be too much for its queue.
        """
        if self.seam.holds:
            self._anew = position
        elif not self.seam.behind and not self.seam.has(position):
            self.seam.fall()
            self._client.catch_up(self)

    def begin(self) -> Position | None:
        """It is read now."""
        return self.seam.begin()

    def arrive(self, window: Window) -> list[Event]:
        """Its window is there: what of it, and of what came meanwhile, is to be handed on. It may be behind again."""
        self._release()
        events = self.seam.arrive(window)
        if self._anew is not None and not self.seam.has(self._anew):
            self.seam.fall()
        self._anew = None
        return events

    def _release(self) -> None:
        self._client.hold(-self._held)
        self._held = 0

    def take_quote(self, frame: Frame) -> None:
        """The newest quote of the symbol."""
        if self.quotes:
            self._client.push_quote(self.topic.symbol, frame)

    def end(self) -> bool:
        """Nothing of it is wanted any more; whether a reading was given up."""
        self.over = True
        self._release()
        return self.reading is not None and self.reading.cancel()
