"""What tables hold, and what of it is too old: what people look at before it goes. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from mdtasks.domain.jobs import Interval
from mdtasks.store.partitions import Partitioned, partitions
from mdtasks.store.retention import SQL

#: The tables that grow with time, which the policy bounds; and corporate actions, which are kept for ever.
TABLES: Final = (
    "bars",
    "bar_revisions",
    "bar_quarantine",
    "quotes",
    "backfill_jobs",
    "job_attempts",
    "requests",
    "dead_letters",
    "silences",
    "silence_revisions",
    "coverage_changes",
    "gaps",
    "gap_revisions",
    "reconciliations",
    "slo_snapshots",
    "corporate_actions",
)


@dataclass(frozen=True, slots=True)
class Holding:
    """What a table holds. ``rows``: as PostgreSQL estimates them, None before it has looked; ``bytes``: on disk,
    with its indexes.
    """

    table: str
    rows: int | None
    bytes: int
    partitions: int


def holdings(connection: Connection) -> list[Holding]:
    """What each table of TABLES holds, in their order."""
    found = {row.table: Holding(*row) for row in connection.execute(SQL["holdings"], {"tables": list(TABLES)})}
    return [found.get(name, Holding(name, 0, 0, 0)) for name in TABLES]


def months_before(connection: Connection, table: Partitioned, before: datetime) -> list[str]:
    """The partitions of a table that are over before an instant, oldest first."""
    return [name for name, (_, end) in partitions(connection, table).items() if end <= before]


def count_bars(connection: Connection, months: Sequence[str], interval: Interval) -> int:
    """How many bars of an interval partitions hold. Counts them: a month may take seconds."""
    counted = 0
    for name in months:
        for each, count in connection.execute(text(SQL["count_bars"].text.format(partition=name))):
            counted += count if each == interval.value else 0
    return counted


def count(connection: Connection, what: str, before: datetime, interval: Interval | None = None) -> int:
    """How many rows of a kind are too old: ``revisions_of_bars`` (of an interval), ``revisions``, ``quarantine``,
    ``letters``, ``reconciliation``, ``slo``.
    """
    values = {"before": before, **({} if interval is None else {"interval": interval})}
    return int(connection.execute(SQL[f"count_{what}"], values).scalar_one())


def count_jobs(connection: Connection, before: datetime) -> int:
    """How many jobs are over for so long, of no open request and without an open letter."""
    open_ = list(connection.execute(SQL["open_requests"]).scalars())
    return int(connection.execute(SQL["count_jobs"], {"before": before, "open": open_}).scalar_one())
