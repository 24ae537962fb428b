"""The `alpaca` provider: US equities' bars and quotes through alpaca-py, many symbols a call.

Source of the API's facts: https://docs.alpaca.markets/reference/stockbars and alpaca-py's source. Bars bear their
start in UTC, a daily one midnight in New York. A page holds 10,000 bars over all symbols, sorted by symbol, and a
failure on any page loses the call. A symbol without bars is absent, whether it did not trade or does not exist; only
one that cannot be a symbol is refused by name, which would lose the others: they are asked for again without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np

from mdtasks.domain.actions import Action, Days
from mdtasks.domain.bars import Bars, Quote
from mdtasks.domain.errors import (
    AuthError,
    InvalidRequestError,
    NoDataError,
    NotEntitledError,
    ProviderError,
    RefusedRequestError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.access import Access, Plan
from mdtasks.providers.alpaca_actions import actions_of
from mdtasks.providers.base import ActionsAnswer, BarsAnswer, Capabilities
from mdtasks.providers.gate import GateFor, open_gate
from mdtasks.providers.http import Answer, Wire
from mdtasks.providers.shaping import NEW_YORK, session_labels
from mdtasks.providers.vendor import US_EXCHANGES, VendorProvider, loaded, positive
from mdtasks.settings.vendors import VendorSettings

NAME: Final = "alpaca"
#: 200 calls a minute; the consolidated feed once it is 15 minutes old, and a minute more for clocks that differ.
#: https://docs.alpaca.markets/docs/about-market-data-api
_FREE: Final = {
    "iex": Plan(rates=(Rate(200, 60.0),)),
    "sip": Plan(rates=(Rate(200, 60.0),), delay_s=960.0),
}
#: Five pages.
_POINTS: Final = 50_000
#: They travel in the address, where 500 take some 4 KB.
_SYMBOLS: Final = 500
_FRAMES: Final = {
    Interval.M1: (1, "Min"),
    Interval.M5: (5, "Min"),
    Interval.M15: (15, "Min"),
    Interval.H1: (1, "Hour"),
    Interval.D1: (1, "Day"),
}
_INVALID: Final = re.compile(r"invalid symbols?:?\s*(.*)", re.IGNORECASE)
_HOLDS: Final = {"bars": "bars", "quotes": "quotes", "actions": "corporate_actions"}
#: How long before and after its ex-date an action is processed: dividends when they are paid.
_PROCESSED_EARLY, _PROCESSED_LATE = timedelta(days=10), timedelta(days=100)


class AlpacaProvider(VendorProvider):
    """Bars of 1m 5m 15m 1h 1d and the latest quotes, of the feed that the settings name.

    ``iex`` is one exchange of many: its silence says nothing, and its volumes are its own.
    """

    name = NAME
    modules: ClassVar[tuple[str, ...]] = ("alpaca", "alpaca.data", "mdtasks.providers.requests_session")

    def __init__(self, settings: VendorSettings, calendars: Calendars, gate_for: GateFor = open_gate) -> None:
        super().__init__(calendars)
        assert settings.alpaca_key is not None
        assert settings.alpaca_secret is not None
        self._keys = (settings.alpaca_key.get_secret_value(), settings.alpaca_secret.get_secret_value())
        self._feed = settings.alpaca_feed
        access = Access.of(NAME, settings, _FREE[self._feed])
        self.capabilities = Capabilities(
            intervals=frozenset(_FRAMES),
            max_symbols=_SYMBOLS,
            complete=self._feed == "sip",
            delay_s=access.delay_s,
            history=access.history,
            quotes=access.delay_s == 0,
            rates=access.rates,
            points=_POINTS,
            mics=US_EXCHANGES,
            actions=True,
            listing=True,
        )
        self._wire = AlpacaWire(gate_for(NAME, access.rates), access, self._keys)

    def ask_bars(
        self,
        listings: Sequence[Listing],
        interval: Interval,
        window: TimeWindow,
        now: datetime,  # noqa: ARG002
    ) -> BarsAnswer:
        """One call for all symbols, in as many pages as it takes."""
        data = loaded("alpaca.data")
        amount, unit = _FRAMES[interval]

        def ask(symbols: list[str]) -> Mapping[str, list[Mapping[str, Any]]]:
            request = data.StockBarsRequest(
                symbol_or_symbols=symbols,
                timeframe=data.TimeFrame(amount, data.TimeFrameUnit(unit)),
                start=window.start,
                end=window.end - timedelta(microseconds=1),  # the vendor's end is part of the window
                adjustment=data.Adjustment.RAW,
                feed=data.DataFeed(self._feed),
            )
            found: Mapping[str, list[Mapping[str, Any]]] = self._sdk.get_stock_bars(request)
            return found

        rows, errors = self._without_invalid([listing.symbol for listing in listings], ask)
        bars = {
            listing.symbol: self._bars(rows.get(listing.symbol, []), interval)
            for listing in listings
            if listing.symbol not in errors
        }
        return BarsAnswer(bars, errors)

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:
        """The latest quote of each listing in one call. Sizes are as the vendor gives them."""
        if not self.capabilities.quotes:
            return super().fetch_quotes(listings, now)
        data = loaded("alpaca.data")

        def ask(symbols: list[str]) -> Mapping[str, Mapping[str, Any]]:
            request = data.StockLatestQuoteRequest(symbol_or_symbols=symbols, feed=data.DataFeed(self._feed))
            found: Mapping[str, Mapping[str, Any]] = self._sdk.get_stock_latest_quote(request)
            return found

        symbols = [listing.symbol for listing in listings if self.capabilities.serves(listing)]
        rows, _ = self._without_invalid(symbols, ask)
        return {symbol: self._quote(rows[symbol]) for symbol in symbols if rows.get(symbol)}

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:  # noqa: ARG002
        """One call for all symbols, in as many pages as it takes.

        The vendor goes by the day on which it processes an action, for dividends weeks after the ex-date.
        """
        data = loaded("alpaca.data")

        def ask(symbols: list[str]) -> Mapping[str, list[Mapping[str, Any]]]:
            request = data.CorporateActionsRequest(
                symbols=symbols, start=days.first - _PROCESSED_EARLY, end=days.last + _PROCESSED_LATE, limit=None
            )
            found: Mapping[str, list[Mapping[str, Any]]] = self._sdk_of_actions.get_corporate_actions(request)
            return found

        served = [listing.symbol for listing in listings if self.capabilities.serves(listing)]
        rows, errors = self._without_invalid(served, ask)
        try:
            found = actions_of(rows)
        except (KeyError, ValueError, TypeError, InvalidRequestError) as exc:
            raise self._wire.garbled(f"an action cannot be read: {exc!r}") from exc
        actions: dict[str, list[Action]] = {
            symbol: [each for each in found.get(symbol, ()) if each.ex_date in days]
            for symbol in served
            if symbol not in errors
        }
        unserved = {
            each.symbol: NoDataError(f"does not serve {each.mic}", provider=NAME)
            for each in listings
            if not self.capabilities.serves(each)
        }
        return ActionsAnswer(actions, {**unserved, **errors})

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:  # noqa: ARG002
        """The active US equities, in one call of the trading API."""
        trading = loaded("alpaca.trading.client")
        requests, enums = loaded("alpaca.trading.requests"), loaded("alpaca.trading.enums")
        client = trading.TradingClient(*self._keys, paper=self._keys[0].startswith("PK"), raw_data=True)
        client._retry = 0
        loaded("mdtasks.providers.requests_session").gated_session(self._wire, client._session)
        wanted = requests.GetAssetsRequest(status=enums.AssetStatus.ACTIVE, asset_class=enums.AssetClass.US_EQUITY)
        with self._wire.keeping() as bodies:
            client.get_all_assets(wanted)
        return [Kept(now.date(), b"\n".join(bodies))]

    def check(self) -> str:
        """Asks for one bar."""
        now = datetime.now(UTC)
        week = TimeWindow(start=now - timedelta(days=14), end=now - timedelta(days=7))
        self.ask_bars([Listing("AAPL", "XNYS")], Interval.D1, week, now)
        return f"key accepted, feed {self._feed}, bars {self.capabilities.delay_s:g} s after they ended"

    def _without_invalid(self, symbols: list[str], ask: Any) -> tuple[Mapping[str, Any], dict[str, ProviderError]]:
        """What ``ask`` gives for the symbols that the vendor takes, and an error for each that it refuses by name."""
        errors: dict[str, ProviderError] = {}
        left = list(symbols)
        while left:
            try:
                return ask(left), errors
            except RefusedRequestError as exc:
                named = _INVALID.search(exc.message)
                refused = [symbol for symbol in left if named and symbol in re.split(r"[\s,\"']+", named[1])]
                if not refused:
                    raise
                errors |= {symbol: NoDataError(f"no symbol {symbol}", provider=NAME) for symbol in refused}
                left = [symbol for symbol in left if symbol not in refused]
        return {}, errors

    def _bars(self, rows: Sequence[Mapping[str, Any]], interval: Interval) -> Bars:
        try:
            ts_us = np.array([row["t"].removesuffix("Z") for row in rows], dtype="datetime64[us]").astype(np.int64)
            bars = Bars.of(ts_us, *([row[name] for row in rows] for name in ("o", "h", "l", "c", "v")))
        except (KeyError, ValueError, TypeError, AttributeError) as exc:
            raise self._wire.garbled(f"a bar cannot be read: {exc!r}") from exc
        if interval is not Interval.D1:
            return bars
        return Bars(session_labels(bars.ts_us, NEW_YORK), *bars.columns)

    def _quote(self, row: Mapping[str, Any]) -> Quote:
        try:
            at = datetime.fromisoformat(row["t"])
            sides = [positive(row[name]) for name in ("bp", "bs", "ap", "as")]
        except (KeyError, ValueError, TypeError) as exc:
            raise self._wire.garbled(f"a quote cannot be read: {exc!r}") from exc
        return Quote(at.astimezone(UTC), *sides)

    @cached_property
    def _sdk(self) -> Any:
        """The SDK's client: raw answers, no retries of its own, every request through the gate."""
        transport = loaded("mdtasks.providers.requests_session")
        client = loaded("alpaca.data").StockHistoricalDataClient(*self._keys, raw_data=True)
        client._retry = 0  # not among its arguments; else it sleeps three seconds on a 429, three times
        transport.gated_session(self._wire, client._session)
        return client

    @cached_property
    def _sdk_of_actions(self) -> Any:
        """The SDK's client of corporate actions, like that of bars."""
        transport = loaded("mdtasks.providers.requests_session")
        module = loaded("alpaca.data.historical.corporate_actions")
        client = module.CorporateActionsClient(*self._keys, raw_data=True)
        client._retry = 0
        transport.gated_session(self._wire, client._session)
        return client


