"""How providers stand, as answers and commands tell it: score with its arithmetic, why one is aside, what led there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from statistics import median
from typing import Any, Final

from mdtasks.domain import health
from mdtasks.domain.errors import UnavailableError, UnknownProviderError
from mdtasks.domain.health import Pause, Sample, Standing
from mdtasks.domain.jobs import Interval
from mdtasks.domain.rates import Rate
from mdtasks.flows import providers as flow
from mdtasks.flows.deps import Deps
from mdtasks.providers.base import Capabilities
from mdtasks.store import evidence, providers, traces
from mdtasks.store.evidence import Outcome
from mdtasks.store.providers import Entry
from mdtasks.store.traces import TraceFilter

#: Transitions in the report of one provider, and slow calls in its record.
_TRANSITIONS: Final = 10
_SLOW_CALLS: Final = 20
#: A record tells of looks in about so many stretches.
_STRETCHES: Final = 180


@dataclass(frozen=True, slots=True)
class Report:
    """How one provider stands. ``rates``: what its account may ask. ``places``: where it is asked in each policy order,
    from 1; None: not at all.

    ``history``: the last looks, the oldest first: timestamp, health_score, state, parts. ``samples``: the newest
    first. ``transitions``: the newest first; None where they were not asked for. ``outcomes``: how it did in the
    attempts of the last half hour that asked it.
    """

    standing: Standing
    rules: health.Rules
    capabilities: Capabilities
    rates: Sequence[Rate]
    places: Mapping[str, int | None]
    history: Sequence[Mapping[str, Any]]
    samples: Sequence[Sample]
    transitions: Sequence[Entry] | None = None
    outcomes: Sequence[Outcome] = ()

    @property
    def latencies_s(self) -> list[float]:
        """Of the newest requests, the newest first."""
        return [each.latency_s for each in self.samples if each.latency_s is not None]

    @property
    def errors(self) -> dict[str, int]:
        """Of the newest requests: how many ended in which error."""
        return dict(Counter(each.code for each in self.samples if each.failed).most_common())

    @property
    def sampled_requests(self) -> int:
        """How many of the samples are outcomes of requests; the others are judgements of answers."""
        return sum(each.of_request for each in self.samples)

    @property
    def failing(self) -> str:
        """What the newest requests ended in when none of them was answered, for people; "" otherwise.

        A wrong key and a plan that is too small are no ill health: no probe mends them, so nothing leaves it aside.
        """
        total = self.sampled_requests
        if not total or sum(self.errors.values()) < total:
            return ""
        codes = ", ".join(f"{code} {times}" for code, times in self.errors.items())
        return f"its newest requests failed, all {total} ({codes})"

    @property
    def arithmetic(self) -> list[str]:
        """How the score is come to, line by line, for people."""
        parts = self.standing.parts
        return [*parts.evidence_lines, parts.score_line(self.standing.circuit)]

    @property
    def thresholds(self) -> list[str]:
        """By what it is demoted and promoted, for people."""
        rules = self.rules
        return [
            f"demoted when evidence < {rules.demote:g}, after {rules.min_samples} requests or more",
            f"promoted when evidence >= {rules.promote:g} and {rules.min_samples} answers in a row",
            f"left alone for {rules.left_alone_s(1):g} s, each time longer up to {rules.left_alone_s(64):g} s",
        ]

    def as_dict(self) -> dict[str, Any]:
        """The report as answers show it; times are datetimes."""
        standing, parts = self.standing, self.standing.parts
        latencies = self.latencies_s
        document = {
            "name": standing.name,
            "health_score": standing.score,
            "state": standing.state,
            "why_aside": standing.why_aside or None,
            "since": standing.since,
            "retry_in_s": standing.retry_in_s,
            "parts": {"breaker": standing.circuit.value_of, **asdict(parts)},
            "evidence": parts.evidence,
            "rules": asdict(self.rules),
            "latency_s": median(latencies) if latencies else None,
            "slowest_s": max(latencies, default=None),
            "errors": self.errors,
            "sampled_requests": self.sampled_requests,
            "requests": standing.requests,
            "answers_in_a_row": standing.run,
            "opened": standing.opened,
            "pause": asdict(standing.pause) if standing.pause else None,
            "rates": "+".join(map(str, self.rates)) or None,
            "budget": standing.budget,
            "policy": dict(self.places),
            "capabilities": _declared(self.capabilities),
            "history": list(self.history),
        }
        if self.transitions is not None:
            document["arithmetic"] = self.arithmetic
            document["samples"] = [health.as_document(each) for each in self.samples]
            document["outcomes"] = [asdict(each) for each in self.outcomes]
            document["transitions"] = [each.as_dict() for each in self.transitions]
        return document


def _declared(found: Capabilities) -> dict[str, Any]:
    return {
        "intervals": [interval.value for interval in Interval if interval in found.intervals],
        "quotes": found.quotes,
        "max_symbols": found.max_symbols,
        "complete": found.complete,
        "delay_s": found.delay_s,
        "history_days": found.history.days if found.history is not None else None,
        "actions": found.actions,
        "listing": found.listing,
    }


def report(deps: Deps) -> list[Report]:
    """How every configured provider stands, in default order. Needs Redis alone. Raises BrokerUnavailableError."""
    places = _places(deps)
    return [_report(deps, each, places[each.name]) for each in flow.standings(deps)]


def report_of(name: str, deps: Deps) -> Report:
    """How one stands, with its last transitions and their case files.

    Raises UnknownProviderError, BrokerUnavailableError, StoreUnavailableError.
    """
    found = standing_of(name, deps)
    with deps.database.transaction() as connection:
        entries = providers.transitions(connection, name, _TRANSITIONS)
        ended = evidence.outcomes_of(connection, name)
    return replace(found, transitions=entries, outcomes=ended)


@dataclass(frozen=True, slots=True)
class Record:
    """What is on record of one provider, which needs no Redis. ``looks``: the worst of each stretch of ``step_s``
    seconds, the oldest first (``store.providers.looks``). ``transitions`` and ``slow_calls``: the newest first.
    """

    pause: Pause | None
    step_s: float
    looks: Sequence[Mapping[str, Any]]
    transitions: Sequence[Entry]
    slow_calls: Sequence[Mapping[str, Any]]


def record_of(name: str, deps: Deps, *, since: datetime, now: datetime) -> Record:
    """What is on record of one: how it stood since then, who paused it, transitions, slow calls.

    Raises UnknownProviderError, StoreUnavailableError.
    """
    require_configured(name, deps)
    step_s = max((now - since).total_seconds() / _STRETCHES, 1.0)
    with deps.database.transaction() as connection:
        return Record(
            providers.pauses(connection).get(name),
            step_s,
            providers.looks(connection, name, since, step_s),
            providers.transitions(connection, name, _TRANSITIONS),
            traces.matching(connection, TraceFilter(provider=name), _SLOW_CALLS),
        )


def require_configured(name: str, deps: Deps) -> None:
    """Raises UnknownProviderError for a provider that is not configured here, with the nearest that is."""
    if name not in deps.registry.names():
        raise UnknownProviderError(name, configured=deps.registry.names())


def standing_of(name: str, deps: Deps) -> Report:
    """How one stands now, without its record. Raises UnknownProviderError, BrokerUnavailableError."""
    require_configured(name, deps)
    (standing,) = deps.health.standings({name: flow.rates(deps)[name]})
    return _report(deps, standing, _places(deps)[name])


def _report(deps: Deps, standing: Standing, places: Mapping[str, int | None]) -> Report:
    name = standing.name
    return Report(
        standing,
        deps.health.rules,
        deps.registry.get(name).capabilities,
        flow.rates(deps)[name],
        places,
        [{**each, "timestamp": datetime.fromisoformat(each["timestamp"])} for each in deps.health.history(name)],
        deps.health.samples(name),
    )


def _places(deps: Deps) -> dict[str, dict[str, int | None]]:
    """Of each provider its place in the orders as the policy has them, whoever is aside."""
    orders = {
        "bars": [each.name for each in deps.registry.order(Interval.M1)],
        "eod": [each.name for each in deps.registry.order(Interval.D1)],
        "quotes": [each.name for each in deps.registry.order("quotes")],
    }
    return {
        name: {order: names.index(name) + 1 if name in names else None for order, names in orders.items()}
        for name in deps.registry.names()
    }


def why_aside(deps: Deps) -> dict[str, str]:
    """Who is not asked in its turn, and why; {} also while Redis is away, of which others tell."""
    try:
        return {each.name: each.why_aside for each in flow.standings(deps) if each.why_aside}
    except UnavailableError:
        return {}
