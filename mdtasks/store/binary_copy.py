"""PostgreSQL's binary COPY format as numpy columns: a million rows are one array and one ``tobytes``.

Only rows of one fixed width, without NULL: then every row is a record of big-endian fields, each after its length.
Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: 2000-01-01 UTC in microseconds since 1970: where PostgreSQL counts timestamptz from.
PG_EPOCH_US: Final = 946_684_800_000_000

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
#: Flags and the length of the header's extension: none of both.
_HEADER: Final = _SIGNATURE + bytes(8)
_TRAILER: Final = b"\xff\xff"


class RowFormat:
    """A row's fields in order, each as a numpy type: ``i4`` integer, ``i8`` bigint or timestamptz, ``f8`` double
    precision, ``?`` boolean, ``S32`` text of exactly 32 bytes."""

    def __init__(self, **fields: str) -> None:
        self.names: Final = tuple(fields)
        layout: list[tuple[str, str]] = [("_count", ">i2")]
        for name, kind in fields.items():
            layout += [(f"_length_{name}", ">i4"), (name, kind if kind[0] in "?S" else f">{kind}")]
        self._dtype: Final = np.dtype(layout)
        self._head: Final[dict[str, int]] = {
            "_count": len(fields),
            **{f"_length_{name}": self._dtype[name].itemsize for name in fields},
        }

    def rows(self, count: int) -> NDArray[Any]:
        """``count`` rows with their lengths set and their fields to be filled in by name."""
        rows = np.empty(count, self._dtype)
        for name, value in self._head.items():
            rows[name] = value
        return rows

    def encode(self, rows: NDArray[Any]) -> bytes:
        """What ``COPY ... FROM STDIN (FORMAT binary)`` reads."""
        return b"".join((_HEADER, rows.tobytes(), _TRAILER))

    def decode(self, data: bytes | bytearray) -> Mapping[str, NDArray[Any]]:
        """The columns of what ``COPY ... TO STDOUT (FORMAT binary)`` wrote, contiguous and in native byte order.

        Raises ValueError when a row is not of this format.
        """
        body = memoryview(data)[len(_HEADER) : -len(_TRAILER)]
        if bytes(data[: len(_SIGNATURE)]) != _SIGNATURE or len(body) % self._dtype.itemsize:
            raise ValueError(f"not rows of {', '.join(self.names)} in binary COPY format")
        rows = np.frombuffer(body, self._dtype)
        for name, value in self._head.items():
            if (rows[name] != value).any():
                raise ValueError(f"a row with another {name.lstrip('_').replace('_', ' of ')} than {value}")
        return {name: rows[name].astype(self._dtype[name].newbyteorder("=")) for name in self.names}
