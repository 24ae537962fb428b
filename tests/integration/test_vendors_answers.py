"""What each vendor's answers become: bars, quotes, pages, splits; and that nothing is asked that need not be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
import urllib3.connection

from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import (
    NoDataError,
    NotYetError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitedError,
    UnsupportedError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.universe import Listing
from tests.vendors.configured import SWITCHES, vendor
from tests.vendors.market import Split
from tests.vendors.server import Fault, VendorServer
from tests.vendors.week import CALENDARS, LISTINGS, NOW, SYMBOLS, WEEK, a_week, asked, made, same

every_vendor = pytest.mark.parametrize("name", list(SWITCHES))


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with a_week() as running:
        yield running


@every_vendor
def test_many_symbols_come_each_with_its_own_bars_out_of_many_pages(name: str, server: VendorServer) -> None:
    server.market.page = 700
    answer = asked(vendor(name, server, CALENDARS))
    assert not answer.errors
    for symbol in SYMBOLS:
        assert same(answer.bars[symbol], made(symbol, Interval.M1))


@every_vendor
def test_a_daily_bar_bears_its_sessions_date(name: str, server: VendorServer) -> None:
    answer = asked(vendor(name, server, CALENDARS), interval=Interval.D1)
    assert same(answer.bars["MSFT"], made("MSFT", Interval.D1))


@pytest.mark.parametrize("name", ["alpaca", "databento"])
def test_symbols_share_a_call(name: str, server: VendorServer) -> None:
    asked(vendor(name, server, CALENDARS))
    assert len(server.asked(name)) == (2 if name == "databento" else 1)  # what it costs is asked first


@pytest.mark.parametrize("name", ["massive", "finnhub", "yfinance"])
def test_one_symbols_failure_does_not_lose_the_others(name: str, server: VendorServer) -> None:
    server.fail(name, Fault(only="BRK"), Fault("truncated", only="/candle", skip=1))
    answer = asked(vendor(name, server, CALENDARS))
    assert set(answer.bars) == {"AAPL", "MSFT"}
    assert answer.errors["BRK.B"].retryable


@pytest.mark.parametrize("name", ["massive", "finnhub", "yfinance"])
def test_what_concerns_the_account_ends_the_call_and_keeps_what_came(name: str, server: VendorServer) -> None:
    only = {"massive": "/aggs/", "finnhub": "/candle", "yfinance": "/chart/"}[name]
    server.fail(name, Fault(status=429, body={}, only=only, skip=2 if name == "yfinance" else 1))
    answer = asked(vendor(name, server, CALENDARS))
    assert set(answer.bars) == {"AAPL"}
    assert all(isinstance(answer.errors[symbol], RateLimitedError) for symbol in ("BRK.B", "MSFT"))


@pytest.mark.parametrize("name", ["alpaca", "massive"])
@pytest.mark.parametrize("kind", ["truncated", "answer", "reset"])
def test_a_failure_between_two_pages_fails_the_call(name: str, kind: Any, server: VendorServer) -> None:
    server.market.page = 1500
    server.fail(name, Fault(kind, skip=1))
    with pytest.raises(ProviderError) as failed:
        asked(vendor(name, server, CALENDARS), LISTINGS[0])
    assert failed.value.retryable
    assert len(server.asked(name)) == 2


@every_vendor
def test_a_window_without_trades_is_an_answer(name: str, server: VendorServer) -> None:
    provider = vendor(name, server, CALENDARS)
    sunday = TimeWindow(start=datetime(2024, 3, 10, tzinfo=UTC), end=datetime(2024, 3, 10, 12, tzinfo=UTC))
    answer = provider.fetch_bars(LISTINGS, Interval.M1, sunday, NOW)
    assert {symbol: len(bars) for symbol, bars in answer.bars.items()} == dict.fromkeys(SYMBOLS, 0)
    assert not answer.errors
    assert not answer.unanswered


def test_alpaca_is_asked_again_without_a_symbol_that_it_refuses_by_name(server: VendorServer) -> None:
    answer = asked(vendor("alpaca", server, CALENDARS), LISTINGS[0], Listing("^GSPC", "XNYS"), LISTINGS[2])
    assert set(answer.bars) == {"AAPL", "MSFT"}
    assert isinstance(answer.errors["^GSPC"], NoDataError)
    assert len(server.asked("alpaca")) == 2


@every_vendor
def test_an_exchange_that_is_not_served_is_not_asked_for(name: str, server: VendorServer) -> None:
    if name == "yfinance":
        assert vendor(name, server, CALENDARS).capabilities.mics is None
        return
    answer = asked(vendor(name, server, CALENDARS), Listing("7203", "XTKS"))
    assert isinstance(answer.errors["7203"], NoDataError)
    assert not server.seen


@every_vendor
def test_time_that_is_too_young_or_too_old_is_not_asked_for(name: str, server: VendorServer) -> None:
    provider = vendor(name, server, CALENDARS, vendor_delays={name: 900.0}, vendor_history={name: 86_400.0})
    with pytest.raises(NotYetError):
        provider.fetch_bars(LISTINGS, Interval.M1, WEEK, WEEK.start + timedelta(minutes=10))
    if name != "yfinance":
        with pytest.raises(UnsupportedError):
            provider.fetch_bars(LISTINGS, Interval.M1, WEEK, NOW)
    assert not server.seen


@pytest.mark.parametrize("name", ["alpaca", "massive", "finnhub"])
def test_quotes_come_with_both_sides(name: str, server: VendorServer) -> None:
    provider = vendor(name, server, CALENDARS)
    quotes = provider.fetch_quotes([*LISTINGS, Listing("NOPE", "XNYS")], NOW)
    assert set(quotes) == set(SYMBOLS)
    found = quotes["BRK.B"]
    assert (found.bid, found.bid_size, found.ask, found.ask_size) == (200.0, 2.0, 200.25, 3.0)
    assert found.ts.replace(microsecond=0) == datetime(2024, 3, 11, 19, 59, 58, tzinfo=UTC)


@pytest.mark.parametrize("name", ["alpaca", "massive", "finnhub"])
def test_a_quote_that_fails_leaves_the_others_and_all_that_fail_raise(name: str, server: VendorServer) -> None:
    provider = vendor(name, server, CALENDARS)
    if name != "alpaca":
        server.fail(name, Fault())
        assert set(provider.fetch_quotes(LISTINGS, NOW)) == {"BRK.B", "MSFT"}
    server.fail(name, Fault(times=3))
    with pytest.raises(ProviderError, match="500"):
        provider.fetch_quotes(LISTINGS, NOW)


def test_quotes_are_declared_where_the_account_may_have_them(server: VendorServer) -> None:
    for name, delay_s, has in (("alpaca", 900.0, False), ("massive", 86_400.0, False), ("massive", 0.0, True)):
        provider = vendor(name, server, CALENDARS, vendor_delays={name: delay_s})
        assert provider.capabilities.quotes is has
        if not has:
            with pytest.raises(UnsupportedError):
                provider.fetch_quotes(LISTINGS, NOW)
    assert not server.seen


def test_massive_is_asked_for_raw_prices(server: VendorServer) -> None:
    server.market.splits["AAPL"] = (Split(datetime(2024, 3, 11, tzinfo=UTC), 2.0),)
    found = asked(vendor("massive", server, CALENDARS), LISTINGS[0], interval=Interval.D1).bars["AAPL"]
    assert same(found, made("AAPL", Interval.D1))


class Clock:
    """Stands in for the timer of a request: up when ``when`` is set, not by the time of a machine that is busy."""

    when: ClassVar[threading.Event]
    ran: ClassVar[threading.Event] = threading.Event()
    seconds: ClassVar[list[float]]
    daemon = True

    def __init__(self, seconds: float, up: Callable[[], None]) -> None:
        self.seconds.append(seconds)
        self._up, self._cancelled = up, threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        if self.when.wait(30) and not self._cancelled.is_set():
            self._up()
            self.ran.set()

    def cancel(self) -> None:
        self._cancelled.set()


@pytest.fixture
def clock(server: VendorServer, monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """The clock of requests is up as soon as an answer drips."""
    Clock.when, Clock.seconds = server.dripping, []
    monkeypatch.setattr("mdtasks.providers.sockets.Timer", Clock)
    return Clock


def test_the_clock_runs_over_a_body_and_not_over_each_read(server: VendorServer, clock: type[Clock]) -> None:
    server.fail("alpaca", Fault("drip"))
    with pytest.raises(ProviderTimeoutError, match="did not answer in 20 s"):
        asked(vendor("alpaca", server, CALENDARS, vendor_timeout_s=20.0))
    assert server.seen[-1].let_go.wait(10)
    assert clock.seconds == [20.0]


def test_a_clock_that_is_up_before_there_is_a_socket_holds_for_the_answer_too(
    server: VendorServer, clock: type[Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_socket = urllib3.connection.HTTPConnection._new_conn

    def slowly(connection: urllib3.connection.HTTPConnection) -> socket.socket:
        found = open_socket(connection)
        clock.when.set()
        assert clock.ran.wait(10)
        return found

    clock.ran = threading.Event()
    monkeypatch.setattr(urllib3.connection.HTTPConnection, "_new_conn", slowly)
    server.fail("alpaca", Fault("drip"))
    with pytest.raises(ProviderTimeoutError):
        asked(vendor("alpaca", server, CALENDARS, vendor_timeout_s=20.0))


@every_vendor
def test_check_asks_once_and_says_what_it_found(name: str, server: VendorServer) -> None:
    assert vendor(name, server, CALENDARS).check()
    assert len([each for each in server.seen if "getcrumb" not in each.path and len(each.path) > 1]) == 1


def test_the_local_vendors_count_what_was_asked_in_any_time(server: VendorServer) -> None:
    server.limit("massive", calls=2, per_s=60.0)
    answer = asked(vendor("massive", server, CALENDARS))
    assert isinstance(answer.errors["MSFT"], RateLimitedError)
    assert server.most_in("massive", 60.0) == 3
    assert to_us(NOW) > int(answer.bars["AAPL"].ts_us[-1])
