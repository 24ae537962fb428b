"""The `files` provider: bars from a folder of CSV or Parquet, described by a mapping file.

Sits between providers/registry and the disk. Each file is read in its own words (columns, clock, label, scale) and
leaves as UTC interval starts with exactly the file's values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from mdtasks.domain.actions import Days
from mdtasks.domain.bars import Quote, from_us, to_us
from mdtasks.domain.errors import NoDataError, UnsupportedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.listings import Kept
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import ActionsAnswer, Capabilities
from mdtasks.providers.mapping import Dataset, load_mapping
from mdtasks.providers.ondisk import Load, OnDiskProvider, Source
from mdtasks.providers.tabular import read_bars
from mdtasks.providers.wallclock import SECOND_US, day_bounds_us, utc_to_local

NAME: Final = "files"


class FilesProvider(OnDiskProvider):
    """Bars of the datasets in a mapping file. Raises ConfigurationError when the mapping is wrong."""

    name = NAME

    def __init__(self, mapping: Path, calendars: Calendars) -> None:
        super().__init__(calendars)
        self._path = mapping
        self._mapping = load_mapping(mapping)
        self.capabilities = Capabilities(
            intervals=frozenset(d.interval for d in self._mapping.datasets),
            max_symbols=1000,
            complete=any(d.complete for d in self._mapping.datasets),
        )

    def fetch_quotes(self, listings: Sequence[Listing], now: datetime) -> Mapping[str, Quote]:  # noqa: ARG002
        """Files hold no quotes. Raises UnsupportedError."""
        raise UnsupportedError("has no quotes", provider=NAME)

    def fetch_actions(self, listings: Sequence[Listing], days: Days, now: datetime) -> ActionsAnswer:  # noqa: ARG002
        """Files hold bars alone: `mdtasks actions import` reads a file of actions. Raises UnsupportedError."""
        raise UnsupportedError("has no corporate actions", provider=self.name)

    def listing(self, now: datetime, days: int = 1) -> Sequence[Kept]:  # noqa: ARG002
        """A mapping says what is read, not what is listed. Raises UnsupportedError."""
        raise UnsupportedError("does not list its instruments", provider=NAME)

    def check(self) -> str:
        """Datasets and undated files found. Raises NoDataError when the root or one of those files is not there."""
        root = self._mapping.root
        if not root.is_dir():
            raise NoDataError(f"no folder {root} (root in {self._path})", provider=NAME)
        paths = [path for dataset in self._mapping.datasets for path in _undated_paths(dataset, root)]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise NoDataError(f"{len(missing)} of {len(paths)} files missing, first {missing[0]}", provider=NAME)
        return f"{len(self._mapping.datasets)} datasets under {root}, {len(paths)} undated files there"

    def sources(self, listing: Listing, interval: Interval, window: TimeWindow) -> list[tuple[Source, Load]]:
        """The files that should hold the window, each with its reader. Raises NoDataError for an unknown symbol."""
        symbol = listing.symbol
        found: list[tuple[Source, Load]] = []
        elsewhere: list[str] = []
        for number, dataset in enumerate(self._mapping.datasets):
            file_symbol = dataset.file_symbol(symbol)
            if file_symbol is None:
                continue
            if dataset.interval is not interval:
                elsewhere.append(dataset.interval)
                continue
            parse = partial(read_bars, dataset, provider=NAME)
            found += [
                (source, partial(self.cache.get, source.path, parse, number))
                for source in _files(dataset, self._mapping.root, file_symbol, window)
            ]
        if not found:
            has = f"; it has {', '.join(sorted(set(elsewhere)))}" if elsewhere else ""
            raise NoDataError(f"{self._path} has no {interval} dataset with symbol {symbol}{has}", provider=NAME)
        return found


def _undated_paths(dataset: Dataset, root: Path) -> list[Path]:
    if dataset.dated or dataset.symbols == "*":
        return []
    symbols = dataset.symbols.values() if isinstance(dataset.symbols, dict) else dataset.symbols
    return [dataset.file_path(root, symbol, date.min) for symbol in symbols]


def _files(dataset: Dataset, root: Path, file_symbol: str, window: TimeWindow) -> Iterator[Source]:
    """The dataset's files for the window, oldest first, each with the period that is its own."""
    if dataset.symbols == "*" and (".." in file_symbol or "/" in file_symbol):
        raise NoDataError(f"{file_symbol!r} names no file", provider=NAME)
    start_us, end_us = to_us(window.start), to_us(window.end)
    if not dataset.dated:
        path = dataset.file_path(root, file_symbol, from_us(start_us).date())
        yield Source(path, start_us, end_us, "rows" if dataset.complete else "bars")
        return
    # Daily bars are stamped with dates, whatever the zone; an end label may put a bar into its neighbour's file.
    zone = "UTC" if dataset.interval is Interval.D1 else dataset.timezone
    reach_us = dataset.interval.seconds * SECOND_US if dataset.label == "end" else 0
    local = utc_to_local(np.array([start_us, end_us - 1 + reach_us]), zone)
    day, last = (from_us(int(us)).date() for us in local)
    while day <= last:
        path = dataset.file_path(root, file_symbol, day)
        first, end = _period(dataset, root, file_symbol, day)
        bounds = (day_bounds_us(first, zone)[0], day_bounds_us(end, zone)[1])
        yield Source(path, *bounds, "period" if dataset.complete else "bars")
        day = end + timedelta(days=1)


def _period(dataset: Dataset, root: Path, file_symbol: str, day: date) -> tuple[date, date]:
    """First and last day that share the file of ``day``: itself, its month, its year."""
    path = dataset.file_path(root, file_symbol, day)
    first = last = day
    one = timedelta(days=1)
    while dataset.file_path(root, file_symbol, first - one) == path and (day - first).days < 366:
        first -= one
    while dataset.file_path(root, file_symbol, last + one) == path and (last - day).days < 366:
        last += one
    return first, last
