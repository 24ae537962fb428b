"""Adjusting what was read: the one seam between stored raw bars and readers who want them adjusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Final, Protocol

import numpy as np
from sqlalchemy import Connection

from mdtasks.domain.actions import Action, in_force, standing
from mdtasks.domain.adjustment import Adjust, factors, in_money_of, needs_close, trading_day, trading_days
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import CannotAdjustError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.schedules import DAY_US
from mdtasks.domain.sessions import Calendar, Calendars
from mdtasks.store import actions
from mdtasks.store.bars import StoredBars
from mdtasks.store.reference import Instrument

#: Where the close of a day is looked for when there is no daily bar: the last one that started in trading hours.
_INTRADAY: Final = (Interval.M1, Interval.M5, Interval.M15, Interval.H1)


@dataclass(frozen=True, slots=True)
class Wish:
    """For what bars are adjusted, and as of when (None: ``now``, one moment for all parts of an answer)."""

    adjust: Adjust
    as_of: datetime | None
    now: datetime

    @property
    def moment(self) -> datetime:
        """By when actions are known and in force."""
        return self.as_of or self.now


class HasCalendars(Protocol):
    """Deps, or as much of them as adjusting needs."""

    @property
    def calendars(self) -> Calendars: ...


def adjusted(  # noqa: PLR0917 - the one seam: who reads, what was read, how it is wanted
    deps: HasCalendars,
    connection: Connection,
    instrument: Instrument,
    interval: Interval,
    stored: StoredBars,
    wish: Wish,
) -> StoredBars:
    """Bars read raw, adjusted by the actions that were known and in force at the moment wished for.

    ``stored``: read with the same ``as_of``; any part of a series, its factors are those of the whole. The same
    ``as_of``, once it has passed, gives the same answer for ever. ``none`` gives ``stored`` itself. Raises
    CannotAdjustError where a close that a dividend goes by is not known.
    """
    adjust = wish.adjust
    if adjust is Adjust.NONE or not len(stored):
        return stored
    # As the library has it: what people tell of a calendar later must not change what was read.
    look = _Look(connection, instrument, deps.calendars.plain(instrument.mic), wish)
    days_us = trading_days(look.calendar, stored.bars.ts_us, interval)
    first = from_us(int(days_us.min())).date()
    counted = [action for action in look.actions() if action.ex_date > first]
    try:
        if adjust is Adjust.TOTAL:
            counted = in_money_of(counted, instrument.mic)
        closes = look.closes(counted, needs_close(counted, days_us, adjust))
        made = factors(counted, days_us, closes, adjust)
    except CannotAdjustError as exc:
        symbol = instrument.symbol
        raise CannotAdjustError(f"{symbol}: {exc.message}", hint=exc.hint.replace("SYMBOL", symbol)) from exc
    return replace(stored, bars=made.adjusted(stored.bars))


def grounds(deps: HasCalendars, connection: Connection, instrument: Instrument, since: datetime, wish: Wish) -> str:
    """What adjusted bars that start at ``since`` or later depend on beside the bars: actions and closes, in words that
    differ whenever they do.
    """
    look = _Look(connection, instrument, deps.calendars.plain(instrument.mic), wish)
    counted = look.actions()
    day = np.array([to_us(datetime.combine(trading_day(look.calendar, since), time(), UTC))], dtype=np.int64)
    return repr((counted, sorted(look.closes(counted, needs_close(counted, day, wish.adjust)).items())))


@dataclass(frozen=True, slots=True)
class _Look:
    """What was known of one instrument at the moment wished for."""

    connection: Connection
    instrument: Instrument
    calendar: Calendar
    wish: Wish

    def actions(self) -> list[Action]:
        """The actions that stood and were in force."""
        told = actions.told(self.connection, [self.instrument.id], self.wish.as_of)[self.instrument.id]
        day = trading_day(self.calendar, self.wish.moment)
        return in_force([each.action for each in standing(told)], day)

    def closes(self, counted: Sequence[Action], needed: Sequence[date]) -> Mapping[date, float]:
        """The raw close before each of these ex-dates: of the last session before it, by its daily bar or else its last
        bar in trading hours; else the one that the action's source tells; else the last close that there is, of a day
        before. One that is nowhere is absent.
        """
        last = {day: self._session_before(day) for day in needed}
        found: dict[date, tuple[int, float]] = {}
        for interval in (Interval.D1, *_INTRADAY):
            left = [day for day in needed if day not in found or found[day][0] < last[day][0]]
            if not left:
                break
            befores = [_midnight(day) if interval is Interval.D1 else last[day][1] for day in left]
            closes = actions.closes_before(self.connection, self.instrument.id, interval, befores, self.wish.as_of)
            for day, close in zip(left, closes, strict=True):
                if close is not None:
                    session_us = int(trading_days(self.calendar, np.array([close[0]]), interval)[0])
                    if day not in found or session_us > found[day][0]:
                        found[day] = (session_us, close[1])
        told = {each.ex_date: each.reference for each in counted if each.reference is not None}
        older = {day: close for day, (session_us, close) in found.items() if session_us < last[day][0]}
        newest = {day: close for day, (_, close) in found.items() if day not in older}
        return {**older, **told, **newest}

    def _session_before(self, day: date) -> tuple[int, datetime]:
        """The last session before ``day``: its label, and when it closed; 0 and midnight where there is none."""
        at_us = to_us(_midnight(day))
        held = self.calendar.schedule(at_us - int(actions.CLOSE_REACH.total_seconds()) * 1_000_000, at_us + DAY_US)
        before = int(np.searchsorted(held.labels, at_us))
        if not before:
            return 0, _midnight(day)
        return int(held.labels[before - 1]), from_us(int(held.closes[before - 1]))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
