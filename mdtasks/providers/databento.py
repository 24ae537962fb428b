"""The `databento` provider: bars through databento's historical API, many symbols a call, streamed as DBN.

Source of the API's facts: https://databento.com/docs/api-reference-historical and the SDK's source. Bars bear their
start in nanoseconds of UTC, prices are whole billionths. It bills by use: what a call will cost is asked first, and a
call over MDTASKS_DATABENTO_MAX_COST is not made. A symbol that it cannot resolve, or not for all of the time, is named
in the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np

from mdtasks.domain.bars import Bars
from mdtasks.domain.errors import (
    GarbledAnswerError,
    NoDataError,
    NotEntitledError,
    NotYetError,
    ProviderError,
    RefusedRequestError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.access import Access, Plan
from mdtasks.providers.base import BarsAnswer, Capabilities, Unanswered
from mdtasks.providers.gate import GateFor, open_gate
from mdtasks.providers.http import Answer, Wire
from mdtasks.providers.vendor import US_EXCHANGES, VendorProvider, loaded
from mdtasks.settings.vendors import VendorSettings

NAME: Final = "databento"
#: A hundred requests a second. Without a licence for live data, history ends a day ago.
_FREE: Final = Plan(rates=(Rate(100, 1.0),), delay_s=86_400.0)
_SCHEMAS: Final = {Interval.M1: "ohlcv-1m", Interval.H1: "ohlcv-1h", Interval.D1: "ohlcv-1d"}
_SYMBOLS: Final = 2000
#: Some 30 MB unpacked: an answer comes in one piece and must come in time.
_POINTS: Final = 500_000
_BILLION: Final = 1e9
#: The cases of refusals that mean something to us.
_NO_SYMBOL: Final = "symbology_invalid_request"
_TOO_YOUNG: Final = "after_available_end"
#: When to ask again for what is too young, seconds: what there is grows in steps.
_SOON_S: Final = 900.0


class DatabentoProvider(VendorProvider):
    """Bars of 1m 1h 1d of the dataset that the settings name, which should have one publisher (EQUS.MINI has).

    A daily bar is the vendor's: of the UTC day, trades before the open and after the close too. No quotes: the
    historical API has none of now, and the live one is not HTTP. A dataset need not carry all of a symbol's trades,
    so silence in it is not verified.
    """

    name = NAME
    modules: ClassVar[tuple[str, ...]] = ("databento", "zstandard", "mdtasks.providers.requests_session")

    def __init__(self, settings: VendorSettings, calendars: Calendars, gate_for: GateFor = open_gate) -> None:
        super().__init__(calendars)
        assert settings.databento_key is not None
        self._key = settings.databento_key.get_secret_value()
        self._dataset = settings.databento_dataset
        self._max_cost = settings.databento_max_cost
        access = Access.of(NAME, settings, _FREE)
        self.capabilities = Capabilities(
            intervals=frozenset(_SCHEMAS),
            max_symbols=_SYMBOLS,
            delay_s=access.delay_s,
            history=access.history,
            rates=access.rates,
            points=_POINTS,
            mics=US_EXCHANGES,
        )
        self._wire = DatabentoWire(gate_for(NAME, access.rates), access, [self._key])

    def ask_bars(
        self,
        listings: Sequence[Listing],
        interval: Interval,
        window: TimeWindow,
        now: datetime,  # noqa: ARG002
    ) -> BarsAnswer:
        """One call for all symbols, after one for its cost. Raises NotEntitledError when that is too high."""
        symbols = [listing.symbol for listing in listings]
        if interval is Interval.D1:
            whole = _whole_days(window)
            if whole is None:
                return BarsAnswer({symbol: Bars.empty() for symbol in symbols})
            window = whole
        start, end = (at.astimezone(UTC).isoformat() for at in (window.start, window.end))
        ask: dict[str, Any] = {
            "dataset": self._dataset,
            "symbols": symbols,
            "schema": _SCHEMAS[interval],
            "start": start,
            "end": end,
        }
        try:
            cost = float(self._sdk.metadata.get_cost(**ask))
            if cost > self._max_cost:
                said = f"would cost {cost:.2f} US dollars, more than the {self._max_cost:.2f} that a call may cost"
                hint = "raise MDTASKS_DATABENTO_MAX_COST, or ask for less at a time"
                raise NotEntitledError(said, provider=NAME, hint=hint)
            self._sdk.timeseries.get_range(**ask)
        except RefusedRequestError as exc:
            if _NO_SYMBOL not in exc.message:
                raise
            return BarsAnswer({}, {symbol: NoDataError(f"has no symbol {symbol}", provider=NAME) for symbol in symbols})
        return self._answer(symbols, window)

    def check(self) -> str:
        """Asks for the names of the datasets, which costs nothing."""
        names = self._sdk.metadata.list_datasets()
        if self._dataset not in names:
            raise NotEntitledError(f"has no dataset {self._dataset} for this key", provider=NAME)
        return f"key accepted, dataset {self._dataset}, at most {self._max_cost:.2f} US dollars a call"

    def _answer(self, symbols: Sequence[str], window: TimeWindow) -> BarsAnswer:
        """The bars of the answer that the wire has read, by symbol, and what was not resolved."""
        records, mappings = self._wire.records, self._wire.mappings
        # An instrument's id may pass on to another symbol from one day to the next.
        days = records["ts_event"].astype(np.int64) // 86_400_000_000_000
        bars: dict[str, Bars] = {}
        errors: dict[str, ProviderError] = {}
        unanswered: dict[str, tuple[Unanswered, ...]] = {}
        for symbol in symbols:
            spans = [each for each in mappings.get(symbol, ()) if each["symbol"]]
            if not spans:
                errors[symbol] = NoDataError(f"{self._dataset} has no symbol {symbol}", provider=NAME)
                continue
            mine = np.zeros(len(records), dtype=bool)
            for span in spans:
                first, last = (_days(span[side]) for side in ("start_date", "end_date"))
                mine |= (records["instrument_id"] == int(span["symbol"])) & (days >= first) & (days < last)
            bars[symbol] = _bars(records[mine])
            cuts = tuple(self._unresolved(symbol, spans, window))
            if cuts:
                unanswered[symbol] = cuts
        return BarsAnswer(bars, errors, unanswered)

    def _unresolved(self, symbol: str, spans: Sequence[Mapping[str, Any]], window: TimeWindow) -> Iterator[Unanswered]:
        """The parts of the window for which the dataset has no such symbol."""
        reached = window.start
        edges = sorted((_midnight(span["start_date"]), _midnight(span["end_date"])) for span in spans)
        for start, end in [*edges, (window.end, window.end)]:
            if reached < min(start, window.end):
                part = TimeWindow(start=reached, end=min(start, window.end))
                said = f"{self._dataset} has no symbol {symbol} from {part.start:%Y-%m-%d} to {part.end:%Y-%m-%d}"
                yield Unanswered(part, NoDataError(said, provider=NAME))
            reached = max(reached, end)

    @cached_property
    def _sdk(self) -> Any:
        """The SDK's client. It makes each request in a session of its own, so those steps are replaced by ours."""
        session = loaded("mdtasks.providers.requests_session").gated_session(self._wire)
        client = loaded("databento").Historical(self._key)

        def post(url: str, data: Mapping[str, Any] | None = None, **_: Any) -> Any:
            return session.post(url, data=data, headers=client.timeseries._headers, auth=(self._key, ""))

        def get(url: str, params: Any = None, **_: Any) -> Any:
            return session.get(url, params=params, headers=client.timeseries._headers, auth=(self._key, ""))

        client.timeseries._stream = post
        client.metadata._post = post
        client.metadata._get = get
        return client


