"""Truth: every bar of the real files lands in the store with the file's values, and a second run changes nothing.

From a request through rows, claims, the ``files`` provider and the committing statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import text

from mdtasks.domain.bars import from_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.crosschecks import check_once
from mdtasks.flows.deps import Deps
from mdtasks.flows.derive import derive_once
from mdtasks.flows.gaps import Question, find_gaps
from mdtasks.flows.ingest import Outcome
from mdtasks.settings import Settings
from mdtasks.store import bars as store_bars
from mdtasks.store.reference import resolve
from tests.integration.real_files import NOW, SOURCES, Row, Source, fill, real_files, span_of


@pytest.fixture
def deps(settings: Settings, shared_data: Path, tmp_path: Path) -> Iterator[Deps]:
    """Deps whose only provider is the folder of real files."""
    with real_files(settings, shared_data, tmp_path) as opened:
        yield opened


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
    span = span_of(source, rows)
    outcomes = fill(deps, source, span)
    assert outcomes
    assert set(outcomes) == {Outcome.DONE}
    assert _stored(deps, source, span) == rows
    before = _versions(deps)
    assert fill(deps, source, span) == []  # all of it is covered: nothing to ask for
    assert set(fill(deps, source, span, refetch=True)) == {Outcome.DONE}
    assert _versions(deps) == before
    assert before[-1] == (0,)


def test_a_thin_pair_ends_without_a_gap(deps: Deps, shared_data: Path) -> None:
    source = next(source for source in SOURCES if source.symbol == "XRP-ETH")
    span = span_of(source, source.rows(shared_data))
    fill(deps, source, span)
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
    fill(made, source, span_of(source, rows))
    derive_once(made, NOW)
    times = pd.DatetimeIndex([row[0] for row in rows]).tz_convert(clock)
    columns = list(zip(*(row[1:] for row in rows), strict=True))
    frame = pd.DataFrame(dict(zip(("open", "high", "low", "close", "volume"), columns, strict=True)), index=times)
    frame = frame.between_time(*hours).tz_convert("UTC")
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    for interval, rule in ((Interval.M15, "15min"), (Interval.H1, "1h")):
        # The file ends in the middle of an interval, which is provisional then.
        found = _stored_of(made, source, interval, span_of(source, rows), final=False)
        want = frame.resample(rule).agg(how).dropna()
        assert [row[0] for row in found] == list(want.index.to_pydatetime())
        assert [row[1:5] for row in found] == [tuple(row) for row in want.iloc[:, :4].to_numpy().tolist()]
        assert [row[5] for row in found] == pytest.approx(want["volume"].tolist(), rel=1e-12)


def test_real_days_agree_with_their_real_minutes(deps: Deps, shared_data: Path) -> None:
    """The S&P 500's closes and highs are printed after the last minute; its minutes have no volumes."""
    of_index = [source for source in SOURCES if source.symbol == "SPX"]
    for source in of_index:
        assert set(fill(deps, source, span_of(source, source.rows(shared_data)))) == {Outcome.DONE}
    kept = replace(deps, settings=deps.settings.model_copy(update={"keep_t1": (Interval.M1, Interval.D1)}))
    assert check_once(kept, datetime(2019, 11, 9, 12, tzinfo=UTC)) == {"compared": 4, "disagreed": 0}
    with deps.database.transaction() as connection:
        apart = connection.execute(text("SELECT apart_bp FROM reconciliations ORDER BY ts")).scalars().all()
    worst = [max(column) for column in zip(*apart, strict=True)]
    assert worst[:4] == pytest.approx([0.0, 0.58, 0.0, 1.1], abs=0.06)
    assert worst[3] > 0.5
