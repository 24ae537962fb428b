"""``mdtasks.bars``: bars for Python, out of the store itself where it can be reached, else over HTTP.

Columns, types and order are those of ``GET /bars`` as Arrow, whichever way they come.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mdtasks.domain.adjustment import Adjust
from mdtasks.domain.errors import (
    ConfigurationError,
    InvalidRequestError,
    MdtasksError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtasks.domain.errors.base import restored
from mdtasks.domain.jobs import Interval, Symbol, UtcDatetime, invalid_request
from mdtasks.domain.reading import MOST_SYMBOLS, Fill, Hours, Reading
from mdtasks.domain.windows import AskedWindow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: A web app that says nothing for so long, seconds, is taken for away.
_TIMEOUT_S: Final = 60.0
#: The last sessions that are read when no window is given.
_SESSIONS: Final = 5

Time = datetime | date | str


def bars(symbols: str | Iterable[str], interval: str = "1m", **asked: Any) -> pd.DataFrame:
    """Bars as a DataFrame: columns open, high, low, close, volume, provider, status, known_at.

    ``symbols``: one, and the index is ``ts``; or several (a list of one too), and it is (``symbol``, ``ts``). ``ts`` is
    the start of the bar's interval, aware UTC. ``interval``: 1m 5m 15m 1h 1d. By keyword:

    - ``start``, ``end``: a datetime with a zone, a date, or either as ISO 8601; half-open. ``sessions``: in place of
      ``start`` the last so many sessions of each exchange (5 where neither is given). ``end``: default now.
    - ``as_of``: as the bars were known then. ``session``: "all", or "regular" for the exchange's sessions only.
    - ``fill``: "no_trade" for a row, with NaN prices and volume 0, where it is known that nobody traded.
    - ``adjust``: "none": prices are as they came; "split", "total": for splits, or for dividends too, by the actions
      that were known at ``as_of``.
    - ``url``: the web app of a stack elsewhere, such as "http://127.0.0.1:8642"; default: MDTASKS_URL, else the store
      of the stack that runs in this folder (MDTASKS_HOME, MDTASKS_DATABASE_URL).

    Raises InvalidRequestError naming the wrong value, UnknownSymbolError, UnavailableError, and ConfigurationError
    where there is nothing to read from.
    """
    frame = bars_arrow(symbols, interval, **asked).to_pandas()
    return frame.set_index("ts" if isinstance(symbols, str) else ["symbol", "ts"])


def bars_arrow(symbols: str | Iterable[str], interval: str = "1m", *, url: str | None = None, **asked: Any) -> pa.Table:
    """The same as a ``pyarrow.Table``; with a column ``symbol`` where several were asked for."""
    from mdtasks.settings import load_settings

    many = not isinstance(symbols, str)
    question = _Asked.of({"symbols": symbols if many else (symbols,), "interval": interval, **asked})
    settings = load_settings()
    where = url or settings.url
    if where:
        return _over_http(where, question, many=many)
    if settings.database_url is None:
        raise ConfigurationError(
            f"nothing to read from: no mdtasks stack runs in {settings.home}",
            name="MDTASKS_URL",
            hint="start one with `mdtasks up`, go to the folder of one (or set MDTASKS_HOME), or give url=…",
        )
    from mdtasks.flows.bar_formats import Shape, record_batch, schema
    from mdtasks.flows.reading import open_shelf, opened

    shape = Shape(question.interval, "" if many else question.symbols[0])
    with open_shelf(settings, "mdtasks-bars") as shelf, opened(question.reading(), shelf, datetime.now(UTC)) as found:
        import pyarrow as pa

        return pa.Table.from_batches([record_batch(rows, shape) for rows in found.batches()], schema(shape))


def _day(value: object) -> object:
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value


def _listed(value: object) -> object:
    return tuple(dict.fromkeys(value)) if isinstance(value, Iterable) else value


_Time = Annotated[UtcDatetime, BeforeValidator(_day)]


class _Asked(BaseModel):
    """What may be asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbols: Annotated[tuple[Symbol, ...], BeforeValidator(_listed), Field(min_length=1, max_length=MOST_SYMBOLS)]
    interval: Interval
    start: _Time | None = None
    end: _Time | None = None
    sessions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    as_of: _Time | None = None
    session: Hours = Hours.ALL
    fill: Fill = Fill.NONE
    adjust: Adjust = Adjust.NONE

    @classmethod
    def of(cls, values: dict[str, object]) -> _Asked:
        """Raises InvalidRequestError."""
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            raise invalid_request(exc) from exc

    def reading(self) -> Reading:
        """The question as the store takes it."""
        sessions = self.sessions if self.sessions is not None or self.start is not None else _SESSIONS
        window = AskedWindow(self.start, self.end, sessions)
        return Reading(self.symbols, self.interval, window, self.as_of, self.session, self.fill, self.adjust)

    def query(self) -> dict[str, str]:
        """The question as parameters of ``GET /bars``, but for the symbols."""
        values = self.model_dump(mode="json", exclude={"symbols"}, exclude_none=True)
        return {name: str(value) for name, value in values.items()}


def _over_http(where: str, asked: _Asked, *, many: bool) -> pa.Table:
    import pyarrow as pa

    named = {"symbols": ",".join(asked.symbols)} if many else {}
    path = "/bars" if many else f"/bars/{urllib.parse.quote(asked.symbols[0])}"
    address = f"{where.rstrip('/')}{path}?{urllib.parse.urlencode({**named, **asked.query(), 'format': 'arrow'})}"
    if not address.startswith(("http://", "https://")):
        raise InvalidRequestError(
            f"{where!r} is no URL of a web app", field="url", hint="such as http://127.0.0.1:8642"
        )
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - http only, seen above
            return pa.ipc.open_stream(_Whole(answer)).read_all()
    except urllib.error.HTTPError as exc:
        raise _refusal(exc) from exc
    except (OSError, http.client.HTTPException, pa.ArrowInvalid) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise UnavailableError(f"{where} did not answer whole: {reason}", hint="`mdtasks status` there") from exc


class _Whole:
    """An answer that was cut off is an error, not an end: Arrow takes the end of a file for the end of a stream."""

    closed = False

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer

    def read(self, size: int = -1) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._answer.read(size - len(data))  # raises IncompleteRead within a chunk
            if not part:
                raise http.client.IncompleteRead(bytes(data), size - len(data))
            data += part
        return bytes(data)


def _refusal(error: urllib.error.HTTPError) -> MdtasksError:
    """What the web app said, as it would have been raised here."""
    try:
        said = json.loads(error.read())
        message, hint, field = str(said["error"]), str(said["hint"]), str(said.get("field", ""))
    except (ValueError, KeyError, TypeError):
        return UnavailableError(f"{error.url} answered {error.code}", hint="is it the web app of an mdtasks stack?")
    if error.code >= 500:
        return UnavailableError(message, hint=hint)
    kind = UnknownSymbolError if said.get("code") == UnknownSymbolError.code else InvalidRequestError
    return restored(kind, (message,), {"message": message, "hint": hint, "field": field, "symbols": []})
