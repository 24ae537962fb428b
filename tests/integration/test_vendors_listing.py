"""The vendors' listings: kept byte for byte as they came, read without the vendor, and no listing when it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mdtasks.domain.errors import (
    AuthError,
    GarbledAnswerError,
    NotEntitledError,
    ProviderError,
    RateLimitedError,
    UnsupportedError,
    VendorError,
)
from mdtasks.flows.deps import open_deps
from mdtasks.flows.universe import Asked, refresh
from mdtasks.flows.universe_listings import listing_of
from mdtasks.providers.listings import FORMATS, read
from mdtasks.settings import Settings
from tests.integration.universe_calls import activated, again, tiers
from tests.vendors.configured import SWITCHES, vendor
from tests.vendors.market import KEYS, Market
from tests.vendors.server import Fault, VendorServer
from tests.vendors.week import CALENDARS

NOW = datetime(2024, 3, 12, 11, tzinfo=UTC)
LISTED = (("AAPL", "XNAS", "a-1"), ("BRK.B", "XNYS", "b-2"), ("SPY", "ARCX", "s-3"), ("OTCX", "OOTC", "o-4"))
LISTING = ("alpaca", "massive", "finnhub")
PATHS = {"alpaca": "/assets", "massive": "/reference/tickers", "finnhub": "/stock/symbol"}
every = pytest.mark.parametrize("name", LISTING)


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with VendorServer(Market(listed=LISTED)) as running:
        yield running


def test_whoever_declares_a_listing_has_one_and_a_reader(server: VendorServer) -> None:
    for name in SWITCHES:
        provider = vendor(name, server, CALENDARS)
        assert provider.capabilities.listing is (name in LISTING)
        assert (name in FORMATS) is (name in LISTING)
        if name not in LISTING:
            with pytest.raises(UnsupportedError):
                provider.listing(NOW)


@every
def test_a_listing_is_kept_as_it_came_and_read_by_itself(name: str, server: VendorServer) -> None:
    server.market.page = 3  # of massive's pages
    (kept,) = vendor(name, server, CALENDARS).listing(NOW)
    assert kept.as_of == NOW.date()
    rows = {row.symbol: (row.mic, row.key, row.dollars) for row in read(name, kept.body)}
    assert rows == {symbol: (mic, f"#{own}", None) for symbol, mic, own in LISTED[:3]}
    assert len(server.asked(name, PATHS[name])) == (2 if name == "massive" else 1)
    pages = [json.loads(page) for page in kept.body.split(b"\n")]
    assert len(pages) == len(server.asked(name))


@every
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=500), VendorError),
        (Fault(status=429, body={"message": "slow down"}), RateLimitedError),
        (Fault(status=401, body={"message": "who are you"}), AuthError),
        (Fault("truncated"), GarbledAnswerError),
        (Fault("cut_off"), GarbledAnswerError),
        (Fault("reset"), VendorError),
        (Fault(status=200, body=[]), GarbledAnswerError),
        (Fault(status=200, body={}), GarbledAnswerError),
        (Fault(status=200, body={"results": []}), GarbledAnswerError),
        (Fault(status=200, body="<html>maintenance</html>"), GarbledAnswerError),
    ],
    ids=lambda value: "" if isinstance(value, type) else f"{value.kind}-{value.status}-{value.body!r:.12}",
)
def test_whatever_is_no_whole_listing_is_an_error(
    name: str, fault: Fault, error: type[ProviderError], server: VendorServer
) -> None:
    server.fail(name, replace(fault))
    with pytest.raises(error) as failed:
        vendor(name, server, CALENDARS).listing(NOW)
    assert not any(key in str(failed.value) for key in KEYS.values())


def test_a_page_that_fails_loses_the_listing_not_a_part_of_it(server: VendorServer) -> None:
    server.market.page = 1
    server.fail("massive", Fault(status=503, skip=2))
    with pytest.raises(VendorError):
        vendor("massive", server, CALENDARS).listing(NOW)


def test_a_key_that_may_not_list_is_told_as_such(server: VendorServer) -> None:
    server.fail("finnhub", Fault(status=403, body={"error": "You don't have access to this resource."}))
    with pytest.raises(NotEntitledError):
        vendor("finnhub", server, CALENDARS).listing(NOW)


@every
def test_a_vendors_listing_becomes_the_universe(name: str, server: VendorServer, settings: Settings) -> None:
    changes: dict[str, Any] = {**SWITCHES[name], "vendor_urls": {name: server.url(name)}, "vendor_rates": {name: ()}}
    given = {field: getattr(settings, field) for field in settings.model_fields_set}
    deps = open_deps(Settings(**{**given, **changes}), application="tests")
    try:
        made = refresh(name, listing_of(name, deps, NOW), Asked("me"), deps)
        assert activated(deps, made) == {"came": 3}
        assert tiers(deps) == {"AAPL": "T0", "BRK.B": "T0", "SPY": "T0"}
        assert again(deps, made.version.version_tag).same
        # The request passed the gate that all processes share.
        assert [(sample.endpoint, sample.code) for sample in deps.health.samples(name)] == [("listing", "ok")]
    finally:
        deps.close()
