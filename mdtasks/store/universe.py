"""Versions of the universe at rest, and which held when: neither is ever changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from mdtasks.connections import load_statements, storable
from mdtasks.domain.errors import NotFoundError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.universe import Member
from mdtasks.domain.versions import Header, members_bytes, sha256

_SQL: Final = load_statements("mdtasks.store.sql", "universe.sql")
_SELECT: Final = _SQL["columns"].text


@dataclass(frozen=True, slots=True)
class Version:
    """A version on record, without its members. ``parent``: the tag of the version that held when it was made."""

    version: int
    version_tag: str
    hash: str
    source_meta: Mapping[str, Any]
    header: str
    members: int
    members_sha256: str
    parent: str | None
    policy_version: int
    created_by: str
    created_at: datetime
    active: bool

    def as_dict(self) -> dict[str, Any]:
        """As HTTP and ``--json`` show it."""
        header = json.loads(self.header)
        return {
            "version_tag": self.version_tag,
            "hash": self.hash,
            "active": self.active,
            "source": header["source"],
            "as_of": header["as_of"],
            "rules": header["rules"],
            "terms": header["terms"],
            "inputs": [*header["listings"], header["keys"], *filter(None, [header["traded"]])],
            "source_meta": dict(self.source_meta),
            "members": self.members,
            "members_sha256": self.members_sha256,
            "parent": self.parent,
            "policy_version": self.policy_version,
            "created_by": self.created_by,
            "created_at": self.created_at,
        }


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version that is to be kept."""

    tag: str
    header: Header
    members: Sequence[Member]
    source_meta: Mapping[str, Any]
    parent: int | None
    policy_version: int
    created_by: str


def add(connection: Connection, new: NewVersion) -> Version:
    """Keep a version with its members. The caller holds the lock of the universe, so tag and hash are free."""
    values = {
        "version_tag": new.tag,
        "hash": new.header.hash,
        "source_meta": json.dumps(new.source_meta),
        "header": new.header.text(),
        "members": len(new.members),
        "members_sha256": sha256(members_bytes(new.members)),
        "parent": new.parent,
        "policy_version": new.policy_version,
        "created_by": storable(new.created_by),
    }
    version = connection.execute(_SQL["add"], values).scalar_one()
    columns = {
        "instruments": [one.instrument for one in new.members],
        "symbols": [one.symbol for one in new.members],
        "tiers": [one.tier.value for one in new.members],
        "ranks": [one.rank for one in new.members],
        "scores": [one.score for one in new.members],
    }
    connection.execute(_SQL["add_members"], {"version": version, **columns})
    found = _one(connection, "v.version = :value", version)
    assert found is not None
    return found


def _one(connection: Connection, where: str, value: object) -> Version | None:
    row = connection.execute(text(f"{_SELECT} WHERE {where}"), {"value": value}).one_or_none()
    return None if row is None else Version(**row._mapping)


def by_tag(connection: Connection, tag: str) -> Version | None:
    """The version of that name."""
    return _one(connection, "v.version_tag = :value", tag)


def by_hash(connection: Connection, content: str) -> Version | None:
    """The version of these inputs, rules and parameters."""
    return _one(connection, "v.hash = :value", content)


def one(connection: Connection, tag: str) -> Version:
    """The version of that name. Raises NotFoundError."""
    found = by_tag(connection, tag)
    if found is None:
        raise NotFoundError(
            f"no universe version {tag[:100]!r}", hint="`mdtasks universe versions` lists those that there are"
        )
    return found


def active(connection: Connection, at: datetime | None = None) -> Version | None:
    """The version that held at a moment (None: that holds); None before the first."""
    version = connection.execute(_SQL["active"], {"at": at}).scalar_one_or_none()
    return None if version is None else _one(connection, "v.version = :value", version)


