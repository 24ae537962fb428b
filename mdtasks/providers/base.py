"""What a provider is: the protocol every adapter follows and what it declares about itself.

An adapter turns vendor answers into domain values and vendor failures into ``ProviderError`` classes, nothing else:
no retries, no storing, no clock (``now`` is an argument). "No bars" is an answer only when the source said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from mdtasks.domain.actions import Action, Days
from mdtasks.domain.bars import Bars, Quote
from mdtasks.domain.errors import ProviderError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.rates import Rate
from mdtasks.domain.universe import Listing


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider declares; the planner never asks for anything else."""

    #: Bar intervals it can answer.
    intervals: frozenset[Interval]
    #: Most symbols in one call.
    max_symbols: int = 1
    #: Its answers are complete: a minute without a bar in an answered window had no trade.
    complete: bool = False
    #: A bar can be had this long after its interval ended, seconds.
    delay_s: float = 0.0
    #: How far back it reaches; None: no limit known.
    history: timedelta | None = None
    #: It serves L1 quotes.
    quotes: bool = False
    #: What the account may ask, all at once; none: no limit. The settings say otherwise for a better plan.
    rates: tuple[Rate, ...] = ()
    #: Most time in one call, by interval, where a longer window would come back cut; others have no limit.
    windows: Mapping[Interval, timedelta] = field(default_factory=dict)
    #: How far back it reaches where an interval differs from ``history``.
    histories: Mapping[Interval, timedelta] = field(default_factory=dict)
    #: Most bars in one call, over all its symbols: what takes more comes in so many pages that one failure loses much.
    points: int | None = None
    #: The exchanges it serves, by MIC or other names of theirs; None: any.
    mics: frozenset[str] | None = None
    #: It has corporate actions.
    actions: bool = False
    #: It lists the instruments that it serves.
    listing: bool = False

    def reach(self, interval: Interval) -> timedelta | None:
        """How far back bars of the interval reach; None: no limit known."""
        return self.histories.get(interval, self.history)

    def has(self, mic: str) -> bool:
        """Whether it has this exchange."""
        return self.mics is None or mic in self.mics

    def serves(self, listing: Listing) -> bool:
        """Whether it has the exchange that the listing trades on."""
        return self.has(listing.mic)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A part of the window asked for that the source says nothing about, and why (a day's file that is not there)."""

    window: TimeWindow
    error: ProviderError


@dataclass(frozen=True, slots=True)
class BarsAnswer:
    """Bars per symbol for the window asked for; a symbol that failed alone is in ``errors`` and not in ``bars``.

    Every symbol asked for is in exactly one of the two. Bars carry interval starts in UTC, in any order, unvalidated.
    ``unanswered`` cuts a symbol's window: in time order, without overlap, inside the window. Silence there is not
    verified, whatever the provider declares, so it must not become coverage; the bars beside it stand. Adapters know
    no calendars: a cut that holds no expected interval (a night, a holiday without a file) is no failure, and the
    caller, who knows the sessions, tells them apart.
    """

    bars: Mapping[str, Bars]
    errors: Mapping[str, ProviderError] = field(default_factory=dict)
    unanswered: Mapping[str, tuple[Unanswered, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActionsAnswer:
    """Corporate actions per symbol, raw and in any order, of all ex-dates asked for; a symbol that failed alone is in
    ``errors``. Every symbol asked for is in exactly one of the two: none is an answer.
    """

    actions: Mapping[str, Sequence[Action]]
    errors: Mapping[str, ProviderError] = field(default_factory=dict)


class Provider(Protocol):
    """A source of bars and quotes. Instances are used by one thread at a time."""

    name: str
    capabilities: Capabilities

    def fetch_bars(
        self, listings: Sequence[Listing], interval: Interval, window: TimeWindow, now: datetime
    ) -> BarsAnswer:
        """Bars of each listing that start in ``window`` and ended by ``now - delay_s``.

        Raises ProviderError when the whole call failed.
        """
        ...

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:
        """The latest quote of each listing at ``now``; one without a quote is absent. Raises UnsupportedError."""
        ...

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:
        """The corporate actions of each listing whose ex-dates lie in ``days``, those announced for later ones too
        where it knows of them. Amounts are those of the day, whatever was split since. At most ``max_symbols`` a call.

        Raises UnsupportedError, and ProviderError when the whole call failed.
        """
        ...

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:
        """The instruments that it has, as the source writes them (``providers.listings`` reads it), the oldest day
        first: of the newest day alone, or where it keeps older ones, of the last ``days``.

        Raises UnsupportedError where ``capabilities.listing`` is not declared, ProviderError when the call failed.
        """
        ...

    def check(self) -> str:
        """One line for `mdtasks doctor` on what was found. Raises ProviderError when it cannot serve."""
        ...
