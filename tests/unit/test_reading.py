"""Rows of an answer: silence is put where it belongs, once, and nothing else is touched."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.bars import Bars
from mdtasks.domain.reading import NO_TRADE, BarRows, filled

MINUTES = st.lists(st.integers(0, 60), unique=True).map(sorted)


def rows_of(minutes: list[int]) -> BarRows:
    ts = np.array(minutes, dtype=np.int64) * 60_000_000
    values = np.array(minutes, dtype=np.float64)
    bars = Bars(ts, values, values, values, values, values)
    names = np.full(len(ts), "X", dtype=object)
    return BarRows(names, bars, names, np.ones(len(ts), dtype=np.int8), ts)


@given(MINUTES, MINUTES)
def test_each_silent_interval_without_a_bar_has_one_row_in_its_place(barred: list[int], silent: list[int]) -> None:
    found = filled(rows_of(barred), "X", np.array(silent, dtype=np.int64) * 60_000_000)
    assert (found.bars.ts_us // 60_000_000).tolist() == sorted({*barred, *silent})
    assert found.bars.close[~found.silent].tolist() == barred
    assert np.isnan(found.bars.close[found.silent]).all()
    assert (found.bars.volume[found.silent] == 0).all()
    assert (found.status == NO_TRADE).sum() == len({*silent} - {*barred})
    assert set(found.symbol) <= {"X"}


@given(MINUTES, st.integers(0, 60))
def test_parts_joined_are_the_whole(minutes: list[int], cut: int) -> None:
    whole = rows_of(minutes)
    joined = BarRows.concat([whole.take(slice(cut)), whole.take(slice(cut, None))])
    assert joined.bars.ts_us.tolist() == whole.bars.ts_us.tolist()
    assert joined.provider.tolist() == whole.provider.tolist()
