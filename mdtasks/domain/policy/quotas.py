"""The quota planner: what each provider must serve under a policy, held against what its account allows. Pure.

Live demand is even: so many calls each time a cadence comes round. A limit counts in its own stretch of time, of which
only trading time is used: of a limit a day, a session's minutes. A provider serves what it is asked for
first; what others are asked for in its place, when it is ill, is not planned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.policy.facts import Facts, Offer
from mdtasks.domain.policy.model import Policy
from mdtasks.domain.rates import Rate

#: Most symbols in one live job; no call holds more.
_PACK: Final = 1000


@dataclass(frozen=True, slots=True)
class Demand:
    """What one cadence of a tier asks of a provider. ``provider`` is "" where nobody serves it."""

    tier: Tier
    feed: str
    provider: str
    symbols: int
    every_s: float
    calls: int

    @property
    def path(self) -> str:
        return f"tiers.{self.tier}.cadence.{self.feed}"

    @property
    def per_min(self) -> float:
        return self.calls * 60 / self.every_s

    def as_dict(self) -> dict[str, Any]:
        named = ("tier", "feed", "provider", "symbols", "every_s", "calls")
        return {**{name: getattr(self, name) for name in named}, "per_min": round(self.per_min, 3)}


@dataclass(frozen=True, slots=True)
class Fill:
    """What one lost session of a tier's kept interval asks of a provider: a call for each backfill."""

    tier: Tier
    interval: Interval
    provider: str
    calls: int

    def as_dict(self) -> dict[str, Any]:
        return {"tier": self.tier, "interval": self.interval, "provider": self.provider, "calls": self.calls}


