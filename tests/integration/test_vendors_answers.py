"""What each vendor's answers become: bars, quotes, pages, splits; and that nothing is asked that need not be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mdtasks
from mdtasks.domain.bars import Bars, Quote, to_us
from mdtasks.domain.errors import (
    ConfigurationError,
    NoDataError,
    NotEntitledError,
    NotYetError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitedError,
    UnsupportedError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers import vendor as vendor_module
from mdtasks.providers.base import BarsAnswer, Provider
from mdtasks.providers.gate import Gate
from tests.vendors.configured import SWITCHES, vendor
from tests.vendors.market import Market, Split
from tests.vendors.server import Fault, VendorServer

CALENDARS = Calendars()
WEEK = TimeWindow(start=datetime(2024, 3, 4, tzinfo=UTC), end=datetime(2024, 3, 9, tzinfo=UTC))
NOW = datetime(2024, 3, 12, tzinfo=UTC)
SYMBOLS = ("AAPL", "BRK.B", "MSFT")
LISTINGS = [Listing(symbol, "XNYS") for symbol in SYMBOLS]
every_vendor = pytest.mark.parametrize("name", list(SWITCHES))


def made(symbol: str, interval: Interval) -> Bars:
    ts = CALENDARS.get("XNYS").expected(WEEK, interval)
    price = 100.0 * (1 + SYMBOLS.index(symbol)) + np.arange(len(ts), dtype=np.float64) % 7
    return Bars.of(ts, price, price + 1, price - 1, price + 0.5, 100.0 + np.arange(len(ts), dtype=np.float64))


@pytest.fixture
def server() -> Iterator[VendorServer]:
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
    return provider.fetch_bars(listings or LISTINGS, interval, WEEK, now)


def same(left: Bars, right: Bars) -> bool:
    pairs = zip((left.ts_us, *left.columns), (right.ts_us, *right.columns), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


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


def test_yahoo_says_in_words_that_a_window_has_no_bars(server: VendorServer) -> None:
    error = {"code": "Bad Request", "description": "Data doesn't exist for startDate = 1, endDate = 2"}
    body = {"chart": {"result": None, "error": error}}
    server.fail("yfinance", Fault(status=400, body=body, only="/chart/"))
    answer = asked(vendor("yfinance", server, CALENDARS), LISTINGS[0])
    assert not len(answer.bars["AAPL"])


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


def test_massive_is_asked_for_raw_prices(server: VendorServer) -> None:
    server.market.splits["AAPL"] = (Split(datetime(2024, 3, 11, tzinfo=UTC), 2.0),)
    found = asked(vendor("massive", server, CALENDARS), LISTINGS[0], interval=Interval.D1).bars["AAPL"]
    assert same(found, made("AAPL", Interval.D1))


def test_databento_is_not_asked_for_what_costs_too_much(server: VendorServer) -> None:
    server.market.cost = 1.5
    with pytest.raises(NotEntitledError, match=r"would cost 1\.50 US dollars"):
        asked(vendor("databento", server, CALENDARS))
    assert not server.asked("databento", "get_range")
    assert asked(vendor("databento", server, CALENDARS, databento_max_cost=2.0)).bars


def test_yahoos_cookies_are_not_needed_and_cost_one_timeout_at_most(server: VendorServer) -> None:
    provider = vendor("yfinance", server, CALENDARS, vendor_timeout_s=0.5)
    server.fail("yfinance", Fault("hang", times=100, only="getcrumb"))
    for _ in range(2):
        assert len(asked(provider, LISTINGS[0]).bars["AAPL"])
    assert len(server.asked("yfinance", "getcrumb")) == 1
    assert server.asked("yfinance", "getcrumb")[0].let_go.wait(10)


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


def test_the_clock_runs_over_a_body_and_not_over_each_read(server: VendorServer) -> None:
    server.fail("alpaca", Fault("drip"))
    with pytest.raises(ProviderTimeoutError):
        asked(vendor("alpaca", server, CALENDARS, vendor_timeout_s=0.3))
    assert server.seen[-1].let_go.wait(10)


@every_vendor
def test_check_asks_once_and_says_what_it_found(name: str, server: VendorServer) -> None:
    assert vendor(name, server, CALENDARS).check()
    assert len([each for each in server.seen if "getcrumb" not in each.path and len(each.path) > 1]) == 1


@every_vendor
def test_a_vendor_without_its_sdk_is_refused_with_what_to_install(
    name: str, server: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_module, "installed", lambda module: False)
    with pytest.raises(ConfigurationError) as refused:
        vendor(name, server, CALENDARS)
    assert refused.value.hint == f"pip install 'mdtasks[{name}]'"


_LOAD = """
import os, sys
import numpy
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings
registry = Registry(Settings(alpaca_key="k", alpaca_secret="s", massive_key="k", finnhub_key="k", yfinance=True,
                             databento_key="k"))
