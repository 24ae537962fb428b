"""Truth: every bar of the real files lands in the store with the file's values, and a second run changes nothing.

From a request through rows, claims, the ``files`` provider and the committing statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from mdtasks.domain.bars import from_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.deps import Deps
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
    with deps.database.transaction() as connection:
        instrument = resolve(connection, [source.symbol])[source.symbol]
        found = store_bars.read_bars(connection, instrument.id, source.interval, span)
    assert found.final.all()
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
