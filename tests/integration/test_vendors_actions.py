"""Corporate actions of every vendor's adapter: raw, as they were on their day, whatever the vendor makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from mdtasks.domain.action_news import combined
from mdtasks.domain.actions import Action, Days, Kind
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.errors import GarbledAnswerError, ProviderError, RateLimitedError, UnsupportedError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import ActionsAnswer
from tests.vendors.configured import SWITCHES, vendor
from tests.vendors.market import Dividend, Market, Split
from tests.vendors.server import Fault, VendorServer

CALENDARS = Calendars()
AAPL, BRK, QUIET = Listing("AAPL", "XNYS"), Listing("BRK.B", "XNYS"), Listing("QUIET", "XNYS")
NOW = datetime(2024, 6, 1, tzinfo=UTC)
DAYS = Days(date(2012, 1, 1), date(2024, 6, 1))
TELLING = ("alpaca", "massive", "yfinance")
#: Where each asks.
PATHS = {"alpaca": "corporate-actions", "massive": "/v3/reference/", "yfinance": "/v8/finance/chart/"}


def opened(day: date) -> datetime:
    """About the open of New York in summer, on that date in any zone."""
    return datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC)


TRUTH = {
    "AAPL": {
        (date(2012, 8, 9), Kind.DIVIDEND): 2.65,
        (date(2014, 6, 9), Kind.SPLIT): 7.0,
        (date(2014, 8, 7), Kind.DIVIDEND): 0.47,
        (date(2020, 8, 31), Kind.SPLIT): 4.0,
        (date(2024, 5, 10), Kind.DIVIDEND): 0.25,
    },
    "BRK.B": {(date(2023, 1, 3), Kind.SPLIT): 0.1},
    "QUIET": {},
}


@pytest.fixture
def market() -> Market:
    days = np.array([to_us(datetime(2012, 1, 3, tzinfo=UTC) + timedelta(days=7 * n)) for n in range(600)])
    ones = np.ones(len(days))
    sold = {(symbol, Interval.D1): Bars.of(days, ones, ones, ones, ones, ones) for symbol in (*TRUTH, "BRK-B")}
    market = Market(sold, page=2)
    for symbol, actions in TRUTH.items():
        found = sorted(actions.items())
        market.splits[symbol] = tuple(Split(opened(d), v) for (d, kind), v in found if kind is Kind.SPLIT)
        market.dividends[symbol] = tuple(
            Dividend(opened(d), v, d + timedelta(days=7)) for (d, kind), v in found if kind is Kind.DIVIDEND
        )
    market.splits["BRK-B"] = market.splits["BRK.B"]
    return market


@pytest.fixture
def server(market: Market) -> Iterator[VendorServer]:
    with VendorServer(market) as opened:
        yield opened


def asked(name: str, server: VendorServer, *listings: Listing, days: Days = DAYS) -> ActionsAnswer:
    return vendor(name, server, CALENDARS).fetch_actions(listings, days, NOW)


def told(answer: ActionsAnswer) -> dict[str, dict[tuple[date, Kind], float | None]]:
    return {
        symbol: {(each.ex_date, each.kind): each.value for each in combined(found)}
        for symbol, found in answer.actions.items()
    }


@pytest.mark.parametrize("name", TELLING)
def test_amounts_are_those_of_their_day(name: str, server: VendorServer) -> None:
    answer = asked(name, server, AAPL, BRK, QUIET)
    assert answer.errors == {}
    assert told(answer) == TRUTH


@pytest.mark.parametrize("name", TELLING)
def test_only_ex_dates_that_were_asked_for_are_told(name: str, server: VendorServer) -> None:
    answer = asked(name, server, AAPL, days=Days(date(2014, 6, 9), date(2014, 8, 6)))
    assert told(answer) == {"AAPL": {(date(2014, 6, 9), Kind.SPLIT): 7.0}}


@pytest.mark.parametrize("name", TELLING)
def test_what_cannot_be_read_is_no_answer(name: str, server: VendorServer) -> None:
    server.fail(name, Fault(status=200, body={"unexpected": True}, only=PATHS[name], times=9))
    with pytest.raises(ProviderError) as refused:
        asked(name, server, AAPL)
    assert isinstance(refused.value, GarbledAnswerError)


@pytest.mark.parametrize("name", TELLING)
def test_too_many_requests_are_told_as_such(name: str, server: VendorServer) -> None:
    server.fail(name, Fault(status=429, body={"message": "slow down"}, only=PATHS[name], times=9))
    with pytest.raises(RateLimitedError):
        asked(name, server, AAPL)


def test_alpaca_tells_of_renames_spin_offs_and_delistings(server: VendorServer) -> None:
    groups = {
        "name_changes": [{"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"}],
        "spin_offs": [
            {"source_symbol": "GE", "new_symbol": "GEHC", "source_rate": 3, "new_rate": 1, "ex_date": "2023-01-04"}
        ],
        "cash_mergers": [{"acquiree_symbol": "TWTR", "rate": 54.2, "effective_date": "2022-10-28"}],
        "worthless_removals": [{"symbol": "GONE", "process_date": "2023-05-01"}],
        "stock_dividends": [{"symbol": "GE", "rate": 0.05, "ex_date": "2023-02-01"}],
        "redemptions": [{"symbol": "GE", "rate": 10, "process_date": "2023-02-01"}],
    }
    server.fail("alpaca", Fault(status=200, body={"corporate_actions": groups, "next_page_token": None}))
    listings = [Listing(symbol, "XNYS") for symbol in ("FB", "GE", "TWTR", "GONE")]
    assert asked("alpaca", server, *listings).actions == {
        "FB": [Action(Kind.RENAME, date(2022, 6, 9), symbol="META")],
        "GE": [
            Action(Kind.STOCK_DIVIDEND, date(2023, 2, 1), 0.05),
            Action(Kind.SPIN_OFF, date(2023, 1, 4), symbol="GEHC"),
        ],
        "TWTR": [Action(Kind.DELISTING, date(2022, 10, 28))],
        "GONE": [Action(Kind.DELISTING, date(2023, 5, 1))],
    }


def test_who_has_none_declares_none_and_says_so(server: VendorServer) -> None:
    for name in SWITCHES:
        provider = vendor(name, server, CALENDARS)
        assert provider.capabilities.actions == (name in TELLING)
        if name not in TELLING:
            with pytest.raises(UnsupportedError):
                provider.fetch_actions([AAPL], DAYS, NOW)


def test_a_foreign_listing_is_no_concern_of_a_us_vendor(server: VendorServer) -> None:
    for name in ("alpaca", "massive"):
        answer = asked(name, server, AAPL, Listing("VOD", "XLON"))
        assert set(answer.errors) == {"VOD"}
        assert set(answer.actions) == {"AAPL"}
