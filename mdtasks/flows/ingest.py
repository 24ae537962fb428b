"""One attempt at one job: claim, choose a provider, fetch, validate, commit, as a list of steps over one value.

The outcomes are a closed set. Everything that an attempt leaves behind (bars, revisions, coverage, quarantine, the
attempt and the job's status) commits in one transaction under the claim's fence: a late or doubled attempt leaves
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection

from mdtasks.domain import gaps
from mdtasks.domain.bars import Bars, RejectedBar, from_us, to_us, validated
from mdtasks.domain.errors import (
    ProviderError,
    StaleClaimError,
    UnsupportedError,
    error_class,
)
from mdtasks.domain.jobs import BackfillJob, Interval, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.flows.attempts import next_pause_s
from mdtasks.flows.deps import Deps, patience_s, patiently
from mdtasks.observe import metrics
from mdtasks.providers.base import BarsAnswer, Provider
from mdtasks.settings import Settings
from mdtasks.store import bars as store_bars
from mdtasks.store import jobs
from mdtasks.store.partitions import ensure_partitions


class Outcome(StrEnum):
    """How an attempt ended for its caller."""

    DONE = "done"
    RETRY = "retry"
    FAILED = "failed"
    STALE = "stale"


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
class Ask:
    """What is asked of a provider, and when."""

    interval: Interval
    window: TimeWindow
    now: datetime


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one provider answered for one listing, judged: bars to store, bars to quarantine, windows covered."""

    provider: str
    bars: Bars
    rejected: Sequence[RejectedBar]
    covered: Sequence[TimeWindow]
    #: Bars that start before this are final.
    settled_before: datetime
    #: Why a part of the window stays uncovered; None when nothing is missing.
    shortfall: ProviderError | None = None
    #: What earlier providers in the order said.
    refused: Sequence[ProviderError] = field(default_factory=tuple)


def run_backfill(job: BackfillJob, deps: Deps, worker: str, now: datetime) -> Report:
    """Run one attempt of a durable job. Idempotent: a message without a claim to take is dropped and counted.

    Raises the attempt's error when the job failed for good; its message is then buried by the transport.
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
        metrics.STALE_MESSAGES.labels(reason="no_claim").inc()
        return Report(Outcome.STALE)
    try:
        ask = Ask(claim.interval, claim.window, now)
        return _commit(deps, claim, fetch(deps, claim.listing, ask, claim.provider_hint))
    except StaleClaimError as error:
        metrics.STALE_MESSAGES.labels(reason="fenced").inc()
        return Report(Outcome.STALE, error=error)
    except Exception as error:  # whatever it was, the attempt ends and is recorded
        return _settle(deps, claim, error, began)


def _claim(job_id: str, deps: Deps, worker: str) -> jobs.Claim | None:
    with deps.database.transaction() as connection:
        return jobs.claim(connection, job_id, worker, deps.settings.lease_s)


def fetch(deps: Deps, listing: Listing, ask: Ask, hint: str | None) -> Fetched:
    """Ask the providers in their order until one answers for the listing.

    Raises the error of the first that may answer later, else of the last one.
    """
    refused: list[ProviderError] = []
    for provider in deps.registry.order(ask.interval, hint):
        try:
            answer = fetch_bars(provider, [listing], ask)
            if listing.symbol in answer.errors:
                raise answer.errors[listing.symbol]
        except ProviderError as error:
            refused.append(error)
            continue
        return replace(judged(provider, answer, listing, ask, deps), refused=refused)
    if not refused:
        raise UnsupportedError(f"no configured provider serves {ask.interval} bars", provider=hint or "registry")
    raise next((error for error in refused if error.retryable), refused[-1])


def fetch_bars(provider: Provider, listings: Sequence[Listing], ask: Ask) -> BarsAnswer:
    """One provider call, timed and counted."""
    capability = f"bars_{ask.interval}"
    metrics.PROVIDER_SELECTED.labels(capability=capability, provider=provider.name).inc()
    try:
        with metrics.PROVIDER_LATENCY.labels(provider=provider.name, capability=capability).time():
            return provider.fetch_bars(listings, ask.interval, ask.window, ask.now)
    except ProviderError as error:
        metrics.PROVIDER_ERRORS.labels(provider=provider.name, endpoint="bars", code=error.code).inc()
        raise


def judged(provider: Provider, answer: BarsAnswer, listing: Listing, ask: Ask, deps: Deps) -> Fetched:
    """Validate a listing's bars and say what they cover: what was answered for and has settled."""
    good, rejected = validated(answer.bars[listing.symbol], ask.window, ask.interval)
    settled_at = ask.now - timedelta(seconds=provider.capabilities.delay_s + deps.settings.settle_s)
    calendar = deps.calendars.get(listing.mic)
    settled = gaps.settled_before(calendar, ask.interval, settled_at)
    # A cut in which the exchange did not trade (a weekend without a file) lacks nothing.
    cuts = [
        cut for cut in answer.unanswered.get(listing.symbol, ()) if len(calendar.expected(cut.window, ask.interval))
    ]
    return Fetched(
        provider=provider.name,
        bars=good,
        rejected=rejected,
        covered=[
            TimeWindow(start=part.start, end=min(part.end, settled))
            for part in answer.answered(listing.symbol, ask.window)
            if part.start < settled
        ],
        settled_before=settled,
        shortfall=cuts[0].error if cuts else None,
    )


