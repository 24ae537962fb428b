"""A policy that the workers of one tier try first: begun by a person, watched and ended by housekeeping or a person.

Attempts bear the policy that they were made under: what happens under the canary is held against what happens under the
policy that holds everywhere else. It then becomes that policy, or is taken back, without anybody's doing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mdtasks.domain.errors import ConflictError, MdtasksError, StackNotRunningError
from mdtasks.domain.policy.canaries import Decision, Seen, Tally, decide
from mdtasks.flows.deps import Deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import Desk, desk_of
from mdtasks.flows.policy_watch import Word, words
from mdtasks.observe import metrics
from mdtasks.store import canaries, policies
from mdtasks.store.canaries import Canary, Ending

log = logging.getLogger(__name__)

#: Who decided, where it was no person.
BY_ITSELF: Final = "mdtasks"


@dataclass(frozen=True, slots=True)
class Trial:
    """A canary, what was seen of it so far, what would become of it now and why, and who tries it."""

    canary: Canary
    seen: Seen
    decision: Decision
    why: str
    processes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        about = self.canary.as_dict()
        if self.canary.decision is not None:
            return about
        verdict = {"would_be": self.decision.value, "why": self.why, "processes": list(self.processes)}
        return {**about, **verdict, "elapsed_s": self.seen.elapsed_s, "evidence": _evidence(self.seen)}


def trial(desk: Desk, now: datetime) -> Trial | None:
    """The canary that is being tried and how it does; None: there is none. Raises StackNotRunningError,
    StoreUnavailableError, BrokerUnavailableError.
    """
    if desk.database is None or desk.state is None:
        raise StackNotRunningError(str(desk.settings.home))
    with desk.database.transaction() as connection:
        canary = canaries.being_tried(connection)
        tallies = canaries.tallies(connection, canary.version) if canary is not None else None
    if canary is None or tallies is None:
        return None
    told = [word for word in words(desk.state, now) if word.serves == canary.tier]
    return _trial(canary, tallies, told, now)


def of_version(desk: Desk, version: int, now: datetime) -> Trial | None:
    """The trial of a version, whether it has ended or not; None: it was applied without one. Raises as ``trial``."""
    if desk.database is None:
        raise StackNotRunningError(str(desk.settings.home))
    with desk.database.transaction() as connection:
        canary = canaries.of_version(connection, version)
    if canary is not None and canary.decision is None:
        return trial(desk, now)
    return None if canary is None else Trial(canary, _NOTHING, Decision(canary.decision or "wait"), canary.why or "")


def judge_once(deps: Deps, now: datetime) -> dict[str, Any]:
    """Look at the canary that is being tried, and end it when it is time to; says what became of it.

    Safe to repeat, and from many processes. Raises StoreUnavailableError, BrokerUnavailableError.
    """
    found = trial(desk_of(deps), now)
    if found is None:
        return {"canary": None}
    if found.decision is not Decision.WAIT:
        _end(desk_of(deps), found, found.decision, BY_ITSELF, found.why)
    return {"canary": found.canary.version, "decision": found.decision.value, "why": found.why}


def end(desk: Desk, decision: Decision, asked: Asked, now: datetime) -> Canary:
    """End a canary by hand: promoted or withdrawn. Raises ConflictError where there is none, or another one than was
    expected, and as ``trial``.
    """
    found = trial(desk, now)
    if found is not None and asked.expect not in (None, found.canary.version):
        raise ConflictError(
            f"policy {found.canary.version} is being tried, not {asked.expect}: nothing was changed",
            hint="look at how it does first: `mdtasks policy canary`",
        )
    if found is None:
        raise ConflictError("no policy is being tried", hint="`mdtasks policy history` shows what became of the last")
    ended = _end(desk, found, decision, asked.author, asked.reason or "by hand")
    if ended is None:
        raise ConflictError(
            f"the trial of policy {found.canary.version} has ended meanwhile", hint="see `mdtasks policy history`"
        )
    return ended


def _end(desk: Desk, found: Trial, decision: Decision, by: str, why: str) -> Canary | None:
    assert desk.database is not None
    assert desk.state is not None
    canary = found.canary
    with desk.database.transaction() as connection:
        ended = canaries.decide(connection, canary.version, Ending(decision, by, why, _evidence(found.seen)))
    if ended is None:
        return None
    metrics.POLICY_CANARIES.labels(decision=decision.value).inc()
    log.warning("policy %d, tried by %s, is %s: %s", canary.version, canary.tier, decision.value, why)
    try:
        canaries.announce(desk.state, None)
        if decision is Decision.PROMOTED:
            policies.announce(desk.state, canary.version)
    except MdtasksError as error:  # whoever looks into PostgreSQL next puts it right
        log.warning("Redis could not be told of it: %s", error)
    return ended


def _trial(canary: Canary, tallies: tuple[Tally, Tally], told: list[Word], now: datetime) -> Trial:
    refused = tuple(f"{word.process}: {word.error}" for word in told if word.refused == canary.version)
    elapsed_s = max((now - canary.began_at).total_seconds(), 0.0)
    seen = Seen(elapsed_s, canary.watch_s, *tallies, refused)
    decision, why = decide(seen)
    return Trial(canary, seen, decision, why, tuple(word.process for word in told if word.version == canary.version))


def _evidence(seen: Seen) -> dict[str, Any]:
    tallies = {"under": seen.under, "beside": seen.beside}
    return {name: {"attempts": each.attempts, "errors": each.errors} for name, each in tallies.items()}


_NOTHING: Final = Seen(0.0, 0.0, Tally(), Tally())
