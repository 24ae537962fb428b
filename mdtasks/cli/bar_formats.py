"""Bars as a table, and files that appear whole. The formats for programs are those of ``flows.bar_formats``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mdtasks.cli.output import show_table
from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.reading import STATUSES, BarRows
from mdtasks.flows.bar_formats import COLUMNS, times


class Counted:
    """Batches as they pass: how many rows there were, and the ``last`` of them (None: all)."""

    def __init__(self, batches: Iterable[BarRows], last: int | None = 0) -> None:
        self._batches, self._last = batches, last
        self.count = 0
        self.held: list[BarRows] = []

    def __iter__(self) -> Iterator[BarRows]:
        for rows in self._batches:
            self.count += len(rows)
            if self._last != 0:
                self.held.append(rows)
            if self._last:
                whole = BarRows.concat(self.held)
                self.held = [whole.take(slice(max(len(whole) - self._last, 0), None))]
            yield rows


def write_table(rows: BarRows, interval: Interval) -> None:
    """Bars of one symbol as a table, prices of a column with equally many decimals; nothing where nobody traded."""
    silent = rows.silent
    prices = [_aligned(column) for column in rows.bars.columns]
    known = [_plain(text) for text in times(rows.known_at_us, "s")]
    status = [STATUSES[each] for each in rows.status.tolist()]
    shown = [None if empty else text for text, empty in zip(known, silent.tolist(), strict=True)]
    headers = (f"{rows.symbol[0]} {interval} (UTC)", *COLUMNS[1:6], "provider", "status", "known at")
    columns = ([_plain(text) for text in times(rows.bars.ts_us, "m")], *prices, rows.provider.tolist(), status, shown)
    show_table(headers, list(zip(*columns, strict=True)))


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears when the block has ended well, in place of the old one; otherwise nothing changes.

    Raises MdtasksError when it cannot be written (no such folder, disk full).
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(path)
    except OSError as exc:
        raise MdtasksError(f"cannot write {path}: {exc.strerror}", hint="nothing was changed there") from exc
    finally:
        part.unlink(missing_ok=True)


def _plain(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")


def _aligned(column: NDArray[np.float64]) -> list[str | None]:
    """Numbers as text with as many decimals as the one that needs most (at most 10); None for NaN."""
    values = column.tolist()
    decimals = max((_decimals(value) for value in values), default=0)
    texts = ["" if value != value else f"{value:,.{decimals}f}" for value in values]  # noqa: PLR0124 - NaN
    width = max(map(len, texts), default=0)
    return [text.rjust(width) if text else None for text in texts]


def _decimals(value: float) -> int:
    text = repr(value)
    return 10 if "e" in text else min(len(text.partition(".")[2].removesuffix("0")), 10)
