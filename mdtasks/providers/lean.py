"""The `lean` provider: bars and minute quotes from a LEAN data folder, read in place.

Layout and formats: QuantConnect/Lean, ``Data/readme.md`` and ``Common/Util/LeanData.cs``. Served are US equities
(``equity/usa``, prices x10000, New York wall clock) and crypto (``crypto/<market>``, prices as they are, UTC); minute
bars and quotes lie in a zip per day, hour and daily bars in one zip per symbol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.actions import Action, Days
from mdtasks.domain.bars import Bars, Quote, from_us, to_us
from mdtasks.domain.errors import BadPayloadError, NoDataError, ProviderError, VendorError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.arrow import first_null, float64s, int64s
from mdtasks.providers.base import ActionsAnswer, Capabilities
from mdtasks.providers.lean_actions import read_actions
from mdtasks.providers.ondisk import Load, OnDiskProvider, Source, unzipped
from mdtasks.providers.wallclock import DAY_US, LocalTimeError, day_bounds_us, local_to_utc, midnight_us, utc_to_local

NAME: Final = "lean"

_FOLDERS: Final = {Interval.M1: "minute", Interval.H1: "hour", Interval.D1: "daily"}
#: Exchanges whose listings lie in equity/usa: MICs and the names that calendars know for them.
_US_EXCHANGES: Final = frozenset(
    {"XNYS", "XNAS", "XASE", "ARCX", "BATS", "XCBO", "IEXG", "NYSE", "NASDAQ", "AMEX", "US_EQUITIES"}
)
#: A quote older than this is no quote of ``now``.
_QUOTE_REACH: Final = timedelta(days=7)
_TICKER: Final = re.compile(r"[a-z0-9][a-z0-9._^-]*")

_TRADE: Final = ("time", "open", "high", "low", "close", "volume")
_QUOTE: Final = ("time", "bo", "bh", "bl", "bid", "bid_size", "ao", "ah", "al", "ask", "ask_size")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a listing's data lies: ``folder`` is ``equity/usa`` or ``crypto/<market>``."""

    folder: Path
    ticker: str
    zone: str
    scale: float
    #: What follows the ticker in hour and daily file names.
    suffix: str

    def path(self, interval: Interval, day: date, kind: str = "trade") -> Path:
        """The zip that should hold ``day``."""
        if interval is Interval.M1:
            return self.folder / "minute" / self.ticker / f"{day:%Y%m%d}_{kind}.zip"
        return self.folder / _FOLDERS[interval] / f"{self.ticker}{self.suffix}.zip"


