"""Asking for bars: symbols and a window become job-sized windows that are not stored and not asked for yet."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from sqlalchemy import Connection

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError, UnavailableError, UnknownSymbolError
from mdtasks.domain.jobs import (
    BackfillJob,
    Interval,
    ProviderName,
    Symbol,
    Tier,
    TimeWindow,
    UtcDatetime,
    invalid_request,
    parse_job,
)
from mdtasks.domain.retention import horizon, kept_part
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import room
from mdtasks.flows.pieces import Pieces
from mdtasks.observe import metrics
from mdtasks.store import bars as store_bars
from mdtasks.store import jobs, reference, requests
from mdtasks.store.reference import Instrument

log = logging.getLogger(__name__)

#: Rows of one transaction: bounds how long the enqueue lock is held, a second or so.
BATCH: Final = 20_000
#: Length of a request's window: bounds the memory that cutting it takes, some hundred MB. 57 years of minutes.
MAX_INTERVALS: Final = 30_000_000
#: Jobs of one request: bounds what one request may fill the store with, some gigabytes of rows.
MAX_JOBS: Final = 5_000_000


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class BackfillRequest(BaseModel):
    """What somebody asks for: `mdtasks backfill` and ``POST /ops/backfill`` alike.

    ``symbol`` may be one or many; ``start`` inclusive, ``end`` exclusive (default: now). ``sessions`` in place of
    ``start``: the last so many sessions before the end, of each instrument's own exchange. An interval that has not
    ended is not asked for. ``priority``: the tier to run in, default each instrument's own. ``refetch``: ask again for
    what is stored already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Annotated[tuple[Symbol, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=50_000)]
    interval: Interval = Interval.M1
    start: UtcDatetime | None = None
    end: UtcDatetime | None = None
    sessions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    priority: Tier | None = None
    provider: ProviderName | None = None
    refetch: bool = False

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> BackfillRequest:
        """The request a document describes. Raises InvalidRequestError naming the field."""
        try:
            return cls.model_validate(document)
        except ValidationError as exc:
            raise invalid_request(exc) from exc

    def window(self, calendar: Calendar, now: datetime) -> TimeWindow:
        """The window to fill, on the interval's grid and cut to what has ended, ``sessions`` counted back from there.

        Raises InvalidRequestError when it is empty.
        """
        step_us = self.interval.seconds * 1_000_000
        end = self._ended(calendar, now)
        start = self.start
        if start is not None and start < min(self.end or now, now) and to_us(start) // step_us * step_us >= to_us(end):
            raise InvalidRequestError(
                f"no {self.interval} interval of {calendar.mic} has ended since start {start.isoformat()}",
                field="start",
                hint=f"what has ended lies before {end.isoformat()}: give an earlier start, or ask again later",
            )
        window = AskedWindow(self.start, end, self.sessions).on(calendar, self.interval, now)
        start_us = to_us(window.start) // step_us * step_us
        end_us = -(-to_us(window.end) // step_us) * step_us
        if (end_us - start_us) // step_us > MAX_INTERVALS:
            raise InvalidRequestError(
                f"{(end_us - start_us) // step_us} intervals of {self.interval} are too many for one request",
                field="start",
                hint=f"ask for at most {MAX_INTERVALS} at a time",
            )
        return TimeWindow(start=from_us(start_us), end=from_us(end_us))

    def _ended(self, calendar: Calendar, now: datetime) -> datetime:
        """The end that was asked for, or, when that is later, the end of what has ended."""
        if self.end is not None and self.end < now - timedelta(days=10):
            return self.end
        ended = calendar.ended_until(now, self.interval)
        return ended if self.end is None else min(self.end, ended)


@dataclass(frozen=True, slots=True)
class Refused:
    """A job that was not taken: which, and the field that is wrong."""

    job: str
    field: str
    error: str


@dataclass(slots=True)
class Answer:
    """What became of a request. Windows already stored count as ``covered``, those already asked for as ``merged``.

    ``kept_from``: where its window was cut, because what is older is not kept; None: it was not.
    """

    request_id: str
    queued: int = 0
    deferred: int = 0
    merged: int = 0
    covered: int = 0
    refused: list[Refused] = field(default_factory=list)
    kept_from: datetime | None = None

    def as_dict(self) -> dict[str, object]:
        return {
            "request": self.request_id,
            "queued": self.queued,
            "deferred": self.deferred,
            "merged": self.merged,
            "covered": self.covered,
            "refused": [{"job": r.job, "field": r.field, "error": r.error} for r in self.refused],
            **({} if self.kept_from is None else {"kept_from": self.kept_from.isoformat().replace("+00:00", "Z")}),
        }


def request_backfill(asked: BackfillRequest, requested_by: str, deps: Deps, now: datetime) -> Answer:
    """Fill a window of symbols with what is missing. Safe to repeat: what is stored or wanted is not asked for again,
    nor time before an instrument's listing or after its end.

    Raises InvalidRequestError, UnknownSymbolError, UnknownProviderError (nothing is queued then), UnavailableError.
    """
    with deps.database.transaction() as connection:
        wanted, kept_from = wanted_of(connection, asked, deps, now)
        request_id = requests.create_request(connection, requested_by, asked.model_dump(mode="json"))
    answer = Answer(request_id, kept_from=kept_from)
    enqueue(_counted(wanted, answer), deps, answer)
    return answer


def wanted_of(
    connection: Connection, asked: BackfillRequest, deps: Deps, now: datetime
) -> tuple[Iterator[requests.NewJob | None], datetime | None]:
    """What a request lacks, in job-sized windows, newest first, one symbol after the other; None for each symbol that
    lacks nothing. And from when on, where it was cut because what is older is not kept.

    Reads at once, cuts as it is gone through. Raises as ``request_backfill``.
    """
    if asked.provider is not None:
        deps.registry.get(asked.provider)
    members = list(reference.resolve(connection, asked.symbol).values())
    policy = deps.running.policy
    asked_for = {mic: asked.window(deps.calendars.get(mic), now) for mic in {member.mic for member in members}}
    windows = {mic: kept_part(each, asked.interval, policy, now) for mic, each in asked_for.items()}
    tiers = {asked.priority or member.tier for member in members}
    minutes = min((policy.tiers[tier].chunk_minutes for tier in tiers), default=1)
    pieces = Pieces(asked.interval, windows, deps.calendars, minutes)
    _refuse_too_many(members, pieces)
    ids = [member.id for member in members]
    covered = {} if asked.refetch else store_bars.read_coverage(connection, ids, asked.interval)
    kept_from = horizon(policy, asked.interval, now) if windows != asked_for else None
    return _wanted(members, asked, pieces, covered), kept_from


def _refuse_too_many(members: Sequence[Instrument], pieces: Pieces) -> None:
    """Raise InvalidRequestError when a request may make more than MAX_JOBS jobs."""
    most = sum(count * len(pieces.whole(mic)) for mic, count in Counter(member.mic for member in members).items())
    if most > MAX_JOBS:
        raise InvalidRequestError(
            f"{len(members)} symbols in that window make up to {most} jobs, too many for one request",
            field="symbol",
            hint=f"ask for fewer symbols or a shorter window at a time: at most {MAX_JOBS} jobs",
        )


def _wanted(
    members: Sequence[Instrument],
    asked: BackfillRequest,
    pieces: Pieces,
    covered: Mapping[int, Sequence[TimeWindow]],
) -> Iterator[requests.NewJob | None]:
    for member in members:
        lacking = pieces.of(member, covered.get(member.id, ()))
        if not lacking:
            yield None
        for piece in lacking:
            job = BackfillJob(
                symbol=member.symbol,
                interval=asked.interval,
                time_window=piece,
                priority=asked.priority or member.tier,
                provider_hint=asked.provider,
            )
            yield requests.NewJob(job, member.id)


def _counted(wanted: Iterator[requests.NewJob | None], answer: Answer) -> Iterator[requests.NewJob]:
    for job in wanted:
        if job is None:
            answer.covered += 1
        else:
            yield job


def enqueue_documents(documents: Sequence[Mapping[str, Any]], requested_by: str, deps: Deps) -> Answer:
    """Enqueue backfill jobs that come ready-made as documents; each invalid one is refused with its field."""
    refused: list[Refused] = []
    valid: list[BackfillJob] = []
    for number, document in enumerate(documents):
        name = str(document.get("job_id", f"#{number}")) if isinstance(document, Mapping) else f"#{number}"
        try:
            job = parse_job(dict(document))
            if not isinstance(job, BackfillJob):
                raise InvalidRequestError(f"{job.type} is not durable: it goes to a live queue", field="type")
            valid.append(job)
        except InvalidRequestError as error:
            refused.append(Refused(name, error.field, error.message))
    # Nobody can tell the tier of what is no job.
    metrics.BACKFILL_ENQUEUED.labels(tier="", result="refused").inc(len(refused))
    return enqueue_jobs(valid, requested_by, deps, refused)


def enqueue_jobs(
    valid: Sequence[BackfillJob], requested_by: str, deps: Deps, refused: Sequence[Refused] = ()
) -> Answer:
    """Enqueue valid backfill jobs in bulk; those of unknown symbols are refused, the others go on."""
    refused = list(refused)
    with deps.database.transaction() as connection:
        known = reference.current(connection, {job.symbol for job in valid})
        request_id = requests.create_request(connection, requested_by, {"jobs": len(valid), "refused": len(refused)})
    answer = Answer(request_id, refused=refused)
    answer.refused += [
        Refused(job.job_id, "symbol", str(UnknownSymbolError([job.symbol]))) for job in valid if job.symbol not in known
    ]
    _count("refused", [job for job in valid if job.symbol not in known])
    rows = (requests.NewJob(job, known[job.symbol].id) for job in valid if job.symbol in known)
    enqueue(rows, deps, answer)
    return answer


def enqueue(wanted: Iterator[requests.NewJob], deps: Deps, answer: Answer) -> None:
    """Rows first, then messages, a batch a transaction. A crash between the two is mended by the reconciler.

    While Redis is away everything waits as deferred: the rows are what counts.
    """
    while batch := list(islice(wanted, BATCH)):
        with deps.database.transaction() as connection:
            done = requests.enqueue(
                connection,
                batch,
                _room(deps),
                deps.settings.max_attempts,
                answer.request_id,
                policy_version=deps.running.version,
            )
        refused = _push(done.queued, deps)
        _count("merged", done.merged_jobs)
        _count("deferred", done.deferred_jobs)
        answer.queued += len(done.queued) - refused
        answer.deferred += done.deferred + refused
        answer.merged += done.merged


def _count(result: str, mine: Sequence[BackfillJob]) -> None:
    for tier, count in Counter(job.priority for job in mine).items():
        metrics.BACKFILL_ENQUEUED.labels(tier=tier, result=result).inc(count)


def _room(deps: Deps) -> Mapping[Tier, int]:
    """Free places under the caps; none while Redis is away."""
    try:
        return room(deps)
    except UnavailableError as error:
        log.warning("jobs are deferred: %s", error)
        return dict.fromkeys(Tier, 0)


def _push(queued: Sequence[BackfillJob], deps: Deps) -> int:
    """Push committed jobs, a tier at a time; what a queue has no room for after all waits. Returns how many."""
    refused = 0
    for tier in Tier:
        mine = [job for job in queued if job.priority == tier]
        pushed = _pushed(tier, mine, deps) if mine else 0
        if pushed < len(mine):
            with deps.database.transaction() as connection:
                jobs.defer(connection, [job.job_id for job in mine[pushed:]])
        _count("queued", mine[:pushed])
        _count("deferred", mine[pushed:])
        refused += len(mine) - pushed
    return refused


def _pushed(tier: Tier, mine: Sequence[BackfillJob], deps: Deps) -> int:
    """How many of the first of ``mine`` are surely in their queue."""
    try:
        return deps.enqueuer.push_backfills(tier, mine)
    except UnavailableError as error:
        # What did get there is sent twice; its second message will find nothing to claim.
        log.warning("%d jobs of %s are deferred: %s", len(mine), tier, error)
        return 0
