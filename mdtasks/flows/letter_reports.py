"""Dead letters as people look at them: which there are, by which cause, one whole, how a requeued set goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mdtasks.domain.errors import UnavailableError
from mdtasks.flows import letters as flow
from mdtasks.flows.deps import Deps
from mdtasks.queue.letters import job_document
from mdtasks.store import job_reports, letters
from mdtasks.store.letters import LetterFilter

#: Statuses of a job that is over.
_OVER: Final = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Overview:
    """Open letters: those that match (the newest, ``limit`` at most), all of them by cause, and their numbers.

    ``in_queue``: letters on their way to the record; None while Redis is away.
    """

    rows: Sequence[Mapping[str, Any]]
    groups: Sequence[Mapping[str, Any]]
    stats: Mapping[str, Any]
    in_queue: int | None


def overview(which: LetterFilter, limit: int, deps: Deps) -> Overview:
    """What is dead. Raises StoreUnavailableError."""
    with deps.database.transaction() as connection:
        rows = letters.matching(connection, which, limit)
        groups, stats = letters.groups(connection), letters.stats(connection)
    return Overview(rows, groups, stats, in_queue(deps))


def in_queue(deps: Deps) -> int | None:
    """Letters on their way to the record; None while Redis is away."""
    try:
        return flow.in_queue(deps)
    except UnavailableError:
        return None


@dataclass(frozen=True, slots=True)
class Whole:
    """A letter with everything: its row, the job that its envelope carried (None: it cannot be read), its attempts."""

    row: Mapping[str, Any]
    payload: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]]


def whole(letter_or_job_id: str, deps: Deps) -> Whole:
    """A letter by its id or its job's. Raises NotFoundError, StoreUnavailableError."""
    with deps.database.transaction() as connection:
        row = letters.one(connection, letter_or_job_id)
        history = job_reports.attempts(connection, row["job_id"]) if row["job_id"] else []
    return Whole(row, job_document(row["envelope"]), history)


@dataclass(frozen=True, slots=True)
class Progress:
    """How the backfills of a set of letters go on: how many jobs have which status."""

    jobs: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.jobs.values())

    @property
    def over(self) -> int:
        """Those that are done, failed again, or cancelled for others that ask for the same."""
        return sum(number for status, number in self.jobs.items() if status in _OVER)


def progress(plan_id: str, deps: Deps) -> Progress:
    """How the backfills of a requeue plan stand now. Raises NotFoundError, StoreUnavailableError."""
    with deps.database.transaction() as connection:
        return Progress(letters.plan_progress(connection, plan_id))
