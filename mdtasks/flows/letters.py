"""Dead letters: what the consumer of ``dlq`` records, and what people do with the record.

A message dies in a worker's parent process, which knows no database. Here its letter meets the job's row: the row
decides whether the job is tried again (its worker was lost) or has failed for good.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.domain.errors import InvalidRequestError, NotFoundError, UnavailableError
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, Tier, parse_job
from mdtasks.flows import dispatch
from mdtasks.flows.attempts import end_lost
from mdtasks.flows.deps import Deps, patiently
from mdtasks.observe import metrics
from mdtasks.queue import backlog
from mdtasks.queue.app import QUEUES
from mdtasks.queue.letters import DLQ, Reason, job_document, task_name
from mdtasks.store import jobs, letters
from mdtasks.store.letters import Letter, LetterFilter

log = logging.getLogger(__name__)

#: At most this many letters in one requeue: a plan must be something a person can look at.
MAX_SET: Final = 50_000


@dataclass(frozen=True, slots=True)
class Dead:
    """A message that died: its letter's id, itself as it was on the wire, why, and the queue it came from."""

    letter_id: str
    raw: str
    reason: Reason
    queue: str


def record(dead: Dead, deps: Deps) -> str:
    """Record one letter. Idempotent by its id and by the job's fence.

    Returns what became of it: ``recorded``, ``known``, ``retried`` (its worker was lost, attempts are left) or
    ``stale`` (the job has moved on). Raises StoreUnavailableError: the letter then goes back to ``dlq``.
    """

    def once() -> str:
        with deps.database.transaction() as connection:
            return _record(connection, dead, deps)

    became = patiently(once)
    if became == "recorded":
        metrics.DEAD_LETTERS.labels(kind=_kind(dead), error_class=dead.reason.error_class).inc()
    return became


def _record(connection: Connection, dead: Dead, deps: Deps) -> str:
    job = _parsed(job_document(dead.raw))
    if isinstance(job, BackfillJob):
        became = _record_backfill(connection, job.job_id, dead, deps)
        if became is not None:
            return became
    kept = letters.record(
        connection,
        Letter(
            id=dead.letter_id,
            kind=job.type if job is not None else "poison",
            envelope=dead.raw,
            error_class=dead.reason.error_class,
            message=dead.reason.message,
            traceback=dead.reason.traceback,
            job_id=job.job_id if job is not None else None,
            task=task_name(dead.raw),
            queue=dead.queue,
            tier=job.priority if job is not None else None,
            symbol=_symbol(job),
            interval=job.interval if isinstance(job, BarsFetchJob | BackfillJob) else None,
        ),
    )
    return "recorded" if kept else "known"


def _kind(dead: Dead) -> str:
    job = _parsed(job_document(dead.raw))
    return "poison" if job is None else str(job.type)


def _parsed(document: dict[str, object] | None) -> Any:
    try:
        return parse_job(document) if document is not None else None
    except InvalidRequestError:
        return None


def _symbol(job: Any) -> str | None:
    if job is None:
        return None
    return str(job.symbol) if isinstance(job, BackfillJob) else str(job.symbols[0])


def _record_backfill(connection: Connection, job_id: str, dead: Dead, deps: Deps) -> str | None:
    """Record the letter of a durable job by its row; None when there is no such row: then it is one like others."""
    held = jobs.running_under(connection, job_id, dead.reason.worker) if dead.reason.worker else None
    if held is not None and end_lost(connection, held, dead.reason, deps.settings):
        return "retried"
    letter = letters.letter_of_failed(connection, job_id, dead.raw, dead.reason.traceback, dead.queue)
    if letter is not None:
        if held is not None:  # ended here, in place of its worker
            metrics.BACKFILL_COMPLETED.labels(tier=str(letter.tier), status="failed").inc()
        return "recorded" if letters.record(connection, letter) else "known"
    if not jobs.statuses(connection, [job_id]):
        return None
    # Its claim was never made (PostgreSQL was away) or another attempt has it: a row that waits is sent again.
    jobs.defer(connection, [job_id])
    metrics.STALE_MESSAGES.labels(reason="letter").inc()
    return "stale"


