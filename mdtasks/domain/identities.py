"""Whom the rows of a listing mean: instruments keep their identity while tickers change, die, and pass to others.

A source with ids of its own tells a renaming; one without tells a death and a birth, until a person says otherwise.
Pure: what is known is an argument, what is to be done is the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from mdtasks.domain.listings import Listed


@dataclass(frozen=True, slots=True)
class Known:
    """An instrument as the store knows it. ``symbol``: what it bore on the listing's day; None: nothing. ``changed``:
    that somebody told since that it bears another one, or none.
    """

    id: int
    symbol: str | None
    mic: str
    listed_from: date | None = None
    delisted_on: date | None = None
    changed: bool = False

    def alive(self, day: date) -> bool:
        return self.delisted_on is None or self.delisted_on > day


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What is learnt of an instrument's life."""

    instrument: int
    listed_from: date | None
    delisted_on: date | None


@dataclass(slots=True)
class Learnt:
    """What a listing tells that is news.

    ``births``: rows of instruments that nobody knew, each with its exchange; ``renames``: by instrument, what it bears
    from that day on; ``ousted``: instruments whose symbol another one takes; ``keys``: whom keys mean from that day on;
    ``lives``: of instruments; ``skipped``: how many rows mean nobody, by why; ``unplaced``: keys of which every row is
    of an exchange without a calendar: when these trade nobody knows, also where the key is known.
    """

    births: list[tuple[Listed, str]] = field(default_factory=list)
    renames: dict[int, str] = field(default_factory=dict)
    ousted: list[int] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    lives: list[Lifetime] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unplaced: set[str] = field(default_factory=set)


#: Why a row means nobody.
UNKNOWN_EXCHANGE = "an exchange that has no calendar here"
OTHER_EXCHANGE = "a symbol that is borne on another exchange"
AMBIGUOUS = "a symbol that two rows bear"
CHANGED_SINCE = "a symbol of which something later is known"


def learnt(
    rows: Iterable[Listed],
    day: date,
    meaning: Mapping[str, Known],
    bearers: Mapping[str, Known],
    exchanges: Mapping[str, str | None],
) -> Learnt:
    """What is news in a day's listing.

    ``meaning``: whom keys mean so far; ``bearers``: who bore symbols that day, or bears them since; ``exchanges``: by a
    row's exchange that of the store. Where two rows bear one symbol, whoever bears it now has it, else the first by
    key.
    """
    return _Reading(day, meaning, bearers, exchanges).read(list(rows))


class _Reading:
    def __init__(
        self,
        day: date,
        meaning: Mapping[str, Known],
        bearers: Mapping[str, Known],
        exchanges: Mapping[str, str | None],
    ) -> None:
        self._day, self._meaning, self._bearers, self._exchanges = day, meaning, bearers, exchanges
        self._taken: set[str] = set()
        self._found = Learnt()

    def read(self, rows: Sequence[Listed]) -> Learnt:
        alive = sorted((row for row in rows if row.alive(self._day)), key=self._turn)
        spoken_for = {one.id for row in alive if (one := self._meant(row)) is not None}
        for row in alive:
            self._alive(row, spoken_for)
        self._found.unplaced -= {row.key for row in alive if self._exchanges.get(row.mic) is not None}
        for row in rows:
            if not row.alive(self._day):
                self._dead(row)
        return self._found

    def _turn(self, row: Listed) -> tuple[int, str]:
        one = self._meant(row)
        return (2 if one is None else int(one.symbol != row.symbol)), row.key

    def _meant(self, row: Listed) -> Known | None:
        """Whom the row's key means still. One that goes by its symbol alone means nobody once that instrument has died
        or been renamed: then somebody else bears the symbol.
        """
        one = self._meaning.get(row.key)
        if one is None or row.own_id is not None:
            return one
        return one if one.symbol == row.symbol and one.alive(self._day) else None

    def _alive(self, row: Listed, spoken_for: set[int]) -> None:
        mic = self._exchanges.get(row.mic)
        one, bearer = self._meant(row), self._bearers.get(row.symbol)
        if one is None and bearer is not None and bearer.id not in spoken_for and bearer.alive(self._day):
            one = bearer if bearer.symbol == row.symbol else None
        why = CHANGED_SINCE if self._outdated(row, one, bearer) else ""
        if mic is None:
            why = UNKNOWN_EXCHANGE
        elif row.symbol in self._taken:
            why = AMBIGUOUS
        elif one is not None and one.mic != mic:
            why = OTHER_EXCHANGE
        if why or mic is None:
            self._found.skipped[why] += 1
            if mic is None:
                self._found.unplaced.add(row.key)
            return
        self._taken.add(row.symbol)
        if bearer is not None and (one is None or bearer.id != one.id):
            self._found.ousted.append(bearer.id)
        if one is None:
            self._found.births.append((row, mic))
            return
        if one.symbol != row.symbol:
            self._found.renames[one.id] = row.symbol
        before = self._meaning.get(row.key)
        if before is None or before.id != one.id:
            self._found.keys[row.key] = one.id
        # With an id of its own it is the same one that trades again; what else it may be told of later is not now.
        self._live(one, row, row.delisted_on if row.delisted_on or not one.alive(self._day) else one.delisted_on)

    @staticmethod
    def _outdated(row: Listed, one: Known | None, bearer: Known | None) -> bool:
        """Whether what the row would change was changed since its day: a listing tells of the day before, at times."""
        if one is not None and one.changed and one.symbol != row.symbol:
            return True
        if bearer is None or not bearer.changed:
            return False
        return one is None or one.id != bearer.id or bearer.symbol != row.symbol

    def _dead(self, row: Listed) -> None:
        """A row that tells of an end: of whom it means, or of who bears the symbol; it never makes anybody."""
        one, bearer = self._meaning.get(row.key), self._bearers.get(row.symbol)
        if bearer is not None and bearer.symbol != row.symbol:
            bearer = None  # who bears it since then
        if row.own_id is None and row.symbol in self._taken:
            return  # the one before whoever bears it now
        if one is None and bearer is not None and bearer.mic == self._exchanges.get(row.mic):
            one = bearer if row.symbol not in self._taken else None
        if one is not None:
            self._live(one, row, row.delisted_on)

    def _live(self, one: Known, row: Listed, delisted_on: date | None) -> None:
        told = Lifetime(one.id, row.listed_from or one.listed_from, delisted_on)
        if (told.listed_from, told.delisted_on) != (one.listed_from, one.delisted_on):
            self._found.lives.append(told)
