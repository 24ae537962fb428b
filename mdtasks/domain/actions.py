"""Corporate actions as values: what happened to an instrument on a day, who told of it when, and what stands of it.

Statements are never changed: a correction is a later statement of the same source on the same key, and so is a
withdrawal. What stands as of an instant follows from the statements known by then alone, so it never changes again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from mdtasks.domain.errors import InvalidRequestError

#: The source of what a person told by hand: it is believed before all others.
PERSON: Final = "person"
#: Two sources that tell of the same on days so far apart mean one action; a weekend lies between Friday and Monday.
_SAME_WITHIN: Final = timedelta(days=3)
#: Two sources may differ by so much, as a share, and mean one action.
_ALIKE_SHARE: Final = 0.01


class Kind(StrEnum):
    """What happened.

    split: ``value`` new shares for one old. stock_dividend: ``value`` new shares for each held, on top. dividend:
    ``value`` of cash for a share, as a share was before that day's open. spin_off: ``value`` is the part of a share's
    worth that stays with it, where it is known; ``symbol`` the new company. rename: from that day on it bears
    ``symbol``. delisting: the first day on which it no longer trades.
    """

    SPLIT = "split"
    DIVIDEND = "dividend"
    STOCK_DIVIDEND = "stock_dividend"
    SPIN_OFF = "spin_off"
    RENAME = "rename"
    DELISTING = "delisting"


#: One action of a source: the day, the kind, and of spin-offs, of which a day may have several, the new company.
Key = tuple[date, Kind, str]

#: What each kind's value may be: (least, most), both excluded; None: it has none.
_RANGES: Final[Mapping[Kind, tuple[float, float] | None]] = {
    Kind.SPLIT: (0.0, 1e6),
    Kind.DIVIDEND: (0.0, 1e9),
    Kind.STOCK_DIVIDEND: (0.0, 1e6),
    Kind.SPIN_OFF: (0.0, 1.0),
    Kind.RENAME: None,
    Kind.DELISTING: None,
}
_MAY_BE_UNKNOWN: Final = frozenset({Kind.SPIN_OFF})


@dataclass(frozen=True, slots=True)
class Action:
    """One action of one instrument. Raises InvalidRequestError naming the field where it makes no sense.

    ``ex_date``: the session from which on prices are without it. ``reference``: the raw close before, where the source
    tells it. ``currency``: of a dividend, ISO 4217; None: that of the prices.
    """

    kind: Kind
    ex_date: date
    value: float | None = None
    currency: str | None = None
    symbol: str | None = None
    reference: float | None = None
    declared_on: date | None = None
    record_on: date | None = None
    pay_on: date | None = None

    def __post_init__(self) -> None:
        _check_value(self)
        if self.currency is not None and not (len(self.currency) == 3 and self.currency.isalpha()):
            raise _wrong("currency", f"{self.currency!r} is no currency", "three letters, such as USD")
        if (self.symbol is not None) and self.kind not in (Kind.RENAME, Kind.SPIN_OFF):
            raise _wrong("symbol", f"a {self.kind} has no new symbol", "leave it out")
        if self.kind is Kind.RENAME and not self.symbol:
            raise _wrong("symbol", "a rename without the new symbol", "give the symbol that it bears from then on")
        if self.reference is not None and not (math.isfinite(self.reference) and self.reference > 0):
            raise _wrong("reference", f"{self.reference} is no close", "the raw close of the session before, above 0")

    @property
    def key(self) -> Key:
        """What a later statement of the same source corrects."""
        return self.ex_date, self.kind, (self.symbol or "") if self.kind is Kind.SPIN_OFF else ""

    @property
    def shares(self) -> float:
        """Shares after it for one before: 1 where their number does not change."""
        if self.value is None or self.kind not in (Kind.SPLIT, Kind.STOCK_DIVIDEND):
            return 1.0
        return self.value if self.kind is Kind.SPLIT else 1.0 + self.value


def _check_value(action: Action) -> None:
    bounds, value = _RANGES[action.kind], action.value
    if bounds is None:
        if value is not None:
            raise _wrong("value", f"a {action.kind} has no value", "leave it out")
        return
    if value is None:
        if action.kind not in _MAY_BE_UNKNOWN:
            raise _wrong("value", f"a {action.kind} without a value", VALUES[action.kind])
    elif not bounds[0] < value < bounds[1]:
        raise _wrong("value", f"{value:g} is no {action.kind}'s value", VALUES[action.kind])


#: What to write as the value of each kind.
VALUES: Final[Mapping[Kind, str]] = {
    Kind.SPLIT: "new shares for one old: 4, 4:1, or 1:10 for a reverse split",
    Kind.DIVIDEND: "cash for one share, as a share was then: 0.24",
    Kind.STOCK_DIVIDEND: "new shares for each held: 0.05",
    Kind.SPIN_OFF: "the part of a share's worth that stays with it, between 0 and 1; nothing where it is not known",
    Kind.RENAME: "nothing",
    Kind.DELISTING: "nothing",
}


def _wrong(field: str, message: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(message, field=field, hint=hint)


def value_of(text: str) -> float | None:
    """The value that a text means: a number, or two with ``:`` or ``/`` between them. None for an empty one.

    Raises InvalidRequestError with field ``value``.
    """
    said = text.strip()
    if not said:
        return None
    over, _, under = said.replace("/", ":").partition(":")
    try:
        found = float(over) / (float(under) if under else 1.0)
    except (ValueError, ZeroDivisionError):
        found = math.nan
    if not math.isfinite(found):
        raise _wrong("value", f"value {said[:40]!r} is not a number", "write 0.24, 4:1 or 1:10")
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """One statement on record. ``withdrawn``: that there is no such action. ``id`` grows with ``known_at``."""

    id: int
    action: Action
    source: str
    known_at: datetime
    withdrawn: bool = False
    reason: str | None = None


def standing(told: Iterable[Told]) -> list[Told]:
    """What stands of these statements about one instrument, by day and kind.

    Each source's latest statement on a key counts. A person's settles the matter; else the source that told of it
    first and has not taken it back is believed. Where two sources mean one action by days that differ a little, or one
    calls a stock dividend what the other calls a split, the one told of first stands: it must not count twice.
    """
    latest: dict[tuple[Key, str], Told] = {}
    since: dict[tuple[Key, str], int] = {}
    for each in sorted(told, key=lambda one: one.id):
        at = (each.action.key, each.source)
        if at not in latest or latest[at].withdrawn:
            since[at] = each.id
        latest[at] = each
    by_key: dict[Key, list[tuple[bool, int, Told]]] = {}
    for at, each in latest.items():
        if not each.withdrawn or each.source == PERSON:
            by_key.setdefault(at[0], []).append((each.source != PERSON, since[at], each))
    first = sorted(min(held, key=lambda one: one[:2]) for held in by_key.values())
    kept: list[Told] = []
    for _, _, each in first:
        if not each.withdrawn and not any(_one_action(each, other) for other in kept):
            kept.append(each)
    return sorted(kept, key=lambda one: one.action.key)


def _one_action(this: Told, other: Told) -> bool:
    """Whether two sources mean one action by different keys."""
    if this.source == other.source or abs(this.action.ex_date - other.action.ex_date) > _SAME_WITHIN:
        return False
    shares = this.action.shares, other.action.shares
    if shares != (1.0, 1.0):
        return math.isclose(*shares, rel_tol=_ALIKE_SHARE)
    return this.action.kind is other.action.kind and alike(this.action, other.action, _ALIKE_SHARE)


def alike(this: Action, other: Action, share: float) -> bool:
    """Whether two actions of one kind say the same, but for ``share`` of their values."""
    if this.symbol != other.symbol:
        return False
    if this.value is None or other.value is None:
        return this.value is other.value
    return math.isclose(this.value, other.value, rel_tol=share)


@dataclass(frozen=True, slots=True)
class Days:
    """The days from ``first`` to ``last``, both included."""

    first: date
    last: date

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last


def in_force(actions: Sequence[Action], day: date) -> list[Action]:
    """Those whose ex-date has come by the trading day ``day``."""
    return [each for each in actions if each.ex_date <= day]
