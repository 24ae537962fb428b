"""Wall clocks to UTC: local times in files become interval starts, and each hour that a clock change spoils is named.

A zone is held as its transitions over the years asked for, so that a column of a million times costs one search.
Only zoneinfo is asked (its data comes with the `tzdata` package), so every platform answers alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

#: What to do with a local time that the clock shows twice: refuse it, read it as the first or the second pass, or
#: tell the passes apart by the order of the rows.
Ambiguous = Literal["refuse", "first", "second", "infer"]

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US
_EPOCH: Final = date(1970, 1, 1)


class LocalTimeError(ValueError):
    """A local time that does not exist or exists twice; ``row`` is its position in the column."""

    def __init__(self, message: str, *, row: int) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True, slots=True)
class _Zone:
    """Offsets of a zone: ``offset_us[i]`` holds from ``start_us[i]`` (UTC) to the next start; shapes (n,)."""

    start_us: NDArray[np.int64]
    offset_us: NDArray[np.int64]


def midnight_us(day: date) -> int:
    """00:00 of ``day`` as microseconds since 1970, on whichever clock the caller means."""
    return (day - _EPOCH).days * DAY_US


def local_to_utc(local_us: NDArray[np.int64], zone: str, ambiguous: Ambiguous = "refuse") -> NDArray[np.int64]:
    """UTC microseconds of wall clock times (microseconds since 1970 on the local clock), shape (n,).

    Raises LocalTimeError on a time skipped by a clock change, and on one shown twice unless ``ambiguous`` says how to
    read it. ``infer`` takes the second pass from where the rows step back in time, and refuses rows that never do.
    """
    if zone == "UTC" or not len(local_us):
        return local_us
    known = _zone_over(zone, local_us)
    local_end = np.append(known.start_us[1:] + known.offset_us[:-1], np.iinfo(np.int64).max)
    part = np.searchsorted(local_end, local_us, side="right")
    skipped = local_us < known.start_us[part] + known.offset_us[part]
    if skipped.any():
        row = int(np.flatnonzero(skipped)[0])
        raise LocalTimeError(f"{_shown(local_us[row])} does not exist in {zone} (clock change)", row=row)
    following = np.minimum(part + 1, len(known.start_us) - 1)
    twice = (following > part) & (local_us >= known.start_us[following] + known.offset_us[following])
    if twice.any():
        part = part + _second_pass(local_us, twice, zone, ambiguous)
    return local_us - known.offset_us[part]


def utc_to_local(utc_us: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """Wall clock times (microseconds since 1970 on the local clock) of UTC times, shape (n,)."""
    if zone == "UTC" or not len(utc_us):
        return utc_us
    known = _zone_over(zone, utc_us)
    return utc_us + known.offset_us[np.searchsorted(known.start_us, utc_us, side="right") - 1]


def day_bounds_us(day: date, zone: str) -> tuple[int, int]:
    """The local day as a half-open range of UTC microseconds; 23 or 25 hours long when the clock changes."""
    bounds = [datetime(d.year, d.month, d.day, tzinfo=ZoneInfo(zone)) for d in (day, day + timedelta(days=1))]
    start, end = (int(b.astimezone(UTC).timestamp()) * SECOND_US for b in bounds)
    return start, end


def _second_pass(
    local_us: NDArray[np.int64], twice: NDArray[np.bool_], zone: str, ambiguous: Ambiguous
) -> NDArray[np.int64]:
    """1 where a row is of the second pass of a repeated hour, else 0."""
    if ambiguous in {"first", "second"}:
        return (twice & (ambiguous == "second")).astype(np.int64)
    first = int(np.flatnonzero(twice)[0])
    second = np.zeros(len(local_us), dtype=np.int64)
    if ambiguous == "infer":
        rows = np.flatnonzero(twice)
        # Repeated hours of different years are told apart by the time between them.
        for group in np.split(rows, np.flatnonzero(np.abs(np.diff(local_us[rows])) > 7 * DAY_US) + 1):
            back = np.flatnonzero(np.diff(local_us[group]) <= 0)
            if len(back) != 1:
                first = int(group[0])
                break
            second[group[back[0] + 1 :]] = 1
        else:
            return second
    raise LocalTimeError(
        f"{_shown(local_us[first])} exists twice in {zone} (clock change); say which with `ambiguous`", row=first
    )


def _shown(local_us: np.int64) -> str:
    return str(np.datetime64(int(local_us), "us").astype("datetime64[s]")).replace("T", " ")


def _zone_over(zone: str, times_us: NDArray[np.int64]) -> _Zone:
    """The zone's offsets over whole years around the times, so that neighbours share one cached value."""
    first, last = (1970 + int(t) // (366 * DAY_US) for t in (times_us.min(), times_us.max()))
    return _zone_between(zone, first - 1, last + 3)


@lru_cache(maxsize=64)
def _zone_between(zone: str, first_year: int, last_year: int) -> _Zone:
    tz = ZoneInfo(zone)

    def offset(at_s: int) -> int:
        return int(tz.utcoffset(datetime.fromtimestamp(at_s, tz)).total_seconds())  # type: ignore[union-attr]

    start = int(datetime(first_year, 1, 1, tzinfo=UTC).timestamp())
    end = int(datetime(last_year, 1, 1, tzinfo=UTC).timestamp())
    starts, offsets = [np.iinfo(np.int64).min // (2 * SECOND_US)], [offset(start)]
    for day in range(start, end, 86_400):
        if offset(day + 86_400) == offsets[-1]:
            continue
        low, high = day, day + 86_400
        while high - low > 1:  # the second of the change
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
        starts.append(high)
        offsets.append(offset(high))
    return _Zone(np.array(starts, dtype=np.int64) * SECOND_US, np.array(offsets, dtype=np.int64) * SECOND_US)
