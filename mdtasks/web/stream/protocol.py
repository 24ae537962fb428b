"""What clients of the live stream ask: the query of the connection, and messages after it. Pure.

Each wrong value is refused by name; what is not understood changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import orjson
import ormsgpack
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, Symbol, invalid_request
from mdtasks.domain.replay import Position
from mdtasks.web.parsing import Query, refuse_unknown
from mdtasks.web.stream.frames import Wire

#: Longest message of a client that is read, bytes.
MAX_MESSAGE: Final = 65_536
#: Most entries that a snapshot can be asked for.
_MOST: Final = 100_000

_EXAMPLE: Final = 'such as {"op": "subscribe", "symbols": ["SPY"], "interval": "1m", "last": 10}'


def _split(value: object) -> object:
    """Names with commas between them; what is empty stays, for positions that are left out."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) and value else ()


def _named(value: object) -> object:
    return [part for part in parts if part] if isinstance(parts := _split(value), list) else parts


Last = Annotated[int, Field(ge=0, le=_MOST)]


class StreamQuery(Query):
    """The query of ``/ws/bars``. ``since``: a position for each of the symbols, in their order; empty: none.

    ``batch``: a message is an array of frames, as many as there are at the moment; else each frame is a message.
    """

    symbols: Annotated[tuple[Symbol, ...], BeforeValidator(_named)] = ()
    interval: Interval = Interval.M1
    last: Last | None = None
    since: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    quotes: bool = False
    format: Wire = Wire.JSON
    batch: bool = True


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subscribe(_Message):
    """Follow symbols: from their positions in ``since``, the others with a snapshot of the ``last`` entries."""

    op: Literal["subscribe"] = "subscribe"
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1, max_length=10_000)]
    interval: Interval = Interval.M1
    last: Last | None = None
    since: dict[Symbol, str] = {}
    quotes: bool = False

    def positions(self) -> dict[str, Position | None]:
        """Each symbol with where it shall go on; None: with a snapshot. Raises InvalidRequestError."""
        strange = [symbol for symbol in self.since if symbol not in self.symbols]
        if strange:
            raise InvalidRequestError(
                f"since names {strange[0]}, which is not among the symbols",
                field="since",
                hint="name it in symbols too",
            )
        return {symbol: _position(self.since.get(symbol, "")) for symbol in self.symbols}


class Unsubscribe(_Message):
    """Follow these symbols no longer."""

    op: Literal["unsubscribe"]
    symbols: Annotated[tuple[Symbol, ...], Field(min_length=1, max_length=10_000)]
    interval: Interval = Interval.M1


class Ping(_Message):
    """Answered with a ``pong``. ``id`` comes back with it."""

    op: Literal["ping"]
    id: Annotated[str, Field(max_length=128)] | int | None = None


Message = Subscribe | Unsubscribe | Ping
_MODELS: Final[Mapping[str, type[Message]]] = {"subscribe": Subscribe, "unsubscribe": Unsubscribe, "ping": Ping}


def _position(text: str) -> Position | None:
    return Position.parse(text) if text else None


def asked_of(query: StreamQuery) -> Subscribe | None:
    """What the query of a connection subscribes to; None: nothing yet. Raises InvalidRequestError."""
    symbols = tuple(dict.fromkeys(query.symbols))
    if query.since and len(query.since) != len(query.symbols):
        raise InvalidRequestError(
            f"since has {len(query.since)} positions for {len(query.symbols)} symbols",
            field="since",
            hint="one for each symbol, in their order; leave one empty for a snapshot: since=EPOCH:12,,EPOCH:7",
        )
    if not symbols:
        return None
    since = {symbol: text for symbol, text in zip(query.symbols, query.since, strict=False) if text}
    return Subscribe(symbols=symbols, interval=query.interval, last=query.last, since=since, quotes=query.quotes)


def parse_message(data: str | bytes) -> Message:
    """A client's message: JSON as text, msgpack as bytes. Raises InvalidRequestError naming the wrong field."""
    if len(data) > MAX_MESSAGE:
        raise InvalidRequestError(
            f"the message is over {MAX_MESSAGE} bytes", field="message", hint="subscribe in several messages"
        )
    try:
        document: Any = orjson.loads(data) if isinstance(data, str) else ormsgpack.unpackb(data)
    except ValueError as exc:
        kind = "JSON" if isinstance(data, str) else "msgpack"
        raise InvalidRequestError(f"the message is not {kind}: {exc}", field="message", hint=_EXAMPLE) from exc
    if not isinstance(document, Mapping):
        raise InvalidRequestError("the message is not an object", field="message", hint=_EXAMPLE)
    model = _MODELS.get(str(document.get("op")))
    if model is None:
        raise InvalidRequestError(f"op is none of {', '.join(_MODELS)}", field="op", hint=_EXAMPLE)
    refuse_unknown(map(str, document), model, "field")
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        raise invalid_request(exc) from exc
