"""Yahoo through yfinance: its splits, cookies and ways to say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import (
    ProviderError,
    ProviderTimeoutError,
    RateSpentError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.rates import Rate
from mdtasks.domain.universe import Listing
from mdtasks.providers.gate import Gate, OpenGate
from tests.vendors.configured import vendor
from tests.vendors.market import Split
from tests.vendors.server import Fault, VendorServer
from tests.vendors.week import CALENDARS, LISTINGS, NOW, a_week, asked, made, same


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with a_week() as running:
        yield running


def test_yahoo_says_in_words_that_a_window_has_no_bars(server: VendorServer) -> None:
    error = {"code": "Bad Request", "description": "Data doesn't exist for startDate = 1, endDate = 2"}
    body = {"chart": {"result": None, "error": error}}
    server.fail("yfinance", Fault(status=400, body=body, only="/chart/"))
    answer = asked(vendor("yfinance", server, CALENDARS), LISTINGS[0])
    assert not len(answer.bars["AAPL"])


@pytest.mark.parametrize("interval", [Interval.M1, Interval.D1])
def test_yahoos_splits_are_undone(interval: Interval, server: VendorServer) -> None:
    market = server.market
    market.splits["AAPL"] = (
        Split(datetime(2024, 3, 6, 14, 30, tzinfo=UTC), 4.0),  # within the week
        Split(datetime(2024, 3, 11, 13, 30, tzinfo=UTC), 2.0),  # after it
    )
    listed = market.adjusted("AAPL", made("AAPL", interval))
    assert listed.close[0] == made("AAPL", interval).close[0] / 8
    found = asked(vendor("yfinance", server, CALENDARS), LISTINGS[0], interval=interval).bars["AAPL"]
    assert same(found, made("AAPL", interval))


def test_todays_minutes_take_one_request(server: VendorServer) -> None:
    provider, now = vendor("yfinance", server, CALENDARS), datetime(2024, 3, 8, 16, tzinfo=UTC)
    window = TimeWindow(start=now - timedelta(minutes=5), end=now)
    assert len(provider.fetch_bars(LISTINGS[:1], Interval.M1, window, now).bars["AAPL"]) == 5
    assert len(server.asked("yfinance", "/chart/")) == 1


def test_yahoos_cookies_are_not_needed_and_cost_one_timeout_at_most(server: VendorServer) -> None:
    provider = vendor("yfinance", server, CALENDARS, vendor_timeout_s=0.5)
    server.fail("yfinance", Fault("hang", times=100, only="getcrumb"))
    for _ in range(2):
        assert len(asked(provider, LISTINGS[0]).bars["AAPL"])
    assert len(server.asked("yfinance", "getcrumb")) == 1
    assert server.asked("yfinance", "getcrumb")[0].let_go.wait(10)


def test_all_of_yahoo_hanging_costs_two_timeouts_and_not_one_for_each_step(server: VendorServer) -> None:
    server.fail("yfinance", Fault("hang", times=100))
    with pytest.raises(ProviderTimeoutError):
        asked(vendor("yfinance", server, CALENDARS, vendor_timeout_s=0.5), LISTINGS[0])
    assert [seen.path for seen in server.seen] == ["/", "/v8/finance/chart/AAPL"]
    assert all(seen.let_go.wait(10) for seen in server.seen)


def test_yahoos_cookies_and_crumb_are_asked_for_once(server: VendorServer) -> None:
    provider = vendor("yfinance", server, CALENDARS)
    for _ in range(3):
        asked(provider, LISTINGS[0], interval=Interval.D1)
    assert [seen.path for seen in server.seen] == ["/", "/v1/test/getcrumb", *["/v8/finance/chart/AAPL"] * 3]


def test_yahoos_stale_cookies_are_dropped_for_the_next_call(server: VendorServer) -> None:
    provider = vendor("yfinance", server, CALENDARS)
    server.fail(
        "yfinance", Fault(status=401, body={"finance": {"error": {"description": "Invalid Crumb"}}}, only="/chart/")
    )
    with pytest.raises(ProviderError, match="Invalid Crumb"):
        asked(provider, LISTINGS[0])
    assert len(asked(provider, LISTINGS[0]).bars["AAPL"])
    assert len(server.asked("yfinance", "getcrumb")) == 2


def test_a_gate_that_lets_nothing_through_keeps_all_of_yahoo_from_being_asked(server: VendorServer) -> None:
    def shut(name: str, rates: tuple[Rate, ...]) -> Gate:
        return Shut()

    with pytest.raises(RateSpentError):
        asked(vendor("yfinance", server, CALENDARS, shut), LISTINGS[0])
    assert not server.seen


class Shut(OpenGate):
    """A gate whose vendor may not be asked for a while."""

    @contextmanager
    def request(self, endpoint: str) -> Iterator[None]:
        if endpoint:
            raise RateSpentError("not now", provider="yfinance", retry_after_s=9.0)
        yield


def test_a_session_that_opens_on_the_day_before_keeps_its_date_and_its_splits(server: VendorServer) -> None:
    opens_us = int(datetime(2024, 3, 4, 23, tzinfo=UTC).timestamp())  # Tuesday 2024-03-05, 10:00 in Sydney
    meta = {"symbol": "CBA.AX", "exchangeTimezoneName": "Australia/Sydney"}
    quote = {name: [50.0, 51.0] for name in ("open", "high", "low", "close", "volume")}
    second = opens_us + 86_400
    splits = {str(second): {"date": second, "numerator": 2.0, "denominator": 1.0}}
    result = {"meta": meta, "timestamp": [opens_us, second], "indicators": {"quote": [quote]}}
    body = {"chart": {"result": [{**result, "events": {"splits": splits}}], "error": None}}
    server.fail("yfinance", Fault(status=200, body=body, only="/chart/"))
    window = TimeWindow(start=datetime(2024, 3, 5, tzinfo=UTC), end=datetime(2024, 3, 7, tzinfo=UTC))
    provider = vendor("yfinance", server, CALENDARS)
    bars = provider.fetch_bars([Listing("CBA.AX", "XASX")], Interval.D1, window, NOW).bars["CBA.AX"]
    assert bars.ts_us.tolist() == [to_us(window.start), to_us(window.start + timedelta(days=1))]
    assert bars.close.tolist() == [100.0, 51.0]
    assert int(dict(parse_qsl(urlsplit(server.seen[-1].target).query))["period1"]) <= opens_us
