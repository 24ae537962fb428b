"""The stream as an asynchronous iterator, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from mdtasks.client.course import Course
from mdtasks.client.frames import Update
from mdtasks.client.pauses import OnLost, Pauses
from mdtasks.client.refusals import refusal_of
from mdtasks.client.sync import DEFAULT_URL


async def astream(
    symbols: str | Sequence[str],
    *,
    interval: str = "1m",
    url: str = DEFAULT_URL,
    since: Mapping[str, str] | None = None,
    last: int | None = None,
    quotes: bool = False,
    on_lost: OnLost | None = None,
) -> AsyncGenerator[Update, None]:
    """As ``mdtasks.client.stream``, on asyncio; ``aclose`` ends it."""
    course, pauses = Course(symbols, interval, since=since, last=last, quotes=quotes), Pauses()
    while True:
        address, ask = course.opening(url)
        try:
            async with connect(address, max_size=None, max_queue=64) as connection:
                await connection.send(ask)
                async for message in connection:
                    for update in course.take(message):
                        yield update
                    if course.heard:
                        pauses.reset()
            lost: Exception = ConnectionError("the server closed the stream")
        except InvalidStatus as error:
            lost = refusal_of(error)
        except (OSError, ConnectionClosed, InvalidHandshake) as error:
            lost = error
        await asyncio.sleep(pauses.after(lost, url, on_lost))
