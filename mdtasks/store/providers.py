"""What is kept of providers' health in PostgreSQL: how each stood, when and why it was demoted, who paused it.

Redis decides and forgets; this is the record. Of pauses it is the truth: Redis holds a copy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.health import Parts, Pause, Standing, Transition

_SQL: Final = load_statements("mdtasks.store.sql", "providers.sql")

#: Looks and transitions are kept so long; of looks older than the second, one in ten minutes.
KEPT: Final = timedelta(days=400)
KEPT_WHOLE: Final = timedelta(days=7, hours=1)
#: So far back it is told how providers stood: an hour less, so that none of the looks that an answer goes by, which
#: reach back a while from its instant, is thinned out as long as it is given.
TOLD: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Entry:
    """A transition on record. ``case``: what it was decided by (``Transition.case``); of a pause ``by`` and ``reason``.

    ``score``: after it; None, when one is put on record: that of the newest look.
    """

    provider: str
    at: datetime
    kind: str
    score: float | None
    case: Mapping[str, Any]

    @classmethod
    def of(cls, transition: Transition) -> Entry:
        """What is put on record of a demotion or promotion."""
        score = transition.parts.score(transition.after)
        return cls(transition.provider, transition.at, transition.kind, score, transition.case)

    def as_dict(self) -> dict[str, Any]:
        """The transition as answers show it; times are datetimes, those of samples texts."""
        return {
            "provider": self.provider,
            "at": self.at,
            "kind": self.kind,
            "score": self.score,
            "case": dict(self.case),
        }


def take_turn(connection: Connection) -> bool:
    """Whether this transaction may take the snapshot; False while another one does."""
    return bool(connection.execute(_SQL["take_turn"]).scalar_one())


def add_looks(
    connection: Connection, standings: Sequence[Standing], now: datetime, policy_version: int | None = None
) -> set[str]:
    """Keep how providers stand; returns those of whom no look of the same moment was kept."""
    connection.execute(_SQL["hold_record"])
    values: dict[str, Any] = {
        "policy_version": policy_version,
        "at": now,
        "providers": [each.name for each in standings],
        "scores": [each.score for each in standings],
        "states": [each.state for each in standings],
        "latencies": [each.parts.latency for each in standings],
        "errors": [each.parts.errors for each in standings],
        "completenesses": [each.parts.completeness for each in standings],
        "requests": [each.requests for each in standings],
    }
    return set(connection.execute(_SQL["add_looks"], values).scalars())


def looks(connection: Connection, name: str, since: datetime, step_s: float) -> list[dict[str, Any]]:
    """How a provider stood since then, as plain rows, the oldest first.

    ``from_at`` of each stretch of ``step_s`` seconds that holds a look; of the worst look in it ``at``, ``score``,
    ``state`` and the parts.
    """
    rows = connection.execute(_SQL["looks"], {"provider": name, "since": since, "step_s": step_s})
    return [dict(row._mapping) for row in rows]


def add_transition(connection: Connection, entry: Entry) -> bool:
    """Put a transition on record; False when it was there already."""
    values = {
        "provider": entry.provider,
        "at": entry.at,
        "kind": entry.kind,
        "score": entry.score,
        "case": json.dumps(entry.case, default=_as_text),
    }
    connection.execute(_SQL["hold_record"])
    return connection.execute(_SQL["add_transition"], values).one_or_none() is not None


def _as_text(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def transitions(connection: Connection, name: str | None = None, most: int = 10) -> list[Entry]:
    """The newest transitions of a provider, or of all, the newest first."""
    rows = connection.execute(_SQL["transitions"], {"provider": name, "most": most})
    return [Entry(row.provider, row.at, row.kind, row.score, row.case) for row in rows]


@dataclass(frozen=True, slots=True)
class Look:
    """How a provider stood at a moment. ``requests``: made until then, as Redis counted."""

    provider: str
    at: datetime
    score: float
    state: str
    parts: Parts
    requests: int
    policy_version: int | None

    def as_dict(self) -> dict[str, Any]:
        """The look as a history shows it."""
        return {"timestamp": self.at, "health_score": self.score, "state": self.state, "parts": asdict(self.parts)}


def settled_until(connection: Connection) -> datetime:
    """Wait for whoever is writing the record: up to this moment of the server's clock nothing more comes to it."""
    connection.execute(_SQL["await_record"])
    found: datetime = connection.execute(_SQL["clock"]).scalar_one()
    return found


def looks_by(connection: Connection, as_of: datetime, reach: timedelta, name: str | None = None) -> list[Look]:
    """The looks of so long before an instant that were on record by then, by provider, the oldest first."""
    rows = connection.execute(_SQL["looks_by"], {"as_of": as_of, "reach": reach, "provider": name})
    return [
        Look(
            row.provider,
            row.at,
            row.score,
            row.state,
            Parts(row.latency, row.errors, row.completeness),
            row.requests,
            row.policy_version,
        )
        for row in rows
    ]


def last_by(connection: Connection, as_of: datetime, name: str | None = None) -> list[Entry]:
    """Of each provider its last demotion or promotion and its last pause or resumption on record by an instant."""
    rows = connection.execute(_SQL["last_by"], {"as_of": as_of, "provider": name})
    return [Entry(*row) for row in rows]


def hold_pauses(connection: Connection) -> None:
    """Hold off all other changes of pauses, and copies of them, until this transaction ends."""
    connection.execute(_SQL["hold_pauses"])


def pauses(connection: Connection) -> dict[str, Pause]:
    """Who is paused: name -> by whom, why and since when."""
    return {row.provider: Pause(row.paused_by, row.reason, row.at) for row in connection.execute(_SQL["pauses"])}


def add_pause(connection: Connection, name: str, pause: Pause) -> None:
    """Pause a provider that is not; its texts are ``storable``. Call ``hold_pauses`` before what decided it."""
    connection.execute(_SQL["add_pause"], {"provider": name, "by": pause.by, "reason": pause.reason, "at": pause.at})


def drop_pause(connection: Connection, name: str) -> None:
    """Let a provider no longer be paused. Idempotent."""
    connection.execute(_SQL["drop_pause"], {"provider": name})


def forget(connection: Connection, now: datetime) -> dict[str, int]:
    """Drop what is too old and thin out old looks; how much went. A second time changes nothing."""
    before = {"before": now - KEPT}
    pruned = connection.execute(_SQL["prune_looks"], before).rowcount
    pruned += connection.execute(_SQL["prune_transitions"], before).rowcount
    thinned = connection.execute(_SQL["thin_looks"], {"before": now - KEPT_WHOLE}).rowcount
    return {"pruned": pruned, "thinned": thinned}
