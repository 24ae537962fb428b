"""One attempt at one durable job: claim, fetch, commit, as a list of steps over one value.

The outcomes are a closed set. Everything that an attempt leaves behind (bars, revisions, coverage, quarantine, the
attempt and the job's status) commits in one transaction under the claim's fence: a late or doubled attempt leaves
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.domain.errors import HeldBackError, ProviderError, StaleClaimError, UnknownJobError, error_class
from mdtasks.domain.jobs import BackfillJob
from mdtasks.flows import replay
from mdtasks.flows.attempts import held_pause_s, next_pause_s
from mdtasks.flows.deps import Deps, patience_s, patiently
from mdtasks.flows.fetch import Ask, count_written, fetch, make_partitions
from mdtasks.flows.fetch import Outcome as FetchOutcome
from mdtasks.flows.judging import Subject
from mdtasks.observe import metrics
from mdtasks.observe.traces import Asker
from mdtasks.settings import Settings
from mdtasks.store import bars as store_bars
from mdtasks.store import jobs


class Outcome(StrEnum):
    """How an attempt ended for its caller."""

    DONE = "done"
    RETRY = "retry"
    FAILED = "failed"
    STALE = "stale"
    #: Nobody could be asked: the job waits, and the attempt does not count.
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Report:
    """What one attempt did."""

    outcome: Outcome
    inserted: int = 0
    revised: int = 0
    quarantined: int = 0
    provider: str | None = None
    error: Exception | None = None

    def as_dict(self) -> dict[str, object]:
        return {
            "outcome": self.outcome,
            "inserted": self.inserted,
            "revised": self.revised,
            "quarantined": self.quarantined,
            "provider": self.provider,
            "error": None if self.error is None else str(self.error),
        }


@dataclass(frozen=True, slots=True)
class _Left:
    """What an attempt that failed leaves all the same: bars that it stored, and whom it asked."""

    bars: int = 0
    route: Sequence[Mapping[str, Any]] = ()
    #: What all that were asked said.
    heard: str | None = None
    asked: bool = False


_NOTHING: Final = _Left()


def run_backfill(job: BackfillJob, deps: Deps, worker: str, now: datetime) -> Report:
    """Run one attempt of a durable job. Idempotent: a message without a claim to take is dropped and counted.

    Raises the attempt's error when the job failed for good, UnknownJobError when no row stands behind the message: the
    transport then buries it.
    Raises StoreUnavailableError when PostgreSQL stays away: the job's row is untouched or its lease will run out.
    """
    report = _attempt(job.job_id, deps, worker, now)
    metrics.JOBS_PROCESSED.labels(type="backfill", provider=report.provider or "none", outcome=report.outcome).inc()
    if report.outcome is Outcome.FAILED and report.error is not None:
        raise report.error
    return report


def _attempt(job_id: str, deps: Deps, worker: str, now: datetime) -> Report:
    began = time.monotonic()
    claim = patiently(lambda: _claim(job_id, deps, worker), for_s=patience_s(began, deps.settings))
    if claim is None:
        _refuse_without_row(job_id, deps)
        metrics.STALE_MESSAGES.labels(reason="no_claim").inc()
        return Report(Outcome.STALE)
    try:
        return _commit(deps, claim, _fetched(deps, claim, worker, now), now)
    except StaleClaimError as error:
        metrics.STALE_MESSAGES.labels(reason="fenced").inc()
        return Report(Outcome.STALE, error=error)
    except Exception as error:  # whatever it was, the attempt ends and is recorded
        return _settle(deps, claim, error, began)


def _refuse_without_row(job_id: str, deps: Deps) -> None:
    """Raise UnknownJobError for a message that no row stands behind: dropped, it would vanish without a word."""
    with deps.database.transaction() as connection:
        if not jobs.statuses(connection, [job_id]):
            raise UnknownJobError(job_id)


def _claim(job_id: str, deps: Deps, worker: str) -> jobs.Claim | None:
    with deps.database.transaction() as connection:
        return jobs.claim(connection, job_id, worker, deps.settings.lease_s, deps.running.version)


def _fetched(deps: Deps, claim: jobs.Claim, worker: str, now: datetime) -> FetchOutcome:
    """Raises UnsupportedError when nobody serves it, and HeldBackError when nobody may be asked now."""
    asker = Asker(claim.job_id, claim.attempt_id, claim.attempt, worker)
    ask = Ask(claim.interval, claim.window, now, claim.provider_hint, asker)
    return fetch(deps, [Subject(claim.instrument_id, claim.listing)], ask, lambda _parts: None)


def _commit(deps: Deps, claim: jobs.Claim, outcome: FetchOutcome, now: datetime) -> Report:
    """Everything the attempt leaves behind, in one transaction. A shortfall fails the job but keeps what was answered.

    Raises StaleClaimError when the claim was taken over: nothing was written.
    """
    parts = outcome.brought.get(claim.instrument_id, [])
    make_partitions(deps, [part.bars for part in parts])
    provider = ",".join(dict.fromkeys(part.provider for part in parts))
    notes = [replay.note(deps, [part], claim.interval, now) for part in parts]
    with metrics.WRITE_BATCH.time(), deps.database.transaction() as connection:
        counts = [
            store_bars.write_bars(connection, claim.interval, [part.batch], part.provider, claim.attempt_id, note=note)
            for part, note in zip(parts, notes, strict=True)
        ]
        bars = sum(len(part.bars) for part in parts)
        if outcome.shortfall is None:
            ending = jobs.Ending("done", provider, message=outcome.words, bars=bars, route=outcome.route.record)
            jobs.finish(connection, claim, ending)
            report = Report(Outcome.DONE)
        else:
            left = _Left(bars, outcome.route.record, outcome.words, outcome.route.anybody_asked)
            report = _fail(connection, claim, outcome.shortfall, deps.settings, left)
    if any(note.concerns([part.bars]) for part, note in zip(parts, notes, strict=True)):
        replay.publish_pending(deps, [claim.instrument_id], claim.interval)
    for part, written in zip(parts, counts, strict=True):
        count_written(claim.interval, [part], written)
    if report.outcome in (Outcome.DONE, Outcome.FAILED):
        metrics.BACKFILL_COMPLETED.labels(tier=claim.tier, status=report.outcome).inc()
    return replace(
        report,
        inserted=sum(written.inserted for written in counts),
        revised=sum(written.revised for written in counts),
        quarantined=sum(written.quarantined for written in counts),
        provider=provider or report.provider,
    )


def _settle(deps: Deps, claim: jobs.Claim, error: Exception, began: float) -> Report:
    """End an attempt that left nothing but its error."""

    def end() -> Report:
        with deps.database.transaction() as connection:
            return _fail(connection, claim, error, deps.settings)

    try:
        report = patiently(end, for_s=patience_s(began, deps.settings))
    except StaleClaimError as stale:
        # The claim was taken over, or the commit had gone through and only its answer was lost.
        metrics.STALE_MESSAGES.labels(reason="fenced").inc()
        return Report(Outcome.STALE, error=stale)
    if report.outcome is Outcome.FAILED:
        metrics.BACKFILL_COMPLETED.labels(tier=claim.tier, status=report.outcome).inc()
    return report


def _fail(
    connection: Connection,
    claim: jobs.Claim,
    error: Exception,
    settings: Settings,
    left: _Left = _NOTHING,
) -> Report:
    """Close the attempt in the caller's transaction: another one later, or the end. Raises StaleClaimError."""
    pause_s: float | None
    if isinstance(error, HeldBackError):
        outcome, pause_s = Outcome.HELD, held_pause_s(error)
    else:
        pause_s = next_pause_s(error, claim.attempt, claim.max_attempts, settings)
        outcome = Outcome.FAILED if pause_s is None else Outcome.RETRY
    provider = error.provider if isinstance(error, ProviderError) else None
    message = str(error) or type(error).__name__
    if outcome is Outcome.HELD and left.heard and message not in left.heard:
        message = f"{message}; {left.heard}"  # a job that waits tells of everybody who could not answer
    ending = jobs.Ending(outcome, provider, error_class(error), message, left.bars, left.route)
    if outcome is Outcome.HELD and pause_s is not None:
        holds = jobs.hold(connection, claim, ending, pause_s, forget=not left.asked)
    else:
        holds = jobs.fail(connection, claim, ending, pause_s)
    if not holds:
        raise StaleClaimError(f"job {claim.job_id}: attempt {claim.attempt} no longer holds it")
    return Report(outcome, provider=provider, error=error)
