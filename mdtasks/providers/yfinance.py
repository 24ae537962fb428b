"""The `yfinance` provider: Yahoo's bars through yfinance's data layer, one symbol a call. For personal use only.

Source of the API's facts: yfinance's source (yfinance.data, scrapers/history.py); Yahoo documents nothing. The SDK's
``Ticker.history`` turns failures into empty tables and remembers them, and asks for time zones beside; what it builds
on, ``YfData.get``, does the cookies and crumbs that Yahoo wants, remembers no answer, and is what is used here. The
chart's prices are adjusted for every split up to today: the splits since the window began are asked for and undone.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final
from urllib.parse import quote as quoted
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.actions import Action, Days, Kind
from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.errors import (
    InvalidRequestError,
    NoDataError,
    NotEntitledError,
    ProviderError,
    RateLimitedError,
    VendorError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.access import Access, Plan
from mdtasks.providers.base import ActionsAnswer, BarsAnswer, Capabilities
from mdtasks.providers.gate import GateFor, open_gate
from mdtasks.providers.http import Answer, Wire
from mdtasks.providers.shaping import session_labels, shortest
from mdtasks.providers.vendor import US_EXCHANGES, VendorProvider, loaded, one_by_one
from mdtasks.settings.vendors import VendorSettings

NAME: Final = "yfinance"
_CHART: Final = "https://query2.finance.yahoo.com/v8/finance/chart/"
#: Yahoo says nothing of limits; many report 429 at a few times this.
_FREE: Final = Plan(rates=(Rate(30, 60.0),))
#: Hours are left out: its hours begin with the session, half past, and ours with the clock.
_GRAINS: Final = {Interval.M1: "1m", Interval.M5: "5m", Interval.M15: "15m", Interval.D1: "1d"}
#: Minutes reach back 30 days and come for 8 at a time, the others 60; a day less, for clocks that differ.
_WINDOWS: Final = {Interval.M1: timedelta(days=7)}
_HISTORIES: Final = {
    Interval.M1: timedelta(days=29),
    Interval.M5: timedelta(days=59),
    Interval.M15: timedelta(days=59),
}
#: How it says that a symbol had no bars in a window.
_EMPTY: Final = "Data doesn't exist for startDate"
_SECOND_US: Final = 1_000_000
#: In so long a time, which no night fits into, a split comes before all bars or not at all.
_A_SESSION: Final = timedelta(hours=12)


class YfinanceProvider(VendorProvider):
    """Bars of 1m 5m 15m 1d of any symbol that Yahoo has, under Yahoo's names (but ``BRK.B`` is asked as ``BRK-B``)."""

    name = NAME
    modules: ClassVar[tuple[str, ...]] = ("yfinance", "yfinance.data", "mdtasks.providers.yahoo_session")

    def __init__(self, settings: VendorSettings, calendars: Calendars, gate_for: GateFor = open_gate) -> None:
        super().__init__(calendars)
        access = Access.of(NAME, settings, _FREE)
        self.capabilities = Capabilities(
            intervals=frozenset(_GRAINS),
            delay_s=access.delay_s,
            history=access.history,
            rates=access.rates,
            windows=_WINDOWS,
            histories=_HISTORIES,
            actions=True,
        )
        self._wire = YahooWire(gate_for(NAME, access.rates), access)
        self._data: Any = None

    def ask_bars(
        self, listings: Sequence[Listing], interval: Interval, window: TimeWindow, now: datetime
    ) -> BarsAnswer:
        """One call a symbol, or two: for the bars, and for the splits since."""
        return BarsAnswer(*one_by_one(listings, lambda listing: self._bars(listing, interval, window, now)))

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:
        """Splits and dividends of each listing, one call a symbol; none that is still to come."""
        return ActionsAnswer(*one_by_one(listings, lambda listing: self._actions(listing, days, now)))

    def check(self) -> str:
        """Asks for a week of daily bars."""
        now = datetime.now(UTC)
        self._chart("AAPL", Interval.D1, now - timedelta(days=7), now)
        return "Yahoo answers; for personal use only, as its terms say"

    def _bars(self, listing: Listing, interval: Interval, window: TimeWindow, now: datetime) -> Bars:
        symbol = yahoos(listing)
        if interval is Interval.D1:
            # A session may open on the day before its date. Up to now, every split since the window began comes along.
            chart = self._chart(symbol, interval, window.start - timedelta(days=1), max(now, window.end))
            bars = self._rows(chart, interval).within(window)
            splits = self._splits(chart, now)
            splits[:, 0] = session_labels(splits[:, 0].astype(np.int64), self._zone(chart)) if len(splits) else 0
            return unsplit(bars, splits)
        chart = self._chart(symbol, interval, window.start, window.end)
        bars = self._rows(chart, interval).within(window)
        if len(bars) and now - window.start > _A_SESSION:
            chart = self._chart(symbol, Interval.D1, window.start, now)
        return unsplit(bars, self._splits(chart, now))

    def _actions(self, listing: Listing, days: Days, now: datetime) -> list[Action]:
        """Yahoo has dividends adjusted for the splits that came later: these are undone."""
        # Every split up to now comes along; a session may open on the day before its date.
        start = datetime(days.first.year, days.first.month, days.first.day, tzinfo=UTC) - timedelta(days=1)
        if start >= now:
            return []
        chart = self._chart(yahoos(listing), Interval.D1, start, now)
        if not chart.get("events"):
            return []
        splits = [(self._date(at_us, chart), ratio) for at_us, ratio in self._splits(chart, now).tolist()]
        try:
            paid = [
                (self._date(float(each["date"]) * _SECOND_US, chart), float(each["amount"]))
                for each in chart["events"].get("dividends", {}).values()
            ]
            found = [Action(Kind.SPLIT, day, ratio) for day, ratio in splits]
            found += [_dividend(day, amount, splits, chart["meta"].get("currency")) for day, amount in paid if amount]
        except (KeyError, ValueError, TypeError, AttributeError, InvalidRequestError) as exc:
            raise self._wire.garbled(f"an action cannot be read: {exc!r}") from exc
        return [each for each in found if each.ex_date in days]

    def _date(self, at_us: float, chart: Mapping[str, Any]) -> date:
        """The date of the session that opens at a moment."""
        return from_us(int(session_labels(np.array([at_us], dtype=np.int64), self._zone(chart))[0])).date()

    def _chart(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Mapping[str, Any]:
        """Yahoo's chart of a symbol: ``{}`` when it says that there are no bars."""
        params = {
            "period1": to_us(start) // _SECOND_US,
            "period2": -(-to_us(end) // _SECOND_US),
            "interval": _GRAINS[interval],
            "includePrePost": "false",
            "events": "div,splits",
        }
        try:
            answer = self._sdk().get(url=_CHART + quoted(symbol, safe=""), params=params, timeout=self._wire.timeout_s)
        except YahooEmpty:
            return {}
        except ProviderError:
            if self._wire.stale:  # its cookies are not taken any more: the next call begins anew
                self._data, self._wire.stale = None, False
            raise
        found: Mapping[str, Any] = self._wire.json(answer.content)["chart"]["result"][0]
        return found

    def _rows(self, chart: Mapping[str, Any], interval: Interval) -> Bars:
        """The rows that hold a bar. Yahoo writes null for none, and adds the price of this moment as a last row."""
        if not chart.get("timestamp"):
            return Bars.empty()
        try:
            columns = chart["indicators"]["quote"][0]
            ts_us = np.array(chart["timestamp"], dtype=np.int64) * _SECOND_US
            values = [np.array(columns[name], dtype=np.float64) for name in ("open", "high", "low", "close", "volume")]
            bars = Bars.of(ts_us, *values)
        except (KeyError, IndexError, ValueError, TypeError) as exc:
            raise self._wire.garbled(f"a chart cannot be read: {exc!r}") from exc
        whole = np.flatnonzero(np.isfinite(np.vstack(bars.columns[:4])).all(axis=0))
        bars = replace(bars, volume=np.nan_to_num(bars.volume)).take(whole)
        if interval is Interval.D1:
            bars = Bars(session_labels(bars.ts_us, self._zone(chart)), *bars.columns)
            return bars.take(np.unique(bars.ts_us, return_index=True)[1])
        return bars.take(bars.ts_us % (interval.seconds * _SECOND_US) == 0)

    def _zone(self, chart: Mapping[str, Any]) -> str:
        """The exchange's time zone, on whose clock a session has its date."""
        try:
            return str(ZoneInfo(chart["meta"]["exchangeTimezoneName"]))
        except (KeyError, ValueError, TypeError, ZoneInfoNotFoundError) as exc:
            raise self._wire.garbled(f"a chart without a time zone: {exc!r}") from exc

    def _splits(self, chart: Mapping[str, Any], now: datetime) -> NDArray[np.float64]:
        """The splits of the chart that have happened: (the open they came with, microseconds; new shares for one old),
        shape (n, 2), in time order.
        """
        try:
            found = [
                (float(each["date"]) * _SECOND_US, float(each["numerator"]) / float(each["denominator"]))
                for each in chart.get("events", {}).get("splits", {}).values()
                if float(each["date"]) * _SECOND_US <= to_us(now)
            ]
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as exc:
            raise self._wire.garbled(f"a split cannot be read: {exc!r}") from exc
        return np.array(sorted(found), dtype=np.float64).reshape(-1, 2)

    def _sdk(self) -> Any:
        """The SDK's data layer with a session of ours: one of its own, for the SDK's is the whole process's."""
        if self._data is None:
            sdk = loaded("yfinance")
            # It keeps cookies in an SQLite file in the home, where many processes meet; where it cannot, it does not.
            sdk.set_tz_cache_location(os.path.join(os.devnull, NAME))
            # It warns before each chart when the cookies failed, of what its session here has told the gate.
            logging.getLogger(NAME).setLevel(logging.ERROR)
            session = loaded("mdtasks.providers.yahoo_session").YahooSession(self._wire)
            self._data = type.__call__(loaded("yfinance.data").YfData, session=session)
        return self._data


class YahooEmpty(Exception):  # noqa: N818 - an answer, not a failure
    """Yahoo said that the symbol has no bars in the window."""


class YahooWire(Wire):
    """Yahoo's addresses and words."""

    provider = NAME
    #: The last refusal was of the cookies or the crumb.
    stale = False

    def endpoint(self, path: str) -> str:
        """``bars``, or ``cookies`` for what the SDK asks before."""
        return "bars" if "/v8/finance/chart/" in path else "cookies"

    def verify(self, endpoint: str, body: bytes) -> None:
        """A chart has a result; one without times says so by leaving them out."""
        if endpoint != "bars":
            return
        content = self.json(body)
        try:
            result = content["chart"]["result"][0]
            sound = isinstance(result["meta"], dict) and isinstance(result["indicators"]["quote"], list)
        except (KeyError, IndexError, TypeError):
            sound = False
        if not sound:
            raise self.garbled("a chart without a result")

    def refusal(self, endpoint: str, answer: Answer) -> ProviderError:
        """404: no such symbol. 401: the crumb is stale. 403: this address may not ask."""
        words = self.words(answer)
        if endpoint == "bars" and answer.status == 404:
            return NoDataError(f"HTTP 404: {words}", provider=NAME)
        if answer.status == 401:
            self.stale = True
            return VendorError(f"HTTP 401: {words}: the cookies were not taken", provider=NAME)
        if answer.status == 403:
            self.stale = True
            return NotEntitledError(f"HTTP 403: {words}: Yahoo refuses this address", provider=NAME)
        found = super().refusal(endpoint, answer)
        if isinstance(found, RateLimitedError) and found.retry_after_s is None:
            found.retry_after_s = 60.0  # it never says how long
        return found

    def says_empty(self, answer: Answer) -> bool:
        """Whether a refusal only says that there are no bars in the window."""
        return answer.status in (400, 404, 422) and _EMPTY in self.words(answer)


def yahoos(listing: Listing) -> str:
    """The symbol as Yahoo writes it: share classes of US companies after a hyphen."""
    return listing.symbol.replace(".", "-") if listing.mic in US_EXCHANGES else listing.symbol


def unsplit(bars: Bars, splits: NDArray[np.float64]) -> Bars:
    """The bars as they were traded: prices times, and volumes through, the splits that came after each bar.

    ``splits``: (the first bar that shows it, microseconds; new shares for one old), shape (n, 2).
    """
    for first_us, ratio in splits:
        factor = np.where(bars.ts_us < first_us, ratio, 1.0)
        open_, high, low, close = (column * factor for column in bars.columns[:4])
        bars = Bars(bars.ts_us, open_, high, low, close, bars.volume / factor)
    return bars


def _dividend(day: date, amount: float, splits: Sequence[tuple[date, float]], currency: str | None) -> Action:
    """A dividend as it was declared: Yahoo divides it by the splits that came later, and rounds to six decimals."""
    later = math.prod(ratio for split_on, ratio in splits if split_on > day)
    # Prices in London are in pence, which Yahoo writes as GBp.
    money = "GBX" if currency == "GBp" else currency
    return Action(Kind.DIVIDEND, day, shortest(amount * later, 0.5e-6 * later), money)