class LeanProvider(OnDiskProvider):
    """Bars (1m, 1h, 1d) and quotes of a LEAN data folder. The folder is looked at when asked, not at construction."""

    name = NAME
    capabilities = Capabilities(
        intervals=frozenset(_FOLDERS), max_symbols=1000, complete=True, quotes=True, actions=True, listing=True
    )

    def __init__(self, root: Path, calendars: Calendars) -> None:
        super().__init__(calendars)
        self._root = root

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:
        """The last quote of the latest minute that ended by ``now``, of the last seven days; others are absent.

        Raises BadPayloadError when a quote file cannot be read.
        """
        quotes: dict[str, Quote] = {}
        for listing in listings:
            try:
                place = self._place(listing)
            except NoDataError:
                continue
            for path in _quote_files(place, now):
                quote = _last_quote(place, path, now)
                if quote is not None:
                    quotes[listing.symbol] = quote
                    break
        return quotes

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:  # noqa: ARG002
        """Splits and dividends out of factor files, renames and delistings out of map files; see Provider."""
        actions: dict[str, Sequence[Action]] = {}
        errors: dict[str, ProviderError] = {}
        for listing in listings:
            try:
                actions[listing.symbol] = [each for each in self._actions(listing) if each.ex_date in days]
            except ProviderError as exc:
                errors[listing.symbol] = exc
        return ActionsAnswer(actions, errors)

    def _actions(self, listing: Listing) -> list[Action]:
        """All actions of a listing. Raises NoDataError when no file tells of it, BadPayloadError."""
        place, calendar = self._place(listing), self._calendars.get("XNYS")
        if place.scale == 1.0:
            return []  # of crypto there are none
        return read_actions(place.folder, place.ticker, calendar)

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:
        """The last ``days`` coarse files that there are; a day's is known on the day after. Raises NoDataError."""
        folder = self._root / "equity" / "usa" / "fundamental" / "coarse"
        found: list[tuple[date, Path]] = []
        for path in sorted(folder.glob("????????.csv")):
            with suppress(ValueError):  # a file of another name
                found.append((datetime.strptime(path.stem, "%Y%m%d").replace(tzinfo=UTC).date(), path))
        known = [(day, path) for day, path in found if day < now.date()]
        if not known:
            raise NoDataError(f"no coarse file of a day before {now:%Y-%m-%d} in {folder}", provider=NAME)
        try:
            return [Kept(day, path.read_bytes()) for day, path in known[-days:]]
        except OSError as exc:
            raise VendorError(f"cannot read {exc.filename}: {exc.strerror or exc}", provider=NAME) from exc

    def check(self) -> str:
        """What the folder holds. Raises NoDataError when it is not a LEAN data folder."""
        if not self._root.is_dir():
            raise NoDataError(f"no folder {self._root}", provider=NAME)
        equities, markets = self._root / "equity" / "usa", _folders(self._root / "crypto")
        if not equities.is_dir() and not markets:
            raise NoDataError(f"{self._root} holds neither equity/usa nor crypto/<market>", provider=NAME)
        counts = [
            f"{len(list((place / name).iterdir()))} {name} in {place.relative_to(self._root)}"
            for place in (equities, *markets)
            for name in _FOLDERS.values()
            if (place / name).is_dir()
        ]
        return f"{self._root}: {', '.join(counts) or 'no bars'}"

    def _place(self, listing: Listing) -> _Place:
        """Where the listing lies. Raises NoDataError when it can lie nowhere, or in several crypto markets."""
        if not self._root.is_dir():
            raise NoDataError(f"no folder {self._root}", provider=NAME)
        if listing.kind == "crypto" or listing.mic == "24/7":
            return self._crypto(listing.symbol)
        ticker = listing.symbol.lower()
        if listing.kind != "equity" or listing.mic.upper() not in _US_EXCHANGES or not _named_safely(ticker):
            raise NoDataError(
                f"{listing.symbol} ({listing.kind}, {listing.mic}): only US equities and crypto are read", provider=NAME
            )
        return _Place(self._root / "equity" / "usa", ticker, "America/New_York", 10_000.0, "")

    def _crypto(self, symbol: str) -> _Place:
        """A pair in the one market that has it; ``coinbase:BTC-USD`` names the market."""
        market, _, pair = symbol.lower().rpartition(":")
        ticker = re.sub(r"[-/_]", "", pair)
        if not _named_safely(ticker) or (market and not _named_safely(market)):
            raise NoDataError(f"{symbol!r} names no file", provider=NAME)
        folders = [self._root / "crypto" / market] if market else _folders(self._root / "crypto")
        places = [_Place(folder, ticker, "UTC", 1.0, "_trade") for folder in folders]
        having = [place for place in places if _has(place)]
        if len(having) > 1:
            names = " and ".join(f"{place.folder.name}:{pair.upper()}" for place in having)
            raise NoDataError(f"{symbol} is in several markets: ask for {names}", provider=NAME)
        if not having:
            raise NoDataError(f"no {ticker} under {self._root / 'crypto' / (market or '*')}", provider=NAME)
        return having[0]

    def sources(self, listing: Listing, interval: Interval, window: TimeWindow) -> list[tuple[Source, Load]]:
        """The zips that should hold the window. Raises NoDataError when the symbol has no folder or file at all."""
        place = self._place(listing)
        start_us, end_us = to_us(window.start), to_us(window.end)
        parse = partial(_read_bars, place, interval)
        if interval is not Interval.M1:
            path = place.path(interval, date.min)
            return [(Source(path, start_us, end_us, "rows"), partial(self.cache.get, path, parse))]
        folder = place.folder / "minute" / place.ticker
        if not folder.is_dir():
            raise NoDataError(f"no folder {folder}", provider=NAME)
        found: list[tuple[Source, Load]] = []
        for day in _local_days(start_us, end_us, place.zone):
            source = Source(place.path(interval, day), *day_bounds_us(day, place.zone), "period")
            found.append((source, partial(self.cache.get, source.path, parse)))
        return found


