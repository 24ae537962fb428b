"""Bars as csv, json, arrow and parquet: batches of rows become bytes, piece by piece, for a file as for a socket.

Numbers are written so that they read back as the same doubles. Where nobody traded, prices, provider and ``known_at``
are empty (csv) or null.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from mdtasks.domain.jobs import Interval
from mdtasks.domain.reading import STATUSES, BarRows

COLUMNS: Final = ("ts", "open", "high", "low", "close", "volume", "provider", "status", "known_at")
_PRICES: Final = COLUMNS[1:6]
#: Rows turned into text at a time: bounds memory.
_ROWS: Final = 10_000
#: What ends an Arrow IPC stream.
_END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class Shape:
    """What an answer looks like: of one symbol, or of ``many``, which have a column for it.

    ``about``: what a JSON document says before its bars.
    """

    interval: Interval
    symbol: str = ""
    about: Mapping[str, object] = field(default_factory=dict)

    @property
    def many(self) -> bool:
        """Whether rows name their symbol."""
        return not self.symbol

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return ("symbol", *COLUMNS) if self.many else COLUMNS


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write bars. ``packed``: its bytes are compressed already."""

    media_type: str
    suffix: str
    encode: Callable[[Iterable[BarRows], Shape], Iterator[bytes]]
    packed: bool = False


def csv(batches: Iterable[BarRows], shape: Shape) -> Iterator[bytes]:
    """A header and a line a bar. Nothing needs quotes."""
    yield (",".join(shape.columns) + "\n").encode()
    for rows in _small(batches):
        columns = [_numbers(column) for column in rows.bars.columns]
        if rows.silent.any():
            columns = [[b"" if each == b"null" else each for each in column] for column in columns]
        named = [each.encode() if each else b"" for each in rows.provider.tolist()]
        status = [_STATUS_BYTES[each] for each in rows.status.tolist()]
        known = [each.encode() if each else b"" for each in _known(rows)]
        ts = [each.encode() for each in times(rows.bars.ts_us, "s")]
        first = [[each.encode() for each in rows.symbol.tolist()]] if shape.many else []
        lines = map(b",".join, zip(*first, ts, *columns, named, status, known, strict=True))
        yield b"\n".join(lines) + b"\n"


def json(batches: Iterable[BarRows], shape: Shape) -> Iterator[bytes]:
    """One object, a line a bar."""
    yield orjson.dumps(dict(shape.about), option=orjson.OPT_UTC_Z)[:-1] + b', "bars": ['
    start = b"\n"
    for rows in _small(batches):
        yield start + b",\n".join(
            orjson.dumps(dict(zip(shape.columns, row, strict=True))) for row in _rows(rows, shape)
        )
        start = b",\n"
    yield b"\n]}\n"


def arrow(batches: Iterable[BarRows], shape: Shape) -> Iterator[bytes]:
    """An Arrow IPC stream: schema, a record batch each, end."""
    yield schema(shape).serialize().to_pybytes()
    for rows in batches:
        yield record_batch(rows, shape).serialize().to_pybytes()
    yield _END_OF_STREAM


def parquet(batches: Iterable[BarRows], shape: Shape) -> Iterator[bytes]:
    """A row group a batch, zstd; the footer comes last, so a file that was cut off cannot be read as a shorter one."""
    import pyarrow.parquet as pq

    sink = _Sink()
    with pq.ParquetWriter(sink, schema(shape), compression="zstd") as writer:
        for rows in batches:
            writer.write_batch(record_batch(rows, shape))
            yield sink.drained()
    yield sink.drained()


FORMATS: Final[Mapping[str, Format]] = {
    "json": Format("application/json", "json", json),
    "csv": Format("text/csv; charset=utf-8", "csv", csv),
    "arrow": Format("application/vnd.apache.arrow.stream", "arrows", arrow),
    "parquet": Format("application/vnd.apache.parquet", "parquet", parquet, packed=True),
}


def schema(shape: Shape) -> Any:
    """The columns in Arrow's types; interval, and the symbol where there is one, are in its metadata."""
    import pyarrow as pa

    utc = pa.timestamp("us", tz="UTC")
    kinds = {"ts": utc, "known_at": utc, **dict.fromkeys(_PRICES, pa.float64())}
    about = {"interval": shape.interval.value, **({"symbol": shape.symbol} if shape.symbol else {})}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in shape.columns], metadata=about)


def record_batch(rows: BarRows, shape: Shape) -> Any:
    """The rows as an Arrow record batch of ``schema``."""
    import pyarrow as pa

    silent = rows.silent
    unknown = silent if silent.any() else None
    utc = pa.timestamp("us", tz="UTC")
    prices = [pa.array(column, mask=unknown) for column in rows.bars.columns[:4]]
    columns = [
        *([_text(pa, rows.symbol)] if shape.many else []),
        pa.array(rows.bars.ts_us).cast(utc),
        *prices,
        pa.array(rows.bars.volume),
        _text(pa, rows.provider),
        pa.DictionaryArray.from_arrays(pa.array(rows.status), pa.array(STATUSES)).cast(pa.string()),
        pa.array(rows.known_at_us, mask=unknown).cast(utc),
    ]
    return pa.record_batch(columns, schema=schema(shape))


def times(us: NDArray[np.int64], unit: str) -> list[str]:
    """Times as ISO 8601 with Z, to the unit (``s``, ``m``, ``us``)."""
    found: list[str] = np.datetime_as_string(us.astype("datetime64[us]"), unit=unit, timezone="UTC").tolist()  # type: ignore[call-overload]
    return found


_STATUS_BYTES: Final = tuple(each.encode() for each in STATUSES)


class _Sink(io.RawIOBase):
    """Takes what a writer of files writes, and hands it on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._at += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._at

    def drained(self) -> bytes:
        """What was written since the last time."""
        found = b"".join(self._parts)
        self._parts.clear()
        return found


def _text(pa: Any, column: NDArray[np.object_]) -> Any:
    return pa.array(column.tolist(), pa.string())


def _small(batches: Iterable[BarRows]) -> Iterator[BarRows]:
    for rows in batches:
        for start in range(0, len(rows), _ROWS):
            yield rows.take(slice(start, start + _ROWS))


def _numbers(column: NDArray[np.float64]) -> list[bytes]:
    """Each in its shortest exact form; ``null`` for NaN."""
    return orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def _known(rows: BarRows) -> list[str | None]:
    known: list[str | None] = list(times(rows.known_at_us, "us"))
    for at in np.flatnonzero(rows.silent).tolist():
        known[at] = None
    return known


def _rows(rows: BarRows, shape: Shape) -> Iterator[tuple[object, ...]]:
    """Tuples of the columns: times as text, prices as float, NaN where there is none."""
    first = [rows.symbol.tolist()] if shape.many else []
    prices = (column.tolist() for column in rows.bars.columns)
    status = [STATUSES[each] for each in rows.status.tolist()]
    return zip(*first, times(rows.bars.ts_us, "s"), *prices, rows.provider.tolist(), status, _known(rows), strict=True)
