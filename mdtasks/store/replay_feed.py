"""Following the replay buffer: everything that is published, as it comes. One per web process, on asyncio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from mdtasks.connections import open_async_redis, translated_redis_errors
from mdtasks.domain.errors import BrokerUnavailableError, UnavailableError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Broken, Entry, LatestQuotes, Published, StreamKey
from mdtasks.store.replay import channel_of

log = logging.getLogger(__name__)

Event = Published | LatestQuotes | Broken

#: A server that says nothing for so long is asked whether it is there, and counts as away after as long again, seconds.
PATIENCE_S: Final = 10.0
#: Pauses between two attempts to connect, seconds: the first, and the longest.
_PAUSES_S: Final = (0.2, 5.0)


class ReplayFeed:
    """What is published, in order. ``Broken`` says that something may have been missed; it comes first, too.

    It holds nothing itself: who is slow to take events lets them pile up in the server, which ends the connection when
    they are too many (its client-output-buffer-limit), and ``Broken`` follows.
    """

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        self._url = url
        self._patience_s = patience_s

    async def events(self) -> AsyncIterator[Event]:
        """Everything from now on. Connects again by itself, for ever; ends when its task is cancelled."""
        pause_s = _PAUSES_S[0]
        while True:
            try:
                async for event in self._connected():
                    pause_s = _PAUSES_S[0]
                    yield event
            except UnavailableError as error:
                log.warning("the replay feed is broken: %s; again in %.1f s", error, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSES_S[1])

    async def _connected(self) -> AsyncIterator[Event]:
        """The events of one connection. Raises BrokerUnavailableError when it is lost."""
        client = open_async_redis(self._url)
        channel = client.pubsub()
        try:
            with translated_redis_errors():
                await channel.subscribe(channel_of(client))
                asked = False
                while True:
                    message = await channel.get_message(timeout=self._patience_s)
                    if message is None:
                        if asked:
                            raise BrokerUnavailableError(f"Redis has said nothing for {2 * self._patience_s:.0f} s")
                        asked = True
                        await channel.ping()
                        continue
                    asked = False
                    if message["type"] == "subscribe":
                        yield Broken()
                    elif message["type"] == "message":
                        yield event_of(message["data"])
        finally:
            await channel.aclose()  # type: ignore[no-untyped-call]
            await client.aclose()


def event_of(message: bytes) -> Published | LatestQuotes:
    """A message of the channel: a line of its kind and time, then a line for each entry or quote."""
    first, *lines = message.split(b"\n")
    kind, committed_us = first.split(b" ")
    if kind == b"quotes":
        pairs = (line.split(b" ", 1) for line in lines)
        return LatestQuotes(int(committed_us), [(int(instrument), body) for instrument, body in pairs])
    return Published(int(committed_us), [_entry(line) for line in lines])


def _entry(line: bytes) -> tuple[StreamKey, str, Entry]:
    instrument, interval, epoch, offset, ts_us, body = line.split(b" ", 5)
    key = StreamKey(int(instrument), Interval(interval.decode()))
    return key, epoch.decode(), Entry(int(offset), int(ts_us), body)
