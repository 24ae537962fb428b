"""What a client has had of its streams, and what of each frame is new to it. Pure: no connection, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from mdtasks.client.frames import Bar, IntervalComplete, StreamRefusedError, Update, entry_of, quote_of
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.replay import Position

#: Errors that pass: the server waits for what is away, and a client that was one too many may come again.
_PASSING: Final = frozenset(
    {"unavailable", "broker_unavailable", "store_unavailable", "store_full", "too_many_clients"}
)
#: Intervals of a stream that are remembered at least, to tell what of a snapshot is new.
_REMEMBERED: Final = 1000


@dataclass
class _Stream:
    """What was had of one symbol: where it is, and the newest version of each of its last intervals."""

    position: str = ""
    had: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def is_new(self, said: Mapping[str, Any]) -> bool:
        """Whether it is another version than what was had of this interval; remembers it."""
        version = tuple(
            said.get(name) for name in ("type", "open", "high", "low", "close", "volume", "final", "provider")
        )
        if self.had.get(said["ts"]) == version:
            return False
        self.had[said["ts"]] = version
        return True

    def forget_before(self, kept: int) -> None:
        """Remember the newest intervals only."""
        if len(self.had) > 2 * kept:
            for ts in sorted(self.had)[: len(self.had) - kept]:
                del self.had[ts]


class Course:
    """The streams of one client over all its connections. ``take`` says what of a frame its caller has not had yet."""

    def __init__(
        self,
        symbols: str | Sequence[str],
        interval: str,
        *,
        since: Mapping[str, str] | None = None,
        last: int | None = None,
        quotes: bool = False,
    ) -> None:
        """``symbols``: one too. ``since``: symbol -> position to go on from; "" is none. Raises InvalidRequestError."""
        symbols = [symbols] if isinstance(symbols, str) else symbols
        since = since or {}
        for symbol, position in since.items():
            if symbol not in symbols:
                raise InvalidRequestError(f"since names {symbol}, which is not among the symbols", field="since")
            if position:  # "": of what came before the first position was whole
                Position.parse(position)
        if not symbols:
            raise InvalidRequestError("no symbols were given", field="symbols", hint='such as ["SPY"]')
        self._interval = interval
        self._last = last
        self._quotes = quotes
        self._streams = {symbol: _Stream(since.get(symbol, "")) for symbol in symbols}
        #: Whether the server has told anything on the connection that was opened last but what is wrong.
        self.heard = False

    @property
    def positions(self) -> dict[str, str]:
        """Symbol -> where its stream is; without those that nothing was had of."""
        return {symbol: stream.position for symbol, stream in self._streams.items() if stream.position}

    def opening(self, url: str) -> tuple[str, str]:
        """The WebSocket's address, and the first message on it: what is followed, from where it is now."""
        ask: dict[str, Any] = {"op": "subscribe", "symbols": list(self._streams), "interval": self._interval}
        ask |= {"since": self.positions, "quotes": self._quotes}
        if self._last is not None:
            ask["last"] = self._last
        self.heard = False
        return websocket_url(url), json.dumps(ask)

    def take(self, message: str | bytes) -> Iterator[Update]:
        """What a message of the server brings that is new, frame by frame.

        Raises StreamRefusedError where the server refuses what was asked for.
        """
        document = json.loads(message)
        for said in document if isinstance(document, list) else [document]:
            self.heard = self.heard or said["type"] not in ("hello", "error")
            match said["type"]:
                case "bar" | "interval_complete":
                    yield self._live(said)
                case "snapshot" | "resync":
                    yield from self._anew(said)
                case "quote":
                    yield quote_of(said)
                case "error" if said.get("code") not in _PASSING:
                    raise StreamRefusedError(said)

    def _live(self, said: Mapping[str, Any]) -> Bar | IntervalComplete:
        stream = self._streams[said["symbol"]]
        stream.position = said["position"]
        stream.is_new(said)
        stream.forget_before(_REMEMBERED)
        return entry_of(said, said["symbol"], said["interval"], said["position"])

    def _anew(self, said: Mapping[str, Any]) -> Iterator[Bar | IntervalComplete]:
        """A stream told as a whole: what of it is new. Who stops within it goes on from where they were before."""
        stream = self._streams[said["symbol"]]
        new = [each for each in said["entries"] if stream.is_new(each)]
        stream.forget_before(max(_REMEMBERED, len(said["entries"])))
        before, stream.position = stream.position, said["position"]
        for number, each in enumerate(new, 1):
            entry = entry_of(each, said["symbol"], said["interval"], before)
            yield replace(entry, position=said["position"]) if number == len(new) else entry


def websocket_url(url: str) -> str:
    """The stream's address on a web app: ``http://127.0.0.1:8642`` -> ``ws://127.0.0.1:8642/ws/bars``.

    Raises InvalidRequestError for what is no URL of a web app.
    """
    parts = urlsplit(url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.netloc:
        raise InvalidRequestError(f"{url!r} is no URL of a web app", field="url", hint="such as http://127.0.0.1:8642")
    path = parts.path.rstrip("/").removesuffix("/ws/bars") + "/ws/bars"
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, "", ""))
