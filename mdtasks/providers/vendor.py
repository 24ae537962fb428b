"""What adapters of vendors' SDKs share: the SDK is looked for at the start and loaded when used, a call is kept to what
may be asked, and an answer leaves as bars that ended.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from mdtasks.domain.actions import Days
from mdtasks.domain.bars import Quote, from_us, to_us
from mdtasks.domain.errors import (
    AuthError,
    ConfigurationError,
    HeldBackError,
    NoDataError,
    NotEntitledError,
    NotYetError,
    ProviderError,
    RateLimitedError,
    UnsupportedError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers import arrow
from mdtasks.providers.base import ActionsAnswer, BarsAnswer, Capabilities, Unanswered
from mdtasks.providers.planning import Declaration, in_reach
from mdtasks.providers.shaping import ended, in_order
from mdtasks.providers.wallclock import DAY_US

#: Every name by which listings name an exchange whose trades the US feeds carry.
US_EXCHANGES: Final = frozenset({"XNYS", "XNAS", "ARCX", "XASE", "BATS", "OOTC", "NYSE", "NASDAQ"})

#: They concern the account, so the next symbol would fare alike.
_OF_THE_ACCOUNT: Final = (AuthError, NotEntitledError, RateLimitedError, HeldBackError)


class VendorProvider(ABC):
    """An adapter of a vendor's SDK. Instances serve one thread at a time; the SDK's client is made at its first use."""

    name: str
    capabilities: Capabilities
    #: The modules that the SDK's use loads, the SDK first.
    modules: ClassVar[tuple[str, ...]]

    def __init__(self, calendars: Calendars) -> None:
        self._calendars = calendars
        if not installed(self.modules[0]):
            raise ConfigurationError(
                f"provider {self.name} is switched on, but its SDK ({self.modules[0]}) is not installed",
                hint=f"pip install 'mdtasks[{self.name}]'",
            )

    def preload(self) -> None:
        """Import the SDK, for the processes that will be forked from this one. Idempotent."""
        for module in self.modules:
            loaded(module)

    def fetch_bars(
        self, listings: Sequence[Listing], interval: Interval, window: TimeWindow, now: datetime
    ) -> BarsAnswer:
        """Raw bars as the vendor has them, extended hours included; see Provider.

        Raises UnsupportedError for an interval or a time that the vendor does not have, NotYetError for one too young.
        """
        declared = Declaration(self.name, self.capabilities)
        asked = in_reach(declared, interval, window, now)
        until = now - timedelta(seconds=self.capabilities.delay_s)
        served = [listing for listing in listings if self.capabilities.serves(listing)]
        errors: dict[str, ProviderError] = {
            listing.symbol: NoDataError(f"does not serve {listing.mic}", provider=self.name)
            for listing in listings
            if not self.capabilities.serves(listing)
        }
        if not served:
            return BarsAnswer({}, errors)
        if until <= asked.start:
            raise NotYetError("no bar has ended there yet", provider=self.name)
        end = asked.end
        if interval is Interval.D1:  # a label lies hours before what vendors stamp its bar with
            end = from_us(-(-to_us(end) // DAY_US) * DAY_US)
        found = self.ask_bars(served, interval, TimeWindow(start=asked.start, end=min(end, until)), now)
        calendars = {listing.symbol: partial(self._calendars.get, listing.mic) for listing in served}
        bars = {
            symbol: ended(in_order(each).within(asked), interval, calendars[symbol], until)
            for symbol, each in found.bars.items()
        }
        return BarsAnswer(bars, {**errors, **found.errors}, _with(found.unanswered, self._too_old(window, asked), bars))

    @abstractmethod
    def ask_bars(
        self, listings: Sequence[Listing], interval: Interval, window: TimeWindow, now: datetime
    ) -> BarsAnswer:
        """What the vendor has of a window that it may be asked for, in any order, a little more on either side too."""

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:  # noqa: ARG002
        """See Provider. Raises UnsupportedError, unless an adapter has quotes."""
        raise UnsupportedError("has no quotes", provider=self.name)

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:  # noqa: ARG002
        """Corporate actions where the vendor's adapter asks for them. Raises UnsupportedError where it does not."""
        raise UnsupportedError("has no corporate actions", provider=self.name)

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:  # noqa: ARG002
        """See Provider. Raises UnsupportedError, unless an adapter has a listing."""
        raise UnsupportedError("does not list its instruments", provider=self.name)

    @abstractmethod
    def check(self) -> str:
        """One line for `mdtasks doctor`, after one request. Raises ProviderError when it cannot serve."""

    def _too_old(self, window: TimeWindow, asked: TimeWindow) -> tuple[Unanswered, ...]:
        """What of the window lies before the vendor's reach: nothing is known of it."""
        if asked.start <= window.start:
            return ()
        old = TimeWindow(start=window.start, end=asked.start)
        return (Unanswered(old, UnsupportedError(f"reaches back to {asked.start:%Y-%m-%d}", provider=self.name)),)


def _with(
    unanswered: Mapping[str, tuple[Unanswered, ...]], first: tuple[Unanswered, ...], symbols: Iterable[str]
) -> dict[str, tuple[Unanswered, ...]]:
    joined = {symbol: (*first, *unanswered.get(symbol, ())) for symbol in symbols}
    return {symbol: cuts for symbol, cuts in joined.items() if cuts}


T = TypeVar("T")


def one_by_one(
    listings: Sequence[Listing], ask: Callable[[Listing], T]
) -> tuple[dict[str, T], dict[str, ProviderError]]:
    """What a vendor answers that is asked for one symbol a call, and how it failed for others.

    Raises what concerns the whole account when no symbol was answered for; else those not asked bear that error.
    """
    found: dict[str, T] = {}
    errors: dict[str, ProviderError] = {}
    for number, listing in enumerate(listings):
        try:
            found[listing.symbol] = ask(listing)
        except _OF_THE_ACCOUNT as exc:
            if not found:
                raise
            return found, {**errors, **{each.symbol: exc for each in listings[number:]}}
        except ProviderError as exc:
            if len(listings) == 1 and not isinstance(exc, NoDataError):
                raise
            errors[listing.symbol] = exc
    return found, errors


def quotes_one_by_one(listings: Sequence[Listing], ask: Callable[[Listing], Quote | None]) -> dict[str, Quote]:
    """The quotes of a vendor that is asked for one symbol a call. One that fails is absent.

    Raises the last error when no quote came and not all failures were NoDataError.
    """
    quotes: dict[str, Quote] = {}
    last: ProviderError | None = None
    for listing in listings:
        try:
            found = ask(listing)
        except NoDataError:
            continue
        except ProviderError as exc:
            last = exc
            if isinstance(exc, _OF_THE_ACCOUNT):
                break
            continue
        if found is not None:
            quotes[listing.symbol] = found
    if last is not None and not quotes:
        raise last
    return quotes


def positive(value: Any) -> float | None:
    """A price or size of a quote; vendors write zero for a side that is not there."""
    return float(value) if isinstance(value, int | float) and value > 0 else None


def installed(module: str) -> bool:
    """Whether a module is there, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def loaded(module: str) -> Any:
    """The module, imported where need be; what it warns of and which warnings it turns on stay within."""
    arrow.without_thread()  # pandas, which most SDKs bring, imports pyarrow where it is
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)
