"""Which instruments there are: identity is a number, the symbol is what it bears now, the tier how much it matters."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from mdtasks.connections import load_statements, storable
from mdtasks.domain.errors import ConflictError, UnknownSymbolError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.universe import Listing

_SQL: Final = load_statements("mdtasks.store.sql", "reference.sql")
_AS_OF: Final = {
    name: text(f"{_SQL['as_of'].text}\n{_SQL[name].text}")
    for name in ("bearers_as_of", "members_as_of", "called_as_of")
}


@dataclass(frozen=True, slots=True)
class Instrument:
    """An instrument under its current symbol. ``mic``: exchange or ``24/7``; ``kind``: equity, index or crypto.

    ``delisted_on``: the first day it no longer trades. ``id`` is the store's number, 0 while it has none. ``followed``:
    it is in the universe; one that is not has no tier, and what is asked of it all the same is done as T2.
    """

    symbol: str
    mic: str
    kind: str = "equity"
    tier: Tier = Tier.T1
    listed_from: date | None = None
    delisted_on: date | None = None
    id: int = 0
    followed: bool = True

    def trades_on(self, day: date) -> bool:
        """Whether the day is within its listing's life, as far as that is known."""
        begun = self.listed_from is None or self.listed_from <= day
        return begun and (self.delisted_on is None or self.delisted_on > day)

    @property
    def kept_in(self) -> Tier | None:
        """The tier that it is followed in; None: nobody follows it."""
        return self.tier if self.followed else None

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
    """Add those whose symbol no instrument bears now. Idempotent: what is there stays as it is (tier, kind, dates); one
    that nobody follows is followed from now on. One that was listed when the bearer of its symbol had died takes it.

    Raises ConflictError, with nothing added, when a symbol is borne on another exchange or is given twice with two.
    """
    wanted: dict[str, Instrument] = {}
    for instrument in instruments:
        _refuse_other_exchange(instrument, wanted.setdefault(instrument.symbol, instrument))
    lock(connection)
    known = current(connection, wanted)
    over = {symbol for symbol, bearer in known.items() if _passed_on(bearer, wanted[symbol])}
    for symbol in known.keys() - over:
        _refuse_other_exchange(wanted[symbol], known[symbol])
    if over:
        connection.execute(_SQL["let_go"], {"ids": [known[symbol].id for symbol in over]})
    new = [instrument for symbol, instrument in wanted.items() if symbol not in known or symbol in over]
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
    unfollowed = {known[symbol].id: wanted[symbol] for symbol in known.keys() - over if not known[symbol].followed}
    if unfollowed:
        tiers = [one.tier.value for one in unfollowed.values()]
        connection.execute(_SQL["follow"], {"ids": list(unfollowed), "tiers": tiers})
    return AddCounts(added=len(new) + len(unfollowed), known=len(known) - len(over) - len(unfollowed))


def lock(connection: Connection) -> None:
    """Keep others from changing the universe until the transaction ends: symbols, lives, tiers, the version that holds.
    Whoever changes them does so under this lock, at one instant for all that a transaction changes.
    """
    connection.execute(_SQL["lock"])


def await_changes(connection: Connection) -> None:
    """Wait for whoever is changing the universe; in a transaction of its own, before the one that reads as of now."""
    connection.execute(_SQL["lock_shared"])


def _passed_on(bearer: Instrument, given: Instrument) -> bool:
    """Whether the one that is added takes the symbol of one that had died when it was listed."""
    return bearer.delisted_on is not None and given.listed_from is not None and given.listed_from >= bearer.delisted_on


def current(connection: Connection, symbols: Iterable[str], as_of: datetime | None = None) -> dict[str, Instrument]:
    """The instruments that bear these symbols now, or did ``as_of`` an instant as far as was known then, followed and
    listed as they were then; a symbol that nobody bears is absent.
    """
    values = {"symbols": list(symbols)}
    if as_of is None:
        rows = connection.execute(_SQL["bearers"], values)
    else:
        rows = connection.execute(_AS_OF["bearers_as_of"], {**values, "as_of": as_of})
    return {row.symbol: _instrument(row) for row in rows}


