"""Lets go of what is too old: short transactions that give way to whoever works, and marks of how far they came.

A ``Round`` has so many chunks: each deletes at most CHUNK rows of a table, or drops one partition. It waits for a lock
for LOCK_MS at most, so that nobody queues behind it for longer, and is tried again by the next round. Killed anywhere,
it leaves whole chunks; the next round goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from mdtasks.connections import Database, load_statements
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval
from mdtasks.store import partitions
from mdtasks.store.partitions import Partitioned

SQL: Final = load_statements("mdtasks.store.sql", "retention.sql")
#: Rows of one transaction: some tens of milliseconds.
CHUNK: Final = 5000
#: Longest wait for a lock, and so for those who queue behind it, milliseconds.
LOCK_MS: Final = 200
#: Series whose rows one statement looks for.
SERIES: Final = 1000


class SpentError(Exception):
    """The round has done its share: what is left waits for the next one."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a subject was deleted. ``lost_before``: what is older may be gone; ``done_before``: nothing older is left
    since a round that came to its end.
    """

    subject: str
    lost_before: datetime
    done_before: datetime | None
    reached: int
    policy_version: int | None
    updated_at: datetime


def marks(connection: Connection) -> dict[str, Mark]:
    """The marks, by subject."""
    return {row.subject: Mark(*row) for row in connection.execute(SQL["marks"])}


def lost_before(connection: Connection, subject: str) -> datetime | None:
    """Before when something of a subject may be gone; None: never anything."""
    found: datetime | None = connection.execute(SQL["lost_before"], {"subject": subject}).scalar_one_or_none()
    return found


def refuse_lost(connection: Connection, as_of: datetime) -> None:
    """Raise InvalidRequestError when what was known at an instant cannot be told: its revisions may be gone."""
    lost = lost_before(connection, "revisions")
    if lost is not None and as_of < lost:
        raise InvalidRequestError(
            f"what was known as of {as_of:%Y-%m-%d %H:%M:%S} UTC cannot be told: revisions before {lost:%Y-%m-%d} are"
            " gone",
            field="as_of",
            hint=f"give {lost:%Y-%m-%d} or later; retention.revisions_days of the policy says how long they are kept",
        )


class Round:
    """One bounded piece of work. ``rows`` and ``dropped``: what went, by table; ``chunks``: how many may follow."""

    def __init__(self, database: Database, chunks: int, *, chunk: int = CHUNK) -> None:
        self._database = database
        self._chunk = chunk
        self.chunks = chunks
        self.rows: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def begin(self, subject: str, before: datetime, policy_version: int | None) -> None:
        """Put on record that what is older may be gone from now on."""
        self._do("begin", {"subject": subject, "before": before, "policy_version": policy_version})

    def done(self, subject: str, before: datetime) -> None:
        """Put on record that nothing older is left."""
        self._do("done", {"subject": subject, "before": before})

    def clear(self, name: str, table: str, values: Mapping[str, Any], partition: str = "") -> None:
        """Delete by a statement of the SQL file until it finds nothing more. Raises BusyError, SpentError."""
        while True:
            self._afford()
            went = self._do(name, {**values, "most": self._chunk}, partition=partition)
            if not went:
                return
            self.rows[table] += went
            self.chunks -= 1

    def pages(self, name: str, table: str, values: Mapping[str, Any]) -> None:
        """Go through a table by a statement that answers how many rows it looked at and how many it changed."""
        while True:
            self._afford()
            with impatient(self._database) as connection:
                looked, changed = connection.execute(SQL[name], {**values, "most": self._chunk}).one()
            if changed:
                self.rows[table] += changed
                self.chunks -= 1
            if looked < self._chunk:
                return

    def series(self, interval: Interval) -> Iterator[Sequence[int]]:
        """The instruments that may have something of an interval, a batch at a time."""
        with self._database.transaction() as connection:
            ids = list(connection.execute(SQL["series"], {"interval": interval}).scalars())
        return (ids[start : start + SERIES] for start in range(0, len(ids), SERIES))

    def partitions(self, table: Partitioned) -> dict[str, tuple[datetime, datetime]]:
        """The partitions that there are: name -> its month."""
        with self._database.transaction() as connection:
            return partitions.partitions(connection, table)

    def drop(self, table: Partitioned, partition: str, *, if_empty: bool = False) -> bool:
        """Drop a partition whole, or (``if_empty``) when nobody has put anything into it; whether it went.

        Nobody reads or writes ``table`` meanwhile. Raises BusyError, SpentError.
        """
        if if_empty and self._holds(partition):
            return False
        self._afford()
        with impatient(self._database) as connection:
            connection.execute(text(SQL["lock_alone"].text.format(table=table)))
            if if_empty and connection.execute(_of("any_row", partition)).scalar_one():
                return False
            connection.execute(_of("drop", partition))
        partitions.forget(self._database.engine)
        self.dropped[table] += 1
        self.chunks -= 1
        return True

    def open_requests(self) -> list[str]:
        """Requests that a job of theirs is not done for."""
        with self._database.transaction() as connection:
            return list(connection.execute(SQL["open_requests"]).scalars())

    def _holds(self, partition: str) -> bool:
        with self._database.transaction() as connection:
            return bool(connection.execute(_of("any_row", partition)).scalar_one())

    def _afford(self) -> None:
        if self.chunks <= 0:
            raise SpentError

    def _do(self, name: str, values: Mapping[str, Any], *, partition: str = "") -> int:
        with impatient(self._database) as connection:
            found = connection.execute(_of(name, partition) if partition else SQL[name], dict(values))
            return int(found.scalar_one()) if found.returns_rows else found.rowcount


def _of(name: str, partition: str) -> Any:
    return text(SQL[name].text.format(partition=partition))


def impatient(database: Database) -> AbstractContextManager[Connection]:
    """A transaction that gives up where it would wait for somebody: raises BusyError, and left nothing."""
    return database.waiting(LOCK_MS / 1000)
