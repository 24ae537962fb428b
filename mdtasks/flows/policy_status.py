"""Who follows which version of the policy, and who is behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mdtasks.domain.errors import StackNotRunningError
from mdtasks.flows.policy_facts import Desk
from mdtasks.flows.policy_watch import Word, words
from mdtasks.store import canaries, policies
from mdtasks.store.canaries import Canary
from mdtasks.store.policies import Version

#: A process that looked for the policy so long after a version was made and still runs another one lags, seconds.
GRACE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How one process stands: ``current``; ``canary``: it tries the version that it is to try; ``idle``: it has not
    looked since, being in the midst of a piece of work; ``lags``: it has looked and runs another version; ``refuses``:
    it cannot follow it, and ``why``.
    """

    word: Word
    state: str
    why: str = ""

    @property
    def is_behind(self) -> bool:
        """Whether it runs another version although it has looked."""
        return self.state in ("lags", "refuses")

    def as_dict(self) -> dict[str, Any]:
        word = self.word
        about = {"policy_version": word.version, "hash": word.hash, "since": word.since, "seen": word.seen}
        return {"process": word.process, "serves": word.serves, "state": self.state, **about, "error": self.why}


@dataclass(frozen=True, slots=True)
class Status:
    """The version that holds, the one that a tier tries, and who runs what. ``announced``: what Redis tells of; None:
    nothing.
    """

    version: Version
    announced: int | None
    standings: tuple[Standing, ...]
    canary: Canary | None = None

    @property
    def behind(self) -> list[Standing]:
        """Those that run another version although they have looked."""
        return [each for each in self.standings if each.is_behind]

    def as_dict(self) -> dict[str, Any]:
        processes = [each.as_dict() for each in self.standings]
        counts = {"processes": processes, "behind": len(self.behind)}
        canary = self.canary.as_dict() if self.canary is not None else None
        return {**self.version.as_dict(), "announced": self.announced, "canary": canary, **counts}


def status(desk: Desk, now: datetime) -> Status:
    """Who runs which version. Raises StackNotRunningError, StoreUnavailableError, BrokerUnavailableError."""
    if desk.state is None or desk.database is None:
        raise StackNotRunningError(str(desk.settings.home))
    with desk.database.transaction() as connection:
        version, canary = policies.newest(connection), canaries.being_tried(connection)
    found = tuple(standing(word, version, canary) for word in words(desk.state, now))
    return Status(version, policies.announced(desk.state)[0], found, canary)


def standing(word: Word, version: Version, canary: Canary | None = None) -> Standing:
    """How a process that left this word stands while this version holds and a tier tries that one."""
    tries = canary is not None and word.serves == canary.tier
    wanted, made = (canary.version, canary.began_at) if tries and canary else (version.version, version.created_at)
    if word.version == wanted:
        return Standing(word, "canary" if tries else "current")
    if word.refused == wanted:
        return Standing(word, "refuses", word.error)
    looked = made is None or (word.seen - made).total_seconds() > GRACE_S
    return Standing(word, "lags" if looked else "idle")
