"""Instruments keep their identity; symbols and tiers are what they bear now."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import Quote, to_us
from mdtasks.domain.errors import ConflictError, UnknownSymbolError
from mdtasks.domain.jobs import Tier
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.quotes import latest_quotes, write_quotes
from mdtasks.store.reference import (
    AddCounts,
    Instrument,
    add_instruments,
    current,
    instruments,
    resolve,
    set_tier,
)

_AAPL = Instrument("AAPL", "XNYS", tier=Tier.T0, listed_from=date(1980, 12, 12))
_BTC = Instrument("BTC-USD", "24/7", "crypto", Tier.T2, delisted_on=date(2040, 1, 1))


def test_what_is_added_is_read_back_whole(database: Database) -> None:
    with database.transaction() as connection:
        assert add_instruments(connection, [_AAPL, _BTC]) == AddCounts(added=2, known=0)
        found = resolve(connection, ["BTC-USD", "AAPL", "BTC-USD"])
    assert list(found) == ["BTC-USD", "AAPL"]
    assert found["AAPL"] == Instrument("AAPL", "XNYS", "equity", Tier.T0, date(1980, 12, 12), None, found["AAPL"].id)
    assert found["BTC-USD"].delisted_on == date(2040, 1, 1)
    assert found["BTC-USD"].listing.kind == "crypto"
    assert found["AAPL"].id != found["BTC-USD"].id


def test_adding_twice_keeps_the_first_and_its_identity(database: Database) -> None:
    with database.transaction() as connection:
        add_instruments(connection, [_AAPL])
        before = resolve(connection, ["AAPL"])
        again = Instrument("AAPL", "XNYS", tier=Tier.T2)
        assert add_instruments(connection, [again, again, _BTC]) == AddCounts(added=1, known=1)
        assert resolve(connection, ["AAPL"]) == before


@pytest.mark.parametrize(
    "given", [[Instrument("AAPL", "XLON"), _BTC], [Instrument("X", "XNYS"), Instrument("X", "XLON")]]
)
def test_a_symbol_of_another_exchange_is_refused_and_nothing_is_added(
    database: Database, given: list[Instrument]
) -> None:
    with database.transaction() as connection:
        add_instruments(connection, [_AAPL])
        with pytest.raises(ConflictError, match="XLON"):
            add_instruments(connection, given)
        assert [one.symbol for one in instruments(connection)] == ["AAPL"]


def test_an_unknown_symbol_is_named_with_its_neighbours(database: Database) -> None:
    with database.transaction() as connection:
        add_instruments(connection, [_AAPL, _BTC])
        with pytest.raises(UnknownSymbolError, match=r"unknown symbol aapl, ZZZZZZ; did you mean AAPL\?") as caught:
            resolve(connection, ["BTC-USD", "aapl", "ZZZZZZ"])
        assert caught.value.symbols == ["aapl", "ZZZZZZ"]
        assert list(current(connection, ["aapl", "AAPL"])) == ["AAPL"]


def test_a_symbol_passes_from_one_company_to_another(database: Database) -> None:
    with database.transaction() as connection:
        add_instruments(connection, [Instrument("WM", "XNYS")])
        washington = resolve(connection, ["WM"])["WM"].id
        connection.execute(text("UPDATE symbols SET valid_to = '2008-09-26'"))
        with pytest.raises(UnknownSymbolError):
            resolve(connection, ["WM"])
        assert add_instruments(connection, [Instrument("WM", "XNYS")]).added == 1
        assert resolve(connection, ["WM"])["WM"].id != washington
        assert len(instruments(connection)) == 1


def test_tiers_are_listed_and_changed(database: Database) -> None:
    with database.transaction() as connection:
        add_instruments(connection, [_BTC, _AAPL])
        assert [one.symbol for one in instruments(connection)] == ["AAPL", "BTC-USD"]
        assert [one.symbol for one in instruments(connection, Tier.T0)] == ["AAPL"]
        assert set_tier(connection, ["AAPL", "BTC-USD"], Tier.T0, "ops") == 1
        assert set_tier(connection, ["AAPL", "BTC-USD"], Tier.T0, "ops") == 0
        assert len(instruments(connection, Tier.T0)) == 2
        with pytest.raises(UnknownSymbolError):
            set_tier(connection, ["AAPL", "NONE"], Tier.T2, "ops")
        assert len(instruments(connection, Tier.T0)) == 2


def test_two_who_add_the_same_universe_at_once_add_it_once(database: Database) -> None:
    universe = [Instrument(f"S{number}", "XNYS") for number in range(5000)]

    def add(_: int) -> AddCounts:
        with database.transaction() as connection:
            return add_instruments(connection, universe)

    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(add, range(2)))
    assert sorted(count.added for count in counts) == [0, 5000]


def test_quotes_are_kept_once_and_the_newest_is_read_across_months(database: Database) -> None:
    early, late = datetime(2024, 1, 31, 23, 59, 59, 999999, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
    ensure_partitions(database, "quotes", to_us(early), to_us(late))
    old = Quote(early, 1.0, 2.0, 3.0, 4.0)
    new = Quote(late, None, None, 0.1 + 0.2, 5e-324)
    with database.transaction() as connection:
        assert write_quotes(connection, {1: new, 2: old}, "simulator") == 2
        assert write_quotes(connection, {1: old}, "simulator") == 1
        changed = Quote(late, 9.0, 9.0, 9.0, 9.0)
        assert write_quotes(connection, {1: changed, 2: old}, "other") == 0
        assert write_quotes(connection, {}, "simulator") == 0
        assert latest_quotes(connection, [1, 2, 3]) == {1: new, 2: old}
        assert latest_quotes(connection, [1])[1].ts - early == timedelta(microseconds=1)
