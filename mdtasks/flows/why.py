"""Where a bar comes from, and why there is none: one interval of one symbol, with all the evidence that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.retention import horizon
from mdtasks.domain.schedules import Session
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.verdicts import MEANINGS, Bounds, Verdict, slot_of, verdict_of
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.gaps import Explanation, Question, explain_gaps
from mdtasks.store import provenance, reference
from mdtasks.store.provenance import Candidate, Origin, Version
from mdtasks.store.reference import Instrument

#: How far around an interval its exchange's sessions are looked for.
_AROUND = timedelta(days=14)
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Why:
    """One interval. ``versions``: of its bar, the one that stands first; ``candidates``: bars that were kept out;
    ``origins``: the attempts behind them and behind the silences, by id; ``told``: what `gaps` says of it, None for the
    future; ``before`` and ``after``: the sessions that end before it and begin after it.
    """

    member: Instrument
    interval: Interval
    slot: TimeWindow
    verdict: Verdict
    versions: Sequence[Version]
    candidates: Sequence[Candidate]
    origins: dict[int, Origin]
    told: Explanation | None
    before: Session | None
    after: Session | None

    @property
    def bar(self) -> Version | None:
        """The bar as it stands."""
        return next((each for each in self.versions if each.superseded_at is None), None)

    def as_dict(self) -> dict[str, Any]:
        """As JSON shows it; times are datetimes."""
        return {
            "symbol": self.member.symbol,
            "mic": self.member.mic,
            "tier": self.member.kept_in,
            "interval": self.interval.value,
            "start": self.slot.start,
            "end": self.slot.end,
            "verdict": self.verdict.value,
            "meaning": MEANINGS[self.verdict],
            "bar": None if self.bar is None else asdict(self.bar),
            "versions": [{**asdict(each), "origin": self._origin(each.attempt_id)} for each in self.versions],
            "candidates": [{**asdict(each), "origin": self._origin(each.attempt_id)} for each in self.candidates],
            **self._evidence(),
            "sessions": {"before": _session(self.before), "after": _session(self.after)},
        }

    def _evidence(self) -> dict[str, Any]:
        told = self.told
        heard = [] if told is None else told.heard
        return {
            "silences": [{**asdict(each), "origin": self._origin(each.attempt_id)} for each in heard],
            "ledger": [] if told is None else [{**asdict(each), "took_s": each.took_s} for each in told.ledger],
        }

    def _origin(self, attempt_id: int | None) -> dict[str, Any] | None:
        found = None if attempt_id is None else self.origins.get(attempt_id)
        return None if found is None else asdict(found)


def _session(found: Session | None) -> dict[str, Any] | None:
    return None if found is None else {"label": found.label, "open": found.open, "close": found.close}


def why(symbol: str, at: datetime, interval: Interval, deps: Deps, now: datetime) -> Why:
    """All that is known of the interval that holds a moment. Reads only.

    Raises UnknownSymbolError, InvalidRequestError for a time that no calendar has, StoreUnavailableError.
    """
    slot = slot_of(at, interval)
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, [symbol])[symbol]
        versions = provenance.versions(connection, member.id, interval, slot.start)
        candidates = provenance.candidates(connection, member.id, interval, slot)
    calendar = deps.calendars.get(member.mic)
    told = None
    if slot.start < min(now, calendar.horizon):
        asked = Question([symbol], interval, AskedWindow(slot.start, slot.end))
        told = explain_gaps(symbol, asked, deps, now)
    known = [each.attempt_id for each in versions] + [each.attempt_id for each in candidates]
    known += [each.attempt_id for each in (told.heard if told else ()) if each.attempt_id is not None]
    with deps.database.transaction() as connection:
        origins = provenance.origins(connection, known)
    before, after = _around(calendar, slot)
    return Why(
        member=member,
        interval=interval,
        slot=slot,
        verdict=verdict_of(
            slot,
            None if told is None else told.completeness,
            Bounds(_midnight(member.listed_from), _midnight(member.delisted_on), _horizon(deps, interval, now)),
            barred=any(each.superseded_at is None for each in versions),
            trades=_trades(calendar, slot, interval),
        ),
        versions=versions,
        candidates=candidates,
        origins=origins,
        told=told,
        before=before,
        after=after,
    )


def _horizon(deps: Deps, interval: Interval, now: datetime) -> datetime | None:
    return horizon(deps.running.policy, interval, now)


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)


def _trades(calendar: Calendar, slot: TimeWindow, interval: Interval) -> bool:
    """Whether the exchange trades in the interval; beyond what its calendar knows it may."""
    return slot.end > calendar.horizon or len(calendar.expected(slot, interval)) > 0


def _around(calendar: Calendar, slot: TimeWindow) -> tuple[Session | None, Session | None]:
    """The last session that ends before the interval, and the first that begins after it, where they are near."""
    end = min(slot.end, calendar.horizon - _AROUND) + _AROUND
    start = max(slot.start, _EARLIEST) - _AROUND
    if start >= end:
        return None, None
    found = calendar.sessions(TimeWindow(start=start, end=end))
    before = [each for each in found if each.close <= slot.start]
    after = [each for each in found if each.open >= slot.end]
    return (before[-1] if before else None), (after[0] if after else None)
