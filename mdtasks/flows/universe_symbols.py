"""What a person tells of names and lives where no listing does: a renaming, an end; and who bore what when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection

from mdtasks.connections import Database, storable
from mdtasks.domain.errors import ConflictError, InvalidRequestError, UnknownSymbolError
from mdtasks.providers.listings import SYMBOL
from mdtasks.store import evidence, listings, reference
from mdtasks.store.reference import Borne, Instrument

#: Where the record says that a renaming came from.
PERSON = "person"


@dataclass(frozen=True, slots=True)
class Renamed:
    """An instrument that bears ``new`` from a day on."""

    instrument: int
    old: str
    new: str
    on: date

    def as_dict(self) -> dict[str, Any]:
        return {"ok": True, **{name: getattr(self, name) for name in self.__slots__}}


def rename(names: tuple[str, str], on: date, actor: str, database: Database, now: datetime) -> Renamed:
    """Let the instrument that bears the first name bear the second from a day on: the same one, with all its bars.

    A symbol that one bears who has died by then passes to it. Raises UnknownSymbolError; InvalidRequestError for a day
    to come, or before the old symbol was borne; ConflictError for a symbol that another one bears, or bore later.
    """
    old, new = names
    if not SYMBOL.fullmatch(new):
        raise InvalidRequestError(f"{new[:40]!r} is not a symbol", field="new", hint="such as META or BRK.B")
    if on > now.date():
        raise InvalidRequestError(
            f"on {on} is still to come",
            field="on",
            hint="tell of it on the day: who is asked for until then bears the old one",
        )
    with database.transaction() as connection:
        reference.lock(connection)
        one = reference.resolve(connection, [old])[old]
        since = next(each.valid_from for each in reference.ever(connection, old) if each.is_now(one.id, old))
        if since is not None and on <= since:
            raise InvalidRequestError(
                f"on {on}: {old} is borne since {since} only", field="on", hint="give a later day"
            )
        ousted = _free(connection, new, on)
        listings.rename(connection, {one.id: new}, ousted, on, (actor, PERSON))
    return Renamed(one.id, old, new, on)


def _free(connection: Connection, symbol: str, on: date) -> list[int]:
    """Whom the symbol must be taken from. Raises ConflictError where it is not to be had."""
    for each in reference.ever(connection, symbol):
        if each.symbol != symbol:
            continue
        if each.valid_to is None and each.delisted_on is not None and each.delisted_on <= on:
            return [each.instrument_id]
        if each.valid_to is None or each.valid_to > on:
            until = "" if each.valid_to is None else f" until {each.valid_to}"
            raise ConflictError(
                f"{symbol} is borne by instrument {each.instrument_id}{until}",
                hint=f"`mdtasks universe symbols {symbol}` shows who; rename or delist that one first",
            )
    return []


def delist(symbol: str, on: date | None, actor: str, database: Database) -> Instrument:
    """Say when an instrument's life ended, the first day on which it no longer trades; None: it lives. Its bars stay,
    and it bears its symbol until another one takes it. Audited. Raises UnknownSymbolError, InvalidRequestError.
    """
    with database.transaction() as connection:
        reference.lock(connection)
        one = reference.resolve(connection, [symbol])[symbol]
        if on is not None and one.listed_from is not None and on <= one.listed_from:
            raise InvalidRequestError(
                f"on {on}: {symbol} was listed on {one.listed_from}", field="on", hint="give a day after that"
            )
        reference.delist(connection, one.id, on)
        told = {"instrument": one.id, "from": one.delisted_on, "to": on, "source": PERSON}
        evidence.audit(connection, storable(actor), "universe.delist", told)
        return reference.resolve(connection, [symbol])[symbol]


def history(symbol: str, database: Database) -> list[Borne]:
    """Who has borne a symbol, and what those have borne else. Raises UnknownSymbolError when nobody ever has."""
    with database.transaction() as connection:
        found = reference.ever(connection, symbol)
        if not found:
            raise UnknownSymbolError([symbol])
        return found


def on(symbol: str, day: date, database: Database) -> list[Borne]:
    """Who bore a symbol on a day. Raises UnknownSymbolError when nobody did."""
    with database.transaction() as connection:
        one = reference.resolve(connection, [symbol], on=day)[symbol]
        borne = reference.ever(connection, symbol)
    return [each for each in borne if each.instrument_id == one.id and each.symbol == symbol and each.held(day)]
