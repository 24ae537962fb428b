"""RLC mode: jobs that an outside rate-limit coordinator pushed become jobs here, each once, wherever this is killed.

A round takes a batch, does everything that follows from it, and only then lets go of it. Whatever it does may be done
again: backfills are known by their ids in PostgreSQL, live jobs by theirs in Redis, letters by the tokens of their
elements. A job without an id is named by its token, which stays the same when another intake takes over.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from mdtasks.domain.errors import InvalidRequestError, UnavailableError, UnknownSymbolError
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, QuotesFetchJob, Tier, parse_job
from mdtasks.domain.retention import kept_part
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps
from mdtasks.observe import metrics
from mdtasks.queue.coordinator import Coordinator, Taken
from mdtasks.store import letters, reference
from mdtasks.store.letters import Letter

log = logging.getLogger(__name__)

#: Who asks, for the record of requests.
ACTOR: Final = "coordinator"
#: How long to wait when there was nothing to take, and at least and at most when a server is away, seconds.
_IDLE_S, _SHORT_S, _LONG_S = 0.1, 0.2, 3.0

Job = BackfillJob | BarsFetchJob | QuotesFetchJob


@dataclass(frozen=True, slots=True)
class _Refused:
    """An element that becomes no job: the value that is wrong, and how."""

    taken: Taken
    field: str
    error: str
    error_class: str = InvalidRequestError.code
    job: Job | None = None


def run(deps: Deps, stopped: Callable[[float], bool], on_ready: Callable[[], None] = lambda: None) -> None:
    """Take jobs until ``stopped``, which waits for so many seconds at most and tells whether to stop.

    While a server is away it waits; what it holds stays in the coordinator's Redis. ``on_ready``: called after the
    first round that could be done.
    """
    pause_s, away_s, told = 0.0, 0.0, False
    while not stopped(pause_s):
        try:
            counts = run_once(deps, datetime.now(UTC))
        except UnavailableError as error:
            log.warning("jobs wait in their lists: %s", error)
            pause_s = away_s = min(max(away_s * 2, _SHORT_S), _LONG_S)
            continue
        if not told:
            on_ready()
            told = True
        pause_s, away_s = (0.0 if counts["taken"] else _IDLE_S), 0.0
    with suppress(UnavailableError):  # its lease runs out by itself
        _coordinator(deps).leave()


def run_once(deps: Deps, now: datetime) -> dict[str, int]:
    """Take a batch, enqueue what is valid, bury what is not, let go: ``taken`` and how many jobs had which result.

    Raises UnavailableError: the batch is held, and is what the next round begins with.
    """
    coordinator = _coordinator(deps)
    taken = coordinator.take()
    counts = _dealt_with(taken, deps, now) if taken else Counter()
    if taken:
        coordinator.settle(taken)
    for (job_type, result), count in counts.items():
        metrics.INTAKE_JOBS.labels(type=job_type, result=result).inc(count)
    results: Counter[str] = Counter({"taken": len(taken)})
    for (_, result), count in counts.items():
        results[result] += count
    return dict(results)


def _coordinator(deps: Deps) -> Coordinator:
    assert deps.coordinator is not None, "RLC mode is off"
    return deps.coordinator


#: How many jobs of which type had which result.
_Counts = Counter[tuple[str, str]]


def _dealt_with(taken: Sequence[Taken], deps: Deps, now: datetime) -> _Counts:
    """Do what follows from these elements. One that nobody foresaw is buried alone: it must not stop the others."""
    try:
        return _enqueued(taken, deps, now)
    except UnavailableError:
        raise
    except Exception as error:
        if len(taken) > 1:
            return sum((_dealt_with([each], deps, now) for each in taken), _Counts())
        log.exception("an element of %s could not be dealt with", taken[0].source)
        said = f"{type(error).__name__}: {error}"
        return _buried([_Refused(taken[0], "job", said, "intake_error")], deps)


def _enqueued(taken: Sequence[Taken], deps: Deps, now: datetime) -> _Counts:
    jobs: list[tuple[Taken, Job]] = []
    refused: list[_Refused] = []
    for each in taken:
        try:
            jobs.append((each, _kept(_job_of(each), deps, now)))
        except InvalidRequestError as error:
            refused.append(_Refused(each, error.field, error.message, error.code))
    backfills = [(each, job) for each, job in jobs if isinstance(job, BackfillJob)]
    counts = _enqueue_backfills(backfills, refused, deps) if backfills else _Counts()
    for tier in Tier:
        counts += _push_live(
            [job for _, job in jobs if not isinstance(job, BackfillJob) and job.priority == tier], deps, now
        )
    return counts + _buried(refused, deps)


def _job_of(taken: Taken) -> Job:
    """The job that an element describes. Raises InvalidRequestError.

    What it leaves out is its list's: without ``priority`` a backfill in the list of T0 is one of T0.
    """
    try:
        document: Any = orjson.loads(taken.raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"not JSON: {error}", field="job") from error
    if not isinstance(document, dict):
        raise InvalidRequestError(f"a JSON {type(document).__name__}, not an object", field="job")
    of_tier = taken.source in set(Tier)
    given = {"job_id": f"rlc.{taken.token}", **({"priority": taken.source} if of_tier else {}), **document}
    job = parse_job(given)
    if of_tier and not isinstance(job, BackfillJob):
        raise InvalidRequestError(f"type: {job.type} is no backfill, in a list of backfills", field="type")
    return job


def _kept(job: Job, deps: Deps, now: datetime) -> Job:
    """The job without the time whose bars are not kept. Raises InvalidRequestError when nothing is left of it."""
    if not isinstance(job, BackfillJob):
        return job
    window = kept_part(job.time_window, job.interval, deps.running.policy, now)
    return job if window == job.time_window else job.model_copy(update={"time_window": window})


def _enqueue_backfills(backfills: Sequence[tuple[Taken, BackfillJob]], refused: list[_Refused], deps: Deps) -> _Counts:
    """Enqueue backfills under the caps; those of unknown symbols join the refused.

    They are sorted out here, by symbol: an id that a coordinator gave to two jobs does not tell which one is wrong.
    """
    with deps.database.transaction() as connection:
        known = reference.current(connection, {job.symbol for _, job in backfills})
    for taken, job in backfills:
        if job.symbol not in known:
            error = UnknownSymbolError([job.symbol])
            refused.append(_Refused(taken, "symbol", f"symbol: {error.message}", error.code, job))
    sound = [job for _, job in backfills if job.symbol in known]
    if not sound:
        return _Counts()
    answer = enqueue_jobs(sound, ACTOR, deps)
    results = {"queued": answer.queued, "deferred": answer.deferred, "merged": answer.merged}
    return _Counts({("backfill", result): count for result, count in results.items() if count})


def _push_live(jobs: Sequence[BarsFetchJob | QuotesFetchJob], deps: Deps, now: datetime) -> _Counts:
    """Push a tier's live jobs, those that were not pushed before."""
    if not jobs:
        return _Counts()
    new = deps.enqueuer.push_live_once(jobs[0].priority, jobs, now, deps.settings.rlc_live_expires_s)
    return _Counts((str(job.type), "queued" if is_new else "merged") for job, is_new in zip(jobs, new, strict=True))


def _buried(refused: Sequence[_Refused], deps: Deps) -> _Counts:
    """Record a dead letter for each. They are not for requeueing: whoever made them must make them anew."""
    if not refused:
        return _Counts()
    with deps.database.transaction() as connection:
        new = [each for each in refused if letters.record(connection, _letter(each, deps))]
    for each in new:
        metrics.DEAD_LETTERS.labels(kind="poison", error_class=each.error_class).inc()
    return _Counts((str(each.job.type) if each.job is not None else "", "refused") for each in refused)


def _letter(refused: _Refused, deps: Deps) -> Letter:
    """Without its job's id: that may be the id of another job, which is sound and is looked for by it."""
    job = refused.job
    return Letter(
        id=f"intake:{refused.taken.token}",
        kind="poison",
        envelope=refused.taken.raw.decode(errors="backslashreplace"),
        error_class=refused.error_class,
        message=refused.error if refused.error.startswith(refused.field) else f"{refused.field}: {refused.error}",
        queue=deps.settings.rlc_keys[refused.taken.source],
        tier=job.priority if job is not None else None,
        symbol=job.symbol if isinstance(job, BackfillJob) else None,
    )