class AlpacaWire(Wire):
    """Alpaca's addresses and words. A wrong key is told by 401 or by 403, as is a plan that does not include a feed."""

    provider = NAME

    def endpoint(self, path: str) -> str:
        """``bars``, ``quotes``, ``actions`` or ``listing``."""
        if path.endswith("/corporate-actions"):
            return "actions"
        if path.endswith("/assets"):
            return "listing"
        return "quotes" if "/quotes" in path else "bars"

    def verify(self, endpoint: str, body: bytes) -> None:
        """An answer without the object of bars or quotes, or without assets, is none."""
        content = self.json(body)
        if endpoint == "listing":
            if not isinstance(content, list) or not content:
                raise self.garbled("an answer without assets")
        elif not isinstance(content, dict) or not isinstance(content.get(_HOLDS[endpoint]), dict):
            raise self.garbled(f"an answer without {endpoint}")

    def refusal(self, endpoint: str, answer: Answer) -> ProviderError:
        """Tells a key that is not accepted from a plan that does not include what was asked, as the words allow."""
        if answer.status != 403:
            return super().refusal(endpoint, answer)
        words = self.words(answer)
        if "forbidden" in words.lower():
            return AuthError(f"HTTP 403: {words}: key and secret are not accepted", provider=NAME)
        if "subscription" in words.lower():
            hint = "MDTASKS_ALPACA_FEED and MDTASKS_VENDOR_DELAYS say what the plan includes"
            return NotEntitledError(f"HTTP 403: {words}", provider=NAME, hint=hint)
        said = f"HTTP 403: {words or 'no words'}: the plan does not include this, or the key is wrong"
        return NotEntitledError(said, provider=NAME)
