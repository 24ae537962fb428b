"""How well a provider is: parts, score and the rules by which it is demoted and promoted.

The score follows the design: 0.45 breaker + 0.25 latency + 0.20 errors + 0.10 completeness, each part in [0, 1]. The
breaker is what the rules decide, so they go by the rest alone, brought to [0, 1]: the *evidence*. A request that
brought no answer counts 0 in every part of it. Latency, errors and completeness are exponentially weighted means over
requests, newest heaviest, kept in Redis for all processes (``store.health``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from mdtasks.domain.errors import (
    BadPayloadError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitedError,
    VendorError,
)

#: Share of each part in the score.
BREAKER: Final = 0.45
LATENCY: Final = 0.25
ERRORS: Final = 0.20
COMPLETENESS: Final = 0.10
#: What the newest request weighs in the means: after four failures in a row they are at 0.52.
WEIGHT: Final = 0.15
#: A request that takes no longer is fast (1); one that takes as long as the second is as slow as can be (0), seconds.
FAST_S: Final = 1.0
SLOW_S: Final = 10.0
#: A demoted provider that answers at least so often serves when every other one is out too; else it gets probes alone.
ANSWERS: Final = 0.2
#: The longest that a demoted one is left alone, seconds, where the cool-down itself is not longer.
LONGEST_COOLDOWN_S: Final = 300.0


#: Codes of samples that tell of no error: a request that was answered, and the judgement of an answer.
ANSWERED: Final = "ok"
JUDGED: Final = "answer"
#: The code of a sample that tells of bars which a third source, too, has otherwise.
DISAGREED: Final = "disagreement"


class Circuit(StrEnum):
    """What the breaker lets through: everything, nothing, or one probe at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"

    @property
    def value_of(self) -> float:
        """The breaker's part of the score, and the gauge ``circuit_state``."""
        return {Circuit.CLOSED: 1.0, Circuit.HALF_OPEN: 0.5, Circuit.OPEN: 0.0}[self]


class Kind(StrEnum):
    """What the outcome of a request says of its provider's health."""

    WELL = "well"
    ILL = "ill"
    #: It asked for patience (429): backpressure.
    PRESSED = "pressed"
    #: Nothing: a wrong key, an unknown symbol.
    NOTHING = "nothing"


def kind_of(error: ProviderError | None) -> Kind:
    """What an outcome says; None: the request was answered."""
    if error is None:
        return Kind.WELL
    if isinstance(error, RateLimitedError):
        return Kind.PRESSED
    return Kind.ILL if isinstance(error, VendorError | ProviderTimeoutError | BadPayloadError) else Kind.NOTHING


@dataclass(frozen=True, slots=True)
class Rules:
    """When a provider is demoted and promoted. Thresholds are of the evidence, times in seconds."""

    demote: float = 0.55
    promote: float = 0.70
    #: Requests that are needed before it is demoted; answered ones in a row before it is promoted.
    min_samples: int = 3
    cooldown_s: float = 60.0

    def left_alone_s(self, opened: int) -> float:
        """How long it is left alone when its breaker opened for the ``opened``-th time since it was last well."""
        return min(self.cooldown_s * 2.0 ** (opened - 1), max(self.cooldown_s, LONGEST_COOLDOWN_S))


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a score but the breaker, each in [0, 1]; 1: as well as can be."""

    latency: float = 1.0
    errors: float = 1.0
    completeness: float = 1.0

    @property
    def evidence(self) -> float:
        """What the rules go by, in [0, 1]."""
        total = LATENCY * self.latency + ERRORS * self.errors + COMPLETENESS * self.completeness
        return total / (LATENCY + ERRORS + COMPLETENESS)

    def score(self, circuit: Circuit) -> float:
        """The provider's score, in [0, 1]."""
        return BREAKER * circuit.value_of + (1 - BREAKER) * self.evidence

    @property
    def evidence_lines(self) -> list[str]:
        """How the evidence is come to, for people."""
        share = LATENCY + ERRORS + COMPLETENESS
        return [
            f"{LATENCY:.2f} x latency {self.latency:.3f} + {ERRORS:.2f} x errors {self.errors:.3f}"
            f" + {COMPLETENESS:.2f} x completeness {self.completeness:.3f} = {self.evidence * share:.3f}",
            f"evidence = {self.evidence * share:.3f} / {share:g} = {self.evidence:.3f}",
        ]

    def score_line(self, circuit: Circuit) -> str:
        """How the score is come to, for people."""
        return (
            f"score = {BREAKER:.2f} x breaker {circuit.value_of:g} + {1 - BREAKER:.2f} x evidence {self.evidence:.3f}"
            f" = {self.score(circuit):.3f}"
        )