def chosen(connection: Connection, tag: str | None = None, as_of: datetime | None = None) -> Version:
    """The version of a tag; for none, or ``ACTIVE``, the one that holds, or did then. Raises NotFoundError."""
    if tag is not None and tag != "ACTIVE":
        return one(connection, tag)
    held = active(connection, as_of)
    if held is None:
        what = "no version was ever activated" if as_of is None else f"no version held at {as_of.isoformat()}"
        raise NotFoundError(
            what,
            hint="`mdtasks universe history` shows from when on one did, `mdtasks universe versions` what there is",
        )
    return replace(held, active=True)


def members_of(connection: Connection, tag: str) -> list[Member]:
    """The members of a version by its tag, or of the one that holds, ``ACTIVE``: nobody before the first activation.

    Raises NotFoundError.
    """
    version = active(connection) if tag == "ACTIVE" else one(connection, tag)
    return [] if version is None else members(connection, version.version)


def history(connection: Connection, limit: int = 50) -> list[Version]:
    """The newest versions, newest first."""
    rows = connection.execute(text(f"{_SELECT} ORDER BY v.version DESC LIMIT :limit"), {"limit": limit})
    return [Version(**row._mapping) for row in rows]


def members(connection: Connection, version: int, tier: Tier | None = None, limit: int | None = None) -> list[Member]:
    """Who is in a version, by rank."""
    rows = connection.execute(_SQL["members"], {"version": version, "tier": tier and tier.value, "limit": limit})
    return [Member(row[0], row[1], Tier(row[2]), row[3], row[4]) for row in rows]


def tier_counts(connection: Connection, version: int) -> dict[str, int]:
    """How many members each tier of a version has."""
    found = {row[0]: row[1] for row in connection.execute(_SQL["tier_counts"], {"version": version})}
    return {tier.value: found.get(tier.value, 0) for tier in Tier}


@dataclass(frozen=True, slots=True)
class Activation:
    """A version that held from ``activated_at`` on. ``counts``: what that changed."""

    id: int
    version_tag: str
    actor: str
    reason: str
    activated_at: datetime
    counts: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def activate(connection: Connection, version: Version, actor: str, reason: str) -> Activation:
    """Let a version hold: tiers, waiting jobs and gaps follow in this transaction. The caller holds the lock.

    Counts: ``came`` (nobody followed them before), ``up``, ``down``, ``left``; ``jobs_moved``, ``jobs_staying`` (they
    end in the tier that they were sent in); ``gaps_withdrawn``.
    """
    held = connection.execute(_SQL["active"], {"at": None}).scalar_one_or_none()
    about = {"version": version.version, "tag": version.version_tag}
    moves = connection.execute(_SQL["move"], about).all()
    left = connection.execute(_SQL["leave"], {**about, "held": held}).all()
    changed = [*moves, *left]
    ids = {"instruments": [row.id for row in changed], "tiers": [row.before or "T2" for row in changed]}
    counts = {
        "came": sum(row.before is None for row in moves),
        "up": sum(row.before is not None and row.after < row.before for row in moves),
        "down": sum(row.before is not None and row.after > row.before for row in moves),
        "left": len(left),
        "jobs_moved": connection.execute(_SQL["move_jobs"], ids).rowcount,
        "jobs_staying": connection.execute(_SQL["staying_jobs"], ids).scalar_one(),
        "gaps_withdrawn": connection.execute(_SQL["withdraw_gaps"], {"instruments": [row.id for row in left]}).rowcount,
    }
    values = {"actor": storable(actor), "reason": storable(reason), "counts": json.dumps(counts)}
    row = connection.execute(_SQL["activate"], {"version": version.version, **values}).one()
    details = {"version": version.version_tag, "hash": version.hash, "reason": values["reason"], **counts}
    connection.execute(_SQL["audit"], {"actor": values["actor"], "details": json.dumps(details)})
    return Activation(row.id, version.version_tag, values["actor"], values["reason"], row.activated_at, counts)


def activations(connection: Connection, limit: int = 50) -> list[Activation]:
    """Which version held from when on, the newest first."""
    return [Activation(**row._mapping) for row in connection.execute(_SQL["activations"], {"limit": limit})]
