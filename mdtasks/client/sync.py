"""The stream as an iterator, for programs without asyncio."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from mdtasks.client.course import Course
from mdtasks.client.frames import Update
from mdtasks.client.pauses import OnLost, Pauses
from mdtasks.client.refusals import refusal_of

DEFAULT_URL = "http://127.0.0.1:8642"


def stream(
    symbols: str | Sequence[str],
    *,
    interval: str = "1m",
    url: str = DEFAULT_URL,
    since: Mapping[str, str] | None = None,
    last: int | None = None,
    quotes: bool = False,
    on_lost: OnLost | None = None,
) -> Generator[Update, None, None]:
    """Bars of these symbols as they are committed, for ever; each once, in the order of their publishing.

    It begins with a snapshot of the ``last`` entries of each symbol (default: all that the buffer keeps), or with what
    came after its position in ``since``. A bar that is revised comes again. ``on_lost``: told each time the connection
    is lost or not had, with the seconds until the next attempt; without it that is logged as a warning. ``url``: the
    web app; `mdtasks status` says where a stack's is.

    ``close`` it to end the connection before the program ends.

    Raises InvalidRequestError, StreamRefusedError when the server refuses what is asked for.
    """
    course, pauses = Course(symbols, interval, since=since, last=last, quotes=quotes), Pauses()
    while True:
        address, ask = course.opening(url)
        try:
            with connect(address, max_size=None, max_queue=64) as connection:
                connection.send(ask)
                for message in connection:
                    yield from course.take(message)
                    if course.heard:
                        pauses.reset()
            lost: Exception = ConnectionError("the server closed the stream")
        except InvalidStatus as error:
            lost = refusal_of(error)
        except (OSError, ConnectionClosed, InvalidHandshake) as error:
            lost = error
        time.sleep(pauses.after(lost, url, on_lost))
