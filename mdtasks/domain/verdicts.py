"""What is to be said of one interval of a symbol: is there a bar, and if not, why not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.completeness import Completeness
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, TimeWindow


class Verdict(StrEnum):
    """Why an interval is as it is; the words of ``mdtasks gaps`` and some that only one interval needs."""

    PRESENT = "present"
    #: There is a bar, but nobody has answered for its time yet: it is provisional, or its answer settles still.
    UNSETTLED = "unsettled"
    #: There is a bar of time outside sessions, such as extended hours.
    EXTENDED = "extended"
    NO_TRADE = "no_trade"
    HALTED = "halted"
    QUARANTINED = "quarantined"
    MISSING = "missing"
    PENDING = "pending"
    NOT_ENDED = "not_ended"
    OUTSIDE = "outside_session"
    NOT_LISTED = "not_listed"
    NOT_KEPT = "not_kept"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which moments bars of a symbol may be: its listing's life and what is kept; None: no bound."""

    listed_from: datetime | None = None
    delisted_on: datetime | None = None
    kept_from: datetime | None = None


def slot_of(at: datetime, interval: Interval) -> TimeWindow:
    """The interval of the grid that holds a moment; daily: the session's label, 00:00 UTC of the day that is named."""
    step_us = interval.seconds * 1_000_000
    start_us = to_us(at) // step_us * step_us
    try:
        return TimeWindow(start=from_us(start_us), end=from_us(start_us + step_us))
    except (OverflowError, ValueError):
        raise InvalidRequestError(
            f"no bar can start at {at.isoformat()}", field="ts", hint="give a nearer time"
        ) from None


def verdict_of(slot: TimeWindow, told: Completeness | None, bounds: Bounds, *, barred: bool, trades: bool) -> Verdict:
    """The verdict on one interval. ``told``: the completeness of just that interval; None: it lies in the future.

    ``barred``: there is a bar; ``trades``: the exchange trades in it, as far as its calendar knows.
    """
    if told is not None and told.expected:
        return _of_expected(told, barred=barred)
    if barred:
        return Verdict.UNSETTLED if trades else Verdict.EXTENDED
    if bounds.kept_from is not None and slot.start < bounds.kept_from:
        return Verdict.NOT_KEPT
    if bounds.listed_from is not None and slot.start < bounds.listed_from:
        return Verdict.NOT_LISTED
    if bounds.delisted_on is not None and slot.start >= bounds.delisted_on:
        return Verdict.NOT_LISTED
    return Verdict.NOT_ENDED if trades else Verdict.OUTSIDE


def _of_expected(told: Completeness, *, barred: bool) -> Verdict:
    if told.halted:
        return Verdict.HALTED
    if told.present:
        return Verdict.PRESENT
    if barred:
        return Verdict.UNSETTLED
    if told.no_trade:
        return Verdict.NO_TRADE
    if told.quarantined:
        return Verdict.QUARANTINED
    return Verdict.MISSING if told.missing else Verdict.PENDING


#: What each verdict means, in a sentence.
MEANINGS: Final = {
    Verdict.PRESENT: "a provider has answered for it, with a bar",
    Verdict.UNSETTLED: "there is a bar, but nobody has answered for its time yet: it may still change",
    Verdict.EXTENDED: "there is a bar of time outside the exchange's sessions, or outside the listing's life",
    Verdict.NO_TRADE: "answered for, without a bar, and believed: nobody traded",
    Verdict.HALTED: "the symbol did not trade, though its exchange did",
    Verdict.QUARANTINED: "bars came for it, and broke a rule",
    Verdict.MISSING: "nobody has answered for it, or with silence that is not believed",
    Verdict.PENDING: "it ended a moment ago: its provider's delay, the settle delay and live fetching come first",
    Verdict.NOT_ENDED: "it has not ended yet",
    Verdict.OUTSIDE: "the exchange does not trade then: no bar is expected",
    Verdict.NOT_LISTED: "the symbol is not listed then: no bar is expected",
    Verdict.NOT_KEPT: "it is older than such bars are kept: nobody looks for it, and it may have been deleted",
}
