"""Which calls bring what is wanted of one provider, by what it declares, and what is not asked for at all. Pure.

Sits between flows/fetch and an adapter: symbols of one window share a call as far as the provider takes them, long
windows are cut, and a call is kept to so many bars that few pages hold them. Time that the provider cannot have, for
its age, for its youth or for the exchange, is named with the reason instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import NotYetError, ProviderError, UnsupportedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import Capabilities

_DAY: Final = timedelta(days=1)
#: Hours a weekday in which exchanges other than round-the-clock ones have bars at most, those before and after too.
_HOURS: Final = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bars of a listing that start in a window."""

    listing: Listing
    window: TimeWindow


@dataclass(frozen=True, slots=True)
class Call:
    """One call of ``fetch_bars``: these listings, this window."""

    listings: tuple[Listing, ...]
    window: TimeWindow


@dataclass(frozen=True, slots=True)
class NotAsked:
    """A part of what was wanted that the provider declares it cannot have: UnsupportedError, or NotYetError."""

    listing: Listing
    window: TimeWindow
    error: ProviderError


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls to make, in the order of the windows wanted, and what is left out, each with its reason.

    Together they are what was wanted, less time at its end that no interval has ended in yet.
    """

    calls: tuple[Call, ...] = ()
    not_asked: tuple[NotAsked, ...] = ()


@dataclass(frozen=True, slots=True)
class Declaration:
    """Whom the plan is for: a provider's name and what it declares."""

    provider: str
    capabilities: Capabilities


def plan(declared: Declaration, interval: Interval, wanted: Sequence[Wanted], now: datetime) -> Plan:
    """The fewest calls that bring what is ``wanted`` at ``now``, none for what the provider cannot have.

    Bars are in reach when they start no earlier than ``now`` less the declared history and ended ``delay_s`` before
    ``now``. The same for the same arguments.
    """
    together: defaultdict[TimeWindow, list[Listing]] = defaultdict(list)
    not_asked: list[NotAsked] = []
    for each in wanted:
        refused = _refused(declared, interval, each.listing)
        if refused is not None:
            not_asked.append(NotAsked(each.listing, each.window, refused))
            continue
        window, left_out = _in_reach(declared, interval, each.window, now)
        not_asked += [NotAsked(each.listing, part, error) for part, error in left_out]
        if window is not None:
            together[window].append(each.listing)
    calls = [
        Call(tuple(packet), piece)
        for window, listings in together.items()
        for piece in _pieces(declared.capabilities, interval, window, listings)
        for packet in _packets(declared.capabilities, interval, piece, listings)
    ]
    return Plan(tuple(calls), tuple(not_asked))


def in_reach(declared: Declaration, interval: Interval, window: TimeWindow, now: datetime) -> TimeWindow:
    """The part of the window that the provider may be asked for. Raises UnsupportedError or NotYetError: none is."""
    if interval not in declared.capabilities.intervals:
        raise _no_interval(declared, interval)
    found, left_out = _in_reach(declared, interval, window, now)
    if found is None:
        raise left_out[0][1] if left_out else NotYetError("no bar has ended there yet", provider=declared.provider)
    return found