def latency_part(latency_s: float) -> float:
    """How fast a request was: 1 up to FAST_S, 0 from SLOW_S on, in between by the logarithm of its time."""
    if latency_s <= FAST_S:
        return 1.0
    return max(0.0, 1.0 - math.log(latency_s / FAST_S) / math.log(SLOW_S / FAST_S))


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing learnt of a provider: the outcome of a request, or what the judgement of an answer found.

    ``code``: ``ok``, ``answer``, or the error's. ``latency_s``: of a request. ``completeness``: share of the trading
    time asked for that was answered for, in [0, 1]; ``stale_s``: trading time between the newest that came and what
    was due; ``disagreement``: share of the time called silent in which a second source had bars, or of bars that
    another source has otherwise. None: not looked at.
    """

    at: datetime
    endpoint: str
    code: str
    by: str = ""
    latency_s: float | None = None
    completeness: float | None = None
    stale_s: float | None = None
    disagreement: float | None = None

    @property
    def of_request(self) -> bool:
        """Whether it is the outcome of a request; else it is what a judgement found."""
        return self.code not in (JUDGED, DISAGREED)

    @property
    def failed(self) -> bool:
        """Whether it is the outcome of a request that was not answered."""
        return self.code not in (ANSWERED, JUDGED)


@dataclass(frozen=True, slots=True)
class Transition:
    """A demotion or promotion with its case file: what it was decided by."""

    provider: str
    at: datetime
    #: ``demoted``, ``promoted``, ``paused`` or ``resumed``.
    kind: str
    parts: Parts
    rules: Rules
    #: Answered requests in a row, and how often the breaker opened since the provider was last well.
    run: int
    opened: int
    samples: Sequence[Sample]

    @property
    def after(self) -> Circuit:
        """What the breaker was after it."""
        return Circuit.OPEN if self.kind == "demoted" else Circuit.CLOSED

    @property
    def arithmetic(self) -> list[str]:
        """How the decision was come to, line by line, for people."""
        parts, rules = self.parts, self.rules
        lines = parts.evidence_lines
        if self.kind == "demoted":
            lines.append(f"{parts.evidence:.3f} < {rules.demote:g} (BREAKER_DEMOTE_THRESHOLD)")
        else:
            lines.append(f"{self.run} answers in a row >= {rules.min_samples} (BREAKER_PROMOTE_MIN_SAMPLES)")
            lines.append(f"{parts.evidence:.3f} >= {rules.promote:g} (BREAKER_PROMOTE_THRESHOLD)")
        return [*lines, parts.score_line(self.after)]

    @property
    def case(self) -> dict[str, Any]:
        """The case file as it is put on record; its samples the newest first."""
        return {
            "arithmetic": self.arithmetic,
            "evidence": self.parts.evidence,
            "parts": asdict(self.parts),
            "rules": asdict(self.rules),
            "run": self.run,
            "opened": self.opened,
            "samples": [as_document(each) for each in self.samples],
        }


@dataclass(frozen=True, slots=True)
class Pause:
    """Somebody left a provider aside."""

    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How a provider stands now.

    ``since``: of the circuit's state; None while it never changed. ``retry_in_s``: until a probe may go, 0 while the
    circuit is closed. ``budget``: requests that its rates allow at once now; None: no limit.
    """

    name: str
    circuit: Circuit = Circuit.CLOSED
    parts: Parts = Parts()
    since: datetime | None = None
    retry_in_s: float = 0.0
    run: int = 0
    opened: int = 0
    requests: int = 0
    pause: Pause | None = None
    budget: int | None = None

    @property
    def score(self) -> float:
        """0 to 1; that of a paused one is what it was."""
        return self.parts.score(self.circuit)

    @property
    def state(self) -> str:
        """``paused``, or the circuit's."""
        return "paused" if self.pause else str(self.circuit)

    @property
    def circuit_gauge(self) -> float:
        """What the gauge ``circuit_state`` reads: 1 closed, 0.5 half-open, 0 open or paused."""
        return 0.0 if self.pause else self.circuit.value_of

    @property
    def look(self) -> dict[str, Any]:
        """A look at it for its history, without the time."""
        return {"health_score": self.score, "state": self.state, "parts": asdict(self.parts)}

    @property
    def why_aside(self) -> str:
        """Why it is not asked in its turn; "" when it is."""
        if self.pause:
            return f"paused by {self.pause.by}: {self.pause.reason}"
        if self.circuit is Circuit.CLOSED:
            return ""
        since = f" since {self.since:%Y-%m-%d %H:%M:%S}Z" if self.since else ""
        return f"demoted{since}, evidence now {self.parts.evidence:.2f}"


@dataclass(frozen=True, slots=True)
class Ranked:
    """In which order the providers of a capability are asked, by name, and why some are not asked in their turn.

    ``probes``: demoted ones whose cool-down is over; the caller takes the right to probe one before it asks it.
    ``serving``: the well ones in the policy's order. ``last``: the demoted ones, the best first. ``aside``: name ->
    why it is not asked in its turn.
    """

    probes: Sequence[str]
    serving: Sequence[str]
    last: Sequence[str]
    aside: Mapping[str, str]


def ranked(standings: Sequence[Standing]) -> Ranked:
    """The policy's order, which ``standings`` is in, among the well; the demoted last, the paused not at all."""
    usable = [each for each in standings if each.pause is None]
    out = [each for each in usable if each.circuit is not Circuit.CLOSED]
    return Ranked(
        probes=[each.name for each in out if each.retry_in_s <= 0],
        serving=[each.name for each in usable if each.circuit is Circuit.CLOSED],
        last=[each.name for each in sorted(out, key=lambda each: -each.score)],
        aside={each.name: each.why_aside for each in standings if each.why_aside},
    )


def as_document(sample: Sample) -> dict[str, Any]:
    """A sample as answers show it; what was not looked at is left out."""
    measured = {
        name: getattr(sample, name)
        for name in ("latency_s", "completeness", "stale_s", "disagreement")
        if getattr(sample, name) is not None
    }
    return {"at": sample.at, "endpoint": sample.endpoint, "code": sample.code, "by": sample.by, **measured}
