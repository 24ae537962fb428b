"""The `simulator` provider: made-up bars and quotes of any symbol, the same on every machine, with faults on demand.

A price is a sum of smooth noises of many time scales, each fixed by a hash of (seed, symbol, time): no state, no
random walk from a start, so a bar is the same whatever window it is asked in. Only + - * / and whole-number hashes
are used, which IEEE 754 fixes to the last bit; exp or log would differ between processors. Longer bars are made of
the minutes that the exchange trades.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.actions import Days
from mdtasks.domain.bars import Bars, Quote, from_us, to_us
from mdtasks.domain.errors import InvalidRequestError, NoDataError, ProviderError, UnsupportedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendar, Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import ActionsAnswer, BarsAnswer, Capabilities
from mdtasks.providers.faults import Faults, drawn, key, mixed, spoilt, suffer, unit
from mdtasks.providers.gate import Gate, OpenGate
from mdtasks.providers.outages import Schedule
from mdtasks.providers.shaping import session_from
from mdtasks.providers.simulated_actions import simulated_actions, split_of

NAME: Final = "simulator"

_MINUTE_US: Final = 60_000_000
_DAY_US: Final = 86_400_000_000
#: Time scales of the noise, minutes: from one minute to two years.
_SCALES: Final = tuple(4**k for k in range(11))
#: Half-width of the slowest noise, as a share of the price; the others shrink with the root of their scale.
_SLOWEST: Final = 0.28
#: Minutes made at a time when longer bars are built from them: bounds memory, not answers.
_MINUTES_AT_ONCE: Final = 200_000


class SimulatorProvider:
    """Bars of all intervals and quotes, respecting the sessions of each listing's exchange."""

    def __init__(
        self,
        calendars: Calendars,
        faults: Faults | Schedule | None = None,
        seed: int = 1,
        *,
        name: str = NAME,
        rates: tuple[Rate, ...] = (),
        gate: Gate | None = None,
    ) -> None:
        self.name = name
        self.capabilities = Capabilities(
            intervals=frozenset(Interval), max_symbols=1000, complete=True, quotes=True, rates=rates, actions=True
        )
        self._calendars = calendars
        self._gate = gate or OpenGate()
        self._schedule = faults if isinstance(faults, Schedule) else Schedule(faults or Faults())
        self._seed = seed

    def fetch_bars(
        self, listings: Sequence[Listing], interval: Interval, window: TimeWindow, now: datetime
    ) -> BarsAnswer:
        """Bars by the hash of (seed, symbol, time); see Provider. Raises what the faults drew for this call."""
        if interval not in self.capabilities.intervals:
            raise UnsupportedError(f"has no {interval} bars", provider=self.name)
        faults = self._schedule.at(now)
        call = (self._seed, interval.value, to_us(window.start), to_us(window.end), to_us(now))
        with self._gate.request("bars"):
            suffer(faults, [listing.symbol for listing in listings], call, provider=self.name)
        bars: dict[str, Bars] = {}
        errors: dict[str, ProviderError] = {}
        for listing in listings:
            try:
                made = self._bars(listing, self._calendar(listing, faults), (interval, window, now))
            except ProviderError as exc:
                errors[listing.symbol] = exc
            else:
                bars[listing.symbol] = spoilt(made, faults, listing.symbol, call, self._seed)
        return BarsAnswer(bars, errors)

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:
        """The quote of this second, or of the last close when the exchange is shut; unknown symbols are absent."""
        call, faults = (self._seed, "quotes", to_us(now)), self._schedule.at(now)
        with self._gate.request("quotes"):
            suffer(faults, [listing.symbol for listing in listings], call, provider=self.name)
        quotes: dict[str, Quote] = {}
        last_us: dict[str, int | None] = {}  # of each exchange: when it last traded, at most now
        for listing in listings:
            try:
                calendar = self._calendar(listing, faults)
            except NoDataError:
                continue
            if listing.mic not in last_us:
                last_us[listing.mic] = _last_traded_us(calendar, now)
            at_us = last_us[listing.mic]
            if at_us is not None:
                ratio = self._ratio(listing, calendar, np.array([at_us], dtype=np.int64))
                quotes[listing.symbol] = self._quote(listing.symbol, at_us, float(ratio[0]))
        return quotes

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:
        """Made-up splits and dividends; see ``simulated_actions``."""
        call, faults = (self._seed, "actions", days.first, days.last, to_us(now)), self._schedule.at(now)
        with self._gate.request("actions"):
            suffer(faults, [listing.symbol for listing in listings], call, provider=self.name)
        actions, errors = {}, {}
        for listing in listings:
            try:
                calendar = self._calendar(listing, faults)
            except NoDataError as exc:
                errors[listing.symbol] = exc
                continue
            made = simulated_actions(self._seed, listing, calendar, days, self._level(listing.symbol))
            actions[listing.symbol] = [
                each for each in made if each.declared_on is None or each.declared_on <= now.date()
            ]
        return ActionsAnswer(actions, errors)

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:  # noqa: ARG002
        """It makes up bars of any symbol, so it has none to list. Raises UnsupportedError."""
        raise UnsupportedError("does not list its instruments", provider=self.name)

    def check(self) -> str:
        """Always well: what is simulated, for `doctor`."""
        return f"made-up data of any symbol, seed {self._seed}, {self._schedule}"

    def _calendar(self, listing: Listing, faults: Faults) -> Calendar:
        """The listing's calendar. Raises NoDataError for a symbol declared unknown, or an unknown exchange."""
        if listing.symbol in faults.unknown:
            raise NoDataError(f"no symbol {listing.symbol}", provider=self.name)
        try:
            return self._calendars.get(listing.mic)
        except InvalidRequestError as exc:
            raise NoDataError(f"{listing.symbol}: {exc.message}", provider=self.name) from exc

    def _bars(self, listing: Listing, calendar: Calendar, ask: tuple[Interval, TimeWindow, datetime]) -> Bars:
        interval, window, now = ask
        # What lies ahead has no bars, and a calendar may not reach that far.
        if window.start >= now:
            return Bars.empty()
        window = TimeWindow(start=window.start, end=min(window.end, now))
        starts = calendar.expected(window, interval)
        starts = starts[calendar.interval_end(starts, interval) <= to_us(now)]
        parts = [self._made_of_minutes(listing, calendar, part, interval) for part in _batches(starts, interval)]
        return Bars.concat(parts)

    def _made_of_minutes(
        self, listing: Listing, calendar: Calendar, starts: NDArray[np.int64], interval: Interval
    ) -> Bars:
        """The bars that start at ``starts``, each from the minutes it holds; one without minutes is left out."""
        if interval is Interval.M1:
            return self._minutes(listing, calendar, starts)
        # A session may open on the day before its label (XASX), where the one before may still trade. So that each
        # minute finds its own bar, the first that ends after it, sessions before the first are made too and left out.
        before_us = _DAY_US if interval is Interval.D1 else 0
        span = TimeWindow(start=from_us(int(starts[0]) - 2 * before_us), end=from_us(int(starts[-1]) + 1))
        bars_us = calendar.expected(span, interval)
        ends_us = calendar.interval_end(bars_us, interval)
        opens = TimeWindow(start=from_us(int(bars_us[0]) - before_us), end=from_us(int(ends_us[-1])))
        minutes = self._minutes(listing, calendar, calendar.expected(opens, Interval.M1))
        owner = np.searchsorted(ends_us, minutes.ts_us, side="right")
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        made = Bars(
            bars_us[owner[first]],
            minutes.open[first],
            np.maximum.reduceat(minutes.high, first),
            np.minimum.reduceat(minutes.low, first),
            minutes.close[np.append(first[1:], len(minutes)) - 1],
            np.add.reduceat(minutes.volume, first),
        )
        return made.take(np.isin(made.ts_us, starts))

    def _minutes(self, listing: Listing, calendar: Calendar, starts: NDArray[np.int64]) -> Bars:
        """One-minute bars: each opens where the one before closed, wicks by hash, whole volumes."""
        symbol, ratio = listing.symbol, self._ratio(listing, calendar, starts)
        open_, close = self._price(symbol, starts) * ratio, self._price(symbol, starts + _MINUTE_US) * ratio
        above, below, size = (drawn(starts, self._seed, symbol, what) for what in ("above", "below", "volume"))
        return Bars(
            starts,
            _ticks(open_),
            _ticks(np.maximum(open_, close) * (1 + 0.0004 * above)),
            _ticks(np.minimum(open_, close) * (1 - 0.0004 * below)),
            _ticks(close),
            # Cubed: many small volumes, a few large ones.
            np.floor(100 + 20_000 * size * size * size),
        )

    def _ratio(self, listing: Listing, calendar: Calendar, starts: NDArray[np.int64]) -> NDArray[np.float64]:
        """How many of today's shares one was at each time, shape (n,)."""
        split = split_of(self._seed, listing)
        # The calendar is asked about those years only where they are asked for.
        if split is None or not len(starts) or int(starts.min()) > to_us(_midnight(split.day)) + 31 * _DAY_US:
            return np.ones(len(starts))
        label = session_from(calendar, split.day)
        day = TimeWindow(start=_midnight(label) - timedelta(days=1), end=_midnight(label) + timedelta(days=2))
        opens = [to_us(each.open) for each in calendar.sessions(day) if each.label >= label]
        return np.where(starts < min(opens), split.ratio, 1.0)

    def _level(self, symbol: str) -> float:
        return 20 + 480 * float(unit(mixed(np.array([key(self._seed, symbol, "level")])))[0])

    def _price(self, symbol: str, at_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """The unrounded price at each time, shape (n,): a level by symbol times one plus the sum of the noises."""
        level = self._level(symbol)
        total = np.zeros(len(at_us))
        for scale in _SCALES:
            width = _SLOWEST * float(np.sqrt(scale / _SCALES[-1]))  # sqrt is exact to the last bit by IEEE 754
            total += width * self._noise(key(self._seed, symbol, "noise", scale), at_us, scale * _MINUTE_US)
        return level * (1 + total)

    @staticmethod
    def _noise(salt: np.uint64, at_us: NDArray[np.int64], scale_us: int) -> NDArray[np.float64]:
        """Value noise in [-1, 1): hashed values at multiples of the scale, smoothly joined."""
        cell = at_us // scale_us
        part = (at_us - cell * scale_us) / scale_us
        left, right = (unit(mixed((cell + side).astype(np.uint64) ^ salt)) for side in (0, 1))
        smooth = part * part * (3 - 2 * part)
        return 2 * (left + (right - left) * smooth) - 1

    def _quote(self, symbol: str, at_us: int, ratio: float) -> Quote:
        at = np.array([at_us], dtype=np.int64)
        middle = float(self._price(symbol, at)[0]) * ratio
        wide, bid_size, ask_size = (float(drawn(at, self._seed, symbol, what)[0]) for what in ("wide", "bid", "ask"))
        half = 0.006 + 0.01 * wide  # more than a tick apart, however they are rounded
        return Quote(
            ts=from_us(at_us),
            bid=float(_ticks(np.array([middle - half]))[0]),
            bid_size=float(100 * (1 + int(20 * bid_size))),
            ask=float(_ticks(np.array([middle + half]))[0]),
            ask_size=float(100 * (1 + int(20 * ask_size))),
        )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _ticks(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prices to the cent: the double nearest to the decimal, since a whole number is divided."""
    return np.rint(prices * 100) / 100


def _batches(starts: NDArray[np.int64], interval: Interval) -> Iterator[NDArray[np.int64]]:
    size = max(_MINUTES_AT_ONCE * 60 // interval.seconds, 1)
    return (starts[at : at + size] for at in range(0, len(starts), size))


def _last_traded_us(calendar: Calendar, now: datetime) -> int | None:
    """The end of the calendar's last minute before ``now``, or ``now``'s second within one; None: never of late."""
    # The longest legal silence since 2010 is 12 days (XSAU).
    recent = calendar.expected(TimeWindow(start=now - timedelta(days=14), end=now), Interval.M1)
    if not len(recent):
        return None
    return min(int(recent[-1]) + _MINUTE_US, to_us(now) // 1_000_000 * 1_000_000)