def _named_safely(name: str) -> bool:
    """Whether a symbol may stand in a path: a file's name, never a way out of the folder."""
    return _TICKER.fullmatch(name) is not None and ".." not in name


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _has(place: _Place) -> bool:
    minutes = place.folder / "minute" / place.ticker
    return minutes.is_dir() or any(place.path(i, date.min).is_file() for i in (Interval.H1, Interval.D1))


def _local_days(start_us: int, end_us: int, zone: str) -> Iterator[date]:
    first, last = (from_us(int(us)).date() for us in utc_to_local(np.array([start_us, end_us - 1]), zone))
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


def _read_bars(place: _Place, interval: Interval, path: Path) -> Bars:
    """The bars of one zip. Minute times count milliseconds of the local day, others are ``YYYYMMDD HH:MM``."""
    columns = _columns(path, _TRADE, by_day=interval is Interval.M1)
    written_us = columns["time"]
    try:
        ts_us = written_us // DAY_US * DAY_US if interval is Interval.D1 else local_to_utc(written_us, place.zone)
    except LocalTimeError as exc:
        raise BadPayloadError(f"{path}, line {exc.row + 1}: {exc}", provider=NAME) from exc
    # Whole numbers divided once: the double nearest to the price in dollars.
    open_, high, low, close = (columns[name] / place.scale for name in ("open", "high", "low", "close"))
    return Bars.of(ts_us, open_, high, low, close, columns["volume"])


def _columns(path: Path, names: tuple[str, ...], *, by_day: bool) -> dict[str, NDArray[Any]]:
    """The columns of the CSV in a zip: time as microseconds on the local clock, all else float64, blanks NaN.

    Raises NoDataError, VendorError (the disk failed), BadPayloadError naming the zip, and the line where known.
    """
    import pyarrow as pa
    from pyarrow import csv

    types = {name: pa.float64() for name in names} | {"time": pa.int64() if by_day else pa.timestamp("us")}
    try:
        data = unzipped(path, NAME)
        if not data.strip():
            return {name: np.empty(0, np.int64 if name == "time" else np.float64) for name in names}
        table = csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(use_threads=False, column_names=list(names)),
            convert_options=csv.ConvertOptions(column_types=types, timestamp_parsers=["%Y%m%d %H:%M"]),
        )
    except pa.ArrowException as exc:
        raise BadPayloadError(f"{path}: {' '.join(str(exc).split())[:300]}", provider=NAME) from exc
    except FileNotFoundError as exc:
        raise NoDataError(f"no file {path}", provider=NAME) from exc
    except OSError as exc:
        raise VendorError(f"cannot read {path}: {exc.strerror or exc}", provider=NAME) from exc
    if table.column("time").null_count:
        row = first_null(table.column("time"))
        raise BadPayloadError(f"{path}, line {row + 1}: no time", provider=NAME)
    times = int64s(table.column("time").cast(pa.int64()))
    floats = {name: float64s(table.column(name)) for name in names if name != "time"}
    return {"time": times * 1000 + _day_us(path) if by_day else times, **floats}


def _day_us(path: Path) -> int:
    """Local midnight of the day in a file's name, as microseconds on the local clock."""
    day = datetime.strptime(path.name[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    return midnight_us(day)


def _quote_files(place: _Place, now: datetime) -> list[Path]:
    """The quote files of the last days up to now, newest first."""
    today = now.astimezone(ZoneInfo(place.zone)).date()
    days = [today - timedelta(days=n) for n in range(_QUOTE_REACH.days + 1)]
    return [path for day in days if (path := place.path(Interval.M1, day, "quote")).is_file()]


def _last_quote(place: _Place, path: Path, now: datetime) -> Quote | None:
    """The closing quote of the file's last minute that ended by ``now``, stamped with that minute's end."""
    columns = _columns(path, _QUOTE, by_day=True)
    ends_us = local_to_utc(columns["time"], place.zone) + 60_000_000
    done = np.flatnonzero(ends_us <= to_us(now))
    if not len(done):
        return None
    row = done[np.argmax(ends_us[done])]

    def value(name: str, scale: float = 1.0) -> float | None:
        found = float(columns[name][row]) / scale
        return None if np.isnan(found) else found

    return Quote(
        ts=from_us(int(ends_us[row])),
        bid=value("bid", place.scale),
        bid_size=value("bid_size"),
        ask=value("ask", place.scale),
        ask_size=value("ask_size"),
    )
