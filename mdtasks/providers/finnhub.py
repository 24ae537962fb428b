"""The `finnhub` provider: quotes, and bars where the plan includes candles, through finnhub-python, one symbol a call.

Source of the API's facts: https://finnhub.io/docs/api and the SDK's source. Candles are columns with times in seconds
of UTC; a window without trades is ``{"s": "no_data"}``. The SDK writes the key into every address, from where it leaks
into errors and logs; it is sent in the header that the API takes instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np

from mdtasks.domain.bars import Bars, Quote, from_us, to_us
from mdtasks.domain.errors import NotEntitledError, ProviderError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.access import Access, Plan
from mdtasks.providers.base import BarsAnswer, Capabilities
from mdtasks.providers.gate import GateFor, open_gate
from mdtasks.providers.http import Answer, Wire
from mdtasks.providers.shaping import NEW_YORK, session_labels
from mdtasks.providers.vendor import (
    US_EXCHANGES,
    VendorProvider,
    loaded,
    one_by_one,
    positive,
    quotes_one_by_one,
)
from mdtasks.settings.vendors import VendorSettings

NAME: Final = "finnhub"
#: Sixty calls a minute of the free plan, and thirty a second of every plan.
_FREE: Final = Plan(rates=(Rate(60, 60.0), Rate(30, 1.0)))
#: Hours are left out: nothing says on which grid they lie.
_RESOLUTIONS: Final = {Interval.M1: "1", Interval.M5: "5", Interval.M15: "15", Interval.D1: "D"}
#: Longer answers of minutes come back cut.
_WINDOWS: Final[Mapping[Interval, timedelta]] = {
    interval: timedelta(days=28) for interval in _RESOLUTIONS if interval is not Interval.D1
}


class FinnhubProvider(VendorProvider):
    """The last bid and ask of US equities; bars of 1m 5m 15m 1d where ``MDTASKS_FINNHUB_CANDLES`` says so."""

    name = NAME
    modules: ClassVar[tuple[str, ...]] = ("finnhub", "mdtasks.providers.requests_session")

    def __init__(self, settings: VendorSettings, calendars: Calendars, gate_for: GateFor = open_gate) -> None:
        super().__init__(calendars)
        assert settings.finnhub_key is not None
        self._key = settings.finnhub_key.get_secret_value()
        access = Access.of(NAME, settings, _FREE)
        self.capabilities = Capabilities(
            intervals=frozenset(_RESOLUTIONS) if settings.finnhub_candles else frozenset(),
            delay_s=access.delay_s,
            history=access.history,
            quotes=True,
            rates=access.rates,
            windows=_WINDOWS,
            mics=US_EXCHANGES,
            listing=True,
        )
        self._wire = FinnhubWire(gate_for(NAME, access.rates), access, [self._key])

    def ask_bars(
        self,
        listings: Sequence[Listing],
        interval: Interval,
        window: TimeWindow,
        now: datetime,  # noqa: ARG002
    ) -> BarsAnswer:
        """One call a symbol."""
        return BarsAnswer(*one_by_one(listings, lambda listing: self._bars(listing.symbol, interval, window)))

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:  # noqa: ARG002
        """The last bid and ask of each listing, one call a symbol."""
        return quotes_one_by_one([each for each in listings if self.capabilities.serves(each)], self._quote)

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:  # noqa: ARG002
        """The symbols of the US, in one call."""
        with self._wire.keeping() as bodies:
            self._sdk.stock_symbols("US")
        return [Kept(now.date(), b"\n".join(bodies))]

    def check(self) -> str:
        """Asks for the last price of one symbol, which every plan includes."""
        self._sdk.quote("AAPL")
        bars = "bars and quotes" if self.capabilities.intervals else "quotes only (MDTASKS_FINNHUB_CANDLES is off)"
        return f"key accepted, {bars}, limits {'+'.join(map(str, self.capabilities.rates)) or 'none'}"

    def _bars(self, symbol: str, interval: Interval, window: TimeWindow) -> Bars:
        first, last = (to_us(at) // 1_000_000 for at in (window.start, window.end - timedelta(seconds=1)))
        found = self._sdk.stock_candles(symbol, _RESOLUTIONS[interval], first, last)
        if found["s"] == "no_data":
            return Bars.empty()
        try:
            ts_us = np.array(found["t"], dtype=np.int64) * 1_000_000
            bars = Bars.of(ts_us, *(found[name] for name in ("o", "h", "l", "c", "v")))
        except (KeyError, ValueError, TypeError) as exc:
            raise self._wire.garbled(f"candles cannot be read: {exc!r}") from exc
        if interval is not Interval.D1:
            return bars
        midnight = bool((ts_us % 86_400_000_000 == 0).all())
        return bars if midnight else Bars(session_labels(ts_us, NEW_YORK), *bars.columns)

    def _quote(self, listing: Listing) -> Quote | None:
        found = self._sdk.last_bid_ask(listing.symbol)
        sides = [positive(found.get(name)) for name in ("b", "bv", "a", "av")]
        if sides[0] is None and sides[2] is None:
            return None  # how it answers for a symbol that it does not know
        at = int(found["t"])  # milliseconds by the documentation, seconds by answers that people show
        return Quote(from_us(at * 1000 if at > 10**11 else at * 1_000_000), *sides)

    @cached_property
    def _sdk(self) -> Any:
        """The SDK's client: the key in a header, every request through the gate."""
        transport = loaded("mdtasks.providers.requests_session")
        client = loaded("finnhub").Client(self._key)
        session = transport.gated_session(self._wire, client._session)
        session.params.clear()
        session.headers["X-Finnhub-Token"] = self._key
        return client


class FinnhubWire(Wire):
    """Finnhub's addresses and words."""

    provider = NAME

    def endpoint(self, path: str) -> str:
        """``bars``, ``quotes`` or ``listing``."""
        if path.endswith("/stock/symbol"):
            return "listing"
        return "bars" if path.endswith("/candle") else "quotes"

    def verify(self, endpoint: str, body: bytes) -> None:
        """Candles say that they are there, or that there are none; a quote bears its time."""
        content = self.json(body)
        if endpoint == "listing":
            if not isinstance(content, list) or not content:
                raise self.garbled("an answer without symbols")
            return
        if not isinstance(content, dict):
            raise self.garbled("an answer that is no object")
        if endpoint == "bars" and content.get("s") not in ("ok", "no_data"):
            raise self.garbled("candles that neither are there nor are said to be missing")
        if endpoint == "quotes" and "t" not in content:
            raise self.garbled("a quote without a time")

    def refusal(self, endpoint: str, answer: Answer) -> ProviderError:
        """403: the plan does not include it."""
        if answer.status == 403:
            hint = "turn MDTASKS_FINNHUB_CANDLES off" if endpoint == "bars" else "see finnhub.io/pricing"
            return NotEntitledError(f"HTTP 403: {self.words(answer)}", provider=NAME, hint=hint)
        return super().refusal(endpoint, answer)
