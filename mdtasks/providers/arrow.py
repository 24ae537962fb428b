"""pyarrow as the adapters that read files use it: loaded before the fork where that pays, and without pandas.

pyarrow's own way to numpy imports pandas, some 40 MB in each process that reads a file; buffers are read here instead.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LIBRARIES: Final = ("pyarrow", "pyarrow.compute", "pyarrow.csv", "pyarrow.parquet")


def without_thread() -> None:
    """Let no later import of pyarrow start a thread, for a fork may follow. Idempotent."""
    # An allocator inside pyarrow, which nothing here allocates from, has a thread from its import on unless told so.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")


def load() -> None:
    """Import what the readers import. Starts no thread, for a fork may follow. Idempotent."""
    without_thread()
    for name in LIBRARIES:
        importlib.import_module(name)


def int64s(column: Any) -> NDArray[np.int64]:
    """A copy of a column of int64 without nulls."""
    return _copied(column.combine_chunks(), np.int64)


def float64s(column: Any) -> NDArray[np.float64]:
    """A copy of a column of float64, nulls as NaN."""
    array = column.combine_chunks()
    values: NDArray[np.float64] = _copied(array, np.float64)
    if array.null_count:
        values[_is_null(array)] = np.nan
    return values


def first_null(column: Any) -> int:
    """The row of the first null of a column that has one."""
    return int(np.flatnonzero(_is_null(column.combine_chunks()))[0])


def _copied(array: Any, kind: type[Any]) -> NDArray[Any]:
    if not len(array):
        return np.empty(0, kind)
    return np.frombuffer(array.buffers()[1], kind, count=len(array), offset=array.offset * 8).copy()


def _is_null(array: Any) -> NDArray[np.bool_]:
    """Of an array that has nulls: a bit a row says which, the lowest bit of a byte first."""
    bits = np.unpackbits(np.frombuffer(array.buffers()[0], np.uint8), bitorder="little")
    null: NDArray[np.bool_] = bits[array.offset : array.offset + len(array)] == 0
    return null