def bearers_on(connection: Connection, symbols: Iterable[str], day: date) -> dict[str, Instrument]:
    """The instruments that bore these symbols on a day, under those; a symbol that nobody bore is absent."""
    rows = connection.execute(_SQL["bearers_on"], {"symbols": list(symbols), "day": day})
    return {row.symbol: _instrument(row) for row in rows}


def resolve(
    connection: Connection, symbols: Iterable[str], *, on: date | None = None, as_of: datetime | None = None
) -> dict[str, Instrument]:
    """The instrument that bears each symbol now, bore it ``on`` a day, or did ``as_of`` an instant as far as was known
    then (as ``current``), in the order asked for.

    The same ``as_of``, once it has passed, gives the same for ever to snapshots that are taken after ``await_changes``.
    Raises UnknownSymbolError naming all that nobody bears, with the nearest known ones, or what they were called then.
    """
    asked = list(dict.fromkeys(symbols))
    found = current(connection, asked, as_of) if on is None else bearers_on(connection, asked, on)
    unknown = [symbol for symbol in asked if symbol not in found]
    if unknown and on is not None:
        raise UnknownSymbolError(unknown, on=on)
    if unknown and as_of is not None:
        rows = connection.execute(_AS_OF["called_as_of"], {"symbols": unknown, "as_of": as_of})
        near = [] if unknown[0] in current(connection, unknown) else _near(connection, unknown[0])
        raise UnknownSymbolError(unknown, as_of=as_of, called={row.now: row.symbol for row in rows}, known=near)
    if unknown:
        rows = connection.execute(_SQL["renamed"], {"symbols": unknown, "day": date.min})
        called = {row.old: row.symbol for row in rows}
        raise UnknownSymbolError(unknown, called=called, known=_near(connection, unknown[0]))
    return {symbol: found[symbol] for symbol in asked}


def resolve_lately(connection: Connection, symbols: Iterable[str], today: date) -> dict[str, Instrument]:
    """As ``resolve``; a symbol that nobody bears is that of the instrument which gave it up for another yesterday or
    today: whoever was asked meanwhile knew its old name.
    """
    asked = list(dict.fromkeys(symbols))
    found = current(connection, asked)
    lost = [symbol for symbol in asked if symbol not in found]
    if lost:
        day = today - timedelta(days=1)
        for row in connection.execute(_SQL["renamed"], {"symbols": lost, "day": day}):
            fields = row._asdict()
            old = fields.pop("old")
            found[old] = _made(fields)
        resolve(connection, [symbol for symbol in lost if symbol not in found])
    return found


def instruments(connection: Connection, tier: Tier | None = None, as_of: datetime | None = None) -> list[Instrument]:
    """Every instrument of the universe that bears a symbol now, of one tier or of all, by symbol; or all that it
    followed ``as_of`` an instant, as ``current`` tells of them.
    """
    if as_of is None:
        return [_instrument(row) for row in connection.execute(_SQL["members"], {"tier": tier and tier.value})]
    found = (_instrument(row) for row in connection.execute(_AS_OF["members_as_of"], {"as_of": as_of}))
    return [each for each in found if tier in (None, each.tier)]


def asked_for(connection: Connection, symbols: Sequence[str], as_of: datetime | None) -> list[Instrument]:
    """The instruments of these symbols, or of the whole universe where none is named. Raises as ``resolve``."""
    return list(resolve(connection, symbols, as_of=as_of).values()) if symbols else instruments(connection, as_of=as_of)


def exchanges(connection: Connection, *, day: date | None = None, tier: Tier | None = None) -> list[str]:
    """The exchanges of all instruments, of those that are not delisted on ``day``, of those of a tier; by name."""
    return list(connection.execute(_SQL["exchanges"], {"day": day, "tier": tier and tier.value}).scalars())


