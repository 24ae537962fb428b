"""CSV and Parquet to bars: one file, read as its dataset describes it.

pyarrow does the reading, on one thread (workers are the parallelism, and only then do its errors name the row).
Floats are parsed to the nearest double, as Python's own ``float`` would.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import Bars
from mdtasks.domain.errors import BadPayloadError, NoDataError, VendorError
from mdtasks.domain.jobs import Interval
from mdtasks.providers.arrow import first_null, float64s, int64s
from mdtasks.providers.mapping import EPOCHS, Dataset
from mdtasks.providers.ondisk import unzipped
from mdtasks.providers.wallclock import DAY_US, SECOND_US, LocalTimeError, local_to_utc, utc_to_local

_PARQUET: Final = frozenset({".parquet", ".pq"})


def read_bars(dataset: Dataset, path: Path, provider: str) -> Bars:
    """The bars of a file in its own order, in UTC, labelled by start, prices unscaled.

    Raises NoDataError when the file is not there, VendorError when the disk fails (retryable), BadPayloadError naming
    the file, and the line where it is known, when it is not what the dataset says.
    """
    import pyarrow as pa

    try:
        read = _parquet if path.suffix in _PARQUET else _csv
        table = read(dataset, path, provider)
        if not table.num_rows:
            return Bars.empty()
        ts_us = _starts(dataset, _times(dataset, table, path, provider), path, provider)
        open_, high, low, close = (_floats(table, name, dataset.price_scale) for name in _prices(dataset))
        volume_column = dataset.columns.volume
        volume = np.zeros(len(ts_us)) if volume_column is None else _floats(table, volume_column, 1.0)
    except pa.ArrowException as exc:
        raise BadPayloadError(f"{path}: {_one_line(exc)}", provider=provider) from exc
    except FileNotFoundError as exc:
        raise NoDataError(f"no file {path}", provider=provider) from exc
    except OSError as exc:
        if exc.errno is None:  # pyarrow's way to say that a Parquet file is corrupt
            raise BadPayloadError(f"{path}: {_one_line(exc)}", provider=provider) from exc
        raise VendorError(f"cannot read {path}: {exc.strerror}", provider=provider) from exc
    return Bars.of(ts_us, open_, high, low, close, volume)


def _prices(dataset: Dataset) -> tuple[Any, ...]:
    c = dataset.columns
    return (c.open, c.high, c.low, c.close)


def _csv(dataset: Dataset, path: Path, provider: str) -> Any:
    """The columns wanted, floats as float64, time as pyarrow.csv reads it; columns bear their name or ``f<number>``."""
    import pyarrow as pa
    from pyarrow import csv

    data = unzipped(path, provider) if path.suffix == ".zip" else path.read_bytes()
    if not data.strip():
        raise BadPayloadError(f"{path} is empty", provider=provider)
    source: Any = pa.BufferReader(data)
    if path.suffix == ".gz":
        source = pa.CompressedInputStream(source, "gzip")
    types: dict[str, Any] = {_named(name): pa.float64() for name in dataset.names}
    times = [_named(name) for name in dataset.columns.times]
    for name in times:
        del types[name]
    if len(times) > 1:
        types.update(dict.fromkeys(times, pa.string()))
    elif dataset.time_format in EPOCHS:
        types[times[0]] = pa.int64()
    elif dataset.time_format != "iso":
        types[times[0]] = pa.timestamp("us")
    try:
        return csv.read_csv(
            source,
            read_options=csv.ReadOptions(use_threads=False, autogenerate_column_names=not dataset.header),
            parse_options=csv.ParseOptions(delimiter=dataset.delimiter),
            convert_options=csv.ConvertOptions(
                include_columns=list(dict.fromkeys(map(_named, dataset.names))),
                column_types=types,
                timestamp_parsers=[csv.ISO8601 if dataset.time_format == "iso" else dataset.time_format],
            ),
        )
    except pa.ArrowKeyError as exc:
        found = data.splitlines()[0].decode(errors="replace").split(dataset.delimiter) if path.suffix != ".gz" else []
        _missing(dataset, found, path, provider, exc)


def _parquet(dataset: Dataset, path: Path, provider: str) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(pa.BufferReader(path.read_bytes()))
    if not dataset.header:
        raise BadPayloadError(f"{path}: `header: false` is for CSV", provider=provider)
    wanted = list(dict.fromkeys(map(_named, dataset.names)))
    if not set(wanted) <= set(file.schema_arrow.names):
        _missing(dataset, file.schema_arrow.names, path, provider, None)
    return file.read(columns=wanted, use_threads=False)


def _missing(dataset: Dataset, found: list[str], path: Path, provider: str, cause: BaseException | None) -> NoReturn:
    absent = next((str(n) for n in dataset.names if _named(n) not in found), str(dataset.names[0]))
    near = difflib.get_close_matches(absent, found, n=1) or [
        name for name in found if name.strip().lower() == absent.lower()
    ]
    known = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(found)}" if found else ""
    raise BadPayloadError(f"{path} has no column {absent!r}{known}", provider=provider) from cause


def _times(dataset: Dataset, table: Any, path: Path, provider: str) -> tuple[NDArray[np.int64], bool]:
    """Microseconds since 1970 as written, and whether they are UTC already (they bore an offset or are epochs)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [_named(name) for name in dataset.columns.times]
    column = table.column(names[0])
    if len(names) > 1:
        joined = pc.binary_join_element_wise(*(pc.utf8_trim_whitespace(table.column(n)) for n in names), " ")
        column = pc.strptime(joined, format=dataset.time_format, unit="us", error_is_null=True)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        if dataset.time_format == "iso":
            column = _iso(column)
        else:
            column = pc.strptime(column, format=dataset.time_format, unit="us", error_is_null=True)
    if column.null_count:
        row = first_null(column)
        raise BadPayloadError(f"{_line(dataset, path, row)}: no readable time", provider=provider)
    if pa.types.is_integer(column.type):
        if dataset.time_format not in EPOCHS:
            raise BadPayloadError(
                f"{path}: time is a number; say which with time_format: {', '.join(EPOCHS)}", provider=provider
            )
        return int64s(column.cast(pa.int64())) * EPOCHS[dataset.time_format], True
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise BadPayloadError(f"{path}: time has type {column.type}", provider=provider)
    zoned = pa.types.is_timestamp(column.type) and column.type.tz is not None
    target = pa.timestamp("us", column.type.tz if zoned else None)
    return int64s(column.cast(target).cast(pa.int64())), zoned


