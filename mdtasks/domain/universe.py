"""Instruments as values, and the rules by which those of a listing are put into tiers.

The rules know nothing but their arguments: the same ones give the same tiers in any order, process and year. All that
is reckoned is whole numbers, so nothing depends on the order of a sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from mdtasks.domain.jobs import Tier

#: The version of all that turns listings into members: this module, ``listings`` and the readers of sources. Whatever
#: gives other members for the same bytes must count it up: older versions are then no longer made again by this code.
RULES: Final = 1

_PLACE: Final = {tier: place for place, tier in enumerate(Tier)}


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument as a provider's adapter knows it.

    ``mic``: the exchange (``XNYS``) or ``24/7``; ``kind``: equity, index or crypto.
    """

    symbol: str
    mic: str
    kind: str = "equity"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instrument that a listing has. ``score``: whole dollars traded a day, on average; 0 where nobody knows."""

    instrument: int
    symbol: str
    score: int


@dataclass(frozen=True, slots=True)
class Member:
    """An instrument of a version. ``rank``: from 1, by score, ties by instrument."""

    instrument: int
    symbol: str
    tier: Tier
    rank: int
    score: int

    def as_dict(self) -> dict[str, Any]:
        """As HTTP and ``--json`` show it."""
        tier = self.tier.value
        told = {"rank": self.rank, "symbol": self.symbol, "tier": tier, "score": self.score}
        return {**told, "instrument": self.instrument}


@dataclass(frozen=True, slots=True)
class Terms:
    """The parameters of the rules, out of the policy.

    ``sizes``: most members of each tier; None: as many as there are. ``margin``: the share of a tier's size within
    which whoever is in it stays and nobody comes up into it. ``days``: how many days' listings a score is made of.
    """

    sizes: Mapping[Tier, int | None]
    days: int
    margin: float = 0.0
    pins: Mapping[str, Tier] = field(default_factory=dict)
    bans: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a version's header."""
        return {
            "sizes": {tier.value: self.sizes[tier] for tier in Tier},
            "days": self.days,
            "margin": self.margin,
            "pins": {symbol: tier.value for symbol, tier in self.pins.items()},
            "bans": sorted(self.bans),
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Terms:
        """The terms that a header tells."""
        return cls(
            sizes={tier: told["sizes"][tier.value] for tier in Tier},
            days=told["days"],
            margin=told["margin"],
            pins={symbol: Tier(tier) for symbol, tier in told["pins"].items()},
            bans=tuple(told["bans"]),
        )


def assigned(candidates: Iterable[Candidate], terms: Terms, parent: Mapping[int, Tier] | None = None) -> list[Member]:
    """The members with their tiers, by rank. ``parent``: the tiers of the version before; None: there is none.

    A tier never has more than its size, pins aside, which always hold. Whoever was in a tier, or above it, stays in
    it down to its size; whoever comes from below must be a margin better than that. So one that wavers around a border
    does not change tier with every listing, and a tier that is full up to its margin waits for somebody better. Who is
    banned, or finds no room in any tier, is no member.
    """
    order = sorted((one for one in candidates if one.symbol not in terms.bans), key=_place)
    tiers = {one.instrument: terms.pins[one.symbol] for one in order if one.symbol in terms.pins}
    pinned = Counter(tiers.values())
    left = [one.instrument for one in order if one.instrument not in tiers]
    for tier in Tier:
        size = terms.sizes[tier]
        room = len(left) if size is None else max(size - pinned[tier], 0)
        # Where nothing came before, and where there is room for all, there is no border to waver around.
        margin = 0 if parent is None or size is None else int(room * Fraction(str(terms.margin)))
        chosen = set(left[: room - margin])
        chosen |= {one for one in left[room - margin : room] if _was_as_high(one, tier, parent or {})}
        tiers |= dict.fromkeys(chosen, tier)
        left = [one for one in left if one not in chosen]
    members = [one for one in order if one.instrument in tiers]
    return [
        Member(one.instrument, one.symbol, tiers[one.instrument], rank, one.score)
        for rank, one in enumerate(members, 1)
    ]


def _place(one: Candidate) -> tuple[int, int]:
    return -one.score, one.instrument


def _was_as_high(instrument: int, tier: Tier, parent: Mapping[int, Tier]) -> bool:
    return instrument in parent and _PLACE[parent[instrument]] <= _PLACE[tier]
