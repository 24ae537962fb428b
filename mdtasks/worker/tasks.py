"""The Celery tasks: parse, one call, return. Retries, metrics and dead letters hang on flows, hooks and transport."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

from celery import Task, shared_task

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, QuotesFetchJob, Tier, parse_job
from mdtasks.flows import (
    actions,
    crosschecks,
    derive,
    dispatch,
    ingest,
    letters,
    live,
    monitor,
    policy_canaries,
    presence,
    providers,
    replay,
    retention,
    scan,
    ticks,
    traces,
    universe_daily,
)
from mdtasks.queue.letters import DEAD_LETTER_TASK, Reason
from mdtasks.store.partitions import ensure_ahead
from mdtasks.worker.process import deps, worker_name


class JobTask(Task):
    """A task that runs a job: its messages are buried when they fail, and read as the job in Flower."""

    abstract = True
    Request = "mdtasks.worker.consumer:Request"


class Housekeeping(Task):
    """A task of beat: its next tick is its retry, so a failed one is logged and gone.

    That it starts shows that beat lives.
    """

    abstract = True
    acks_on_failure = True

    def before_start(self, task_id: str, args: object, kwargs: object) -> None:  # noqa: ARG002 - Celery's signature
        """Leave word that a tick arrived."""
        presence.tick_arrived(deps(), now=datetime.now(UTC))


J = TypeVar("J", BackfillJob, BarsFetchJob, QuotesFetchJob)


def _parsed(document: dict[str, object], wanted: type[J]) -> J:
    """The job of the wanted type that a message carries. Raises InvalidRequestError."""
    job = parse_job(document)
    if not isinstance(job, wanted):
        raise InvalidRequestError(f"a {job.type} job in a message for another task", field="type")
    return job


@shared_task(base=JobTask, name="mdtasks.backfill", bind=True)
def backfill(self: JobTask, job: dict[str, object]) -> dict[str, object]:
    """One attempt at a durable backfill."""
    parsed = _parsed(job, BackfillJob)
    return ingest.run_backfill(parsed, deps(), worker_name(self.request), now=datetime.now(UTC)).as_dict()


@shared_task(base=JobTask, name="mdtasks.bars_fetch", bind=True)
def bars_fetch(self: JobTask, job: dict[str, object]) -> dict[str, object]:
    """Fetch recent bars of many symbols."""
    parsed = _parsed(job, BarsFetchJob)
    return live.run_bars_fetch(parsed, deps(), worker_name(self.request), now=datetime.now(UTC))


@shared_task(base=JobTask, name="mdtasks.quotes_fetch", bind=True)
def quotes_fetch(self: JobTask, job: dict[str, object]) -> dict[str, object]:
    """Fetch the latest quotes of many symbols."""
    parsed = _parsed(job, QuotesFetchJob)
    return live.run_quotes_fetch(parsed, deps(), worker_name(self.request), now=datetime.now(UTC))


@shared_task(base=JobTask, name=DEAD_LETTER_TASK, bind=True)
def dead_letter(self: JobTask, raw: str, reason: dict[str, Any], queue: str) -> str:
    """Record one dead letter; when that fails it goes back to ``dlq``."""
    return letters.record(letters.Dead(self.request.id, raw, Reason(**reason), queue), deps())


@shared_task(base=Housekeeping, name="mdtasks.dispatch")
def dispatch_due() -> dict[str, int]:
    """Send what waits and is due, as far as the caps allow."""
    return dispatch.dispatch_once(deps())


@shared_task(base=Housekeeping, name="mdtasks.reconcile")
def reconcile() -> dict[str, object]:
    """Compare rows with the broker, mend what differs, keep the proof."""
    return dispatch.reconcile_once(deps(), now=datetime.now(UTC)).as_dict()


@shared_task(base=Housekeeping, name="mdtasks.live_tick")
def live_tick(tier: str, cadence_s: float, feed: str = ticks.Feed.BARS) -> int:
    """Ask for the latest bars or quotes of a tier."""
    return ticks.tick(ticks.Series(Tier(tier), ticks.Feed(feed)), cadence_s, deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.gap_scan")
def gap_scan(tier: str) -> dict[str, dict[str, int]]:
    """Look for what a tier lacks, and ask for it."""
    return scan.scan_tier(Tier(tier), deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.derive")
def derive_bars() -> dict[str, int]:
    """Make longer bars of the minutes that changed, where no provider has them."""
    return derive.derive_once(deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.cross_check")
def cross_check() -> dict[str, int]:
    """Hold stored bars against another source."""
    return crosschecks.check_once(deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.make_partitions")
def make_partitions() -> None:
    """Make the coming months' partitions."""
    ensure_ahead(deps().database, now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.refresh_actions")
def refresh_actions() -> dict[str, object]:
    """Ask providers about corporate actions of those that were not asked about today."""
    return actions.refresh_due(deps(), now=datetime.now(UTC)).as_dict()


@shared_task(base=Housekeeping, name="mdtasks.monitor")
def watch() -> dict[str, int]:
    """Look at how late every series is, and keep what was found."""
    return monitor.run_once(deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.policy_canary")
def judge_canary() -> dict[str, Any]:
    """Look at the policy that a tier tries, and end it when it is time to."""
    return policy_canaries.judge_once(deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.provider_health")
def provider_health() -> dict[str, int]:
    """Keep how every provider stands, and put on record who was demoted or promoted."""
    return providers.snapshot_once(deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.forget_snapshots")
def forget_snapshots() -> dict[str, dict[str, int]]:
    """Thin out old looks at the objectives and at providers."""
    now = datetime.now(UTC)
    return {"slo": monitor.forget_once(deps(), now), "providers": providers.forget_once(deps(), now)}


@shared_task(base=Housekeeping, name="mdtasks.replay")
def tell_replay_buffer() -> int:
    """Publish what was committed and is not published yet."""
    return replay.sweep(deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.retention")
def let_go() -> dict[str, Any]:
    """Delete a bounded piece of what the policy keeps no longer."""
    return retention.run_once(deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.forget_traces")
def forget_traces() -> int:
    """Let go of old records of slow provider calls."""
    return traces.forget_once(deps(), now=datetime.now(UTC))


@shared_task(base=Housekeeping, name="mdtasks.universe")
def refresh_universe() -> dict[str, str]:
    """Take the listing before the open, and let what is made of it hold."""
    return universe_daily.run_once(deps(), now=datetime.now(UTC))
