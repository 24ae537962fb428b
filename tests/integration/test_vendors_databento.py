"""Databento: what it costs, and what it could not resolve."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import (
    NoDataError,
    NotEntitledError,
    NotYetError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.universe import Listing
from tests.vendors.configured import vendor
from tests.vendors.server import Fault, VendorServer
from tests.vendors.week import CALENDARS, LISTINGS, WEEK, a_week, asked, made, same


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with a_week() as running:
        yield running


def test_databento_is_not_asked_for_what_costs_too_much(server: VendorServer) -> None:
    server.market.cost = 1.5
    with pytest.raises(NotEntitledError, match=r"would cost 1\.50 US dollars"):
        asked(vendor("databento", server, CALENDARS))
    assert not server.asked("databento", "get_range")
    assert asked(vendor("databento", server, CALENDARS, databento_max_cost=2.0)).bars


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
