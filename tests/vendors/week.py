"""A week of three symbols at the local vendors, and how it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np

from mdtasks.domain.bars import Bars, Quote
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import BarsAnswer, Provider
from tests.vendors.market import Market
from tests.vendors.server import VendorServer

CALENDARS = Calendars()
WEEK = TimeWindow(start=datetime(2024, 3, 4, tzinfo=UTC), end=datetime(2024, 3, 9, tzinfo=UTC))
NOW = datetime(2024, 3, 12, tzinfo=UTC)
SYMBOLS = ("AAPL", "BRK.B", "MSFT")
LISTINGS = [Listing(symbol, "XNYS") for symbol in SYMBOLS]


def made(symbol: str, interval: Interval) -> Bars:
    """The bars of a symbol in the week."""
    ts = CALENDARS.get("XNYS").expected(WEEK, interval)
    price = 100.0 * (1 + SYMBOLS.index(symbol)) + np.arange(len(ts), dtype=np.float64) % 7
    return Bars.of(ts, price, price + 1, price - 1, price + 0.5, 100.0 + np.arange(len(ts), dtype=np.float64))


@contextmanager
def a_week() -> Iterator[VendorServer]:
    """Local vendors that sell the week, in all intervals."""
    bars = {(symbol, interval): made(symbol, interval) for symbol in SYMBOLS for interval in Interval}
    for interval in Interval:  # Yahoo's name for it
        bars["BRK-B", interval] = bars["BRK.B", interval]
    quotes = {
        symbol: Quote(datetime(2024, 3, 11, 19, 59, 58, tzinfo=UTC), price, 2.0, price + 0.25, 3.0)
        for symbol, price in zip(SYMBOLS, (100.0, 200.0, 300.0), strict=True)
    }
    with VendorServer(Market(bars, quotes)) as running:
        yield running


def asked(provider: Provider, *listings: Listing, interval: Interval = Interval.M1, now: datetime = NOW) -> BarsAnswer:
    """The provider\'s answer for the week; of all listings where none is named."""
    return provider.fetch_bars(listings or LISTINGS, interval, WEEK, now)


def same(left: Bars, right: Bars) -> bool:
    """Whether the bars are equal to the last bit, in the same order."""
    pairs = zip((left.ts_us, *left.columns), (right.ts_us, *right.columns), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
