"""What the settings say of one vendor's account: rates, ages, address, patience."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from mdtasks.domain.rates import Rate
from mdtasks.settings.vendors import VendorSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """What a vendor's free plan allows, for an account of which the settings say nothing else."""

    rates: tuple[Rate, ...] = ()
    delay_s: float = 0.0
    history: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """How one account may be used. ``url``: asked instead of the vendor's own scheme and host."""

    rates: tuple[Rate, ...]
    delay_s: float
    history: timedelta | None
    timeout_s: float
    url: str | None

    @classmethod
    def of(cls, name: str, settings: VendorSettings, free: Plan) -> Access:
        """The access that the settings give to the vendor, by its free plan where they are silent."""
        reach_s = settings.vendor_history.get(name, -1.0)
        history = free.history if reach_s == -1.0 else None if reach_s is None else timedelta(seconds=reach_s)
        return cls(
            rates=settings.vendor_rates.get(name, free.rates),
            delay_s=settings.vendor_delays.get(name, free.delay_s),
            history=history,
            timeout_s=settings.vendor_timeout_s,
            url=settings.vendor_urls.get(name),
        )
