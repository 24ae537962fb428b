"""Canaries at rest: which policy the workers of one tier try, what they showed, and what became of it.

PostgreSQL is the truth here too. The key in Redis tells that there is one, and is put right as the policy's own is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row

from mdtasks.connections import Redis, load_statements, storable, translated_redis_errors
from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy.canaries import Tally

_SQL: Final = load_statements("mdtasks.store.sql", "canaries.sql")

#: ``<version>:<tier>`` while one is being tried, in Redis.
CANARY_KEY: Final = "mdtasks:policy:canary"


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that the workers of ``tier`` try for ``watch_s`` seconds. ``decision``: promoted, withdrawn, or None
    while it is being tried; then ``decided_by`` and ``why`` are None too.
    """

    version: int
    tier: Tier
    watch_s: float
    began_at: datetime
    decision: str | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
    why: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """What Redis tells of it."""
        return f"{self.version}:{self.tier}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "policy_version": self.version,
            "tier": self.tier.value,
            "watch_s": self.watch_s,
            "began_at": self.began_at,
            "decision": self.decision,
            "decided_at": self.decided_at,
            "decided_by": self.decided_by,
            "why": self.why,
            "evidence": dict(self.evidence),
        }


def being_tried(connection: Connection) -> Canary | None:
    """The canary that is being tried now."""
    return _canary(connection.execute(_SQL["open"]).one_or_none())


def of_version(connection: Connection, version: int) -> Canary | None:
    """The trial of a version; None when it was applied without one."""
    return _canary(connection.execute(_SQL["one"], {"version": version}).one_or_none())


def begin(connection: Connection, version: int, tier: Tier, watch_s: float) -> Canary:
    """Let the workers of a tier try a version, in the transaction that made it."""
    found = _canary(connection.execute(_SQL["begin"], {"version": version, "tier": tier, "watch_s": watch_s}).one())
    assert found is not None
    return found


@dataclass(frozen=True, slots=True)
class Ending:
    """How a trial ends: promoted or withdrawn, by whom, why, and what was seen."""

    decision: str
    by: str
    why: str
    evidence: Mapping[str, Any]


def decide(connection: Connection, version: int, ending: Ending) -> Canary | None:
    """End a trial; None when it had ended. Safe to repeat: the first decision stands."""
    words = {"decision": ending.decision, "decided_by": storable(ending.by), "why": storable(ending.why)}
    values = {**words, "version": version, "evidence": json.dumps(ending.evidence)}
    return _canary(connection.execute(_SQL["decide"], values).one_or_none())


def tallies(connection: Connection, version: int) -> tuple[Tally, Tally]:
    """Attempts that ended under the version since it is tried, and under others since as long before."""
    found = {
        row.under: Tally(row.attempts, row.errors) for row in connection.execute(_SQL["tallies"], {"version": version})
    }
    return found.get(True, Tally()), found.get(False, Tally())


def announce(state: Redis, canary: Canary | None) -> None:
    """Tell which canary is being tried, or that none is. Raises BrokerUnavailableError, StoreFullError."""
    with translated_redis_errors():
        if canary is None:
            state.delete(CANARY_KEY)
        else:
            state.set(CANARY_KEY, canary.told)


def _canary(row: Row[Any] | None) -> Canary | None:
    if row is None:
        return None
    values = dict(row._mapping)
    return Canary(**{**values, "tier": Tier(row.tier), "evidence": row.evidence or {}})
