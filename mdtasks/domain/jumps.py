"""Whether a price jumped where the actions on record say that it must, and nowhere else.

Bars that a provider had adjusted already, a split with a wrong day or ratio, and a split that nobody told of all show
in the step from one session's close to the next one's open. A step says little by itself (prices do fall by half), so
what is found is a suspicion for a person, and nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from mdtasks.domain.actions import Action, Kind
from mdtasks.domain.errors import ActionWithoutJumpError, JumpWithoutActionError, SuspectBarsError

#: An action by which a price changes less, as a ratio, cannot be told from how prices move overnight.
_DISCERNIBLE: Final = math.log(1.2)
#: Ratios of splits, forward and reverse. 3:2 is left out: prices fall by a third on bad news.
_USUAL: Final = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)
#: How near to a usual ratio a step must come to be taken for it, in logarithms: prices move meanwhile.
_NEAR: Final = 0.05


@dataclass(frozen=True, slots=True)
class Overnight:
    """One step between sessions, in raw prices: ``close`` of ``day_before``, ``open`` of ``day``. ``other``: who may be
    asked for these bars besides whoever gave them, where anybody may.
    """

    day_before: date
    close: float
    day: date
    open: float
    other: str | None = None


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is wrong with a step. ``kind``: of the action that should have moved the price, or of the one that lacks."""

    kind: Kind
    error: SuspectBarsError


def suspicion(symbol: str, step: Overnight, actions: Sequence[Action]) -> Suspicion | None:
    """What is wrong with a step, if anything. ``actions``: those that stand of the instrument, of any day.

    The commands of its hint can be typed as they stand.
    """
    if step.close <= 0 or step.open <= 0:
        return None
    here = [each for each in actions if step.day_before < each.ex_date <= step.day]
    expected, seen = sum(_effect(each, step.close) for each in here), math.log(step.close / step.open)
    if abs(expected) >= _DISCERNIBLE:
        if abs(seen - expected) <= abs(expected) / 2:
            return None
        return _without_jump(symbol, step, here)
    usual = next((ratio for ratio in _USUAL if abs(abs(seen) - math.log(ratio)) <= _NEAR), None)
    return None if usual is None else Suspicion(Kind.SPLIT, _without_action(symbol, step, usual))


def _effect(action: Action, close: float) -> float:
    """The logarithm of the ratio by which the price must fall."""
    if action.kind is Kind.DIVIDEND and action.value is not None and action.value < close:
        return -math.log(1 - action.value / close)
    if action.kind is Kind.SPIN_OFF and action.value is not None:
        return -math.log(action.value)
    return math.log(action.shares)


def _without_jump(symbol: str, step: Overnight, actions: Sequence[Action]) -> Suspicion:
    told = ", ".join(f"{each.kind} {each.value:g}" for each in actions if each.value is not None)
    main = max(actions, key=lambda each: abs(_effect(each, step.close)))
    other = "" if step.other is None else f" --provider {step.other}"
    error = ActionWithoutJumpError(
        f"{symbol}: {told} of {step.day} is on record, but the price went from {step.close:g} to {step.open:g}",
        hint=f"if the action is wrong: `{withdrawal(symbol, main)}`; if the bars were adjusted by who gave them, fetch "
        f"them from another: `mdtasks backfill {symbol} --interval 1d --start {step.day_before} --end "
        f"{step.day + timedelta(days=1)} --refetch{other}`, and those before with an earlier start",
    )
    return Suspicion(main.kind, error)


def withdrawal(symbol: str, action: Action) -> str:
    """The command that takes an action back."""
    new = f" --new-symbol {action.symbol}" if action.kind is Kind.SPIN_OFF and action.symbol else ""
    return f"mdtasks actions withdraw {symbol} {action.ex_date} {action.kind}{new} --reason …"


def _without_action(symbol: str, step: Overnight, ratio: int) -> JumpWithoutActionError:
    value = f"{ratio}:1" if step.open < step.close else f"1:{ratio}"
    return JumpWithoutActionError(
        f"{symbol}: the price went from {step.close:g} on {step.day_before} to {step.open:g} on {step.day}, as by a "
        f"split of {value}, and none is on record",
        hint=f"if it was one: `mdtasks actions add {symbol} {step.day} split {value} --reason …`; if the price did "
        f"move so: `mdtasks actions withdraw {symbol} {step.day} split --reason …` says that there was none",
    )
