"""The policy of bars that are made here, and of bars that are held against other sources."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mdtasks.domain.crosschecks import FIELDS, Tolerances
from mdtasks.domain.policy.sections import Number, Seconds, Section, Whole, said

#: How far apart two sources may be, basis points; None: any distance.
Apart = Annotated[Number, Field(ge=0, le=10_000)] | None


class Derived(Section):
    """Longer bars that are made of minutes where no provider has them."""

    every_s: Seconds = said(5.0, "Longer bars are made of the minutes that changed this often", unit="s")


class _Tolerances(Section):
    @property
    def rules(self) -> Tolerances:
        """As comparisons go by them."""
        return Tolerances(*(getattr(self, f"{name}_bp") for name in FIELDS))


class DayTolerances(_Tolerances):
    """How far apart a daily bar and its minutes may be: auctions and late reports are in the one alone."""

    open_bp: Apart = said(100.0, "Of opens: an opening auction is no minute's first trade; null: any", unit="bp")
    high_bp: Apart = said(50.0, "Of highs; null: any", unit="bp")
    low_bp: Apart = said(50.0, "Of lows; null: any", unit="bp")
    close_bp: Apart = said(50.0, "Of closes: a closing auction is printed after the last minute; null: any", unit="bp")
    volume_bp: Apart = said(4000.0, "Of volumes: auctions, extended hours, late reports; null: any", unit="bp")


class ProviderTolerances(_Tolerances):
    """How far apart two providers' bars of the same time may be."""

    open_bp: Apart = said(25.0, "Of opens; null: any", unit="bp")
    high_bp: Apart = said(25.0, "Of highs; null: any", unit="bp")
    low_bp: Apart = said(25.0, "Of lows; null: any", unit="bp")
    close_bp: Apart = said(25.0, "Of closes; null: any", unit="bp")
    volume_bp: Apart = said(None, "Of volumes; null: any, for feeds count other venues", unit="bp")


class CrossChecks(Section):
    """Stored bars held against another source."""

    every_s: Seconds | None = said(180.0, "Bars are held against another source this often; null: never", unit="s")
    series: Whole = said(
        1, "Series of which a second provider is asked each time; 0: none", unit="series", ge=0, le=1000
    )
    bars: Whole = said(30, "Bars of each that it is asked for", unit="bars", ge=1, le=10_000)
    days: Whole = said(
        200, "Daily bars that are held against their minutes each time; 0: none", unit="bars", ge=0, le=100_000
    )
    back_sessions: Whole = said(5, "Of so many last sessions", unit="sessions", ge=1, le=1000)
    day: DayTolerances = Field(default_factory=DayTolerances)
    provider: ProviderTolerances = Field(default_factory=ProviderTolerances)
