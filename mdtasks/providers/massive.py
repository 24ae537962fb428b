"""The `massive` provider: US equities' bars and quotes through massive (once polygon-api-client), a symbol a call.

Source of the API's facts: https://massive.com/docs/rest/stocks/aggregates/custom-bars and the SDK's source. Times are
milliseconds (bars) and nanoseconds (quotes) of UTC, a daily bar bears midnight in New York. A page is cut at 50,000
minutes or days that its bars are made of, so longer windows come back with holes: a month of minutes fits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar, Final
from urllib.parse import quote as quoted

import numpy as np

from mdtasks.domain.actions import Action, Days, Kind
from mdtasks.domain.bars import Bars, Quote, from_us
from mdtasks.domain.errors import InvalidRequestError, NoDataError, ProviderError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.access import Access, Plan
from mdtasks.providers.base import ActionsAnswer, BarsAnswer, Capabilities
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

NAME: Final = "massive"
#: Five calls a minute, two years, and a day's bars on the day after, https://massive.com/pricing
_FREE: Final = Plan(rates=(Rate(5, 60.0),), delay_s=86_400.0, history=timedelta(days=730))
_SPANS: Final = {
    Interval.M1: (1, "minute"),
    Interval.M5: (5, "minute"),
    Interval.M15: (15, "minute"),
    Interval.H1: (1, "hour"),
    Interval.D1: (1, "day"),
}
#: All but daily bars are made of minutes, of which a page holds 50,000: more than a month's, round the clock.
_WINDOWS: Final[Mapping[Interval, timedelta]] = {
    interval: timedelta(days=30) for interval in _SPANS if interval is not Interval.D1
}
_LIMIT: Final = 50_000
#: Most splits or dividends of a page.
_ACTIONS: Final = 1000


class MassiveProvider(VendorProvider):
    """Bars of 1m 5m 15m 1h 1d of the consolidated tape; quotes where the account has no delay."""

    name = NAME
    modules: ClassVar[tuple[str, ...]] = ("massive", "mdtasks.providers.sockets")

    def __init__(self, settings: VendorSettings, calendars: Calendars, gate_for: GateFor = open_gate) -> None:
        super().__init__(calendars)
        assert settings.massive_key is not None
        self._key = settings.massive_key.get_secret_value()
        access = Access.of(NAME, settings, _FREE)
        self.capabilities = Capabilities(
            intervals=frozenset(_SPANS),
            complete=True,
            delay_s=access.delay_s,
            history=access.history,
            quotes=access.delay_s == 0,
            rates=access.rates,
            windows=_WINDOWS,
            mics=US_EXCHANGES,
            actions=True,
            listing=True,
        )
        self._wire = MassiveWire(gate_for(NAME, access.rates), access, [self._key])

    def ask_bars(
        self,
        listings: Sequence[Listing],
        interval: Interval,
        window: TimeWindow,
        now: datetime,  # noqa: ARG002
    ) -> BarsAnswer:
        """One call a symbol, in as many pages as it takes."""
        return BarsAnswer(*one_by_one(listings, lambda listing: self._bars(listing.symbol, interval, window)))

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:
        """The latest quote of each listing, one call a symbol."""
        if not self.capabilities.quotes:
            return super().fetch_quotes(listings, now)
        return quotes_one_by_one([each for each in listings if self.capabilities.serves(each)], self._quote)

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:  # noqa: ARG002
        """Splits and cash dividends, two calls a symbol. Amounts are not adjusted for later splits."""
        return ActionsAnswer(*one_by_one(listings, lambda listing: self._actions(listing, days)))

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:  # noqa: ARG002
        """The active tickers of stocks, a thousand a page: ten pages and more, too many for a free plan's rate."""
        with self._wire.keeping() as bodies:
            for _ in self._sdk.list_tickers(market="stocks", active=True, limit=1000):
                pass
        return [Kept(now.date(), b"\n".join(bodies))]

    def check(self) -> str:
        """Asks for a week of daily bars."""
        now = datetime.now(UTC) - timedelta(days=14)
        self._bars("AAPL", Interval.D1, TimeWindow(start=now, end=now + timedelta(days=7)))
        rates = "+".join(map(str, self.capabilities.rates)) or "none"
        return f"key accepted, limits {rates}, bars {self.capabilities.delay_s:g} s after they ended"

    def _bars(self, symbol: str, interval: Interval, window: TimeWindow) -> Bars:
        daily, last = interval is Interval.D1, window.end - timedelta(milliseconds=1)
        times = (window.start.date(), last.date()) if daily else (window.start, last)
        pages = self._sdk.list_aggs(
            quoted(symbol, safe=""), *_SPANS[interval], *times, adjusted=False, sort="asc", limit=_LIMIT
        )
        rows = [(each.timestamp, each.open, each.high, each.low, each.close, each.volume) for each in pages]
        try:
            ts_ms, *columns = zip(*rows, strict=True) if rows else ((),) * 6
            ts_us = np.array(ts_ms, dtype=np.int64) * 1000
            bars = Bars.of(ts_us, *(list(column) for column in columns))
        except (ValueError, TypeError) as exc:
            raise self._wire.garbled(f"a bar cannot be read: {exc!r}") from exc
        return Bars(session_labels(ts_us, NEW_YORK), *bars.columns) if daily else bars

    def _actions(self, listing: Listing, days: Days) -> list[Action]:
        if not self.capabilities.serves(listing):
            raise NoDataError(f"does not serve {listing.mic}", provider=NAME)
        first, last, symbol = days.first.isoformat(), days.last.isoformat(), listing.symbol
        splits = self._sdk.list_splits(ticker=symbol, execution_date_gte=first, execution_date_lte=last, limit=_ACTIONS)
        dividends = self._sdk.list_dividends(
            ticker=symbol, ex_dividend_date_gte=first, ex_dividend_date_lte=last, limit=_ACTIONS
        )
        try:
            return [*map(_split, splits), *(_dividend(each) for each in dividends if each.cash_amount)]
        except (ValueError, TypeError, ZeroDivisionError, InvalidRequestError) as exc:
            raise self._wire.garbled(f"an action cannot be read: {exc!r}") from exc

    def _quote(self, listing: Listing) -> Quote | None:
        found = self._sdk.get_last_quote(quoted(listing.symbol, safe=""))
        if not found.sip_timestamp:
            raise self._wire.garbled("a quote without a time")
        sides = (positive(each) for each in (found.bid_price, found.bid_size, found.ask_price, found.ask_size))
        return Quote(from_us(found.sip_timestamp // 1000), *sides)

    @cached_property
    def _sdk(self) -> Any:
        """The SDK's client: no retries of its own, every request through the gate."""
        sockets = loaded("mdtasks.providers.sockets")
        client = loaded("massive").RESTClient(
            self._key, retries=0, connect_timeout=self._wire.timeout_s, read_timeout=self._wire.timeout_s
        )
        # It logs to standard output, where commands write what they were asked for.
        logging.getLogger("RESTClient").handlers.clear()
        client.client.request = sockets.gated_manager(self._wire, client.client)
        return client


class MassiveWire(Wire):
    """Massive's addresses and words. The SDK takes any answer that it cannot read for an empty one: none reaches it."""

    provider = NAME

    def endpoint(self, path: str) -> str:
        """``bars``, ``quotes``, ``actions`` or ``listing``."""
        if "/reference/tickers" in path:
            return "listing"
        if path.startswith("/v3/reference/"):
            return "actions"
        return "quotes" if "/last/nbbo/" in path else "bars"

    def verify(self, endpoint: str, body: bytes) -> None:
        """No results are an answer only when the vendor counts none."""
        content = self.json(body)
        if not isinstance(content, dict):
            raise self.garbled("an answer that is no object")
        results = content.get("results")
        if endpoint == "quotes":
            if not isinstance(results, dict):
                raise self.garbled("an answer without a quote")
        elif endpoint == "listing":
            if not isinstance(results, list) or not results:
                raise self.garbled("a page without tickers")
        elif not isinstance(results, list) and not (results is None and content.get("resultsCount") == 0):
            raise self.garbled("an answer without results that does not say there are none")

    def refusal(self, endpoint: str, answer: Answer) -> ProviderError:
        """404: there is no such symbol."""
        if answer.status == 404:
            return NoDataError(f"HTTP 404: {self.words(answer)}", provider=NAME)
        return super().refusal(endpoint, answer)


def _split(row: Any) -> Action:
    return Action(Kind.SPLIT, date.fromisoformat(row.execution_date), row.split_to / row.split_from)


def _dividend(row: Any) -> Action:
    dates = (row.declaration_date, row.record_date, row.pay_date)
    return Action(
        Kind.DIVIDEND,
        date.fromisoformat(row.ex_dividend_date),
        float(row.cash_amount),
        row.currency or "USD",
        None,
        None,
        *(date.fromisoformat(each) if each else None for each in dates),
    )
