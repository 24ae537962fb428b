"""What may be wrong between a commit and the live stream's clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from mdtasks.flows import replay
from mdtasks.flows.deps import Deps
from mdtasks.flows.runbooks.findings import Finding, Repair
from mdtasks.flows.runbooks.process_checks import spoken
from mdtasks.flows.runbooks.view import View

#: Whoever commits publishes right after; beat sweeps up what is left every few seconds.
_LATE_S: Final = 15.0


def unpublished(view: View) -> Iterator[Finding]:
    """Commits wait to be told to the replay buffer."""
    waiting = view.unpublished
    if waiting.rows and waiting.oldest_age_s > _LATE_S:
        seen = f"{waiting.rows:,} commits wait, the oldest for {spoken(waiting.oldest_age_s)}"
        yield Finding("the replay buffer is not told of commits", 0.9, Repair("publish what waits", _sweep), (seen,))


def _sweep(deps: Deps, _actor: str) -> Mapping[str, Any]:
    return {"published": replay.sweep(deps, datetime.now(UTC))}