sdks = {"alpaca", "massive", "finnhub", "yfinance", "databento", "pandas", "requests", "urllib3", "curl_cffi"}
assert not sdks & set(sys.modules), sdks & set(sys.modules)
threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
registry.preload()
assert not threads or len(os.listdir("/proc/self/task")) == threads, "importing started a thread"
print(*sorted(sdks & set(sys.modules)))
"""


def test_sdks_are_loaded_when_used_or_asked_for_and_not_before() -> None:
    ran = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split() == [
        "alpaca", "curl_cffi", "databento", "finnhub", "massive", "pandas", "requests", "urllib3", "yfinance"
    ]  # fmt: skip


def test_the_local_vendors_count_what_was_asked_in_any_time(server: VendorServer) -> None:
    server.limit("massive", calls=2, per_s=60.0)
    answer = asked(vendor("massive", server, CALENDARS))
    assert isinstance(answer.errors["MSFT"], RateLimitedError)
    assert server.most_in("massive", 60.0) == 3
    assert to_us(NOW) > int(answer.bars["AAPL"].ts_us[-1])


def test_each_sdk_is_named_in_its_own_adapter_alone() -> None:
    folder = Path(mdtasks.__file__).parent
    for path in folder.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        loads = {
            str(node.args[0].value).partition(".")[0]
            for node in calls
            if getattr(node.func, "id", getattr(node.func, "attr", "")) in {"loaded", "import_module"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        }
        assert loads & set(SWITCHES) <= {path.stem}, path


def test_a_gate_that_lets_nothing_through_keeps_all_of_yahoo_from_being_asked(server: VendorServer) -> None:
    def shut(name: str, rates: tuple[Rate, ...]) -> Gate:
        return Shut()

    with pytest.raises(RateLimitedError):
        asked(vendor("yfinance", server, CALENDARS, shut), LISTINGS[0])
    assert not server.seen


class Shut:
    """A gate whose vendor may not be asked for a while."""

    @contextmanager
    def request(self, endpoint: str) -> Iterator[None]:
        if endpoint:
            raise RateLimitedError("not now", provider="yfinance", retry_after_s=9.0)
        yield


def test_databento_tells_a_symbol_that_is_not_there_from_time_that_is_not_there_yet(server: VendorServer) -> None:
    provider = vendor("databento", server, CALENDARS)
    answer = asked(provider, Listing("NOPE", "XNYS"), Listing("NADA", "XNYS"))
    assert {symbol: type(error) for symbol, error in answer.errors.items()} == {
        "NOPE": NoDataError,
        "NADA": NoDataError,
    }
    detail = {"case": "data_end_after_available_end", "message": "data is available up to yesterday", "docs": ""}
    server.fail("databento", Fault(status=422, body={"detail": detail}))
    with pytest.raises(NotYetError, match="available up to yesterday"):
        asked(provider)


def test_databento_leaves_unanswered_the_time_in_which_it_had_no_such_symbol(server: VendorServer) -> None:
    server.market.since["AAPL"] = datetime(2024, 3, 6, tzinfo=UTC)
    answer = asked(vendor("databento", server, CALENDARS), LISTINGS[0])
    (cut,) = answer.unanswered["AAPL"]
    assert cut.window == TimeWindow(start=WEEK.start, end=server.market.since["AAPL"])
    assert isinstance(cut.error, NoDataError)
    bars = made("AAPL", Interval.M1)
    assert same(answer.bars["AAPL"], bars.take(bars.ts_us >= to_us(server.market.since["AAPL"])))