def points(listing: Listing, interval: Interval, window: TimeWindow) -> int:
    """At most so many bars the listing has in the window, by the clock alone: weekdays of 16 hours, or all hours."""
    by_length = -(-(to_us(window.end) - to_us(window.start)) // (interval.seconds * 1_000_000))
    if listing.mic == "24/7":
        return by_length
    first, last = window.start.date(), (window.end - timedelta(microseconds=1)).date()
    days = (last - first).days + 1
    weekdays = days // 7 * 5 + sum((first.weekday() + each) % 7 < 5 for each in range(days % 7))
    a_day = 1 if interval is Interval.D1 else _HOURS * 3600 // interval.seconds
    return max(min(by_length, weekdays * a_day), 1)


def _refused(declared: Declaration, interval: Interval, listing: Listing) -> ProviderError | None:
    if interval not in declared.capabilities.intervals:
        return _no_interval(declared, interval)
    if not declared.capabilities.serves(listing):
        return UnsupportedError(
            f"does not serve {listing.mic}, where {listing.symbol} trades", provider=declared.provider
        )
    return None


def _no_interval(declared: Declaration, interval: Interval) -> UnsupportedError:
    served = [str(each) for each in Interval if each in declared.capabilities.intervals]
    return UnsupportedError(f"has no {interval} bars, only {', '.join(served) or 'none'}", provider=declared.provider)


def _in_reach(
    declared: Declaration, interval: Interval, window: TimeWindow, now: datetime
) -> tuple[TimeWindow | None, list[tuple[TimeWindow, ProviderError]]]:
    """What of the window may be asked for, and what of it is too old or too young, with why."""
    told, step_us = declared.capabilities, interval.seconds * 1_000_000
    start_us, end_us = to_us(window.start), to_us(window.end)
    reach = told.reach(interval)
    oldest_us = start_us if reach is None else -(-to_us(now - reach) // step_us) * step_us
    youngest_us = _until_us(now - timedelta(seconds=told.delay_s), interval)
    left_out: list[tuple[TimeWindow, ProviderError]] = []
    if reach is not None and start_us < oldest_us:
        old = TimeWindow(start=window.start, end=from_us(min(oldest_us, end_us)))
        left_out.append((old, UnsupportedError(f"reaches back {reach.days} days only", provider=declared.provider)))
    young = (max(start_us, youngest_us), min(end_us, _until_us(now, interval)))
    if told.delay_s and young[0] < young[1]:
        late = NotYetError(
            f"has bars {told.delay_s:g} s after they ended",
            provider=declared.provider,
            retry_after_s=max((young[1] - to_us(now)) / 1e6 + told.delay_s, 1.0),
        )
        left_out.append((TimeWindow(start=from_us(young[0]), end=from_us(young[1])), late))
    start_us, end_us = max(start_us, oldest_us), min(end_us, youngest_us)
    found = TimeWindow(start=from_us(start_us), end=from_us(end_us)) if start_us < end_us else None
    return found, left_out


def _until_us(at: datetime, interval: Interval) -> int:
    """Where the bars end that may have ended by ``at``."""
    step_us, at_us = interval.seconds * 1_000_000, to_us(at)
    if interval in (Interval.H1, Interval.D1):  # a daily bar ends at the close, an hour bar at an early close
        return -(-at_us // step_us) * step_us
    return at_us // step_us * step_us


def _pieces(
    told: Capabilities, interval: Interval, window: TimeWindow, listings: Sequence[Listing]
) -> Iterator[TimeWindow]:
    """The window cut so that each piece is within ``windows`` and one listing's bars in it are within ``points``."""
    longest = told.windows.get(interval, window.end - window.start)
    if told.points is not None:
        densest = max(listings, key=lambda listing: points(listing, interval, window))
        while longest > _DAY and points(densest, interval, _from(window, longest)) > told.points:
            longest = max(longest / 2, _DAY)
    step_us = interval.seconds * 1_000_000
    length = timedelta(microseconds=max(longest // timedelta(microseconds=step_us), 1) * step_us)
    start = window.start
    while start < window.end:
        end = min(start + length, window.end)
        yield TimeWindow(start=start, end=end)
        start = end


def _from(window: TimeWindow, length: timedelta) -> TimeWindow:
    return TimeWindow(start=window.start, end=min(window.start + length, window.end))


def _packets(
    told: Capabilities, interval: Interval, piece: TimeWindow, listings: Sequence[Listing]
) -> Iterator[Sequence[Listing]]:
    size = told.max_symbols
    if told.points is not None:
        size = min(size, max(told.points // max(points(each, interval, piece) for each in listings), 1))
    return (listings[start : start + size] for start in range(0, len(listings), size))
