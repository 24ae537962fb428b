"""What the live stream says, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mdtasks.domain.errors import MdtasksError


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, new or revised. ``ts``: start of its interval, UTC. ``final``: False while its provider may change it.

    ``position``: give it as ``since`` to go on after this bar; "" where the caller has had no position to go on from
    yet: within the first snapshot, whose bars come in order of time and not of their publishing.
    """

    symbol: str
    interval: str
    position: str
    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    final: bool
    provider: str
    known_at: datetime


@dataclass(frozen=True, slots=True)
class IntervalComplete:
    """An interval that ended without a trade: there is no bar, and none is missing."""

    symbol: str
    interval: str
    position: str
    ts: datetime


@dataclass(frozen=True, slots=True)
class Quote:
    """The newest quote of a symbol; those between may have been left out."""

    symbol: str
    ts: datetime
    bid: float | None
    bid_size: float | None
    ask: float | None
    ask_size: float | None
    provider: str


Update = Bar | IntervalComplete | Quote


class StreamRefusedError(MdtasksError):
    """The server refuses what was asked for: asking again would not help. ``code``, message and hint are its own."""

    exit_code = 2

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(str(said.get("error", "the stream was refused")), hint=str(said.get("hint", "")))
        self.said = dict(said)

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), **self.said}


def entry_of(said: Mapping[str, Any], symbol: str, interval: str, position: str) -> Bar | IntervalComplete:
    """An entry of a stream out of the members of its frame."""
    ts = datetime.fromisoformat(said["ts"])
    if said["type"] == "interval_complete":
        return IntervalComplete(symbol, interval, position, ts)
    return Bar(
        symbol,
        interval,
        position,
        ts,
        open=float(said["open"]),
        high=float(said["high"]),
        low=float(said["low"]),
        close=float(said["close"]),
        volume=float(said["volume"]),
        final=bool(said["final"]),
        provider=said["provider"],
        known_at=datetime.fromisoformat(said["known_at"]),
    )


def quote_of(said: Mapping[str, Any]) -> Quote:
    """A quote out of its frame."""
    sides = (said["bid"], said["bid_size"], said["ask"], said["ask_size"])
    return Quote(said["symbol"], datetime.fromisoformat(said["ts"]), *sides, provider=said["provider"])
