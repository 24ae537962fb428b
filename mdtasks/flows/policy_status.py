"""Who follows which version of the policy, and who is behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mdtasks.domain.errors import StackNotRunningError
from mdtasks.flows.policies import newest
from mdtasks.flows.policy_facts import Desk
from mdtasks.flows.policy_watch import Word, words
from mdtasks.store import policies
from mdtasks.store.policies import Version

#: A process that looked for the policy so long after a version was made and still runs another one lags, seconds.
GRACE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How one process stands: ``current``; ``idle``: it has not looked since, and will before its next piece of work;
    ``lags``: it has looked and runs another version; ``refuses``: it cannot follow it, and ``why``.
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
        return {"process": word.process, "state": self.state, **about, "error": self.why}


@dataclass(frozen=True, slots=True)
class Status:
    """The version that holds, and who runs what. ``announced``: what Redis tells of; None: nothing."""

    version: Version
    announced: int | None
    standings: tuple[Standing, ...]

    @property
    def behind(self) -> list[Standing]:
        """Those that run another version although they have looked."""
        return [each for each in self.standings if each.is_behind]

    def as_dict(self) -> dict[str, Any]:
        processes = [each.as_dict() for each in self.standings]
        counts = {"processes": processes, "behind": len(self.behind)}
        return {**self.version.as_dict(), "announced": self.announced, **counts}


def status(desk: Desk, now: datetime) -> Status:
    """Who runs which version. Raises StackNotRunningError, StoreUnavailableError, BrokerUnavailableError."""
    version = newest(desk)
    if desk.state is None:
        raise StackNotRunningError(str(desk.settings.home))
    found = tuple(standing(word, version) for word in words(desk.state, now))
    return Status(version, policies.announced(desk.state), found)


def standing(word: Word, version: Version) -> Standing:
    """How a process that left this word stands while this version holds."""
    if word.version == version.version:
        return Standing(word, "current")
    if word.refused == version.version:
        return Standing(word, "refuses", word.error)
    made = version.created_at
    looked = made is None or (word.seen - made).total_seconds() > GRACE_S
    return Standing(word, "lags" if looked else "idle")