class DatabentoWire(Wire):
    """Databento's addresses, and its answers read while the gate watches: half a stream decodes without complaint."""

    provider = NAME
    #: 206: not all symbols were resolved.
    good: ClassVar[frozenset[int]] = frozenset({200, 206})
    #: What the last stream held: records (structured, shape (n,)), and each symbol's instruments by date.
    records: np.ndarray
    mappings: Mapping[str, Sequence[Mapping[str, Any]]]

    def endpoint(self, path: str) -> str:
        """``bars``, or ``cost`` and ``datasets`` for what is asked beside them."""
        return "bars" if path.endswith(".get_range") else "cost" if path.endswith(".get_cost") else "datasets"

    def verify(self, endpoint: str, body: bytes) -> None:
        """Read a stream whole; the rest is JSON: a number, a list."""
        if endpoint != "bars":
            content = self.json(body)
            if not isinstance(content, int | float if endpoint == "cost" else list):
                raise self.garbled(f"{endpoint} cannot be read")
            return
        try:
            store = loaded("databento").DBNStore.from_bytes(self._unpacked(body))
            self.records, self.mappings = store.to_ndarray().reshape(-1), store.metadata.mappings
        except ProviderError:
            raise
        except Exception as exc:  # the decoder's own, ValueError of numpy, KeyError of a schema it does not know
            raise self.garbled(f"a stream of {len(body)} bytes cannot be read: {exc}") from exc

    def refusal(self, endpoint: str, answer: Answer) -> ProviderError:
        """What the licence gives only later is so told by its case."""
        found = super().refusal(endpoint, answer)
        if isinstance(found, RefusedRequestError) and _TOO_YOUNG in found.message:
            return NotYetError(found.message.removeprefix(f"{NAME}: "), provider=NAME, retry_after_s=_SOON_S)
        return found

    def words(self, answer: Answer) -> str:
        """The case before the words, where there is one: that is what tells refusals apart."""
        try:
            case = str(self.json(answer.body)["detail"]["case"])
        except (GarbledAnswerError, KeyError, TypeError):
            return super().words(answer)
        return f"{case}: {super().words(answer)}"

    def _unpacked(self, body: bytes) -> bytes:
        """The zstd frames of the body unpacked; each must be whole."""
        zstandard, parts = loaded("zstandard"), []
        while body:
            frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                parts.append(frame.decompress(body))
            except zstandard.ZstdError as exc:
                raise self.garbled(f"a stream of {len(body)} bytes is no zstd") from exc
            if not frame.eof:
                raise self.garbled(f"a stream broke off after {len(body)} bytes")
            body = frame.unused_data
        return b"".join(parts)


def _bars(records: np.ndarray) -> Bars:
    open_, high, low, close = (records[name].astype(np.float64) / _BILLION for name in ("open", "high", "low", "close"))
    volume = records["volume"].astype(np.float64)
    return Bars.of(records["ts_event"].astype(np.int64) // 1000, open_, high, low, close, volume)


def _whole_days(window: TimeWindow) -> TimeWindow | None:
    """The days of UTC that begin in the window and are over by its end. Raises NotYetError when one began only."""
    day = timedelta(days=1)
    start, end = (datetime.combine(at.date(), time(), UTC) for at in (window.start, window.end))
    start = start if start == window.start else start + day
    if start >= window.end:
        return None
    if start >= end:
        raise NotYetError("a day of UTC is not over yet", provider=NAME)
    return TimeWindow(start=start, end=end)


def _days(day: date) -> int:
    return (day - date(1970, 1, 1)) // timedelta(days=1)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
