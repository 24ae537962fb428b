"""What the tests of the policy share: a clock that they move, processes that follow it, candidates."""

from __future__ import annotations

from datetime import UTC, datetime

from mdtasks.flows.deps import Deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_watch import PolicyWatch

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)
ME = Asked("me@here", "why not")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def watch(deps: Deps, clock: Clock, name: str = "one@here/1", **environ: str) -> PolicyWatch:
    return PolicyWatch(deps.database, deps.state, environ, process=name, clock=clock)


def attempts(number: int) -> bytes:
    return f"retry: {{attempts: {number}}}".encode()
