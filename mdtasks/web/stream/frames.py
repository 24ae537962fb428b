"""What goes to clients of the live stream, as JSON or msgpack: each frame is written once, however many get it.

A frame is a JSON object with a ``type``. Bars, intervals without a trade and quotes are the bytes that their publisher
made, with symbol, interval and position put behind; docs/streaming.md shows them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

import orjson
import ormsgpack

from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Entry, Position, Window
from mdtasks.domain.stream import Live

#: Changes when a client that was written for it would no longer understand the frames.
PROTOCOL = 1


class Wire(StrEnum):
    """How frames are written."""

    JSON = "json"
    MSGPACK = "msgpack"


@dataclass(frozen=True)
class Frame:
    """One frame. ``kind``: its type. ``position``: where a client is that has it; "" where it moves no position."""

    kind: str
    text: str
    position: str = ""

    @cached_property
    def packed(self) -> bytes:
        """The frame in msgpack."""
        return ormsgpack.packb(orjson.loads(self.text))

    def on(self, wire: Wire) -> str | bytes:
        """The frame as it is sent: text as JSON, bytes as msgpack."""
        return self.text if wire is Wire.JSON else self.packed


def batch(frames: Sequence[Frame], wire: Wire) -> str | bytes:
    """Several frames as one message: an array of them."""
    if wire is Wire.JSON:
        return f"[{','.join([frame.text for frame in frames])}]"
    count = len(frames)
    head = bytes((0x90 + count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join([frame.packed for frame in frames])


@dataclass(frozen=True)
class Told(Live):
    """A live entry on its way to clients. ``name``: the members that tell its stream. ``committed_us``: 0, unknown."""

    name: str
    committed_us: int = 0

    @cached_property
    def frame(self) -> Frame:
        """Its frame, written when the first client gets it."""
        return entry_frame(self, self.name)


def stream_name(symbol: str, interval: Interval) -> str:
    """The members of a frame that say which stream it is of."""
    return f'"symbol":"{symbol}","interval":"{interval}"'


def entry_frame(live: Live, name: str) -> Frame:
    """An entry as a frame of its own."""
    position = str(live.position)
    return Frame(_kind(live.entry), f'{live.entry.body.decode()[:-1]},{name},"position":"{position}"}}', position)


def _kind(entry: Entry) -> str:
    return "bar" if entry.body.startswith(b'{"type":"bar"') else "interval_complete"


def quote_frame(body: bytes, symbol: str) -> Frame:
    """A quote: the newest there is, of no position."""
    return Frame("quote", f'{body.decode()[:-1]},"symbol":"{symbol}"}}')


def entries_text(entries: Sequence[Entry]) -> str:
    """Entries as a JSON array."""
    return f"[{','.join([entry.body.decode() for entry in entries])}]"


def window_frame(kind: str, window: Window, name: str, *, last: int | None = None, reason: str = "") -> Frame:
    """A ``snapshot`` or ``resync``: the newest entry of each interval, in order of time; of them the ``last``."""
    entries = window.entries if last is None else window.entries[-last:] if last else ()
    position = str(window.position)
    why = f',"reason":"{reason}"' if reason else ""
    text = f'{{"type":"{kind}",{name},"position":"{position}"{why},"entries":{entries_text(entries)}}}'
    return Frame(kind, text, position)


def resumed_frame(since: Position, to: Position, count: int, name: str) -> Frame:
    """The answer to a position that could be served: the ``count`` entries since then follow, each as it was."""
    text = f'{{"type":"resumed",{name},"from":"{since}","position":"{to}","missed":{count}}}'
    return Frame("resumed", text)


def gap_frame(since: Position | None, to: Position, name: str) -> Frame:
    """The client was too slow: what lies between the two was not sent when it came; that, or a ``resync``, follows."""
    text = f'{{"type":"gap",{name},"from":{_quoted(since)},"to":"{to}"}}'
    return Frame("gap", text)


def _quoted(position: Position | None) -> str:
    return "null" if position is None else f'"{position}"'


def told(kind: str, members: Mapping[str, Any]) -> Frame:
    """A frame about the connection itself."""
    return Frame(kind, orjson.dumps({"type": kind, **members}, option=orjson.OPT_UTC_Z).decode())


def hello_frame(now: datetime, limits: Mapping[str, int], positions: Mapping[str, str | None]) -> Frame:
    """The first frame: what is spoken, and what a client may use."""
    members = {"protocol": PROTOCOL, "server_time": now, "limits": limits, "positions": positions}
    return told("hello", members)


def error_frame(error: MdtasksError) -> Frame:
    """What was wrong with a message, as HTTP says it; the connection goes on."""
    return told("error", error.as_dict())


def now_utc() -> datetime:
    """The clock of the frames."""
    return datetime.now(UTC)