def mics_of(connection: Connection, instrument_ids: Iterable[int]) -> dict[int, str]:
    """The exchange of each of these instruments."""
    ids = list(instrument_ids)
    rows = connection.execute(_SQL["mics_of"], {"ids": ids}) if ids else ()
    return {row.id: row.mic for row in rows}


def set_tier(connection: Connection, symbols: Iterable[str], tier: Tier, actor: str) -> int:
    """Move instruments to a tier; returns how many were elsewhere. Raises UnknownSymbolError, with nothing moved."""
    lock(connection)
    asked = list(resolve(connection, symbols))
    values = {"symbols": asked, "tier": tier.value, "actor": storable(actor)}
    return len(connection.execute(_SQL["set_tier"], values).all())


@dataclass(frozen=True, slots=True)
class TierHeld:
    """A tier that an instrument had from an instant on (None: nobody followed it). ``source``: who gave it,
    ``version:TAG`` or ``person:NAME``; None: it was added so. Of a version: how it came to hold, and the rank.
    """

    at: datetime
    tier: str | None
    source: str | None
    version_tag: str | None
    actor: str | None
    reason: str | None
    rank: int | None


def tiers_between(connection: Connection, instrument_id: int, since: datetime, until: datetime) -> list[TierHeld]:
    """The tiers of an instrument from one instant to another, in their order; the first is the one that it had at
    ``since``, or when it was first known.
    """
    about = {"instrument": instrument_id, "since": since, "until": until}
    found: list[TierHeld] = []
    for row in connection.execute(_SQL["tiers_between"], about):
        if not found or found[-1].tier != row.tier:  # its life changed, its tier did not
            found.append(TierHeld(*row))
    return found


@dataclass(frozen=True, slots=True)
class Borne:
    """What an instrument bore from a day on until another, on which it did not any more; None: since ever, still."""

    instrument_id: int
    symbol: str
    valid_from: date | None
    valid_to: date | None
    mic: str
    kind: str
    tier: str | None
    listed_from: date | None
    delisted_on: date | None

    def is_now(self, instrument_id: int, symbol: str) -> bool:
        """Whether it is what the instrument bears now."""
        return self.valid_to is None and (self.instrument_id, self.symbol) == (instrument_id, symbol)

    def held(self, day: date) -> bool:
        """Whether it bore it on a day."""
        begun = self.valid_from is None or self.valid_from <= day
        return begun and (self.valid_to is None or day < self.valid_to)


def ever(connection: Connection, symbol: str) -> list[Borne]:
    """Who has borne a symbol, and what those have borne else, by instrument, the oldest first."""
    return [Borne(**row._mapping) for row in connection.execute(_SQL["ever"], {"symbol": symbol})]


def delist(connection: Connection, instrument_id: int, day: date | None) -> None:
    """Say when an instrument's life ended, the first day on which it no longer trades; None: it lives."""
    connection.execute(_SQL["delist"], {"id": instrument_id, "day": day})


def _instrument(row: Row[tuple[object, ...]]) -> Instrument:
    return _made(row._asdict())


def _made(fields: Mapping[str, Any]) -> Instrument:
    tier = fields["tier"]
    return Instrument(**{**fields, "tier": Tier(tier or Tier.T2), "followed": tier is not None})


def _refuse_other_exchange(given: Instrument, bearer: Instrument) -> None:
    if given.mic != bearer.mic:
        raise ConflictError(
            f"{given.symbol} is on {bearer.mic} here, not on {given.mic}",
            hint="delist or rename the one that bears the symbol first",
        )


def _near(connection: Connection, symbol: str) -> list[str]:
    known = {name.upper(): name for name in connection.execute(_SQL["all_symbols"]).scalars()}
    return [known[near] for near in difflib.get_close_matches(symbol.upper(), known, n=3)]
