"""From an alert to its likely causes, and to a repair that is on record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mdtasks.domain.errors import ConflictError, MdtasksError
from mdtasks.flows.deps import Deps
from mdtasks.flows.runbooks import books
from mdtasks.flows.runbooks import data_checks as data
from mdtasks.flows.runbooks import process_checks as processes
from mdtasks.flows.runbooks import provider_checks as providers
from mdtasks.flows.runbooks import stream_checks as stream
from mdtasks.flows.runbooks.findings import Finding, Repair
from mdtasks.flows.runbooks.view import View
from mdtasks.store import evidence

Checks = tuple[Callable[[View], Iterator[Finding]], ...]

_ROUND: Final[Checks] = (processes.beat_silent, processes.messages_lost, processes.room_unused)
_PROVIDERS: Final[Checks] = (
    providers.provider_failing,
    providers.provider_demoted,
    providers.provider_paused,
    providers.rate_limited,
)
_LATE: Final[Checks] = (
    processes.workers_silent,
    *_ROUND,
    *_PROVIDERS,
    data.exchange_shut,
    data.letters_by_cause,
    data.queue_full,
    data.overloaded,
    data.retries_wait,
    processes.locks_held,
    data.stalest,
)
_BACKLOG: Final[Checks] = (
    processes.workers_silent,
    *_ROUND,
    *_PROVIDERS,
    data.queue_full,
    data.overloaded,
    data.retries_wait,
    processes.locks_held,
)
_CLOCK: Final[Checks] = (processes.workers_silent, *_ROUND)
#: What is looked at for each alert, beside the servers, without which nothing goes.
CHECKS: Final[Mapping[str, Checks]] = {
    "SLOGapViolationHighT0": _LATE,
    "SLOGapViolationHighT1": _LATE,
    "SLOGapViolationHighT2": _LATE,
    "SLOBudgetBurnFast": _LATE,
    "SLOBudgetBurnSlow": _LATE,
    "IngestionLagHigh": (data.stalest, *_LATE[:-1]),
    "CoverageIncomplete": (*_LATE, data.gaps_open),
    "GapsOpenTooLong": (*_LATE, data.gaps_open),
    "SLOMonitorDead": (*_CLOCK, processes.monitor_silent),
    "QuarantineGrowing": (data.quarantine, providers.provider_failing, data.letters_by_cause),
    "CalendarHorizonNear": (data.calendar_ends,),
    "BackfillQueueTooDeep": _BACKLOG,
    "BackfillOldestTooOld": _BACKLOG,
    "BackfillDrainsTooSlowly": _BACKLOG,
    "WriteLatencyHigh": (processes.locks_held, data.overloaded),
    "DLQGrowing": (*_PROVIDERS, data.letters_by_cause, data.quarantine),
    "DLQStuck": (processes.letters_stuck, processes.workers_silent),
    "ProviderDown": (*_PROVIDERS, data.quarantine, data.letters_by_cause),
    # Letters are what follows from it, and 429 is no illness.
    "ProviderDemoted": (*_PROVIDERS[:3], providers.provider_promoted, data.quarantine),
    "PartDown": (),
    "MetricsAbsent": (processes.web_silent,),
    "WorkerMissing": (processes.workers_silent, processes.letters_stuck, processes.beat_silent),
    "BeatMissing": _CLOCK,
    "ReconcilerProofTooOld": _CLOCK,
    "PolicyNotFollowed": (processes.policy_refused, processes.policy_lags),
    "StreamSlow": (stream.unpublished, *_CLOCK),
}


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look for an alert found: causes, the likeliest first; ``unseen``: what could not be looked at, and why."""

    alert: str
    findings: tuple[Finding, ...]
    unseen: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The look for scripts."""
        found = [finding.as_dict() for finding in self.findings]
        return {"alert": self.alert, "means": books.meaning_of(self.alert), "findings": found, "unseen": self.unseen}


def look(alert: str, deps: Deps, now: datetime) -> Looked:
    """Look at the live system for the causes of an alert. Changes nothing. Raises NotFoundError for an unknown alert.

    A check whose server is away finds nothing; that the server is away is a finding of its own.
    """
    alert = books.known(alert)
    view = View(deps, now)
    findings: list[Finding] = []
    unseen: list[str] = []
    for check in (processes.server_bad, *CHECKS[alert]):
        try:
            findings += check(view)
        except MdtasksError as error:
            unseen.append(f"{check.__name__}: {error.message}")
    ordered = sorted(findings, key=lambda finding: -finding.likelihood)
    return Looked(alert, tuple(ordered), tuple(unseen))


def repair(looked: Looked, actor: str, deps: Deps) -> dict[str, Any]:
    """Do the repair of the likeliest cause, and put it on record as ``runbook.<alert>``.

    Raises ConflictError, with what to do by hand, when mdtasks cannot do it itself or nothing was found.
    """
    if not looked.findings:
        raise ConflictError(f"nothing was found that explains {looked.alert}", hint="`mdtasks doctor`")
    first = looked.findings[0]
    details = {"cause": first.cause, "evidence": first.evidence, "repair": first.repair.words}
    try:
        done = _done(first.repair, actor, deps)
    except MdtasksError as error:
        if first.repair.act is not None:
            _audit(looked, actor, {**details, "error": error.message}, deps)
        raise
    _audit(looked, actor, {**details, "result": done}, deps)
    return {"cause": first.cause, "result": done}


def _done(wanted: Repair, actor: str, deps: Deps) -> dict[str, Any]:
    if wanted.act is None:
        raise ConflictError("this repair is yours to do", hint=wanted.words)
    return dict(wanted.act(deps, actor))


def _audit(looked: Looked, actor: str, details: Mapping[str, Any], deps: Deps) -> None:
    with deps.database.transaction() as connection:
        evidence.audit(connection, actor, f"runbook.{looked.alert}", details)
