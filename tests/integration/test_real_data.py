"""Truth: every bar of the real files lands in the store with the file's values, and a second run changes nothing.

From a request through rows, claims, the ``files`` provider and the committing statement; only the broker's hop is left
out: each queued job is run here, as a worker's task runs it.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd  # type: ignore[import-untyped]
import pytest
import yaml
from sqlalchemy import text

from mdtasks.domain.bars import from_us
from mdtasks.domain.jobs import BackfillJob, Interval, TimeWindow, parse_job
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.backfill import BackfillRequest, request_backfill
from mdtasks.flows.crosschecks import check_once
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.derive import derive_once
from mdtasks.flows.gaps import Question, find_gaps
from mdtasks.flows.ingest import Outcome, run_backfill
from mdtasks.settings import Settings
from mdtasks.store import bars as store_bars
from mdtasks.store.reference import Instrument, add_instruments, resolve

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


@pytest.fixture
def deps(settings: Settings, shared_data: Path, tmp_path: Path) -> Iterator[Deps]:
    """Deps whose only provider is the folder of real files."""
    mapping = tmp_path / "map.yaml"
    mapping.write_text(yaml.safe_dump({"root": str(shared_data), "datasets": [source.dataset() for source in SOURCES]}))
    opened = open_deps(settings.model_copy(update={"simulator": False, "files_map": mapping}))
    with opened.database.transaction() as connection:
        listings = {source.symbol: source.mic for source in SOURCES}
        add_instruments(connection, [Instrument(symbol, mic) for symbol, mic in listings.items()])
    yield opened
    opened.close()


def _span(source: Source, rows: list[Row]) -> TimeWindow:
    return TimeWindow(start=rows[0][0], end=rows[-1][0] + timedelta(seconds=source.interval.seconds))


def _fill(deps: Deps, source: Source, span: TimeWindow, *, refetch: bool = False) -> list[Outcome]:
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


def _stored(deps: Deps, source: Source, span: TimeWindow) -> list[Row]:
    return _stored_of(deps, source, source.interval, span)


def _stored_of(deps: Deps, source: Source, interval: Interval, span: TimeWindow, *, final: bool = True) -> list[Row]:
    with deps.database.transaction() as connection:
        instrument = resolve(connection, [source.symbol])[source.symbol]
        found = store_bars.read_bars(
            connection, instrument.id, interval, TimeWindow(start=span.start - timedelta(days=1), end=span.end)
        )
    assert found.final.all() or not final
    times = [from_us(ts) for ts in found.bars.ts_us]
    return list(zip(times, *(column.tolist() for column in found.bars.columns), strict=True))


def _versions(deps: Deps) -> list[tuple[object, ...]]:
    """Where each row physically is and which transaction wrote it: the same list means that nothing was touched."""
    with deps.database.transaction() as connection:
        rows = connection.execute(text("SELECT tableoid, ctid::text, xmin::text FROM bars ORDER BY 1, 2"))
        revisions = connection.execute(text("SELECT count(*) FROM bar_revisions")).scalar_one()
        return [*map(tuple, rows), (revisions,)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: Path(source.path).stem)
def test_every_bar_of_the_file_lands_with_its_values_and_a_second_run_changes_nothing(
    source: Source, deps: Deps, shared_data: Path
) -> None:
    rows = source.rows(shared_data)
    span = _span(source, rows)
    outcomes = _fill(deps, source, span)
    assert outcomes
    assert set(outcomes) == {Outcome.DONE}
    assert _stored(deps, source, span) == rows
    before = _versions(deps)
    assert _fill(deps, source, span) == []  # all of it is covered: nothing to ask for
    assert set(_fill(deps, source, span, refetch=True)) == {Outcome.DONE}
    assert _versions(deps) == before
    assert before[-1] == (0,)


def test_a_thin_pair_ends_without_a_gap(deps: Deps, shared_data: Path) -> None:
    source = next(source for source in SOURCES if source.symbol == "XRP-ETH")
    span = _span(source, source.rows(shared_data))
    _fill(deps, source, span)
    asked = Question(["XRP-ETH"], Interval.M1, AskedWindow(span.start, span.end))
    (found,) = find_gaps(asked, deps, NOW)
    assert (found.expected, found.present, found.no_trade, found.missing) == (3560, 2469, 1091, 0)


#: Whole real minutes, the clock that days go by, and the hours of its exchange.
_MINUTES = [("SPX", "America/New_York", ("9:30", "15:59")), ("XRP-ETH", "UTC", ("0:00", "23:59"))]


@pytest.mark.parametrize(("symbol", "clock", "hours"), _MINUTES, ids=[symbol for symbol, *_ in _MINUTES])
def test_longer_bars_made_of_real_minutes_are_what_pandas_makes_of_the_file(
    symbol: str, clock: str, hours: tuple[str, str], deps: Deps, shared_data: Path
) -> None:
    source = next(each for each in SOURCES if each.symbol == symbol and each.interval is Interval.M1)
    rows = source.rows(shared_data)
    kept = {"keep_t1": (Interval.M1, Interval.M15, Interval.H1)}  # the files have neither
    made = replace(deps, settings=deps.settings.model_copy(update=kept))
    _fill(made, source, _span(source, rows))
    derive_once(made, NOW)
    times = pd.DatetimeIndex([row[0] for row in rows]).tz_convert(clock)
    columns = list(zip(*(row[1:] for row in rows), strict=True))
    frame = pd.DataFrame(dict(zip(("open", "high", "low", "close", "volume"), columns, strict=True)), index=times)
    frame = frame.between_time(*hours).tz_convert("UTC")
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    for interval, rule in ((Interval.M15, "15min"), (Interval.H1, "1h")):
        # The file ends in the middle of an interval, which is provisional then.
        found = _stored_of(made, source, interval, _span(source, rows), final=False)
        want = frame.resample(rule).agg(how).dropna()
        assert [row[0] for row in found] == list(want.index.to_pydatetime())
        assert [row[1:5] for row in found] == [tuple(row) for row in want.iloc[:, :4].to_numpy().tolist()]
        assert [row[5] for row in found] == pytest.approx(want["volume"].tolist(), rel=1e-12)


def test_real_days_agree_with_their_real_minutes(deps: Deps, shared_data: Path) -> None:
    """The S&P 500's closes and highs are printed after the last minute; its minutes have no volumes."""
    of_index = [source for source in SOURCES if source.symbol == "SPX"]
    for source in of_index:
        assert set(_fill(deps, source, _span(source, source.rows(shared_data)))) == {Outcome.DONE}
    kept = replace(deps, settings=deps.settings.model_copy(update={"keep_t1": (Interval.M1, Interval.D1)}))
    assert check_once(kept, datetime(2019, 11, 9, 12, tzinfo=UTC)) == {"compared": 4, "disagreed": 0}
    with deps.database.transaction() as connection:
        apart = connection.execute(text("SELECT apart_bp FROM reconciliations ORDER BY ts")).scalars().all()
    worst = [max(column) for column in zip(*apart, strict=True)]
    assert worst[:4] == pytest.approx([0.0, 0.58, 0.0, 1.1], abs=0.06)
    assert worst[3] > 0.5
