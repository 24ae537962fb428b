"""Whom to ask, and in which order: the policy's order as far as the providers' health allows.

One that is well keeps its place. A demoted one whose cool-down is over goes first, once, as a probe: whoever is behind
it makes up for what it does not answer. The other demoted ones are not asked, and the paused ones never. Where nobody
is well, the least bad one serves, if it answers at all; its bars are provisional.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mdtasks.domain.errors import (
    BrokerUnavailableError,
    CircuitOpenError,
    HeldBackError,
    NotYetError,
    ProviderError,
    RateSpentError,
    TimeSpentError,
    UnsupportedError,
)
from mdtasks.domain.health import ANSWERS, Circuit, Ranked, Standing, ranked
from mdtasks.domain.jobs import Interval
from mdtasks.flows.deps import Deps
from mdtasks.providers.base import Provider
from mdtasks.providers.gate import Gate
from mdtasks.providers.registry import Capability

log = logging.getLogger(__name__)


#: Codes of errors by which a provider was not asked.
_NOT_ASKED: Final = {
    each.code for each in (CircuitOpenError, RateSpentError, NotYetError, TimeSpentError, UnsupportedError)
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One provider's turn to be asked. ``insist``: although it was demoted, for every other one is out too."""

    provider: Provider
    gate: Gate
    insist: bool = False


@dataclass(slots=True)
class Route:
    """The turns of a request, and what came of them; ``record`` is kept with the attempt."""

    turns: Sequence[Turn]
    #: Name -> why it is not asked in its turn.
    aside: Mapping[str, str] = field(default_factory=dict)
    #: What those left aside, who are not asked at all, might still bring: an error that says when. None: nobody is.
    hope: CircuitOpenError | None = None
    _said: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answered(self, turn: Turn) -> None:
        """A call was answered."""
        step = self._said.setdefault(turn.provider.name, {"provider": turn.provider.name, "answered": 0})
        step["answered"] += 1
        if turn.insist:
            step["why"] = "nobody else is well"
        elif turn.provider.name in self.aside:
            step["why"] = "a probe"

    def failed(self, turn: Turn, error: ProviderError) -> None:
        """A call failed, or one symbol of it; the first error of each kind is told."""
        step = self._said.setdefault(turn.provider.name, {"provider": turn.provider.name, "answered": 0})
        step.setdefault("errors", {}).setdefault(error.code, error.message)

    @property
    def anybody_asked(self) -> bool:
        """Whether a request was made, answered or not: somebody held back was not asked."""
        return any(step["answered"] or set(step.get("errors", ())) - _NOT_ASKED for step in self._said.values())

    @property
    def record(self) -> list[dict[str, Any]]:
        """In the order asked: ``provider``, ``answered`` (calls), ``errors`` (code -> the first message), ``why``;
        after them those that were not asked and why.
        """
        aside = [{"provider": name, "why": why} for name, why in self.aside.items() if name not in self._said]
        return [*self._said.values(), *aside]


def route(deps: Deps, capability: Capability, mics: Collection[str], hint: str | None = None) -> Route:
    """The turns of a request for the capability on some of these exchanges; with a hint, where hints are honoured, of
    that provider alone.

    Raises UnsupportedError when no configured provider serves it there, UnknownProviderError for an unknown hint, and
    CircuitOpenError when all are left aside; it says how long.
    """
    candidates = _candidates(deps, capability, hint)
    providers = [each for each in candidates if any(map(each.capabilities.has, mics))]
    if not providers:
        words = {"quotes": "quotes", "actions": "corporate actions"}
        what = words.get(capability, f"{capability} bars")
        where = f" of {', '.join(sorted(mics))}" if candidates else ""
        if hint is None and capability not in ("quotes", Interval.M1) and deps.registry.order(Interval.M1):
            where += ": they are made of minutes, ask for those"
        raise UnsupportedError(f"no configured provider serves {what}{where}", provider=hint or "registry")
    by_name = {provider.name: provider for provider in providers}
    standings = _standings(deps, providers)
    order = ranked(standings)
    names = [*_probe(deps, order), *order.serving]
    least = _least_bad(order, standings)
    if not names and least is None:
        raise _held(standings, order)
    turns = [Turn(by_name[name], deps.registry.gate(name)) for name in names]
    if least is not None and least not in names:
        turns.append(Turn(by_name[least], deps.registry.gate(least), insist=True))
    asked = {turn.provider.name for turn in turns}
    # Of a pause nobody knows the end: it is no hope where others were asked.
    left = [each for each in standings if each.name not in asked and each.pause is None]
    return Route(turns, order.aside, _held(left, ranked(left)) if left else None)


