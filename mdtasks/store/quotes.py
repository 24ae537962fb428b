"""L1 quotes at rest: every quote once, by instrument and its own time; the latest is read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.bars import Quote
from mdtasks.store.reference import resolve

_SQL: Final = load_statements("mdtasks.store.sql", "quotes.sql")
_SIDES: Final = ("ts", "bid", "bid_size", "ask", "ask_size")


def write_quotes(connection: Connection, quotes: Mapping[int, Quote], provider: str) -> int:
    """Store a quote per instrument id in the caller's transaction; returns how many were new.

    Idempotent: a quote of the same instrument and time is there already and stands. Their months' partitions must
    exist; beat makes them ahead (``ensure_ahead``).
    """
    if not quotes:
        return 0
    columns = {side: [getattr(quote, side) for quote in quotes.values()] for side in _SIDES}
    return connection.execute(_SQL["write"], {"instruments": list(quotes), "provider": provider, **columns}).rowcount


def latest_quotes(connection: Connection, instrument_ids: Iterable[int]) -> dict[int, Quote]:
    """The newest stored quote of each instrument; one without quotes is absent."""
    rows = connection.execute(_SQL["latest"], {"instruments": list(instrument_ids)})
    return {row.id: Quote(*(getattr(row, side) for side in _SIDES)) for row in rows}


def latest_rows(connection: Connection, symbols: Iterable[str]) -> list[dict[str, Any]]:
    """The newest stored quote of each symbol, in the order asked for: ``symbol`` and the quote's values, None where it
    has no quote yet. Raises UnknownSymbolError naming all that nobody bears.
    """
    members = resolve(connection, symbols)
    found = latest_quotes(connection, [member.id for member in members.values()])
    return [
        {"symbol": symbol, **{side: getattr(found.get(member.id), side, None) for side in _SIDES}}
        for symbol, member in members.items()
    ]
