"""Bars held against corporate actions: a jump that nobody told of, or an action without its jump, for a person to see.

What is found goes into the quarantine, with the bar as it came, and into the dead letters, with what to do. Nothing is
changed: the bar stays stored, the action stands. Once the two fit, the letter is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

import orjson
from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.actions import PERSON, Kind, Told, standing
from mdtasks.domain.errors import JumpWithoutActionError, SuspectBarsError
from mdtasks.domain.jumps import Overnight, Suspicion, suspicion
from mdtasks.observe import metrics
from mdtasks.providers.base import Provider
from mdtasks.store import actions, letters
from mdtasks.store.actions import DailyStep
from mdtasks.store.letters import FINDING, Letter
from mdtasks.store.reference import Instrument

#: How far back a round looks: daily bars come a day after, and a weekend may lie between.
LOOK_BACK: Final = timedelta(days=10)


@dataclass(frozen=True, slots=True)
class Vouched:
    """What the bars say against a person's word: of an instrument, and of a day after ``after`` and up to ``day``."""

    instrument: int
    after: date
    day: date
    said: Suspicion


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look found: steps that do not fit, of them new ones, and letters that were closed. ``vouched``: what else
    does not fit, but for a person's word.
    """

    suspect: int = 0
    new: int = 0
    resolved: int = 0
    vouched: Sequence[Vouched] = ()

    def __add__(self, other: Checked) -> Checked:
        return Checked(
            self.suspect + other.suspect,
            self.new + other.new,
            self.resolved + other.resolved,
            [*self.vouched, *other.vouched],
        )


@dataclass(slots=True)
class _Found:
    held: list[str] = field(default_factory=list)
    new: list[tuple[SuspectBarsError, DailyStep]] = field(default_factory=list)
    vouched: list[Vouched] = field(default_factory=list)


def check(
    database: Database, members: Sequence[Instrument], since: date, providers: Sequence[Provider] = ()
) -> Checked:
    """Hold the daily bars of these instruments since a day against the actions that stand. Idempotent.

    What a person told by hand of a day and a kind is settled, whatever the bars are. ``providers``: who may be asked
    for daily bars, in their order; a letter names one.
    """
    by_id = {member.id: member for member in members}
    found = _Found()
    with database.transaction() as connection:
        told = actions.told(connection, by_id)
        start = datetime(since.year, since.month, since.day, tzinfo=UTC)
        for step in actions.steps(connection, list(by_id), start):
            member = by_id[step.instrument_id]
            night = _night(step, member, providers)
            _look_at(connection, member, (step, night), told[member.id], found)
        resolved = actions.resolve(connection, by_id, since, found.held)
    for error, step in found.new:
        metrics.BARS_QUARANTINED.labels(provider=step.provider, reason=error.code).inc()
        metrics.DEAD_LETTERS.labels(kind=FINDING, error_class=error.code).inc()
    return Checked(len(found.held), len(found.new), resolved, found.vouched)


def _night(step: DailyStep, member: Instrument, providers: Sequence[Provider]) -> Overnight:
    others = (each.name for each in providers if each.name != step.provider and each.capabilities.has(member.mic))
    return Overnight(step.day_before, step.close_before, step.ts.date(), step.bar["open"], next(others, None))


def _look_at(
    connection: Connection,
    member: Instrument,
    step_and_night: tuple[DailyStep, Overnight],
    told: Sequence[Told],
    found: _Found,
) -> None:
    step, night = step_and_night
    said = suspicion(member.symbol, night, [each.action for each in standing(told)])
    if said is None:
        return
    by_hand = [each for each in told if each.source == PERSON and night.day_before < each.action.ex_date <= night.day]
    if any(each.action.kind is said.kind for each in by_hand):
        found.vouched.append(Vouched(member.id, night.day_before, night.day, said))
        return
    if isinstance(said.error, JumpWithoutActionError) and _spun_off(by_hand):
        return
    error = said.error
    letter = _letter(member, step, error)
    found.held.append(letter.id)
    actions.keep_suspect(connection, step, error.code, orjson.dumps(_as_it_is(step)).decode())
    if letters.record(connection, letter) or actions.restate(connection, letter):
        found.new.append((error, step))


def _spun_off(told: Sequence[Told]) -> bool:
    """Whether a company was spun off, of a worth that nobody knows: that explains any fall."""
    stands = (each.action for each in standing(told))
    return any(each.kind is Kind.SPIN_OFF and each.value is None for each in stands)


def _letter(member: Instrument, step: DailyStep, error: SuspectBarsError) -> Letter:
    day = step.ts.date()
    return Letter(
        id=f"{FINDING}:{member.id}:{day}:{error.code}",
        kind=FINDING,
        envelope="",
        error_class=error.code,
        message=f"{error.message}; {error.hint}",
        tier=member.tier,
        symbol=member.symbol,
        interval="1d",
        window=f"[{day}T00:00:00Z,{day + timedelta(days=1)}T00:00:00Z)",
        provider=step.provider,
    )


def _as_it_is(step: DailyStep) -> Mapping[str, object]:
    """The bar, and the close that it does not follow from."""
    return {**step.bar, "close_before": step.close_before, "day_before": str(step.day_before)}
