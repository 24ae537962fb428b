"""Where policies are judged: what is known here of providers, symbols, queues and memory, and which file is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from mdtasks.connections import Database, Redis, translated_redis_errors
from mdtasks.domain.errors import InvalidRequestError, MdtasksError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy import Facts, Offer
from mdtasks.domain.policy.reading import MAX_BYTES
from mdtasks.flows.deps import Deps
from mdtasks.providers.base import Provider
from mdtasks.providers.registry import Registry
from mdtasks.queue import backlog
from mdtasks.queue.app import backfill_queue
from mdtasks.settings import Settings, policy_variables
from mdtasks.settings.vendors import LOCAL, VENDORS
from mdtasks.store import snapshots

T = TypeVar("T")

#: The name of the policy's file in a home.
FILE: Final = "policy.yaml"
#: Minutes of a usual session, and of a day that always trades.
_SESSION: Final = 390
_DAY: Final = 1440


@dataclass(frozen=True, slots=True)
class Desk:
    """What a policy is judged with. Without servers (None) it is judged by itself and the providers alone."""

    settings: Settings
    registry: Registry
    environ: Mapping[str, str] = field(default_factory=dict)
    database: Database | None = None
    broker: Redis | None = None
    state: Redis | None = None


def desk_of(deps: Deps) -> Desk:
    """The desk of a running stack."""
    return Desk(deps.settings, deps.registry, deps.policy.environ, deps.database, deps.broker, deps.state)


def desk_without_servers(settings: Settings) -> Desk:
    """A desk where no stack runs."""
    return Desk(settings, Registry(settings), policy_variables(settings))


def gather(desk: Desk, now: datetime) -> tuple[Facts, list[str]]:
    """What is known, and what could not be looked at and why. Never fails for a server that is away."""
    unseen: list[str] = []

    def unless_away(what: str, look: Callable[[], T], otherwise: T) -> T:
        try:
            return look()
        except MdtasksError as error:
            unseen.append(f"{what}: {error.message}")
            return otherwise

    nobody: dict[Tier, dict[str, int]] = {}
    members = unless_away("symbols", lambda: _members(desk, now), nobody)
    symbols = {tier: sum(found.values()) for tier, found in members.items()}
    always = any("24/7" in found for found in members.values())
    names = desk.registry.names()
    return Facts(
        known=(*VENDORS, *LOCAL),
        offers={name: _offer(desk.registry.get(name)) for name in names},
        # As the registry has it: made-up data never stands in for real data.
        default_order=tuple([name for name in names if name.partition("_")[0] != "simulator"] or names),
        symbols=symbols if any(symbols.values()) else {},
        depths=unless_away("queues", lambda: _depths(desk), {}),
        broker_bytes=unless_away("the broker's memory", lambda: _memory(desk), None),
        session_minutes=_DAY if always else _SESSION,
    ), unseen


def _offer(provider: Provider) -> Offer:
    told = provider.capabilities
    return Offer(
        provider.name,
        frozenset(interval.value for interval in told.intervals),
        told.quotes,
        told.max_symbols,
        told.rates,
        {interval.value: longest.total_seconds() for interval, longest in told.windows.items()},
        told.listing,
    )


def _members(desk: Desk, now: datetime) -> dict[Tier, dict[str, int]]:
    if desk.database is None:
        return {}
    with desk.database.transaction() as connection:
        return snapshots.population(connection, now)


def _depths(desk: Desk) -> dict[Tier, int]:
    if desk.broker is None:
        return {}
    found = backlog.depths(desk.broker)
    return {tier: found[backfill_queue(tier)] for tier in Tier}


def _memory(desk: Desk) -> int | None:
    """What the broker may use: its own bound, else all that its machine has."""
    if desk.broker is None:
        return None
    with translated_redis_errors():
        told = desk.broker.info("memory")
    return int(told.get("maxmemory") or 0) or int(told.get("total_system_memory") or 0) or None


def policy_file(settings: Settings) -> Path:
    """The file that is read where no candidate is given: the named one, else the home's, else the shipped defaults."""
    if settings.policy_file is not None:
        return settings.policy_file
    own = settings.home / FILE
    return own if own.is_file() else shipped_file()


def shipped_file() -> Path:
    """The policy that mdtasks brings: beside the modules in a wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    found = package / "config" / FILE
    return found if found.is_file() else package.parent / "config" / FILE


def read_file(path: Path) -> bytes:
    """A candidate from a file: one byte more than may be at most, which is then refused by its size.

    Raises InvalidRequestError when it cannot be read.
    """
    try:
        with path.expanduser().open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as exc:
        raise InvalidRequestError(
            f"cannot read the policy from {path}: {exc.strerror}",
            field="file",
            hint="name a YAML or JSON file, or - for standard input; `mdtasks policy show --stored` writes one",
        ) from exc