def left_aside(deps: Deps, providers: Sequence[Provider]) -> dict[str, CircuitOpenError]:
    """Those of them whose breaker is not closed now, each with until when."""
    out = [each for each in _standings(deps, providers) if each.circuit is not Circuit.CLOSED]
    return {each.name: _held([each], ranked([each])) for each in out}


def of_an_outage(error: ProviderError | None, aside: Mapping[str, CircuitOpenError]) -> ProviderError | None:
    """The failure of a provider that is left aside by now, for this or for what others met, is the outage's and not the
    job's: the job waits as if it had not been asked.
    """
    if error is None or not error.retryable or isinstance(error, HeldBackError) or error.provider not in aside:
        return error
    return aside[error.provider]


def held_back(deps: Deps, capability: Capability) -> HeldBackError | None:
    """Why nobody may be asked for the capability now, not even as a probe; None: somebody may, or nobody serves it."""
    providers = _candidates(deps, capability, None)
    standings = _standings(deps, providers)
    order = ranked(standings)
    if not standings or order.serving or order.probes or _least_bad(order, standings) is not None:
        return None
    return _held(standings, order)


def anybody_well(deps: Deps) -> bool:
    """Whether any provider that is asked for bars is well, or serves as the least bad one."""
    asked = {each.name: each for interval in Interval for each in deps.registry.order(interval)}
    standings = _standings(deps, list(asked.values()))
    order = ranked(standings)
    return not standings or bool(order.serving) or _least_bad(order, standings) is not None


def _candidates(deps: Deps, capability: Capability, hint: str | None) -> list[Provider]:
    honoured = hint if deps.settings.allow_source_override else None
    return deps.registry.order(capability, honoured)


def _standings(deps: Deps, providers: Sequence[Provider]) -> list[Standing]:
    """How they stand; as well as can be while Redis does not tell, for the store can still be filled."""
    try:
        return deps.health.standings({provider.name: provider.capabilities.rates for provider in providers})
    except BrokerUnavailableError as error:
        log.warning("the providers' health is not known: %s", error)
        return [Standing(provider.name) for provider in providers]


def _probe(deps: Deps, order: Ranked) -> list[str]:
    """The first demoted one that this process got the right to probe; [] when there is none."""
    return next(([name] for name in order.probes if deps.registry.gate(name).take_probe()), [])


def _least_bad(order: Ranked, standings: Sequence[Standing]) -> str | None:
    """The best of the demoted, if it answers often enough to be worth asking; None while somebody is well."""
    if order.serving or not order.last:
        return None
    best = next(each for each in standings if each.name == order.last[0])
    return best.name if best.parts.errors >= ANSWERS else None


def _held(standings: Sequence[Standing], order: Ranked) -> CircuitOpenError:
    out = [each for each in standings if each.pause is None and each.circuit is not Circuit.CLOSED]
    wait_s = min((max(each.retry_in_s, 1.0) for each in out), default=None)
    name = order.last[0] if order.last else standings[0].name
    why = "; ".join(f"{name} {why}" for name, why in order.aside.items())
    return CircuitOpenError(f"nobody is asked: {why}", provider=name, retry_after_s=wait_s)
