"""What is asked for becomes rows: of each window wanted, the part that nobody asks for yet is a new backfill job.

Only ``enqueue`` makes backfill jobs, one caller at a time; what they go through afterwards is in ``store.jobs``.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias
from uuid import uuid4

from sqlalchemy import Connection

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.wanted import Stretch, Wanted

_SQL: Final = load_statements("mdtasks.store.sql", "requests.sql")
_NULL: Final = r"\N"
#: Of a job's id, the most characters.
_ID_LENGTH: Final = 64
#: Instrument, interval and the provider that was named: what is asked for under one key is asked for once.
_Key: TypeAlias = tuple[int, str, str | None]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A window somebody wants of an instrument, not yet compared with what is already wanted."""

    job: BackfillJob
    instrument_id: int

    @property
    def key(self) -> _Key:
        return self.instrument_id, self.job.interval, self.job.provider_hint

    @property
    def stretch(self) -> Stretch:
        return self.job.time_window.start, self.job.time_window.end


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of a batch: rows inserted as queued (to be pushed now, newest window first), as deferred, and those
    asked for whose windows were wanted already."""

    queued: list[BackfillJob]
    deferred_jobs: list[BackfillJob]
    merged_jobs: list[BackfillJob]

    @property
    def deferred(self) -> int:
        return len(self.deferred_jobs)

    @property
    def merged(self) -> int:
        return len(self.merged_jobs)


@dataclass(frozen=True, slots=True)
class _Active:
    """A job that is not over."""

    id: str
    key: _Key
    stretch: Stretch


def create_request(connection: Connection, requested_by: str, spec: Mapping[str, object]) -> str:
    """Record that somebody asked for a batch; returns the request's id."""
    row = connection.execute(_SQL["create"], {"requested_by": requested_by, "spec": json.dumps(spec)})
    return str(row.scalar_one())


def enqueue(
    connection: Connection,
    jobs: Sequence[NewJob],
    room: Mapping[Tier, int],
    max_attempts: int,
    request_id: str | None = None,
    *,
    policy_version: int | None = None,
) -> Enqueued:
    """Insert what is not wanted yet, as 'queued' while there is ``room``, else as 'deferred'; newest windows first.

    Not wanted yet is, of each window, what no earlier one of the batch and no active job of the same instrument and
    interval (and provider, when one was named) asks for. A job whose id there is already, in the store or earlier in
    the batch, is that job sent again: merged, whatever became of it. A request also waits for the active jobs that it
    was merged with.

    The caller pushes ``queued`` after the commit and gives back (``jobs.defer``) what the queue refused; when it dies
    in between, the reconciler finds those rows without a message. Calling it twice merges the second into the first.
    """
    connection.execute(_SQL["lock"])
    known = set(connection.execute(_SQL["known"], {"ids": [new.job.job_id for new in jobs]}).scalars())
    active = _active(connection, jobs)
    fresh, merged = _fresh(jobs, known, active)
    pieces = _named(connection, fresh)
    pieces.sort(key=lambda new: new.job.time_window.end, reverse=True)
    queued, deferred = _placed(pieces, room)
    _insert(connection, queued, deferred, (request_id or _NULL, max_attempts, policy_version))
    merged_with = known | _met(jobs, active) if active else known
    if request_id is not None and merged_with:
        connection.execute(_SQL["link"], {"request_id": request_id, "ids": list(merged_with)})
    return Enqueued([new.job for new in queued], [new.job for new in deferred], merged)


def preview(connection: Connection, jobs: Sequence[NewJob]) -> tuple[Counter[Tier], int]:
    """What ``enqueue`` would make of new jobs now: how many by tier, and how many it would merge. It only reads."""
    fresh, merged = _fresh(jobs, set(), _active(connection, jobs))
    made: Counter[Tier] = Counter()
    for new, left in fresh:
        made[new.job.priority] += len(left)
    return made, len(merged)


def cancel(connection: Connection, request_id: str) -> int:
    """Cancel what a request asked for and nobody has begun, unless another request waits for it too; how many."""
    return connection.execute(_SQL["cancel"], {"request_id": request_id}).rowcount


def _active(connection: Connection, jobs: Iterable[NewJob]) -> list[_Active]:
    """The active jobs near what is asked for."""
    bounds: dict[tuple[int, str], Stretch] = {}
    for new in jobs:
        start, end = new.stretch
        first, last = bounds.get(new.key[:2], (start, end))
        bounds[new.key[:2]] = min(first, start), max(last, end)
    columns = {
        "instruments": [instrument_id for instrument_id, _ in bounds],
        "intervals": [str(interval) for _, interval in bounds],
        "starts": [start for start, _ in bounds.values()],
        "ends": [end for _, end in bounds.values()],
    }
    rows = connection.execute(_SQL["active"], columns)
    return [_Active(row[0], (row[1], Interval(row[4]), row[5]), (row[2], row[3])) for row in rows]


