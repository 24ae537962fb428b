"""The real files as a provider's folder, how each describes itself, and filling the store out of them.

Only the broker's hop is left out: each queued job is run here, as a worker's task runs it.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import yaml

from mdtasks.domain.jobs import BackfillJob, Interval, TimeWindow, parse_job
from mdtasks.flows.backfill import BackfillRequest, request_backfill
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.ingest import Outcome, run_backfill
from mdtasks.settings import Settings
from mdtasks.store.reference import Instrument, add_instruments

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
Row = tuple[datetime, float, float, float, float, float]


def _new_york(value: str) -> datetime:
    local = datetime.strptime(value, "%m/%d/%Y %H:%M").replace(tzinfo=ZoneInfo("America/New_York"))
    return local.astimezone(UTC)


def _us_date(value: str) -> datetime:
    return datetime.strptime(value, "%m/%d/%Y").replace(tzinfo=UTC)


def _iso_date(value: str) -> datetime:
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


@dataclass(frozen=True)
class Source:
    """A real file, how the mapping describes it, and an independent way to read its times."""

    path: str
    symbol: str
    mic: str
    interval: Interval
    time_of: Callable[[str], datetime]
    mapping: dict[str, object]

    def rows(self, folder: Path) -> list[Row]:
        with (folder / self.path).open(newline="") as lines:
            found = [
                {name.lower(): value for name, value in row.items()}
                for row in csv.DictReader(lines, skipinitialspace=True)
            ]
        names = ("open", "high", "low", "close", "volume")
        return [(self.time_of(row["date"]), *(float(row[name]) for name in names)) for row in found]  # type: ignore[misc]

    def dataset(self) -> dict[str, object]:
        return {"path": self.path, "symbols": [self.symbol], "interval": str(self.interval), **self.mapping}


_UPPER = {"time": "Date", "open": "Open", "high": "High", "low": "Low", "close": "Close", "volume": "Volume"}
_LOWER = {**{name: name for name in ("open", "high", "low", "close", "volume")}, "time": "date"}


def _yahoo(symbol: str, name: str) -> Source:
    path = f"mplfinance/yahoofinance-{symbol}-{name}.csv"
    mapping: dict[str, object] = {"columns": _UPPER, "time_format": "%Y-%m-%d"}
    return Source(path, symbol, "XNYS", Interval.D1, _iso_date, mapping)


SOURCES = [
    Source(
        "mplfinance/SP500_NOV2019_IDay.csv",
        "SPX",
        "XNYS",
        Interval.M1,
        _new_york,
        {"columns": _UPPER, "timezone": "America/New_York", "time_format": "%m/%d/%Y %H:%M"},
    ),
    Source(
        "mplfinance/SP500_NOV2019_Hist.csv",
        "SPX",
        "XNYS",
        Interval.D1,
        _us_date,
        {"columns": _UPPER, "time_format": "%m/%d/%Y"},
    ),
    _yahoo("AAPL", "20040819-20180120"),
    _yahoo("GOOG", "20040819-20180120"),
    _yahoo("SPY", "20080101-20180101"),
    Source("crypto/XRP_ETH-1m.csv", "XRP-ETH", "24/7", Interval.M1, datetime.fromisoformat, {"columns": _LOWER}),
    Source("crypto/ETH_BTC-5m.csv", "ETH-BTC", "24/7", Interval.M5, datetime.fromisoformat, {"columns": _LOWER}),
]


@contextmanager
def real_files(settings: Settings, shared_data: Path, tmp_path: Path) -> Iterator[Deps]:
    """Deps whose only provider is the folder of real files."""
    mapping = tmp_path / "map.yaml"
    mapping.write_text(yaml.safe_dump({"root": str(shared_data), "datasets": [source.dataset() for source in SOURCES]}))
    opened = open_deps(settings.model_copy(update={"simulator": False, "files_map": mapping}))
    with opened.database.transaction() as connection:
        listings = {source.symbol: source.mic for source in SOURCES}
        add_instruments(connection, [Instrument(symbol, mic) for symbol, mic in listings.items()])
    yield opened
    opened.close()


def span_of(source: Source, rows: list[Row]) -> TimeWindow:
    return TimeWindow(start=rows[0][0], end=rows[-1][0] + timedelta(seconds=source.interval.seconds))


def fill(deps: Deps, source: Source, span: TimeWindow, *, refetch: bool = False) -> list[Outcome]:
    """Ask for the file's span and run every job; returns how each ended."""
    asked = BackfillRequest(
        symbol=(source.symbol,), interval=source.interval, start=span.start, end=span.end, refetch=refetch
    )
    request_backfill(asked, "test", deps, NOW)
    outcomes = []
    while isinstance(element := deps.broker.rpop("T1"), bytes):
        document = json.loads(base64.b64decode(json.loads(element)["body"]))[0][0]
        job = parse_job(document)
        assert isinstance(job, BackfillJob)
        outcomes.append(run_backfill(job, deps, "test@here/1", NOW).outcome)
    return outcomes