def batch(fetched: Fetched, instrument_id: int) -> store_bars.BarBatch:
    """What of an answer goes to the store."""
    return store_bars.BarBatch(
        instrument_id=instrument_id,
        bars=fetched.bars,
        final_before_us=to_us(fetched.settled_before),
        covered=fetched.covered,
        rejected=fetched.rejected,
    )


def make_partitions(deps: Deps, parts: Sequence[Bars]) -> None:
    """Make the partitions that these bars need, outside the transaction that writes them."""
    filled = [part for part in parts if len(part)]
    if filled:
        first = min(int(part.ts_us[0]) for part in filled)
        last = max(int(part.ts_us[-1]) for part in filled)
        ensure_partitions(deps.database, "bars", first, last)


def _commit(deps: Deps, claim: jobs.Claim, fetched: Fetched) -> Report:
    """Everything the attempt leaves behind, in one transaction. A shortfall fails the job but keeps what was answered.

    Raises StaleClaimError when the claim was taken over: nothing was written.
    """
    make_partitions(deps, [fetched.bars])
    stored = batch(fetched, claim.instrument_id)
    with metrics.WRITE_BATCH.time(), deps.database.transaction() as connection:
        counts = store_bars.write_bars(connection, claim.interval, [stored], fetched.provider, claim.attempt_id)
        if fetched.shortfall is None:
            ending = jobs.Ending("done", provider=fetched.provider, bars=len(fetched.bars), message=_heard(fetched))
            jobs.finish(connection, claim, ending)
            report = Report(Outcome.DONE)
        else:
            report = _fail(connection, claim, fetched.shortfall, deps.settings)
    count_written(claim.interval, fetched, counts)
    if report.outcome is not Outcome.RETRY:
        metrics.BACKFILL_COMPLETED.labels(tier=claim.tier, status=report.outcome).inc()
    return replace(
        report,
        inserted=counts.inserted,
        revised=counts.revised,
        quarantined=counts.quarantined,
        provider=fetched.provider,
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


def _fail(connection: Connection, claim: jobs.Claim, error: Exception, settings: Settings) -> Report:
    """Close the attempt in the caller's transaction: another one later, or the end. Raises StaleClaimError."""
    pause_s = next_pause_s(error, claim.attempt, claim.max_attempts, settings)
    provider = error.provider if isinstance(error, ProviderError) else None
    ending = jobs.Ending(
        "failed" if pause_s is None else "retry",
        provider=provider,
        error_class=error_class(error),
        message=str(error) or type(error).__name__,
    )
    if not jobs.fail(connection, claim, ending, pause_s):
        raise StaleClaimError(f"job {claim.job_id}: attempt {claim.attempt} no longer holds it")
    return Report(Outcome.FAILED if pause_s is None else Outcome.RETRY, provider=provider, error=error)


def _heard(fetched: Fetched) -> str | None:
    """Why the providers before the one that answered did not: kept with the attempt."""
    return "; ".join(f"{error.code}: {error}" for error in fetched.refused) or None


def count_written(interval: Interval, fetched: Fetched, counts: store_bars.WriteCounts) -> None:
    """Count what a commit wrote."""
    metrics.BARS_WRITTEN.labels(interval=interval, kind="inserted").inc(counts.inserted)
    metrics.BARS_WRITTEN.labels(interval=interval, kind="revised").inc(counts.revised)
    for bar in fetched.rejected:
        metrics.BARS_QUARANTINED.labels(provider=fetched.provider, reason=bar.reason).inc()


def ended_window(interval: Interval, now: datetime, intervals: int) -> TimeWindow:
    """The last ``intervals`` ended intervals of the clock's grid at ``now``."""
    step_us = interval.seconds * 1_000_000
    end_us = to_us(now) // step_us * step_us
    return TimeWindow(start=from_us(end_us - intervals * step_us), end=from_us(end_us))
