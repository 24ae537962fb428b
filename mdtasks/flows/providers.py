"""Providers' health as people and beat deal with it: snapshots, transitions put on record, pauses.

The health itself is made in Redis, by whoever asks a provider (``store.health``). Here it is looked at, and what must
outlive Redis is written to PostgreSQL.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mdtasks.connections import storable
from mdtasks.domain.errors import ConflictError, InvalidRequestError, UnavailableError, UnknownProviderError
from mdtasks.domain.health import Pause, Standing
from mdtasks.domain.rates import Rate
from mdtasks.flows.deps import Deps
from mdtasks.store import evidence, jobs, providers
from mdtasks.store.providers import Entry

log = logging.getLogger(__name__)

_LONGEST_REASON: Final = 1000


def rates(deps: Deps) -> dict[str, tuple[Rate, ...]]:
    """The configured providers in default order, with what their accounts may ask."""
    return {name: deps.registry.get(name).capabilities.rates for name in deps.registry.names()}


def standings(deps: Deps) -> list[Standing]:
    """How the configured providers stand, in default order. Raises BrokerUnavailableError."""
    return deps.health.standings(rates(deps))


def snapshot_once(deps: Deps, now: datetime) -> dict[str, int]:
    """Look at every configured provider and keep it; put on record what Redis has decided since, and pauses back.

    Returns how many providers were looked at, ``transitions`` newly put on record, ``pauses`` mended in Redis and jobs
    ``woken``; ``busy`` 1: another run was at it. Safe to repeat and to be cut off anywhere: what is in Redis leaves it
    only when PostgreSQL has it, and enters that once. Raises BrokerUnavailableError, StoreUnavailableError.
    """
    mended = mirror_pauses(deps)
    counts = {"providers": 0, "transitions": 0, "woken": mended.woken, "pauses": mended.changed, "busy": 0}
    found, waiting = standings(deps), deps.health.waiting_transitions()
    with deps.database.transaction() as connection:
        if not providers.take_turn(connection):
            return {**counts, "busy": 1}
        kept = providers.add_looks(connection, found, now, deps.running.version)
        read = [each for each in waiting.values() if each is not None]
        added = [each for each in read if providers.add_transition(connection, Entry.of(each))]
        promoted = [each.provider for each in added if each.kind == "promoted"]
        counts["woken"] += jobs.wake_held(connection, promoted) if promoted else 0
    for raw in (raw for raw, each in waiting.items() if each is None):
        log.error("a transition cannot be read and is dropped: %r", raw)
    for each in (each for each in found if each.name in kept):
        deps.health.keep_history(each.name, {"timestamp": now, **each.look})
    deps.health.forget_transitions(waiting)
    return {**counts, "providers": len(found), "transitions": len(added)}


def forget_once(deps: Deps, now: datetime) -> dict[str, int]:
    """Drop what is too old to be asked for and thin out old looks; how much went."""
    with deps.database.transaction() as connection:
        return providers.forget(connection, now)


@dataclass(frozen=True, slots=True)
class Mended:
    """What a copy of the pauses to Redis changed there, and how many jobs no longer wait for it."""

    changed: int
    woken: int


def mirror_pauses(deps: Deps, also: Sequence[str] = ()) -> Mended:
    """Make Redis' copy of the pauses what PostgreSQL says, for the configured providers and ``also`` those named.

    What waited for one that is no longer paused goes out at once. One at a time: who reads PostgreSQL writes to Redis
    before anybody can change a pause. Idempotent. Raises BrokerUnavailableError, StoreUnavailableError.
    """
    with deps.database.transaction() as connection:
        providers.hold_pauses(connection)
        told = providers.pauses(connection)
        names = dict.fromkeys([*deps.registry.names(), *told, *also], ())
        held = {each.name: each.pause for each in deps.health.standings(names)}
        changed = [name for name in names if held[name] != told.get(name)]
        for name in changed:
            deps.health.pause(name, told.get(name))
        lifted = [name for name in changed if name not in told]
        return Mended(len(changed), jobs.wake_held(connection, lifted) if lifted else 0)


@dataclass(frozen=True, slots=True)
class Change:
    """A pause that was made or lifted. ``in_force``: Redis knows it already; else it will within ten seconds of its
    return.
    """

    provider: str
    state: str
    by: str
    reason: str
    at: datetime
    in_force: bool

    def as_dict(self) -> dict[str, Any]:
        """The change as answers show it."""
        return {name: getattr(self, name) for name in ("provider", "state", "by", "reason", "at", "in_force")}


def pause(name: str, reason: str, actor: str, deps: Deps, now: datetime) -> Change:
    """Leave a provider aside in every process until somebody resumes it; on record with who, when and why.

    Raises UnknownProviderError, InvalidRequestError (no reason), ConflictError (paused already, by whom),
    StoreUnavailableError. Redis that is away does not stop it.
    """
    reason, actor = _said(reason), storable(actor)
    if not reason:
        raise InvalidRequestError("reason is empty: say why", field="reason", hint="for example: invoice unpaid")
    if name not in deps.registry.names():
        raise UnknownProviderError(name, configured=deps.registry.names())
    made = Pause(actor, reason, now)
    with deps.database.transaction() as connection:
        providers.hold_pauses(connection)
        before = providers.pauses(connection).get(name)
        if before is not None:
            raise ConflictError(
                f"{name} is paused already, since {before.at:%Y-%m-%d %H:%M} UTC by {before.by}: {before.reason}",
                hint=f"`mdtasks providers resume {name}`",
            )
        providers.add_pause(connection, name, made)
        providers.add_transition(connection, Entry(name, now, "paused", None, {"by": actor, "reason": reason}))
        evidence.audit(connection, actor, "provider.pause", {"provider": name, "reason": reason})
    return Change(name, "paused", actor, reason, now, _takes_force(deps, name))


def resume(name: str, reason: str, actor: str, deps: Deps, now: datetime) -> Change:
    """Let a paused provider be asked again, also one that is no longer configured; ``reason`` may be empty.

    Raises UnknownProviderError, ConflictError (it is not paused), StoreUnavailableError.
    """
    reason, actor = _said(reason), storable(actor)
    with deps.database.transaction() as connection:
        providers.hold_pauses(connection)
        before = providers.pauses(connection).get(name)
        if before is None:
            if name not in deps.registry.names():
                raise UnknownProviderError(name, configured=deps.registry.names())
            raise ConflictError(f"{name} is not paused", hint=f"`mdtasks providers {name}` says how it stands")
        providers.drop_pause(connection, name)
        told = {"by": actor, "reason": reason, "paused": {"by": before.by, "reason": before.reason, "at": before.at}}
        providers.add_transition(connection, Entry(name, now, "resumed", None, told))
        evidence.audit(connection, actor, "provider.resume", {"provider": name, "reason": reason})
    return Change(name, "resumed", actor, reason, now, _takes_force(deps, name))


def _said(reason: str) -> str:
    reason = storable(reason).strip()
    if len(reason) > _LONGEST_REASON:
        raise InvalidRequestError(
            f"reason has {len(reason):,} characters", field="reason", hint=f"{_LONGEST_REASON:,} at most"
        )
    return reason


def _takes_force(deps: Deps, name: str) -> bool:
    """Tell Redis what PostgreSQL says now; False: it is away, and beat tells it when it is back."""
    try:
        mirror_pauses(deps, [name])
    except UnavailableError as away:
        log.warning("the pause of %s is on record and not yet in force: %s", name, away)
        return False
    return True