@dataclass(frozen=True, slots=True)
class Quota:
    """How one provider stands. ``limit_per_min`` is None without a limit; ``drain_min``: how long one lost session of
    all that it keeps would take it beside its live work, None: for ever.
    """

    provider: str
    rates: tuple[Rate, ...]
    live_per_min: float
    limit_per_min: float | None
    fill_calls: int
    drain_min: float | None
    advice: tuple[str, ...] = ()
    #: The path of the cadence that asks the most, which a refusal names.
    path: str = ""

    @property
    def over_per_min(self) -> float:
        """By how many calls per minute it does not fit; 0 where it does."""
        return max(self.live_per_min - self.limit_per_min, 0.0) if self.limit_per_min is not None else 0.0

    def as_dict(self) -> dict[str, Any]:
        drain = None if self.drain_min is None else round(self.drain_min, 2)
        limit = None if self.limit_per_min is None else round(self.limit_per_min, 3)
        return {
            "provider": self.provider,
            "fits": not self.over_per_min,
            "live_per_min": round(self.live_per_min, 3),
            "limit_per_min": limit,
            "limit": "+".join(map(str, self.rates)) or "none",
            "over_per_min": round(self.over_per_min, 3),
            "fill_calls": self.fill_calls,
            "drain_min": drain,
            "advice": list(self.advice),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """Who must serve what. ``counted``: instruments were counted; else each tier is as large as it may be."""

    quotas: tuple[Quota, ...] = ()
    demands: tuple[Demand, ...] = ()
    fills: tuple[Fill, ...] = ()
    symbols: Mapping[str, int] = field(default_factory=dict)
    counted: bool = False

    @property
    def fits(self) -> bool:
        return not any(quota.over_per_min for quota in self.quotas)

    def as_dict(self) -> dict[str, Any]:
        parts = {name: [each.as_dict() for each in getattr(self, name)] for name in ("quotas", "demands", "fills")}
        return {"fits": self.fits, "counted": self.counted, "symbols": dict(self.symbols), **parts}


def plan(policy: Policy, facts: Facts) -> Plan:
    """What each configured provider must serve under the policy, and what does not fit."""
    sizes = {tier: symbols_of(tier, policy, facts) for tier in Tier}
    demands = tuple(_demands(policy, facts, sizes))
    fills = tuple(_fills(policy, facts, sizes))
    asked = {each.provider for each in demands} | {each.provider for each in fills}
    quotas = tuple(
        _quota(
            facts.offers[name],
            rates_of(policy, facts.offers[name]),
            [each for each in demands if each.provider == name],
            sum(each.calls for each in fills if each.provider == name),
            facts.session_minutes,
        )
        for name in facts.offers
        if name in asked
    )
    return Plan(quotas, demands, fills, {str(tier): size for tier, size in sizes.items()}, bool(facts.symbols))


def rates_of(policy: Policy, offer: Offer) -> tuple[Rate, ...]:
    """What the provider's account allows under the policy."""
    told = policy.rates(offer.name)
    return offer.rates if told is None else told


def symbols_of(tier: Tier, policy: Policy, facts: Facts) -> int:
    """How many symbols the tier has: those counted, else as many as it may have; of a tier without a size, none."""
    return facts.symbols.get(tier, 0) if facts.symbols else policy.tiers[tier].size or 0


def first_of(capability: str, policy: Policy, facts: Facts) -> Offer | None:
    """Who is asked first for ``1m`` … ``1d`` or ``quotes``; None: nobody serves it."""
    named = {"quotes": policy.orders.quotes_l1, "1d": policy.orders.eod}.get(capability, policy.orders.bars_1m)
    offers = (facts.offers[name] for name in named or facts.default_order if name in facts.offers)
    return next((offer for offer in offers if offer.serves(capability)), None)


def _demands(policy: Policy, facts: Facts, sizes: Mapping[Tier, int]) -> Iterator[Demand]:
    for tier in Tier:
        cadence = policy.tiers[tier].cadence
        for feed, capability, every_s in (
            ("bars_1m", "1m", cadence.bars_1m),
            ("quotes_l1", "quotes", cadence.quotes_l1),
        ):
            if every_s is None or not sizes[tier]:
                continue
            offer = first_of(capability, policy, facts)
            calls = math.ceil(sizes[tier] / min(offer.max_symbols, _PACK)) if offer else 0
            yield Demand(tier, feed, offer.name if offer else "", sizes[tier], every_s, calls)


def _fills(policy: Policy, facts: Facts, sizes: Mapping[Tier, int]) -> Iterator[Fill]:
    for tier in Tier:
        for interval in policy.tiers[tier].keep:
            offer = first_of(interval.value, policy, facts)
            if offer is not None and sizes[tier]:
                pieces = (
                    1 if interval is Interval.D1 else _pieces(policy.tiers[tier].chunk_minutes, offer, interval, facts)
                )
                yield Fill(tier, interval, offer.name, sizes[tier] * pieces)


def _pieces(chunk_minutes: int, offer: Offer, interval: Interval, facts: Facts) -> int:
    """Calls for one session of one symbol: a backfill holds so many session minutes, a call so much time."""
    longest = offer.windows_s.get(interval.value, math.inf) / 60
    return math.ceil(facts.session_minutes / min(chunk_minutes, longest))


def _quota(
    offer: Offer, rates: tuple[Rate, ...], demands: list[Demand], fill_calls: int, session_minutes: int
) -> Quota:
    live = sum(each.per_min for each in demands)
    limit = min((_per_min(rate, session_minutes) for rate in rates), default=None)
    largest = max(demands, key=lambda each: each.per_min, default=None)
    advice = tuple(_advice(offer.name, demands, live, limit)) if limit is not None and live > limit else ()
    return Quota(
        offer.name,
        rates,
        live,
        limit,
        fill_calls,
        _drain_min(fill_calls, live, limit),
        advice,
        largest.path if largest else "",
    )


def _drain_min(calls: int, live: float, limit: float | None) -> float | None:
    if limit is None or not calls:
        return 0.0
    return calls / (limit - live) if limit > live else None


def _per_min(rate: Rate, session_minutes: int) -> float:
    """Calls in a minute of trading that a limit bears for ever."""
    return (
        rate.calls / min(rate.per_s / 60, max(session_minutes, 1))
        if rate.per_s >= 86_400
        else rate.calls * 60 / rate.per_s
    )


def _advice(provider: str, demands: list[Demand], live: float, limit: float) -> Iterator[str]:
    """What to change so that it fits: one cadence alone where that is enough, else the account or the order."""
    for each in sorted(demands, key=lambda each: -each.per_min):
        room = limit - (live - each.per_min)
        if room > 0:
            yield f"{each.path}: {math.ceil(each.calls * 60 / room):,} s or longer (now {each.every_s:g} s)"
    yield f"limits.{provider}: an account that allows {math.ceil(live):,}/min (now {limit:,.4g}/min)"
    orders = dict.fromkeys("quotes_l1" if each.feed == "quotes_l1" else "bars_1m" for each in demands)
    yield f"{' or '.join(f'orders.{name}' for name in orders)}: another provider before {provider}"
