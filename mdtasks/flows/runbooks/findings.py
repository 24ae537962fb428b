"""What a look at the system finds: a likely cause with its evidence, and how it is repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mdtasks.flows.deps import Deps

#: Does a repair: the deps and who asks for it; tells what was done.
Act = Callable[[Deps, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Repair:
    """What to do, in words that can be typed; ``act`` where mdtasks can do it itself."""

    words: str
    act: Act | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause that fits what is seen. ``likelihood``: 0 to 1, of it being why the alert fires."""

    cause: str
    likelihood: float
    repair: Repair
    evidence: tuple[str, ...] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """The finding for scripts."""
        return {
            "cause": self.cause,
            "likelihood": round(self.likelihood, 2),
            "evidence": list(self.evidence),
            "repair": self.repair.words,
            "automatic": self.repair.act is not None,
        }
