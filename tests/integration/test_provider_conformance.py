"""One suite for every provider: what the protocol promises, asked of each adapter on data made here.

An adapter joins by a world: a listing it serves, one it does not know, an interval, and a window with sessions in it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from mdtasks.domain.bars import Bars, Quote, from_us, to_us, validated
from mdtasks.domain.errors import NoDataError, NotYetError, ProviderError, UnsupportedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import Provider
from mdtasks.providers.faults import Faults
from mdtasks.providers.files import FilesProvider
from mdtasks.providers.lean import LeanProvider
from mdtasks.providers.simulator import SimulatorProvider
from tests.integration.answered import answered
from tests.vendors.configured import SWITCHES, vendor
from tests.vendors.market import Market
from tests.vendors.server import VendorServer

CALENDARS = Calendars()
NEW_YORK = "America/New_York"
#: Friday and Monday around the change of clocks of 2024-03-10 in New York.
WINDOW = TimeWindow(start=datetime(2024, 3, 8, 5, tzinfo=UTC), end=datetime(2024, 3, 12, 4, tzinfo=UTC))
NOW = datetime(2024, 6, 1, tzinfo=UTC)
STOCK = Listing("AAPL", "XNYS")
PAIR = Listing("BTC-USD", "24/7", "crypto")
UNKNOWN = Listing("NOPE", "XNYS")


@dataclass(frozen=True)
class World:
    """A provider with bars of ``listing`` in ``WINDOW``; ``truth`` is what it must answer, where the test wrote it.

    ``tells_unknown``: it says of a symbol that it does not know it, where others have no bars of it.
    """

    provider: Provider
    listing: Listing
    interval: Interval
    truth: Bars | None
    now: datetime = NOW
    tells_unknown: bool = True
    open: ExitStack = field(default_factory=ExitStack)


def bars_of(listing: Listing, interval: Interval) -> Bars:
    """Bars of every expected interval of WINDOW but each 50th, prices with four decimals at most."""
    ts = CALENDARS.get(listing.mic).expected(WINDOW, interval)
    ts = ts[np.arange(len(ts)) % 50 != 49]
    units = 1_000_000 + (np.arange(len(ts)) * 7919) % 5000
    spread = 1 + np.arange(len(ts)) % 3
    open_, high, low, close = ((units + k) / 10_000 for k in (0, spread, -spread, spread // 2))
    return Bars.of(ts, open_, high, low, close, [100.0 + i for i in range(len(ts))])


def local_times(bars: Bars, zone: str, pattern: str) -> list[str]:
    from zoneinfo import ZoneInfo

    return [from_us(ts).astimezone(ZoneInfo(zone)).strftime(pattern) for ts in bars.ts_us]


def files_world(folder: Path, listing: Listing, interval: Interval, *, parquet: bool) -> World:
    bars = bars_of(listing, interval)
    zone = "UTC" if listing.mic == "24/7" or interval is Interval.D1 else NEW_YORK
    times = local_times(bars, zone, "%Y-%m-%d %H:%M")
    ending = "parquet" if parquet else "csv"
    path = folder / f"one.{ending}"
    if parquet:
        names = ["time", "open", "high", "low", "close", "volume"]
        columns = [pa.array([datetime.fromisoformat(t) for t in times], pa.timestamp("ms")), *bars.columns]
        pa.parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    else:
        rows = [
            ",".join([t, *map(repr, map(float, r))]) for t, r in zip(times, np.column_stack(bars.columns), strict=True)
        ]
        path.write_text("\n".join(["time,open,high,low,close,volume", *rows]) + "\n")
    mapping = folder / "map.yaml"
    dataset = {"path": "one." + ending, "symbols": [listing.symbol], "interval": str(interval), "timezone": zone}
    mapping.write_text(yaml.safe_dump({"datasets": [dataset]}))
    return World(FilesProvider(mapping, CALENDARS), listing, interval, bars)


def lean_world(root: Path, listing: Listing, interval: Interval) -> World:
    bars = bars_of(listing, interval)
    crypto = listing.mic == "24/7"
    zone, scale = ("UTC", 1) if crypto else (NEW_YORK, 10_000)
    folder = root / ("crypto/coinbase" if crypto else "equity/usa")
    ticker = listing.symbol.lower().replace("-", "")
    days = local_times(bars, zone, "%Y%m%d")
    clocks = local_times(bars, zone, "%H:%M")
    if interval is Interval.D1:
        days, clocks = local_times(bars, "UTC", "%Y%m%d"), ["00:00"] * len(bars)
    lines: dict[Path, list[str]] = {}
    for i, (day, clock) in enumerate(zip(days, clocks, strict=True)):
        # LEAN's whole numbers for equities, its plain decimals for crypto.
        prices = [f"{float(c[i]) * scale:.0f}" if scale > 1 else f"{float(c[i])!r}" for c in bars.columns[:4]]
        minutes = int(clock[:2]) * 60 + int(clock[3:])
        by_day = interval is Interval.M1
        name = f"minute/{ticker}/{day}_trade" if by_day else f"{_LEAN[interval]}/{ticker}{'_trade' if crypto else ''}"
        time = str(minutes * 60_000) if by_day else f"{day} {clock}"
        lines.setdefault(folder / f"{name}.zip", []).append(",".join([time, *prices, f"{bars.volume[i]:.0f}"]))
    for path, rows in lines.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{path.stem}.csv", "\n".join(rows))
    return World(LeanProvider(root, CALENDARS), listing, interval, bars)


_LEAN = {Interval.H1: "hour", Interval.D1: "daily"}


def simulator_world(_: Path, listing: Listing, interval: Interval) -> World:
    provider = SimulatorProvider(CALENDARS, Faults.parse(f"unknown={UNKNOWN.symbol}"), seed=7)
    return World(provider, listing, interval, None)


def files_csv(folder: Path, listing: Listing, interval: Interval) -> World:
    return files_world(folder, listing, interval, parquet=False)


def files_parquet(folder: Path, listing: Listing, interval: Interval) -> World:
    return files_world(folder, listing, interval, parquet=True)


#: Those whose API has no word for a symbol that does not exist.
_SILENT_ON_UNKNOWN = {"alpaca", "massive", "finnhub"}
#: Yahoo has minutes of a month only.
_SOON_AFTER = datetime(2024, 3, 20, tzinfo=UTC)


def vendor_world(name: str) -> Callable[[Path, Listing, Interval], World]:
    def build(_: Path, listing: Listing, interval: Interval) -> World:
        bars = bars_of(listing, interval)
        quote = Quote(datetime(2024, 3, 11, 20, tzinfo=UTC), bid=100.0, bid_size=2.0, ask=100.1, ask_size=3.0)
        market = Market({(listing.symbol, interval): bars}, {listing.symbol: quote}, page=97)
        opened = ExitStack()
        server = opened.enter_context(VendorServer(market))
        delays = {name: 900.0 if name == "alpaca" and interval is Interval.M5 else 0.0}
        provider = vendor(name, server, CALENDARS, vendor_delays=delays)
        now = _SOON_AFTER if name == "yfinance" else NOW
        return World(provider, listing, interval, bars, now, name not in _SILENT_ON_UNKNOWN, opened)

    build.__name__ = name
    return build


def vendors_intervals() -> dict[str, list[Interval]]:
    some = [Interval.M1, Interval.M5, Interval.M15, Interval.D1]
    own = {"alpaca": list(Interval), "massive": list(Interval), "databento": [Interval.M1, Interval.H1, Interval.D1]}
    return {name: own.get(name, some) for name in SWITCHES}


WORLDS: list[tuple[str, Callable[[Path, Listing, Interval], World], Listing, Interval]] = [
    (f"{build.__name__.removesuffix('_world')}-{listing.symbol}-{interval}", build, listing, interval)
    for build, intervals in (
        (simulator_world, list(Interval)),
        (files_csv, [Interval.M1, Interval.M15, Interval.D1]),
        (files_parquet, [Interval.M5, Interval.H1, Interval.D1]),
        (lean_world, [Interval.M1, Interval.H1, Interval.D1]),
    )
    for listing in (STOCK, PAIR)
    for interval in intervals
] + [
    (f"{name}-{listing.symbol}-{interval}", vendor_world(name), listing, interval)
    for name, intervals in vendors_intervals().items()
    for listing in ([STOCK, PAIR] if name == "yfinance" else [STOCK])
    for interval in intervals
]


@pytest.fixture(params=WORLDS, ids=[name for name, *_ in WORLDS])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    _, build, listing, interval = request.param
    made: World = build(tmp_path, listing, interval)
    with made.open:
        yield made


def fetch(world: World, window: TimeWindow = WINDOW) -> Bars:
    answer = world.provider.fetch_bars([world.listing], world.interval, window, world.now)
    assert not answer.errors
    return answer.bars[world.listing.symbol]


def same(left: Bars, right: Bars) -> bool:
    pairs = zip((left.ts_us, *left.columns), (right.ts_us, *right.columns), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_bars_are_exactly_what_the_source_holds(world: World) -> None:
    bars = fetch(world)
    assert len(bars)
    if world.truth is not None:
        assert same(bars, world.truth)
    else:
        assert np.array_equal(bars.ts_us, CALENDARS.get(world.listing.mic).expected(WINDOW, world.interval))


def test_healthy_bars_pass_validation_whole_and_in_order(world: World) -> None:
    bars = fetch(world)
    good, rejected = validated(bars, WINDOW, world.interval)
    assert rejected == []
    assert same(good, bars)


@pytest.mark.parametrize("cut", [timedelta(hours=12), timedelta(hours=86, minutes=37), timedelta(hours=93)])
def test_two_windows_side_by_side_give_what_the_whole_gives(world: World, cut: timedelta) -> None:
    middle = WINDOW.start + cut
    parts = [TimeWindow(start=WINDOW.start, end=middle), TimeWindow(start=middle, end=WINDOW.end)]
    answers = [world.provider.fetch_bars([world.listing], world.interval, part, world.now) for part in parts]
    halves = [answer.bars.get(world.listing.symbol, Bars.empty()) for answer in answers]
    assert same(Bars.concat(halves), fetch(world))


@pytest.mark.parametrize("hours", [9.99, 10.0, 10.5, 11.26, 16.0, 40.0])
def test_only_bars_that_ended_by_now_are_given_and_all_of_them(world: World, hours: float) -> None:
    whole = fetch(world)
    now = WINDOW.start + timedelta(hours=hours)
    ends = CALENDARS.get(world.listing.mic).interval_end(whole.ts_us, world.interval)
    if world.provider.name == "databento" and world.interval is Interval.D1:  # its days are those of UTC
        ends = whole.ts_us + 86_400_000_000
    expected = whole.take(ends <= to_us(now - timedelta(seconds=world.provider.capabilities.delay_s)))
    try:
        answer = world.provider.fetch_bars([world.listing], world.interval, WINDOW, now)
    except NotYetError:
        assert not len(expected)
    else:
        assert same(answer.bars[world.listing.symbol], expected)


def test_asking_again_gives_the_same_also_from_a_new_instance(world: World, tmp_path: Path) -> None:
    first = fetch(world)
    assert same(fetch(world), first)
    if world.provider.name in SWITCHES:
        return
    again: World = {
        "simulator": lambda: simulator_world(tmp_path, world.listing, world.interval),
        "files": lambda: World(FilesProvider(tmp_path / "map.yaml", CALENDARS), world.listing, world.interval, None),
        "lean": lambda: World(LeanProvider(tmp_path, CALENDARS), world.listing, world.interval, None),
    }[world.provider.name]()
    assert same(fetch(again), first)


def test_every_symbol_asked_for_is_in_exactly_one_of_bars_and_errors(world: World) -> None:
    answer = world.provider.fetch_bars([world.listing, UNKNOWN], world.interval, WINDOW, world.now)
    if not world.tells_unknown:
        assert (set(answer.bars), answer.errors) == ({world.listing.symbol, UNKNOWN.symbol}, {})
        assert not len(answer.bars[UNKNOWN.symbol])
        return
    assert set(answer.bars) == {world.listing.symbol}
    assert set(answer.errors) == {UNKNOWN.symbol}
    error = answer.errors[UNKNOWN.symbol]
    assert isinstance(error, NoDataError)
    assert not error.retryable
    assert error.provider == world.provider.name


def test_what_is_unanswered_lies_in_the_window_and_holds_no_bar(world: World) -> None:
    wide = TimeWindow(start=WINDOW.start - timedelta(days=3), end=WINDOW.end + timedelta(days=3))
    answer = world.provider.fetch_bars([world.listing], world.interval, wide, world.now)
    parts = answered(answer, world.listing.symbol, wide)
    cuts = [cut.window for cut in answer.unanswered.get(world.listing.symbol, ())]
    pieces = sorted([*parts, *cuts], key=lambda piece: piece.start)
    assert pieces[0].start == wide.start
    assert pieces[-1].end == wide.end
    assert all(a.end == b.start for a, b in pairwise(pieces))
    bars = answer.bars[world.listing.symbol]
    assert sum(len(bars.within(part)) for part in parts) == len(bars)
    assert all(isinstance(cut.error, ProviderError) for cut in answer.unanswered.get(world.listing.symbol, ()))


def test_capabilities_are_declared_and_kept(world: World) -> None:
    capabilities = world.provider.capabilities
    assert world.interval in capabilities.intervals
    assert capabilities.max_symbols >= 1
    assert capabilities.complete or world.provider.name in {"finnhub", "yfinance", "databento"}
    assert world.provider.check()


def test_an_interval_that_is_not_declared_is_refused(world: World) -> None:
    for interval in set(Interval) - world.provider.capabilities.intervals:
        with pytest.raises(UnsupportedError):
            world.provider.fetch_bars([world.listing], interval, WINDOW, world.now)


def test_quotes_are_given_as_declared(world: World) -> None:
    if not world.provider.capabilities.quotes:
        with pytest.raises(UnsupportedError):
            world.provider.fetch_quotes([world.listing], world.now)
        return
    quotes = world.provider.fetch_quotes([world.listing, UNKNOWN], world.now)
    assert UNKNOWN.symbol not in quotes
    for quote in quotes.values():
        assert quote.ts <= world.now
        assert quote.bid is not None
        assert quote.ask is not None
        assert 0 < quote.bid < quote.ask
