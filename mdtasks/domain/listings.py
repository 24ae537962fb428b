"""Listings as values: what a source says of an instrument on a day, whom that means, and what it amounts to.

Money is whole dollars out of exact decimals: no float, so no rounding that differs between machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Context, Decimal, InvalidOperation
from typing import Final

from mdtasks.domain.universe import Candidate

#: Enough digits for any price times any volume.
_EXACT: Final = Context(prec=80)
#: PostgreSQL's bigint holds it, and no day's trade of anything comes near.
_MOST: Final = 10**18


@dataclass(frozen=True, slots=True)
class Kept:
    """A listing as it came, and the day that it tells of."""

    as_of: date
    body: bytes


@dataclass(frozen=True, slots=True)
class Listed:
    """One row. ``key``: the source's own id of the instrument, else ``symbol@mic``. ``dollars``: traded that day, None
    where the source does not say. ``mic`` is as the source names the exchange, as a MIC.

    ``delisted_on``: the first day on which it no longer trades.
    """

    symbol: str
    mic: str
    kind: str = "equity"
    dollars: int | None = None
    listed_from: date | None = None
    delisted_on: date | None = None
    own_id: str | None = None

    @property
    def key(self) -> str:
        return f"{self.symbol}@{self.mic}" if self.own_id is None else f"#{self.own_id}"

    def alive(self, day: date) -> bool:
        """Whether it trades on or after the day, as far as the row says."""
        return self.delisted_on is None or self.delisted_on > day


@dataclass(frozen=True, slots=True)
class Day:
    """A day's listing."""

    as_of: date
    rows: Sequence[Listed]


@dataclass(frozen=True, slots=True)
class Traded:
    """What the store's own daily bars say of an instrument: so many days, so many dollars in all."""

    days: int
    dollars: int


#: In place of an instrument: from that day's listing on a key means nobody.
NOBODY: Final = 0
#: Whom a source's keys mean: by key, (from which day's listing on, instrument), the earliest first.
Keys = Mapping[str, Sequence[tuple[date, int]]]


def dollars(close: str, volume: str) -> int:
    """Close times volume in whole dollars, cut off. Raises ValueError for what is no number of zero or more."""
    try:
        product = _EXACT.multiply(_number(close), _number(volume))
    except InvalidOperation:
        raise ValueError(f"{close!r} and {volume!r} are no price and volume") from None
    if product > _MOST:
        raise ValueError(f"{close!r} times {volume!r} is more than anything trades in a day")
    return int(product)


def _number(text: str) -> Decimal:
    found = Decimal(text)
    if not found.is_finite() or found < 0 or "_" in text or not text.isascii():
        raise ValueError(f"{text!r} is no number of zero or more")
    return found


def meant(keys: Keys, key: str, day: date) -> int | None:
    """The instrument that a key means in a day's listing; None: nobody."""
    found = [instrument for since, instrument in keys.get(key, ()) if since <= day]
    return (found[-1] or None) if found else None  # 0 is NOBODY


@dataclass(slots=True)
class _Sum:
    symbol: str
    days: int = 0
    dollars: int = 0
    last: date = field(default=date.min)


def candidates(
    days: Sequence[Day], keys: Keys, traded: Mapping[int, Traded], *, partial: bool = False
) -> list[Candidate]:
    """Who may be a member by the newest of some days' listings, each with its score.

    ``days``: the oldest first. A score is the average of the days on which a listing says what was traded, where none
    does, of ``traded``. ``partial``: a listing holds only what traded that day, so whoever is in any of them is there.
    """
    sums: dict[int, _Sum] = {}
    dead: set[int] = set()
    for day in days:
        # The dead first: a key that goes by the symbol may have meant one who died, and mean another who lives.
        for row in sorted(day.rows, key=lambda row: row.alive(days[-1].as_of)):
            instrument = meant(keys, row.key, day.as_of)
            if instrument is None:
                continue
            (dead.discard if row.alive(days[-1].as_of) else dead.add)(instrument)
            found = sums.setdefault(instrument, _Sum(row.symbol))
            found.symbol, found.last = row.symbol, day.as_of
            if row.dollars is not None:
                found.days += 1
                found.dollars += row.dollars
    last_bearers: dict[str, tuple[date, int]] = {}
    for instrument, found in sums.items():
        if instrument not in dead and (partial or found.last == days[-1].as_of):
            # One at a time bears a symbol: of two that did within these days, the later one; else the older instrument.
            mine = (found.last, -instrument)
            last_bearers[found.symbol] = max(last_bearers.get(found.symbol, mine), mine)
    members = [-instrument for _, instrument in last_bearers.values()]
    return [Candidate(one, sums[one].symbol, _score(sums[one], traded.get(one))) for one in members]


def _score(found: _Sum, traded: Traded | None) -> int:
    if found.days:
        return found.dollars // found.days
    return traded.dollars // traded.days if traded and traded.days else 0


def has_dollars(rows: Iterable[Listed]) -> bool:
    """Whether a listing says of anything what was traded."""
    return any(row.dollars is not None for row in rows)