@dataclass(frozen=True, slots=True)
class Preview:
    """What a requeue would do: the frozen set and the room that the queues have for it."""

    plan_id: str
    letters: int
    by_tier: dict[str, int]
    room: dict[str, int]
    ids: list[str]
    #: What came out, when the plan was carried out already.
    result: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, object]:
        return {
            "plan": self.plan_id,
            "letters": self.letters,
            "by_tier": self.by_tier,
            "room": self.room,
            "ids": self.ids,
            "result": self.result,
        }


def plan(which: LetterFilter, actor: str, deps: Deps) -> Preview:
    """Freeze the open letters that match, but for findings: carrying out the plan requeues exactly these.

    Raises InvalidRequestError when more than MAX_SET match.
    """
    with deps.database.transaction() as connection:
        rows = letters.matching(connection, which, MAX_SET + 1, jobs=True)
        if len(rows) > MAX_SET:
            raise InvalidRequestError(
                f"more than {MAX_SET} letters match", field="filter", hint="narrow it: tier, provider"
            )
        plan_id = letters.freeze(connection, which, [row["id"] for row in rows], actor)
    return _preview(plan_id, rows, deps)


def plan_of(letter_or_job_ids: Sequence[str], actor: str, deps: Deps) -> Preview:
    """Freeze these letters, named by their ids or their jobs'. Raises NotFoundError when one is not open, or can never
    be sent again.
    """
    with deps.database.transaction() as connection:
        rows = [_open_letter(connection, each) for each in dict.fromkeys(letter_or_job_ids)]
        for row in rows:
            if (why := why_never(row)) is not None:
                raise NotFoundError(f"{row['id']} cannot be requeued: {why[0]}", hint=why[1])
        rows = list({row["id"]: row for row in rows}.values())
        plan_id = letters.freeze(connection, LetterFilter(), [row["id"] for row in rows], actor)
    return _preview(plan_id, rows, deps)


def plan_again(plan_id: str, deps: Deps) -> Preview:
    """What a plan made before would do now; what it did when it was carried out. Raises NotFoundError."""
    with deps.database.transaction() as connection:
        frozen = letters.take_plan(connection, plan_id)
        rows = letters.by_ids(connection, frozen.letter_ids)
    return replace(_preview(frozen.id, rows, deps), letters=len(frozen.letter_ids), result=frozen.result)


def _preview(plan_id: str, rows: Sequence[Mapping[str, Any]], deps: Deps) -> Preview:
    by_tier = {str(tier): sum(row["tier"] == tier for row in rows) for tier in Tier}
    room = {str(tier): places for tier, places in dispatch.room(deps).items()}
    return Preview(plan_id, len(rows), by_tier, room, [row["id"] for row in rows])


def _open_letter(connection: Connection, letter_or_job_id: str) -> dict[str, Any]:
    letter = letters.one(connection, letter_or_job_id)
    if letter["state"] != "open":
        raise NotFoundError(
            f"{letter_or_job_id} is not failed: its letter was {letter['state']} by {letter['requeued_by']}",
            hint=f"`mdtasks dlq show {letter_or_job_id}` tells its history",
        )
    return letter


def carry_out(plan_id: str, actor: str, deps: Deps) -> dict[str, Any]:
    """Requeue a frozen set under the caps: ``{"plan", "requeued", "merged", "skipped", "refused"}``.

    Idempotent: a second call tells the first one's result. What is over the cap waits as deferred.
    """
    with deps.database.transaction() as connection:
        frozen = letters.take_plan(connection, plan_id)
        if frozen.result is not None:
            return frozen.result
        result = {"plan": plan_id, **_requeue(connection, frozen.letter_ids, actor, deps)}
        letters.close_plan(connection, plan_id, result)
    _send_now(deps)
    return result


