"""Telling of a calendar what it does not know: a session that did not take place, began late, ended early, a halt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_time
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import ConflictError, InvalidRequestError
from mdtasks.domain.jobs import Symbol, TimeWindow, UtcDatetime, invalid_request
from mdtasks.domain.overrides import Kind, Overrides
from mdtasks.domain.schedules import Session
from mdtasks.domain.sessions import Calendar, Calendars
from mdtasks.domain.spans import NO_TIME, subtract
from mdtasks.store import overrides, reference
from mdtasks.store.overrides import NewOverride, Override

_DAY: Final = timedelta(days=1)
#: What each kind needs to be told beside its reason.
_FIELDS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.CLOSED: ("mic", "day"),
    Kind.LATE_OPEN: ("mic", "day", "time"),
    Kind.EARLY_CLOSE: ("mic", "day", "time"),
    Kind.HALT: ("symbol", "start", "end"),
}

#: What to write for each of them.
_EXAMPLES: Final = {
    "mic": "an exchange such as XNYS",
    "day": "the session's date, such as 2026-11-02",
    "time": "write 10:30 on the exchange's clock, or 2026-11-02T15:30Z",
    "symbol": "a symbol of the universe, such as AAPL",
    "start": "write 2026-11-02T14:30Z",
    "end": "write 2026-11-02T15:30Z",
}

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class OverrideRequest(BaseModel):
    """What somebody tells: `mdtasks calendar` and ``POST /ops/calendar/overrides`` alike.

    ``day``: the session's label. ``time``: ``HH:MM`` on the exchange's own clock or with
    a zone, or a whole time with a zone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    reason: Reason
    mic: str | None = None
    day: date | None = None
    time: str | None = None
    symbol: Symbol | None = None
    start: UtcDatetime | None = None
    end: UtcDatetime | None = None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> OverrideRequest:
        """The request a document describes. Raises InvalidRequestError naming the field."""
        try:
            asked = cls.model_validate(document)
        except ValidationError as exc:
            raise _refused(exc) from exc
        needed = _FIELDS[asked.kind]
        for name in ("mic", "day", "time", "symbol", "start", "end"):
            if (getattr(asked, name) is None) == (name in needed):
                wrong = f"{name} is missing" if name in needed else f"{name} has no meaning"
                raise InvalidRequestError(
                    f"{wrong}: {asked.kind} goes by {', '.join(needed)} and reason",
                    field=name,
                    hint=_EXAMPLES[name] if name in needed else "leave it out",
                )
        return asked


def _refused(exc: ValidationError) -> InvalidRequestError:
    """What people type most often wrong, in words that show what to type instead."""
    first = exc.errors(include_url=False)[0]
    if first["loc"] == ("day",):
        return InvalidRequestError(
            f"day {str(first['input'])[:40]!r} is not a date", field="day", hint=_EXAMPLES["day"]
        )
    if first["loc"] == ("reason",) and first["type"] == "string_too_short":
        return _no_reason()
    return invalid_request(exc)


def _no_reason() -> InvalidRequestError:
    return InvalidRequestError("reason is empty: say why", field="reason", hint="for example: typhoon Saola")


def tell(asked: OverrideRequest, actor: str, database: Database, calendars: Calendars) -> Override:
    """Put an override on record, and let it hold in this process at once, in the others within about a second.

    Raises InvalidRequestError naming the field, UnknownSymbolError, ConflictError (that time is closed already),
    StoreUnavailableError.
    """
    with database.transaction() as connection:
        overrides.lock(connection)
        standing = overrides.standing(connection)
        make = _halt if asked.kind is Kind.HALT else _change
        made = overrides.add(connection, make(asked, connection, calendars, standing), actor)
        standing = overrides.standing(connection)
    calendars.apply(standing)
    return made


def undo(override_id: int, reason: str, actor: str, database: Database, calendars: Calendars) -> Override:
    """Let an override no longer hold: all is as before it. Raises as ``tell``, and NotFoundError."""
    said = reason.strip()
    if not said:
        raise _no_reason()
    with database.transaction() as connection:
        undone = overrides.undo(connection, override_id, said, actor)
        standing = overrides.standing(connection)
    calendars.apply(standing)
    return undone


def _change(asked: OverrideRequest, connection: Connection, calendars: Calendars, standing: Overrides) -> NewOverride:
    """The override of a session of an exchange."""
    assert asked.mic is not None
    assert asked.day is not None
    plain = calendars.plain(asked.mic)
    whole = _session_of(plain, asked.day)
    if whole is None:
        near = _nearest(plain, asked.day)
        raise InvalidRequestError(f"{asked.day} is no session of {plain.mic}", field="day", hint=near)
    session = _session_of(plain.without(standing.shut.get(plain.mic, NO_TIME)), asked.day)
    if session is None:
        by = [each for each in overrides.matching(connection, mic=plain.mic) if each.session == asked.day]
        told = f" by override {by[0].id} ({by[0].reason})" if by else ""
        raise ConflictError(f"day {asked.day} is closed on {plain.mic} already{told}", hint="`mdtasks calendar list`")
    window = TimeWindow(start=whole.open, end=whole.close)
    if asked.kind is not Kind.CLOSED:
        assert asked.time is not None
        at = _inside(asked.time, session, plain)
        late = asked.kind is Kind.LATE_OPEN
        window = TimeWindow(start=whole.open, end=at) if late else TimeWindow(start=at, end=whole.close)
    return NewOverride(asked.kind, window, asked.reason, mic=plain.mic, session=asked.day)


