"""What runbooks look at in PostgreSQL, and the record of what people did about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.jobs import Tier

SQL: Final = load_statements("mdtasks.store.sql", "evidence.sql")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Attempts of late that ended alike; ``error_class`` is empty for those that ended well."""

    provider: str
    error_class: str
    attempts: int
    example: str | None


@dataclass(frozen=True, slots=True)
class TierWork:
    """Backfills of a tier: ``due`` are deferred and could go out, ``put_off`` wait for their next attempt."""

    tier: Tier
    due: int
    put_off: int
    queued: int
    running: int
    oldest_age_s: float


def outcomes(connection: Connection, minutes: int = 30) -> list[Outcome]:
    """How attempts ended of late, the largest group first."""
    rows = connection.execute(SQL["outcomes"], {"minutes": minutes})
    return [Outcome(row.provider, row.error_class, row.attempts, row.example) for row in rows]


def outcomes_of(connection: Connection, provider: str, minutes: int = 30) -> list[Outcome]:
    """How a provider did in the attempts of late that asked it, whoever answered in the end; the largest group first.

    ``error_class`` is its own where it answered nothing, and empty where it answered and the attempt ended well.
    """
    rows = connection.execute(SQL["outcomes_of"], {"provider": provider, "minutes": minutes})
    return [Outcome(row.provider, row.error_class, row.attempts, row.example) for row in rows]


def waiting(connection: Connection) -> list[TierWork]:
    """What waits and runs, for each tier that has something."""
    return [
        TierWork(Tier(row.tier), row.due, row.put_off, row.queued, row.running, float(row.oldest_age_s))
        for row in connection.execute(SQL["waiting"])
    ]


def open_gaps(connection: Connection) -> list[dict[str, Any]]:
    """Open gaps: ``tier interval open oldest_age_s symbols``, the most first."""
    return _rows(connection, "gaps")


def quarantined(connection: Connection) -> list[dict[str, Any]]:
    """Bars refused within the last hour: ``provider reason bars instruments``, the most first."""
    return _rows(connection, "quarantined")


def freshness(connection: Connection) -> list[dict[str, Any]]:
    """How far series reach: ``mic interval series newest oldest stalest``."""
    return _rows(connection, "freshness")


def blocked(connection: Connection) -> list[dict[str, Any]]:
    """Who waits for whose lock: ``pid waits_s blocker application state holds_s query``."""
    return _rows(connection, "blocked")


def last_look(connection: Connection) -> datetime | None:
    """When the monitor of the objectives last left a snapshot; None: not within a week."""
    found: datetime | None = connection.execute(SQL["last_look"]).scalar_one()
    return found


def audit(connection: Connection, actor: str, action: str, details: Mapping[str, Any]) -> None:
    """Put on record what somebody did."""
    values = {"actor": actor, "action": action, "details": json.dumps(details, default=str)}
    connection.execute(SQL["audit"], values)


def _rows(connection: Connection, name: str) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in connection.execute(SQL[name])]