def _requeue(connection: Connection, ids: Sequence[str], actor: str, deps: Deps) -> dict[str, int]:
    revived = letters.requeue_jobs(connection, ids, actor, deps.settings.max_attempts)
    sent, refused = _resend(connection, ids, deps)
    letters.mark_requeued(connection, sent, actor)
    merged = sum(status == "cancelled" for status in revived.values())
    return {
        "requeued": len(revived) - merged + len(sent),
        "merged": merged,
        "skipped": len(ids) - len(revived) - len(sent) - refused,
        "refused": refused,
    }


def _resend(connection: Connection, ids: Sequence[str], deps: Deps) -> tuple[list[str], int]:
    """Push letters that are no backfills back onto their queues; those that cannot be read or have no room stay."""
    sent: list[str] = []
    refused = 0
    for letter_id, queue, envelope in letters.requeueable(connection, ids):
        if _ours(queue, envelope) and deps.enqueuer.push_raw(queue, envelope):
            sent.append(letter_id)
        else:
            refused += 1
    return sent, refused


def _ours(queue: str | None, envelope: str) -> bool:
    """Whether it is a job that was in a queue of ours: what an intake refused is pushed nowhere."""
    return queue in QUEUES and job_document(envelope) is not None


def why_never(letter: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a letter (whole, with its envelope) can never be sent again, and what to do; None: it can."""
    look = f"`mdtasks dlq show {letter['id']}`"
    if letter["kind"] == letters.FINDING:
        return "it is a finding about what is stored, and no job", f"what it says settles it: {look}"
    if letter["kind"] == "backfill" or _ours(letter["queue"], letter["envelope"]):
        return None
    if str(letter["id"]).startswith("intake:"):
        return "the coordinator's job is not valid", f"let the coordinator push a right one; {look}"
    return "it cannot be read as a job", look


def requeue_job(job_id: str, actor: str, deps: Deps) -> dict[str, Any]:
    """Requeue one letter by its id or its job's. Raises NotFoundError with the reason when there is none to requeue."""
    with deps.database.transaction() as connection:
        letter = _open_letter(connection, job_id)
        done = _requeue(connection, [letter["id"]], actor, deps)
        if not done["requeued"] and not done["merged"]:
            reason, hint = _why_not(connection, letter)
            raise NotFoundError(f"{job_id} was not requeued: {reason}", hint=hint)
    _send_now(deps)
    return {"ok": True, "job_id": letter["job_id"] or letter["id"], **done}


def _why_not(connection: Connection, letter: Mapping[str, Any]) -> tuple[str, str]:
    """Why a letter that is open was not requeued, and what to do."""
    never = why_never(letter)
    if never is not None:
        return never
    if letter["kind"] != "backfill":
        return "its queue has no room", f"try again when there is; `mdtasks dlq show {letter['id']}`"
    status = jobs.statuses(connection, [letter["job_id"]]).get(letter["job_id"])
    if status is None:
        # Sent again it would be dropped: a worker claims rows.
        return f"there is no job {letter['job_id']}, only a message", "ask for its window: `mdtasks backfill`"
    return f"its job is {status}", f"`mdtasks jobs show {letter['job_id']}`"


def _send_now(deps: Deps) -> None:
    """Send what was requeued, if that can be done now. It is requeued either way: beat's next round sends the rest."""
    try:
        dispatch.dispatch_once(deps)
    except UnavailableError as error:
        log.warning("requeued jobs wait: %s", error)


def letter_stats(deps: Deps) -> dict[str, Any]:
    """How many letters are open and since when; ``in_queue``: those on their way to the record."""
    with deps.database.transaction() as connection:
        found = letters.stats(connection)
    return {**found, "in_queue": in_queue(deps)}


def in_queue(deps: Deps) -> int:
    """How many letters are on their way to the record. Raises BrokerUnavailableError."""
    return backlog.depths(deps.broker)[DLQ]
