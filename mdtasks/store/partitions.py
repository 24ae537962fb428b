"""Makes the monthly partitions of ``bars`` and ``quotes``: ahead of time from beat, on demand before a write.

A month is a UTC calendar month of ``ts``. A partition is built alone and then attached, which lets readers and writers
of its table go on; it happens in transactions of its own, never in the writer's, so that no writer holds these locks
while it works, or takes its partition back when it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, get_args
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text

from mdtasks.connections import Database, load_statements
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError

Partitioned = Literal["bars", "quotes"]

_SQL: Final = load_statements("mdtasks.store.sql", "partitions.sql")
#: Most months one call may ask for: a range beyond it is a wrong timestamp, not history.
_MOST_MONTHS: Final = 1800
#: Partitions made in one transaction: each holds locks on a table, its TOAST and its index until the commit.
_AT_ONCE: Final = 24

# bars: a tenth of each page stays free, so that a live bar's promotion or correction, soon after its insert, lands in
# the same page and leaves the index alone (HOT). Vacuum by 2% instead of 20% of a month that may hold 100 million rows.
# quotes are never updated: full pages.
_STORAGE: Final[dict[Partitioned, str]] = {
    "bars": "WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)",
    "quotes": "WITH (autovacuum_analyze_scale_factor = 0.02)",
}

#: What this process has seen to exist, per pool.
_known: Final[WeakKeyDictionary[Engine, set[str]]] = WeakKeyDictionary()


def ensure_partitions(database: Database, table: Partitioned, first_us: int, last_us: int) -> int:
    """Make every partition of ``table`` that rows with ``ts`` from ``first_us`` to ``last_us`` (both included) need.

    Returns how many were made. Idempotent, safe from many processes at once, free when this process has seen them
    before. Raises InvalidRequestError when the range spans more than 150 years.
    """
    wanted = {partition_name(table, month): month for month in _months(first_us, last_us)}
    known = _known.setdefault(database.engine, set())
    if known.issuperset(wanted):
        return 0
    with database.transaction() as connection:
        known.update(_existing(connection, table))
    missing = [month for name, month in wanted.items() if name not in known]
    made = 0
    for start in range(0, len(missing), _AT_ONCE):
        with database.transaction() as connection:
            made += _make(connection, table, missing[start : start + _AT_ONCE])
    known.update(wanted)
    return made


def ensure_ahead(database: Database, now: datetime, months: int = 2) -> int:
    """Make the partitions of both tables for the month of ``now`` and the ``months`` after it; returns how many."""
    last_us = to_us(_month_after(now, months))
    return sum(ensure_partitions(database, table, to_us(now), last_us) for table in get_args(Partitioned))


def partitions(connection: Connection, table: Partitioned) -> dict[str, tuple[datetime, datetime]]:
    """The partitions that there are, oldest first: name -> its month, ``[start, end)``."""
    found = {}
    for name in sorted(_existing(connection, table)):
        year, month = name.removeprefix(f"{table}_").split("_")
        start = datetime(int(year), int(month), 1, tzinfo=UTC)
        found[name] = (start, _month_after(start, 1))
    return found


def forget(engine: Engine) -> None:
    """Look again before the next write: somebody dropped a partition this process believed in."""
    _known.pop(engine, None)


def partition_name(table: Partitioned, month: datetime) -> str:
    """``bars_2024_01`` for any time in January 2024 (UTC)."""
    return f"{table}_{month:%Y_%m}"


def _make(connection: Connection, table: Partitioned, months: Sequence[datetime]) -> int:
    """Make those of ``months`` that nobody made meanwhile."""
    connection.execute(_SQL["lock"], {"parent": table})
    existing = _existing(connection, table)
    absent = [month for month in months if partition_name(table, month) not in existing]
    for month in absent:
        name = partition_name(table, month)
        bounds = f"FROM ('{month.isoformat()}') TO ('{_month_after(month, 1).isoformat()}')"
        # CREATE ... PARTITION OF would lock the parent against everyone; ATTACH lets reads and writes pass.
        connection.execute(
            text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL EXCLUDING COMMENTS) {_STORAGE[table]}")
        )
        connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {bounds}"))
    return len(absent)


def _existing(connection: Connection, table: Partitioned) -> set[str]:
    return set(connection.execute(_SQL["existing"], {"parent": table}).scalars())


def _months(first_us: int, last_us: int) -> list[datetime]:
    """The first instant of each month from that of ``first_us`` to that of ``last_us``."""
    try:
        month, last = _month_after(from_us(first_us), 0), from_us(last_us)
        _month_after(last, 1)
    except (OverflowError, ValueError) as exc:
        raise InvalidRequestError(f"no such time: {first_us} or {last_us} us since 1970", field="ts") from exc
    count = (last.year - month.year) * 12 + last.month - month.month + 1
    if count > _MOST_MONTHS:
        raise InvalidRequestError(f"{month:%Y-%m} to {last:%Y-%m} is more than 150 years of partitions", field="ts")
    return [_month_after(month, number) for number in range(count)]


def _month_after(at: datetime, months: int) -> datetime:
    """The first instant of the month ``months`` after that of ``at``, UTC."""
    years, month = divmod(at.astimezone(UTC).month - 1 + months, 12)
    return datetime(at.astimezone(UTC).year + years, month + 1, 1, tzinfo=UTC)
