"""One look at the live system: each thing is read when a check first asks for it, and once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property, partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from mdtasks.connections import translated_redis_errors
from mdtasks.domain.health import Standing
from mdtasks.domain.jobs import Tier
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import GRACE_S, Proof, last_proof
from mdtasks.flows.doctor import Check, examine_horizons, examine_servers, heard_workers
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.policy_status import Status, status
from mdtasks.flows.providers import standings
from mdtasks.queue import backlog
from mdtasks.store import evidence, jobs, letters, outbox, providers
from mdtasks.store.evidence import Outcome, TierWork
from mdtasks.store.providers import Entry

T = TypeVar("T")
#: What ProviderDown looks at, minutes: a provider that was ill before that may be well.
NOW_MINUTES: Final = 5


class View:
    """The system as checks see it. Whatever cannot be read raises UnavailableError where it is asked for."""

    def __init__(self, deps: Deps, now: datetime) -> None:
        self.deps = deps
        self.now = now
        self._transitions: dict[str, list[Entry]] = {}

    def _stored(self, read: Callable[[Connection], T]) -> T:
        with self.deps.database.transaction() as connection:
            return read(connection)

    @cached_property
    def servers(self) -> list[Check]:
        """PostgreSQL and Redis as the doctor finds them."""
        return examine_servers(self.deps)

    @cached_property
    def horizons(self) -> Check:
        """Whether calendars reach far enough."""
        return examine_horizons(self.deps, self.now)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Messages in each queue."""
        return backlog.depths(self.deps.broker)

    @cached_property
    def heard(self) -> set[str]:
        """Workers that say that they live; listens for 2.5 s."""
        return heard_workers(self.deps)

    @cached_property
    def memory(self) -> tuple[int, int]:
        """Bytes that Redis uses, and may use (0: no limit)."""
        with translated_redis_errors():
            about: dict[str, Any] = self.deps.broker.info("memory")
        return int(about["used_memory"]), int(about.get("maxmemory") or 0)

    @cached_property
    def proof(self) -> Proof | None:
        """The reconciler's last proof."""
        return last_proof(self.deps)

    @property
    def proof_age_s(self) -> float:
        """Seconds since that proof; infinite when there was none."""
        if self.proof is None:
            return float("inf")
        return max((self.now - datetime.fromisoformat(self.proof.at)).total_seconds(), 0.0)

    @cached_property
    def policy(self) -> Status:
        """The policy that holds, and which process runs which version."""
        return status(desk_of(self.deps), self.now)

    @cached_property
    def lost(self) -> int:
        """Rows that count as queued and have no message anywhere."""
        queued = self._stored(lambda connection: jobs.queued_before(connection, GRACE_S))
        seen = backlog.sightings(self.deps.broker) if queued else None
        return sum(each not in seen for each in queued) if seen is not None else 0

    @cached_property
    def work(self) -> dict[Tier, TierWork]:
        """Backfills of each tier that has some."""
        return {each.tier: each for each in self._stored(evidence.waiting)}

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """How attempts of the last half hour ended."""
        return self._stored(evidence.outcomes)

    @cached_property
    def outcomes_now(self) -> list[Outcome]:
        """How attempts ended within the time that the alert of providers looks at."""
        return self._stored(partial(evidence.outcomes, minutes=NOW_MINUTES))

    @cached_property
    def standings(self) -> list[Standing]:
        """How the configured providers stand."""
        return standings(self.deps)

    def transitions_of(self, name: str) -> list[Entry]:
        """The newest transitions of a provider, the newest first."""
        if name not in self._transitions:
            self._transitions[name] = self._stored(partial(providers.transitions, name=name))
        return self._transitions[name]

    def case_of(self, standing: Standing) -> Mapping[str, Any] | None:
        """The case file of a provider's last demotion; None: it is not on record yet."""
        newest = self.transitions_of(standing.name)
        return next((each.case for each in newest if each.kind == "demoted" and each.at == standing.since), None)

    @cached_property
    def letters(self) -> list[dict[str, Any]]:
        """Open dead letters by cause."""
        return self._stored(letters.groups)

    @cached_property
    def gaps(self) -> list[Mapping[str, Any]]:
        """Open gaps."""
        return list(self._stored(evidence.open_gaps))

    @cached_property
    def quarantined(self) -> list[dict[str, Any]]:
        """Bars refused within the last hour."""
        return self._stored(evidence.quarantined)

    @cached_property
    def freshness(self) -> list[dict[str, Any]]:
        """How far the series of each exchange reach."""
        return self._stored(evidence.freshness)

    @cached_property
    def blocked(self) -> list[dict[str, Any]]:
        """Who waits for whose lock in PostgreSQL."""
        return self._stored(evidence.blocked)

    @cached_property
    def unpublished(self) -> outbox.Pending:
        """Commits that the replay buffer has not heard of."""
        return self._stored(outbox.pending)

    @cached_property
    def last_look(self) -> datetime | None:
        """When the monitor of the objectives last looked."""
        return self._stored(evidence.last_look)
