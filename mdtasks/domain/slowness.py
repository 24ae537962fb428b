"""When a provider call is slow: longer than a fixed time, or than several times what this provider usually takes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

#: Calls that must be known of a provider before its own p95 says anything, and how many of the latest are looked at.
LEAST_CALLS: Final = 30
RECENT_CALLS: Final = 200
#: Nothing that is quicker than this is slow because its provider is usually quicker still, seconds.
FLOOR_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class SlowRule:
    """``slow_s``: slow is what takes longer, seconds. ``p95_factor``: or so many times the provider's p95; 0: never."""

    slow_s: float = 2.0
    p95_factor: float = 3.0

    def threshold_s(self, p95_s: float | None) -> float:
        """The time from which a call is slow, seconds; ``p95_s`` of the calls before it, None: not known yet.

        Never above ``slow_s``, and never below FLOOR_S on the word of the p95 alone.
        """
        if not self.p95_factor or p95_s is None:
            return self.slow_s
        return min(self.slow_s, max(FLOOR_S, self.p95_factor * p95_s))


@dataclass(slots=True)
class Latencies:
    """The latest calls of one provider and capability, seconds each."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_CALLS))

    def add(self, latency_s: float) -> None:
        """Remember a call, failed ones too: waiting for an error is waiting."""
        self.recent.append(latency_s)

    @property
    def p95_s(self) -> float | None:
        """The nearest-rank 95th percentile; None while fewer than LEAST_CALLS are known."""
        if len(self.recent) < LEAST_CALLS:
            return None
        ordered = sorted(self.recent)
        return ordered[-(-len(ordered) * 95 // 100) - 1]
