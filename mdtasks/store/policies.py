"""The policy at rest: versions that are never changed, of which the newest holds; and its number in Redis. One that a
tier's workers try (``store.canaries``) holds only once it is promoted.

PostgreSQL is the truth. The key in Redis says only that there is something new to read there: when it is lost, late or
wrong, whoever reads PostgreSQL next puts it right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from mdtasks.connections import Redis, load_script, load_statements, storable, translated_redis_errors
from mdtasks.domain.errors import CanaryError, NotFoundError, PolicyChangedError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy import Policy, canonical, digest
from mdtasks.store import canaries
from mdtasks.store.canaries import Canary

_SQL: Final = load_statements("mdtasks.store.sql", "policies.sql")
_ANNOUNCE: Final = load_script("mdtasks.store", "announce.lua")

#: The newest version that somebody has told of, in Redis; and where it is told of at once, to whoever listens.
VERSION_KEY: Final = "mdtasks:policy:version"
CHANNEL: Final = "mdtasks:policy"
#: The last version that a process followed, as JSON: for those that begin while PostgreSQL is away.
CONTENT_KEY: Final = "mdtasks:policy:content"
#: Versions bear numbers of PostgreSQL's bigint.
_LAST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Version:
    """A version on record. ``version`` 0 is the defaults, which no row holds."""

    version: int
    hash: str
    body: Mapping[str, Any]
    author: str
    reason: str
    parent: int
    restores: int | None
    created_at: datetime | None
    #: What became of its canary, in words, where the workers of one tier tried it first; told by ``history`` alone.
    canary: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All but the content."""
        return {
            "policy_version": self.version,
            "hash": self.hash,
            "author": self.author,
            "reason": self.reason,
            "parent": self.parent,
            "restores": self.restores,
            "created_at": self.created_at,
            **({"canary": self.canary} if self.canary else {}),
        }


def defaults() -> Version:
    """What holds before anything was applied."""
    policy = Policy()
    return Version(0, digest(policy), policy.model_dump(mode="json"), "mdtasks", "the defaults", 0, None, None)


def newest(connection: Connection) -> Version:
    """The version that holds; the defaults when nothing was ever applied."""
    row = connection.execute(_SQL["newest"]).one_or_none()
    return defaults() if row is None else Version(**row._mapping)


def holding_at(connection: Connection, at: datetime) -> Version:
    """The version that held at an instant; the defaults where nothing had been applied."""
    row = connection.execute(_SQL["holding_at"], {"at": at}).one_or_none()
    return defaults() if row is None else Version(**row._mapping)


def newest_version(connection: Connection) -> int:
    """The number of the version that holds; 0: the defaults."""
    return int(connection.execute(_SQL["newest_version"]).scalar_one())


def one(connection: Connection, version: int) -> Version:
    """One version; 0 is the defaults. Raises NotFoundError."""
    if version == 0:
        return defaults()
    found = None
    if 0 < version <= _LAST:
        found = connection.execute(_SQL["one"], {"version": version}).one_or_none()
    if found is None:
        raise NotFoundError(f"no policy version {version}", hint="`mdtasks policy history` shows those that there are")
    return Version(**found._mapping)


def history(connection: Connection, limit: int = 50) -> list[Version]:
    """The newest versions, newest first, without the defaults."""
    return [Version(**row._mapping) for row in connection.execute(_SQL["history"], {"limit": limit})]


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes the policy, why, and which version they believe to hold. ``restores``: of a rollback. ``canary``: the
    tier whose workers try it first, and for how many seconds.
    """

    author: str
    reason: str
    expected: int
    restores: int | None = None
    canary: tuple[Tier, float] | None = None


def apply(connection: Connection, policy: Policy, change: Change) -> tuple[Version, bool]:
    """Make a policy the newest version; the version that holds now, and whether it is new.

    One change at a time. The same content as the newest version makes no new one, whatever was expected, so that
    repeating a request whose answer was lost is safe. Raises PolicyChangedError when another version holds than was
    expected, CanaryError while a tier's workers try another one.
    """
    connection.execute(_SQL["lock"])
    holds = newest(connection)
    content = digest(policy)
    tried = canaries.being_tried(connection)
    if tried is not None:
        version = one(connection, tried.version)
        if change.canary and (version.hash, change.canary[0]) == (content, tried.tier):
            return version, False
        raise CanaryError(tried.version, tried.tier, by=version.author)
    if holds.hash == content:
        return holds, False
    if holds.version != change.expected:
        by, at = (holds.author, f"{holds.created_at:%Y-%m-%d %H:%M:%S}") if holds.created_at else ("", "")
        raise PolicyChangedError(holds.version, expected=change.expected, by=by, at=at)
    values = {
        "hash": content,
        "body": canonical(policy),
        "author": storable(change.author),
        "reason": storable(change.reason),
        "parent": holds.version,
        "restores": change.restores,
    }
    made = Version(**connection.execute(_SQL["add"], values).one()._mapping)
    if change.canary:
        canaries.begin(connection, made.version, *change.canary)
    return made, True


def holding(connection: Connection) -> tuple[int, Canary | None]:
    """The number of the version that holds, and the canary that is being tried."""
    return newest_version(connection), canaries.being_tried(connection)


def announced(state: Redis) -> tuple[int | None, str]:
    """The version that was told of last (None: none, or not a number), and the canary, ``Canary.told``, or "".

    Raises BrokerUnavailableError.
    """
    with translated_redis_errors():
        raw, tried = state.mget(VERSION_KEY, canaries.CANARY_KEY)
    version = int(raw) if isinstance(raw, bytes) and raw.isdigit() else None
    return version, tried.decode(errors="replace") if isinstance(tried, bytes) else ""


def announce(state: Redis, version: int, *, seen: int | None = None) -> None:
    """Tell of a version. Safe to repeat. Raises BrokerUnavailableError, StoreFullError.

    A change tells of its own, and never goes back behind a later one. Who has just read PostgreSQL gives what it had
    ``seen`` told before that (-1: nothing): the key becomes what was read unless somebody told of another meanwhile.
    """
    with translated_redis_errors():
        state.eval(_ANNOUNCE, 1, VERSION_KEY, version, "" if seen is None else seen, CHANNEL)


def keep(state: Redis, version: int, policy: Policy) -> None:
    """Keep a version that was followed, for processes that begin while PostgreSQL is away. Raises as ``announce``."""
    with translated_redis_errors():
        state.set(CONTENT_KEY, orjson.dumps({"version": version, "body": policy.model_dump(mode="json")}))


def kept(state: Redis) -> Version | None:
    """The version that was kept last; None: none. Raises BrokerUnavailableError."""
    with translated_redis_errors():
        raw = state.get(CONTENT_KEY)
    if not isinstance(raw, bytes):
        return None
    said = orjson.loads(raw)
    content = digest(Policy.model_validate(said["body"]))
    return Version(said["version"], content, said["body"], "", "kept in Redis", 0, None, None)
