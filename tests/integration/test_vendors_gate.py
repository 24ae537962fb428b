"""Adapters behind the gate that all processes share: nobody asks more than an account may, or before a wait is over."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import pytest

from mdtasks.connections import open_redis
from mdtasks.domain.errors import CircuitOpenError, ProviderError, RateLimitedError, RateSpentError
from mdtasks.domain.health import Rules
from mdtasks.domain.jobs import Interval
from mdtasks.providers.gate import GateFor
from mdtasks.store.gates import SharedGate
from mdtasks.store.health import HealthBook
from tests.vendors.configured import SWITCHES, vendor
from tests.vendors.server import Fault, VendorServer
from tests.vendors.week import CALENDARS, LISTINGS, a_week, asked, made, same

every_vendor = pytest.mark.parametrize("name", list(SWITCHES))


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with a_week() as running:
        yield running


@pytest.fixture
def gate_for(redis_url: str) -> Iterator[GateFor]:
    client = open_redis(redis_url)
    book = HealthBook(client, Rules())
    yield lambda name, rates: SharedGate(name, rates, book)
    client.close()


def test_pages_count_and_no_second_sees_more_requests_than_the_account_may_make(
    server: VendorServer, gate_for: GateFor
) -> None:
    server.market.page = 150  # of 1950 bars: 13 pages
    provider = vendor("alpaca", server, CALENDARS, gate_for, vendor_rates="alpaca=10/s")
    answer = asked(provider, LISTINGS[0])
    assert same(answer.bars["AAPL"], made("AAPL", Interval.M1))
    assert len(server.asked("alpaca")) == 13
    assert server.most_in("alpaca", 1.0) <= 10


@every_vendor
def test_a_429_keeps_everybody_away_for_as_long_as_it_says(name: str, server: VendorServer, gate_for: GateFor) -> None:
    server.fail(name, Fault(status=429, body={}, headers={"Retry-After": "60"}, times=100))
    provider, another = (vendor(name, server, CALENDARS, gate_for, vendor_rates=f"{name}=none") for _ in range(2))
    with pytest.raises((RateLimitedError, RateSpentError)):
        asked(provider, LISTINGS[0])
    before = len(server.seen)
    assert before == 1
    with pytest.raises(RateSpentError) as held:
        asked(another, LISTINGS[0])
    assert held.value.retry_after_s == pytest.approx(60, abs=5)
    assert len(server.seen) == before


@every_vendor
def test_a_vendor_that_fails_and_fails_is_left_alone(name: str, server: VendorServer, gate_for: GateFor) -> None:
    server.fail(name, Fault(times=1000))
    provider = vendor(name, server, CALENDARS, gate_for, vendor_rates=f"{name}=none")
    for _ in range(200):
        with pytest.raises(ProviderError) as failed:
            asked(provider, LISTINGS[0])
        if isinstance(failed.value, CircuitOpenError):
            break
    assert isinstance(failed.value, CircuitOpenError)
    before = len(server.seen)
    with pytest.raises(CircuitOpenError):
        asked(provider, LISTINGS[0])
    assert len(server.seen) == before


# -- many processes ---------------------------------------------------------------------------------

#: Of each vendor: calls in two seconds.
_MOST = 40
_MANY = ("alpaca", "massive", "finnhub")


@dataclass(frozen=True)
class _At:
    """Where a vendor server of another process is."""

    urls: dict[str, str]

    def url(self, name: str) -> str:
        return self.urls[name]


def _fetch_on(urls: dict[str, str], redis_url: str, start: Any, until: Any) -> None:
    """Ask each vendor in turn for a day of minutes, as fast as the gate allows."""
    client = open_redis(redis_url)
    book = HealthBook(client, Rules())
    providers = [
        vendor(
            name,
            cast("VendorServer", _At(urls)),
            CALENDARS,
            lambda name, rates: SharedGate(name, rates, book),
            vendor_rates=f"{name}={_MOST}/2s",
        )
        for name in _MANY
    ]
    for provider in providers:
        provider.preload()  # type: ignore[attr-defined]
    start.wait()
    while not until.is_set():
        for provider in providers:
            with suppress(RateSpentError):
                asked(provider, LISTINGS[0])


def test_eight_processes_together_ask_no_vendor_more_than_its_account_may(server: VendorServer, redis_url: str) -> None:
    for name in _MANY:
        # A process that was put aside between its grant and its request sends it in another window: one each at most.
        server.limit(name, _MOST + 8, 2.0)
    context = multiprocessing.get_context("spawn")
    start, until = context.Barrier(8), context.Event()
    urls = {name: server.url(name) for name in _MANY}
    workers = [context.Process(target=_fetch_on, args=(urls, redis_url, start, until)) for _ in range(8)]
    for worker in workers:
        worker.start()
    try:
        while min(len(server.asked(name)) for name in _MANY) < 2 * _MOST and any(each.is_alive() for each in workers):
            until.wait(0.1)
    finally:
        until.set()
        for worker in workers:
            worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    for name in _MANY:
        samples = HealthBook(open_redis(redis_url), Rules()).samples(name)
        assert "rate_limited" not in {sample.code for sample in samples}
        assert {sample.code for sample in samples} == {"ok"}
