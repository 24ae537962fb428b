"""What is not followed of the renamings and delistings among the actions: why, what settles it, and its letter.

An instrument is called in them what it bears once its names have followed: the commands are typed after that.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import Connection

from mdtasks.domain.actions import Action, Kind, Told
from mdtasks.domain.errors import NameUnclearError
from mdtasks.domain.names import Saying, Span
from mdtasks.observe import metrics
from mdtasks.store import actions, letters
from mdtasks.store.letters import FINDING, Letter

log = logging.getLogger(__name__)

#: Stands in a command for what the instrument bears.
_IT: Final = "{symbol}"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why something is not followed. ``ways``: what settles it, in a person's words with its commands; none: a rule
    that holds has settled it, so nobody has to look.
    """

    instrument: int
    day: date
    what: str
    ways: tuple[str, ...] = ()

    @property
    def letter_id(self) -> str:
        return f"{FINDING}:{self.instrument}:{self.day}:{NameUnclearError.code}"


@dataclass(frozen=True, slots=True)
class Named:
    """An instrument as letters call it, and its tier."""

    symbol: str
    tier: str | None


def trades_on(instrument: int, told: Told, symbol: str, last: datetime) -> Doubt:
    """It has bars under ``symbol``, until ``last``, of days on which it should have borne another one, or none."""
    action = told.action
    happened = f"renamed to {action.symbol}" if action.kind is Kind.RENAME else "delisted"
    said = f"{happened} on {action.ex_date}, {told.source} told on {told.known_at:%Y-%m-%d}"
    what = f"{said}, but it has bars of later days under {symbol}, until {last:%Y-%m-%d}"
    ways = (
        f"if those are its own, fetched under {symbol} as nobody knew or a vendor went on with it: {_vouch(action)}",
        f"if the action is about another company that bore {symbol}: {_withdraw(action)}",
    )
    return Doubt(instrument, action.ex_date, what, ways)


def no_symbol(instrument: int, action: Action) -> Doubt:
    """It was renamed to what can be no symbol here."""
    right = f"`mdtasks actions add {_IT} {action.ex_date} rename --new-symbol NEW --reason …` tells the right one"
    what = f"renamed to {action.symbol!r} on {action.ex_date}, which is no symbol here"
    return Doubt(instrument, action.ex_date, what, (right, f"if it was not renamed: {_withdraw(action)}"))


def taken(instrument: int, action: Action, by: int, bearer: Span | None) -> Doubt:
    """It was renamed to a symbol that the instrument ``by`` bears then, which is called as ``bearer`` says now."""
    what = f"cannot bear {action.symbol}, which {_other(by, bearer, action.symbol)} bears then"
    ways = (*_give_up(bearer), f"if it was not renamed so: {_withdraw(action)}")
    return Doubt(instrument, action.ex_date, what, ways)


def not_back(instrument: int, old: Saying, now: Span | None, by: int, bearer: Span | None) -> Doubt:
    """It shall bear again what it bore before a renaming (``now``) that was withdrawn, and ``by`` bears that."""
    what = f"cannot bear {old.symbol} again, which {_other(by, bearer, old.symbol)} bears then"
    stays = () if now is None else (f"if it is {_IT} after all: {_vouch(Action(Kind.RENAME, now.since, symbol=_IT))}",)
    return Doubt(instrument, old.since, what, (*_give_up(bearer), *stays))


def _vouch(action: Action) -> str:
    new = f" --new-symbol {action.symbol}" if action.kind is Kind.RENAME else ""
    return f"`mdtasks actions add {_IT} {action.ex_date} {action.kind}{new} --reason …`"


def _withdraw(action: Action) -> str:
    return f"`mdtasks actions withdraw {_IT} {action.ex_date} {action.kind} --reason …`"


def _other(by: int, bearer: Span | None, symbol: str | None) -> str:
    return f"instrument {by}" + (f" ({bearer.symbol} now)" if bearer is not None and bearer.symbol != symbol else "")


def _give_up(bearer: Span | None) -> tuple[str, ...]:
    if bearer is None:
        return ()
    words = f"rename {bearer.symbol} NEW", f"delist {bearer.symbol}"
    commands = " or ".join(f"`mdtasks universe {each} --on DAY`" for each in words)
    return (f"if that one gave it up: {commands}",)


def write_letters(connection: Connection, doubts: Sequence[Doubt], named: Mapping[int, Named]) -> list[str]:
    """Write a letter about each doubt that a person should look at, let those on record say what is known now, and
    close all others of the instruments ``named``. Returns the doubts in a line each.
    """
    texts = [f"{named[each.instrument].symbol}: {each.what}" for each in doubts]
    held: defaultdict[str, list[Doubt]] = defaultdict(list)
    for doubt in doubts:
        if doubt.ways:
            held[doubt.letter_id].append(doubt)
    for letter_id, found in held.items():
        _write(connection, letter_id, found, named[found[0].instrument])
    actions.resolve(connection, named, date.min, list(held), names=True)
    return texts


def _write(connection: Connection, letter_id: str, doubts: Sequence[Doubt], one: Named) -> None:
    said = [f"{one.symbol} {each.what}; {'; '.join(each.ways)}" for each in doubts]
    letter = Letter(
        id=letter_id,
        kind=FINDING,
        envelope="",
        error_class=NameUnclearError.code,
        message=". ".join(said).replace(_IT, one.symbol),
        tier=one.tier,
        symbol=one.symbol,
    )
    if letters.record(connection, letter) or actions.restate(connection, letter):
        metrics.DEAD_LETTERS.labels(kind=letter.kind, error_class=letter.error_class).inc()
        log.warning("%s", letter.message)