def _iso(column: Any) -> Any:
    """ISO 8601 text as timestamps; what is none becomes null, so that its line can be named."""
    import pyarrow as pa

    parsed = []
    for text in column.to_pylist():  # only ever a file with a bad time, or Parquet with times as text
        try:
            parsed.append(pa.scalar(text).cast(pa.timestamp("us")))
        except pa.ArrowInvalid:
            parsed.append(pa.scalar(None, pa.timestamp("us")))
    return pa.chunked_array([pa.array([p.as_py() for p in parsed], pa.timestamp("us"))])


def _starts(dataset: Dataset, times: tuple[NDArray[np.int64], bool], path: Path, provider: str) -> NDArray[np.int64]:
    """Interval starts in UTC of the times as written; daily: the date at 00:00."""
    written_us, utc = times
    if dataset.interval is Interval.D1:
        local_us = utc_to_local(written_us, dataset.timezone) if utc else written_us
        return local_us // DAY_US * DAY_US
    try:
        utc_us = written_us if utc else local_to_utc(written_us, dataset.timezone, dataset.ambiguous)
    except LocalTimeError as exc:
        raise BadPayloadError(f"{_line(dataset, path, exc.row)}: {exc}", provider=provider) from exc
    return utc_us - (dataset.interval.seconds * SECOND_US if dataset.label == "end" else 0)


def _floats(table: Any, name: Any, scale: float) -> NDArray[np.float64]:
    import pyarrow as pa

    return unscaled(float64s(table.column(_named(name)).cast(pa.float64())), scale)


def unscaled(values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Prices that the file holds multiplied by ``scale``, each rounded once.

    A whole number divided by a power of ten is the double nearest to the decimal price, as if the file had spelt it;
    multiplying by 0.0001 would not be. A scale below one (prices in thousands) is multiplied away for that reason.
    """
    if scale == 1:
        return values
    inverse = round(1 / scale)
    return values * inverse if scale < 1 and 1 / inverse == scale else values / scale


def _named(name: str | int) -> str:
    return f"f{name}" if isinstance(name, int) else name


def _line(dataset: Dataset, path: Path, row: int) -> str:
    if path.suffix in _PARQUET:
        return f"{path}, row {row + 1}"
    return f"{path}, line {row + 1 + dataset.header}"


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300]
