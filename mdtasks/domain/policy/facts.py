"""What a policy is held against: which providers there are and what they can do, how many symbols, how much memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mdtasks.domain.jobs import Tier
from mdtasks.domain.rates import Rate


@dataclass(frozen=True, slots=True)
class Offer:
    """What a configured provider can do. ``windows_s``: most time of one call by interval; others have no limit.
    ``listing``: it lists its instruments.
    """

    name: str
    intervals: frozenset[str]
    quotes: bool = False
    max_symbols: int = 1
    rates: tuple[Rate, ...] = ()
    windows_s: Mapping[str, float] = field(default_factory=dict)
    listing: bool = False

    def serves(self, capability: str) -> bool:
        """Whether it has ``1m`` … ``1d``, or ``quotes``."""
        return self.quotes if capability == "quotes" else capability in self.intervals


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of where the policy shall hold. What is empty or None is not known, and nothing is held against it.

    ``known``: every provider that exists. ``offers``: the configured ones by name. ``default_order``: whom the system
    asks where no order is named. ``symbols``: instruments of each tier. ``depths``: backfills waiting in each tier's
    queue. ``broker_bytes``: memory that the queues' Redis may use. ``session_minutes``: of the longest session.
    """

    known: tuple[str, ...] = ()
    offers: Mapping[str, Offer] = field(default_factory=dict)
    default_order: tuple[str, ...] = ()
    symbols: Mapping[Tier, int] = field(default_factory=dict)
    depths: Mapping[Tier, int] = field(default_factory=dict)
    broker_bytes: int | None = None
    session_minutes: int = 390
