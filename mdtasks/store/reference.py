"""Which instruments there are: identity is a number, the symbol is what it bears now, the tier how much it matters."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import Connection, Row

from mdtasks.connections import load_statements
from mdtasks.domain.errors import ConflictError, UnknownSymbolError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.universe import Listing

_SQL: Final = load_statements("mdtasks.store.sql", "reference.sql")


@dataclass(frozen=True, slots=True)
class Instrument:
    """An instrument under its current symbol. ``mic``: exchange or ``24/7``; ``kind``: equity, index or crypto.

    ``delisted_on``: the first day it no longer trades. ``id`` is the store's number, 0 while it has none.
    """

    symbol: str
    mic: str
    kind: str = "equity"
    tier: Tier = Tier.T1
    listed_from: date | None = None
    delisted_on: date | None = None
    id: int = 0

    @property
    def listing(self) -> Listing:
        """The instrument as providers know it."""
        return Listing(self.symbol, self.mic, self.kind)


@dataclass(frozen=True, slots=True)
class AddCounts:
    """How many instruments were added, and how many bore their symbol already."""

    added: int
    known: int


def add_instruments(connection: Connection, instruments: Sequence[Instrument]) -> AddCounts:
    """Add those whose symbol no instrument bears now. Idempotent: what is there stays as it is (tier, kind, dates).

    Raises ConflictError, with nothing added, when a symbol is borne on another exchange or is given twice with two.
    """
    wanted: dict[str, Instrument] = {}
    for instrument in instruments:
        _refuse_other_exchange(instrument, wanted.setdefault(instrument.symbol, instrument))
    connection.execute(_SQL["lock"])
    known = current(connection, wanted)
    for symbol, bearer in known.items():
        _refuse_other_exchange(wanted[symbol], bearer)
    new = [instrument for symbol, instrument in wanted.items() if symbol not in known]
    if new:
        columns = {
            "symbols": [one.symbol for one in new],
            "mics": [one.mic for one in new],
            "kinds": [one.kind for one in new],
            "tiers": [one.tier.value for one in new],
            "listed": [one.listed_from for one in new],
            "delisted": [one.delisted_on for one in new],
        }
        connection.execute(_SQL["add"], columns)
    return AddCounts(added=len(new), known=len(known))


def current(connection: Connection, symbols: Iterable[str]) -> dict[str, Instrument]:
    """The instruments that bear these symbols now; a symbol that nobody bears is absent."""
    rows = connection.execute(_SQL["bearers"], {"symbols": list(symbols)})
    return {row.symbol: _instrument(row) for row in rows}


def resolve(connection: Connection, symbols: Iterable[str]) -> dict[str, Instrument]:
    """The instrument that bears each symbol now, in the order asked for.

    Raises UnknownSymbolError naming all that nobody bears, with the nearest known ones.
    """
    asked = list(dict.fromkeys(symbols))
    found = current(connection, asked)
    unknown = [symbol for symbol in asked if symbol not in found]
    if unknown:
        raise UnknownSymbolError(unknown, known=_near(connection, unknown[0]))
    return {symbol: found[symbol] for symbol in asked}


def instruments(connection: Connection, tier: Tier | None = None) -> list[Instrument]:
    """Every instrument that bears a symbol now, of one tier or of all, by symbol."""
    return [_instrument(row) for row in connection.execute(_SQL["members"], {"tier": tier and tier.value})]


def exchanges(connection: Connection, *, day: date | None = None, tier: Tier | None = None) -> list[str]:
    """The exchanges of all instruments, of those that are not delisted on ``day``, of those of a tier; by name."""
    return list(connection.execute(_SQL["exchanges"], {"day": day, "tier": tier and tier.value}).scalars())


def mics_of(connection: Connection, instrument_ids: Iterable[int]) -> dict[int, str]:
    """The exchange of each of these instruments."""
    ids = list(instrument_ids)
    rows = connection.execute(_SQL["mics_of"], {"ids": ids}) if ids else ()
    return {row.id: row.mic for row in rows}


def set_tier(connection: Connection, symbols: Iterable[str], tier: Tier) -> int:
    """Move instruments to a tier; returns how many were elsewhere. Raises UnknownSymbolError, with nothing moved."""
    asked = list(resolve(connection, symbols))
    return connection.execute(_SQL["set_tier"], {"symbols": asked, "tier": tier.value}).rowcount


def _instrument(row: Row[tuple[object, ...]]) -> Instrument:
    fields = row._asdict()
    return Instrument(**{**fields, "tier": Tier(fields["tier"])})


def _refuse_other_exchange(given: Instrument, bearer: Instrument) -> None:
    if given.mic != bearer.mic:
        raise ConflictError(
            f"{given.symbol} is on {bearer.mic} here, not on {given.mic}",
            hint="delist or rename the one that bears the symbol first",
        )


def _near(connection: Connection, symbol: str) -> list[str]:
    known = {name.upper(): name for name in connection.execute(_SQL["all_symbols"]).scalars()}
    return [known[near] for near in difflib.get_close_matches(symbol.upper(), known, n=3)]
