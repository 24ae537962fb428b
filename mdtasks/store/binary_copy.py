"""PostgreSQL's binary COPY format as numpy columns: a million rows are one array and one ``tobytes``.

Only rows of one fixed width, without NULL: then every row is a record of big-endian fields, each after its length.
Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: 2000-01-01 UTC in microseconds since 1970: where PostgreSQL counts timestamptz from.
PG_EPOCH_US: Final = 946_684_800_000_000

#: The signature, no flags, no extension.
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"


class RowFormat:
    """A row's fields in order, each as a numpy type: ``i4`` integer, ``i8`` bigint or timestamptz, ``f8`` double
    precision, ``?`` boolean."""

    def __init__(self, **fields: str) -> None:
        self.names: Final = tuple(fields)
        layout: list[tuple[str, str]] = [("_count", ">i2")]
        for name, kind in fields.items():
            layout += [(f"_length_{name}", ">i4"), (name, f">{kind}")]
        self._dtype: Final = np.dtype(layout)

    def rows(self, count: int) -> NDArray[Any]:
        """``count`` rows with their lengths set and their fields to be filled in by name."""
        rows = np.empty(count, self._dtype)
        rows["_count"] = len(self.names)
        for name in self.names:
            rows[f"_length_{name}"] = self._dtype[name].itemsize
        return rows

    def encode(self, rows: NDArray[Any]) -> bytes:
        """What ``COPY ... FROM STDIN (FORMAT binary)`` reads."""
        return b"".join((_HEADER, rows.tobytes(), _TRAILER))
