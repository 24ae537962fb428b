"""The worlds of the providers' suite: each adapter on data made here, where the truth is known.

An adapter joins by a world: a listing it serves, one it does not know, an interval, and a window with sessions in it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml

from mdtasks.domain.bars import Bars, Quote, from_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import Provider
from mdtasks.providers.faults import Faults
from mdtasks.providers.files import FilesProvider
from mdtasks.providers.lean import LeanProvider
from mdtasks.providers.simulator import SimulatorProvider
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
        # What `check` asks for is there, and silent.
        sold = {("AAPL", Interval.D1): Bars.empty(), (listing.symbol, interval): bars}
        market = Market(sold, {listing.symbol: quote}, page=97)
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