def _halt(asked: OverrideRequest, connection: Connection, calendars: Calendars, standing: Overrides) -> NewOverride:
    """The override of one instrument."""
    assert asked.symbol is not None
    assert asked.start is not None
    assert asked.end is not None
    for name, at in (("start", asked.start), ("end", asked.end)):
        _refuse_seconds(at, name)
    if asked.start >= asked.end:
        raise InvalidRequestError(
            f"end {asked.end.isoformat()} is not after start", field="end", hint="windows are half-open: [start, end)"
        )
    member = reference.resolve(connection, [asked.symbol])[asked.symbol]
    window = TimeWindow(start=asked.start, end=asked.end)
    plain = calendars.plain(member.mic)
    if not plain.without(standing.shut.get(plain.mic, NO_TIME)).session_minutes(window):
        raise InvalidRequestError(
            f"start {asked.start.isoformat()}: {plain.mic} does not trade between it and {asked.end.isoformat()}",
            field="start",
            hint="a halt is of time in which the exchange trades",
        )
    span = np.array([[to_us(window.start), to_us(window.end)]], dtype=np.int64)
    if not len(subtract(span, standing.halted.get(member.id, NO_TIME))):
        raise ConflictError(f"start {asked.start.isoformat()}: {asked.symbol} is told to be halted then already")
    return NewOverride(asked.kind, window, asked.reason, instrument_id=member.id)


def _session_of(calendar: Calendar, day: date) -> Session | None:
    """The session with that label. Raises InvalidRequestError past the calendar's horizon."""
    label = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if label + _DAY > calendar.horizon:
        raise InvalidRequestError(
            f"day {day} is past what is known of {calendar.mic}, which ends {calendar.horizon:%Y-%m-%d}",
            field="day",
            hint="install a newer exchange_calendars",
        )
    window = TimeWindow(start=max(label, _FIRST) - _DAY, end=min(label + 2 * _DAY, calendar.horizon))
    return next((session for session in calendar.sessions(window) if session.label == day), None)


_FIRST: Final = datetime(1, 1, 3, tzinfo=UTC)


def _nearest(calendar: Calendar, day: date) -> str:
    label = max(datetime(day.year, day.month, day.day, tzinfo=UTC), _FIRST + 20 * _DAY)
    window = TimeWindow(start=label - 20 * _DAY, end=min(label + 20 * _DAY, calendar.horizon))
    labels = [session.label for session in calendar.sessions(window)]
    near = [*[each for each in labels if each < day][-1:], *[each for each in labels if each > day][:1]]
    return f"the nearest sessions are {' and '.join(map(str, near))}" if near else ""


def _inside(text: str, session: Session, calendar: Calendar) -> datetime:
    """A time of day within a session, after its open and before its close. Raises InvalidRequestError."""
    at = _time_of(text, session, calendar.zone)
    _refuse_seconds(at, "time")
    if not session.open < at < session.close:
        clock = ZoneInfo(calendar.zone)
        hours = f"{session.open.astimezone(clock):%H:%M} to {session.close.astimezone(clock):%H:%M} {calendar.zone}"
        raise InvalidRequestError(
            f"time {text!r} is not inside the session {session.label} of {calendar.mic}: {hours}",
            field="time",
            hint="write a time of day on the exchange's own clock, after its open and before its close",
        )
    return at


def _time_of(text: str, session: Session, zone: str) -> datetime:
    try:
        told = wall_time.fromisoformat(text.strip())
    except ValueError:
        return _iso_of(text)
    told = told if told.tzinfo is not None else told.replace(tzinfo=ZoneInfo(zone))
    # A session may begin on the evening before its label: of the days around it, that one on which it trades then.
    days = (session.label, session.label - _DAY, session.label + _DAY)
    times = [datetime.combine(day, told).astimezone(UTC) for day in days]
    return next((at for at in times if session.open < at < session.close), times[0])


def _iso_of(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = None
    wrong = "is not a time" if at is None else "has no time zone"
    raise InvalidRequestError(
        f"time {text!r} {wrong}", field="time", hint="write 10:30 on the exchange's clock, or 2026-11-02T15:30Z"
    )


def _refuse_seconds(at: datetime, name: str) -> None:
    if at.second or at.microsecond:
        raise InvalidRequestError(
            f"{name} {at.isoformat()} is not a whole minute", field=name, hint="calendars go by the minute"
        )


@dataclass(frozen=True, slots=True)
class ShownSession:
    """A session as it is, None when it was closed, and what people told of it."""

    label: date
    session: Session | None
    minutes: int
    told: tuple[Override, ...]

    def as_dict(self) -> dict[str, object]:
        told = [{name: getattr(each, name) for name in ("id", "kind", "reason", "actor")} for each in self.told]
        held = self.session
        breaks = [{"start": pause.start, "end": pause.end} for pause in held.breaks] if held else []
        times = {"open": held and held.open, "close": held and held.close, "breaks": breaks}
        return {"session": self.label, **times, "minutes": self.minutes, "overrides": told}


def shown(mic: str, window: TimeWindow, told: list[Override], calendars: Calendars) -> list[ShownSession]:
    """The sessions that overlap the window, closed ones too, marked with what was ``told`` of this exchange.

    Raises InvalidRequestError for an unknown exchange and past its horizon.
    """
    plain, now = calendars.plain(mic), calendars.get(mic)
    left = {session.label: session for session in now.sessions(window)}
    found = []
    for whole in plain.sessions(window):
        about = tuple(each for each in told if each.start < whole.close and whole.open < each.end)
        minutes = now.session_minutes(TimeWindow(start=whole.open, end=whole.close))
        # A session that lost its part inside the window is there, outside of it.
        session = left.get(whole.label) or (_session_of(now, whole.label) if minutes else None)
        found.append(ShownSession(whole.label, session, minutes, about))
    return found