def _fresh(
    jobs: Sequence[NewJob], known: set[str], active: Iterable[_Active]
) -> tuple[list[tuple[NewJob, list[Stretch]]], list[BackfillJob]]:
    """The jobs that there is anything left of, in their order, each with what is left; and the others."""
    wanted: defaultdict[_Key, Wanted] = defaultdict(Wanted)
    for other in active:
        instrument_id, interval, hint = other.key
        # Whoever names no provider takes anybody's answer; who names one waits for that one's alone.
        for key in {(instrument_id, interval, None), (instrument_id, interval, hint)}:
            wanted[key].add(*other.stretch)
    seen = set(known)
    fresh = []
    merged = []
    for new in jobs:
        left = [] if new.job.job_id in seen else wanted[new.key].add(*new.stretch)
        seen.add(new.job.job_id)
        if left:
            fresh.append((new, left))
        else:
            merged.append(new.job)
    return fresh, merged


def _named(connection: Connection, fresh: Sequence[tuple[NewJob, list[Stretch]]]) -> list[NewJob]:
    """A job for each stretch. The first keeps its line's id; the others are named after it, unless that name is taken
    or longer than ids may be."""
    names = {f"{new.job.job_id}.{part}" for new, left in fresh for part in range(2, len(left) + 1)}
    taken = set(connection.execute(_SQL["known"], {"ids": list(names)}).scalars()) if names else set()
    taken |= {new.job.job_id for new, _ in fresh}
    pieces = []
    for new, left in fresh:
        if left == [new.stretch]:
            pieces.append(new)
            continue
        for part, (start, end) in enumerate(left, 1):
            name = new.job.job_id if part == 1 else f"{new.job.job_id}.{part}"
            if part > 1 and (len(name) > _ID_LENGTH or name in taken):
                name = f"{new.job.job_id[:24]}.{uuid4()}"
            window = TimeWindow(start=start, end=end)
            job = new.job.model_copy(update={"job_id": name, "time_window": window})
            pieces.append(NewJob(job, new.instrument_id))
    return pieces


def _placed(pieces: Iterable[NewJob], room: Mapping[Tier, int]) -> tuple[list[NewJob], list[NewJob]]:
    """Those that find room in their tier, in their order, and those that must wait."""
    left = dict(room)
    queued: list[NewJob] = []
    deferred: list[NewJob] = []
    for new in pieces:
        left[new.job.priority] -= 1
        (queued if left[new.job.priority] >= 0 else deferred).append(new)
    return queued, deferred


def _met(jobs: Iterable[NewJob], active: Iterable[_Active]) -> set[str]:
    """Ids of the active jobs that do a part of what is asked for."""
    asked: defaultdict[_Key, Wanted] = defaultdict(Wanted)
    for new in jobs:
        asked[new.key].add(*new.stretch)
    return {
        other.id
        for other in active
        for key in {(*other.key[:2], None), other.key}
        if key in asked and asked[key].meets(*other.stretch)
    }


def _insert(
    connection: Connection, queued: Iterable[NewJob], deferred: Iterable[NewJob], common: tuple[str, int, int | None]
) -> None:
    """``common``: the request's id, the most attempts of each job, and the policy that it is asked for under."""
    columns = 'id, instrument_id, symbol, interval, "window", tier, provider_hint, status, queued_at, request_id'
    # Not now(): that is before the wait for the lock, and a job queued so long ago without a message looks lost.
    clock: datetime = connection.execute(_SQL["clock"]).scalar_one()
    request_id, max_attempts, version = common
    ends = f"{request_id}\t{max_attempts}\t{_NULL if version is None else version}"
    # Text lines made by hand: no value of a job can hold a tab, a newline or a backslash, and thousands come at a time.
    lines = "".join(
        f"{job.job_id}\t{new.instrument_id}\t{job.symbol}\t{job.interval}\t[{window.start},{window.end})\t"
        f"{job.priority}\t{job.provider_hint or _NULL}\t{state}\t{ends}\n"
        for pieces, state in ((queued, f"queued\t{clock}"), (deferred, f"deferred\t{_NULL}"))
        for new in pieces
        for job in (new.job,)
        for window in (job.time_window,)
    )
    if lines:
        statement = f"COPY backfill_jobs ({columns}, max_attempts, policy_version) FROM STDIN"
        with raw_psycopg(connection).cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(lines)
