"""What is new in what a source tells of corporate actions, beside what it told before. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Final

from mdtasks.domain.actions import Action, Days, Key, Kind, Told, alike
from mdtasks.domain.errors import InvalidRequestError

#: A source that no longer tells of an action, and tells of its like on a day so near, has moved it.
_MOVED_WITHIN: Final = timedelta(days=10)
#: Values that differ by less, as a share, are one: vendors round dividends that they have adjusted for later splits.
_SAME_SHARE: Final = 2e-5


@dataclass(frozen=True, slots=True)
class News:
    """A statement to be put on record. ``corrects``: it takes the place of one that stood."""

    action: Action
    corrects: bool = False
    withdrawn: bool = False
    reason: str | None = None


def combined(actions: Iterable[Action]) -> list[Action]:
    """What a source told of one instrument, with one action to a key, whatever the order: dividends of one day add up,
    splits multiply, and stock dividends grow on each other. A split of one for one is none.

    Raises InvalidRequestError when one day's dividends are of two currencies.
    """
    found: dict[Key, Action] = {}
    for each in sorted(actions, key=lambda one: (one.key, one.value or 0.0)):
        before = found.get(each.key)
        found[each.key] = each if before is None else _joined(before, each)
    return [each for each in found.values() if not (each.kind is Kind.SPLIT and each.value == 1.0)]


def _joined(this: Action, other: Action) -> Action:
    if this.kind is Kind.DIVIDEND and this.currency != other.currency:
        raise InvalidRequestError(
            f"dividends of {this.ex_date} in {this.currency} and {other.currency}", field="currency", hint="give one"
        )
    if this.value is None or other.value is None:
        return other if this.value is None else this
    match this.kind:
        case Kind.DIVIDEND:
            # Pennies add up to pennies.
            return replace(this, value=round(this.value + other.value, 10))
        case Kind.SPLIT:
            return replace(this, value=this.value * other.value)
        case Kind.STOCK_DIVIDEND:
            return replace(this, value=this.shares * other.shares - 1.0)
        case _:
            return other


def news(
    own: Iterable[Told], told: Iterable[Action], asked: Days | None = None, today: date | None = None
) -> list[News]:
    """What is new in a source's answer about one instrument, beside its ``own`` statements until now; [] when nothing.

    ``asked``: the days that the answer speaks for; None where it speaks for nothing but what it holds (a file). What
    the source no longer tells is withdrawn when its day is still to come, or when it was moved to a near one. What
    happened is not undone by silence: a person withdraws it.
    """
    latest: dict[Key, Told] = {}
    for each in sorted(own, key=lambda one: one.id):
        latest[each.action.key] = each
    found = combined(told)
    fresh = [made for each in found if (made := _news_of(latest.get(each.key), each)) is not None]
    if asked is None or today is None:
        return fresh
    there = {each.key for each in found}
    added = [each.action for each in fresh if not each.corrects]
    for key, held in latest.items():
        if not held.withdrawn and key not in there and key[0] in asked:
            moved = next((each for each in added if _moved(held.action, each)), None)
            if moved is not None:
                fresh.append(News(held.action, True, True, f"moved to {moved.ex_date}"))
            elif key[0] > today:
                fresh.append(News(held.action, True, True, "no longer announced"))
    return fresh


def _news_of(held: Told | None, action: Action) -> News | None:
    if held is None or held.withdrawn:
        return News(action, corrects=held is not None)
    merged = _filled(action, held.action)
    return None if merged == held.action else News(merged, corrects=True)


def _filled(action: Action, held: Action) -> Action:
    """The action with what it leaves open, or tells as good as alike, as it was told before."""
    kept: dict[str, object] = {
        each.name: getattr(held, each.name) for each in fields(Action) if getattr(action, each.name) is None
    }
    for name in ("value", "reference"):
        new, old = getattr(action, name), getattr(held, name)
        if new is not None and old is not None and math.isclose(new, old, rel_tol=_SAME_SHARE):
            kept[name] = old
    return replace(action, **kept)  # type: ignore[arg-type]


def _moved(held: Action, action: Action) -> bool:
    near = abs(held.ex_date - action.ex_date) <= _MOVED_WITHIN
    return near and held.kind is action.kind and alike(held, action, _SAME_SHARE)
