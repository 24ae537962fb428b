"""Bars as table, csv, json and parquet. Numbers are written so that they read back as the same doubles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from mdtasks.cli.output import iso, show_table
from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.store.bars import StoredBars

COLUMNS: Final = ("ts", "open", "high", "low", "close", "volume", "provider", "status", "known_at")
#: Rows turned into text at a time: bounds memory.
_ROWS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Found:
    """The bars of one symbol in a window, as they stand or as they were known at ``as_of``.

    ``adjust``: for what prices and volumes are adjusted. ``known_later``: where none was known then, how many are now.
    """

    symbol: str
    interval: Interval
    window: TimeWindow
    as_of: datetime | None
    stored: StoredBars
    adjust: str = "none"
    known_later: int = 0

    def __len__(self) -> int:
        return len(self.stored)

    def part(self, rows: slice) -> Found:
        """The bars at ``rows``."""
        held = self.stored
        columns = (held.provider[rows], held.final[rows], held.known_at_us[rows], held.attempt_id[rows])
        return replace(self, stored=StoredBars(held.bars.take(rows), *columns))

    def last(self, count: int) -> Found:
        """The last ``count`` bars."""
        return self.part(slice(max(len(self) - count, 0), None))

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Tuples of COLUMNS: times as ISO 8601 with Z, prices as float."""
        for start in range(0, len(self), _ROWS):
            held = self.part(slice(start, start + _ROWS)).stored
            prices = (column.tolist() for column in held.bars.columns)
            yield from zip(
                _times(held.bars.ts_us, "s"),
                *prices,
                held.provider.tolist(),
                _status(held),
                _times(held.known_at_us, "us"),
                strict=True,
            )


def write_table(found: Found) -> None:
    """The bars as a table, prices of a column with equally many decimals."""
    stored = found.stored
    prices = [_aligned(column) for column in stored.bars.columns]
    times = [text.replace("T", " ").removesuffix("Z") for text in _times(stored.bars.ts_us, "m")]
    known = [text.replace("T", " ").removesuffix("Z") for text in _times(stored.known_at_us, "s")]
    headers = (f"{found.symbol} {found.interval} (UTC)", *COLUMNS[1:6], "provider", "status", "known at")
    show_table(headers, list(zip(times, *prices, stored.provider.tolist(), _status(stored), known, strict=True)))


def write_csv(found: Found, stream: IO[bytes]) -> None:
    """A header and a line a bar. Nothing needs quotes."""
    stream.write((",".join(COLUMNS) + "\n").encode())
    for row in found.rows():
        stream.write((",".join(map(str, row)) + "\n").encode())  # str of a float is its shortest exact form


def write_json(found: Found, stream: IO[bytes]) -> None:
    """One object, a line a bar."""
    about = {
        "symbol": found.symbol,
        "interval": found.interval,
        "start": iso(found.window.start),
        "end": iso(found.window.end),
        "as_of": None if found.as_of is None else iso(found.as_of),
        "adjust": found.adjust,
    }
    stream.write(orjson.dumps(about)[:-1] + b', "bars": [')
    for number, row in enumerate(found.rows()):
        stream.write((b",\n" if number else b"\n") + orjson.dumps(dict(zip(COLUMNS, row, strict=True))))
    stream.write(b"\n]}\n")


def write_parquet(found: Found, stream: IO[bytes]) -> None:
    """Columns as they are stored; symbol and interval are in the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored, utc = found.stored, pa.timestamp("us", tz="UTC")
    columns = {
        "ts": pa.array(stored.bars.ts_us, utc),
        **dict(zip(COLUMNS[1:6], map(pa.array, stored.bars.columns), strict=True)),
        "provider": pa.array(stored.provider.tolist(), pa.string()),
        "status": pa.array(_status(stored), pa.string()),
        "known_at": pa.array(stored.known_at_us, utc),
    }
    about = {"symbol": found.symbol, "interval": found.interval.value, "adjust": found.adjust}
    pq.write_table(pa.table(columns, metadata=about), stream)


WRITERS: Final[dict[str, Callable[[Found, IO[bytes]], None]]] = {
    "csv": write_csv,
    "json": write_json,
    "parquet": write_parquet,
}


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


def _times(us: NDArray[np.int64], unit: str) -> list[str]:
    times: list[str] = np.datetime_as_string(us.astype("datetime64[us]"), unit=unit, timezone="UTC").tolist()  # type: ignore[call-overload]
    return times


def _status(stored: StoredBars) -> list[str]:
    status: list[str] = np.where(stored.final, "final", "provisional").tolist()
    return status


def _aligned(column: NDArray[np.float64]) -> list[str]:
    """Numbers as text with as many decimals as the one that needs most (at most 10)."""
    values = column.tolist()
    decimals = max((_decimals(value) for value in values), default=0)
    texts = [f"{value:,.{decimals}f}" for value in values]
    width = max(map(len, texts), default=0)
    return [text.rjust(width) for text in texts]


def _decimals(value: float) -> int:
    text = repr(value)
    return 10 if "e" in text else min(len(text.partition(".")[2].removesuffix("0")), 10)
