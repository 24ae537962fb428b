"""Bars at rest: point-in-time writes with revisions and coverage, and reads of now or as of an instant.

A write is a COPY of the batch into a staging table and one statement that judges it, inside the caller's transaction.
Rules: a bar is replaced only when its values differ, and what it was moves to ``bar_revisions``; a final bar with the
values of the provisional one only promotes it, and says when (``final_at``); provisional never beats final. Values
pass as IEEE 754 bits, unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray
from sqlalchemy import Connection

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain import stored
from mdtasks.domain.bars import Bars, RejectedBar, from_us
from mdtasks.domain.errors import StoreUnavailableError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.silence import Silence
from mdtasks.store import silences
from mdtasks.store.binary_copy import PG_EPOCH_US, RowFormat
from mdtasks.store.outbox import Note
from mdtasks.store.partitions import forget
from mdtasks.store.retention import refuse_lost

_SQL: Final = {name: clause.text for name, clause in load_statements("mdtasks.store.sql", "bars.sql").items()}
#: The write, without and with a note of it for the replay buffer.
_WRITE: Final = {
    noted: "\n".join(_SQL[name] for name in ("write", *(["write_note"] if noted else []), "write_counts"))
    for noted in (False, True)
}
_PRICES: Final = ("open", "high", "low", "close", "volume")
_STAGED: Final = RowFormat(instrument_id="i4", ts="i8", **dict.fromkeys(_PRICES, "f8"), final="?")
#: The columns of a read, in their order, as PostgreSQL's send functions write them.
_READ: Final = {"ts": ">i8", **dict.fromkeys(_PRICES, ">f8"), "final": "?", "known_at": ">i8", "attempt_id": ">i8"}
#: A read comes in stretches of a month, or longer when the window is very long.
_MOST_STRETCHES: Final = 500
#: Above this many instruments a writer takes one lock for all of them: the server's lock table has about 6400 places.
_MOST_LOCKS: Final = 1000
#: An instrument, and from when until when.
Stretch: TypeAlias = tuple[int, datetime, datetime]
#: What reads answer.
StoredBars = stored.StoredBars
#: Reads rely on it: names travel separated by commas.
_PROVIDER: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class BarBatch:
    """What one answer brought for one instrument: bars in time order, at most one per start.

    Bars that start before ``final_before_us`` (us since 1970) are final, the others provisional. ``covered``: the
    settled windows the answer speaks for. Windows that touch merge, so windows that leave out nights and weekends cost
    a range each for ever. ``retracted``: windows that are covered no longer, their silence is doubted now.
    """

    instrument_id: int
    bars: Bars
    final_before_us: int
    covered: Sequence[TimeWindow] = ()
    rejected: Sequence[RejectedBar] = ()
    retracted: Sequence[TimeWindow] = ()
    silences: Sequence[Silence] = ()


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """What a write did to the staged bars, and how many rejected ones it recorded for the first time."""

    inserted: int = 0
    revised: int = 0
    promoted: int = 0
    unchanged: int = 0
    quarantined: int = 0


def write_bars(
    connection: Connection,
    interval: Interval,
    batches: Sequence[BarBatch],
    provider: str,
    attempt_id: int,
    *,
    note: Note | None = None,
) -> WriteCounts:
    """Store the batches, at most one per instrument, in the caller's transaction; 1 bar or 1,000,000.

    ``note``: what of it the replay buffer is to hear of, once this has committed; None: nothing.

    Idempotent: an identical second write touches no row. Writers of overlapping instruments wait for each other
    without deadlock as long as a transaction calls this once, or in ascending order of instruments. The partitions must
    exist (``ensure_partitions``). ``known_at`` is the server's clock at the write, one instant for all bars.
    Raises ValueError for batches that break their contract, StoreUnavailableError when a partition is missing.
    """
    if not _PROVIDER.fullmatch(provider):
        raise ValueError(f"{provider!r} is no provider's name")
    batches = sorted(batches, key=lambda batch: batch.instrument_id)
    ids = [batch.instrument_id for batch in batches]
    if len(set(ids)) != len(ids):
        raise ValueError("two batches of one instrument: join them first")
    if not ids:
        return WriteCounts()
    about = {"interval": interval.value, "provider": provider, "attempt_id": attempt_id}
    with raw_psycopg(connection).cursor() as cursor:
        lock_writers(cursor, interval, ids)
        _stage(cursor, batches)
        values = {**about, **_extent(batches), **_told(batches, interval), **_reached(batches, interval)}
        heard = note if note is not None and note.concerns(batch.bars for batch in batches) else None
        counts = write_staged(connection, cursor, interval, values, heard)
        quarantined = _quarantine(cursor, batches, about)
        silences.keep(cursor, [(batch.instrument_id, each) for batch in batches for each in batch.silences], about)
    return replace(counts, quarantined=quarantined)


def lock_writers(cursor: Any, interval: Interval, instrument_ids: Sequence[int], most: int = _MOST_LOCKS) -> None:
    """Keep other writers of these instruments' bars waiting until the transaction ends; above ``most`` those of all."""
    lock = "lock_some" if len(instrument_ids) <= most else "lock_all"
    cursor.execute(_SQL[lock], {"interval": interval.value, "instruments": list(instrument_ids)})


def begin_staging(cursor: Any) -> None:
    """Make the staging table, empty: for bars that do not come by COPY."""
    cursor.execute(_SQL["stage_create"], prepare=False)


def write_staged(
    connection: Connection, cursor: Any, interval: Interval, values: Mapping[str, object], note: Note | None
) -> WriteCounts:
    """Judge and store the staged bars; ``values``: the parameters of the statement ``write``. Call ``lock_writers``
    before. Raises StoreUnavailableError when a partition is missing.
    """
    noted = {} if note is None else note.as_dict(interval)
    step = timedelta(seconds=interval.seconds)
    try:
        cursor.execute(_WRITE[note is not None], {**values, **noted, "step": step}, prepare=False)
    except psycopg.errors.CheckViolation as exc:
        forget(connection.engine)
        raise StoreUnavailableError(
            f"a partition was dropped: {exc.diag.message_primary}", hint="the next attempt makes it again"
        ) from exc
    return WriteCounts(*cursor.fetchone())


def read_bars(
    connection: Connection,
    instrument_id: int,
    interval: Interval,
    window: TimeWindow,
    as_of: datetime | None = None,
) -> StoredBars:
    """The bars that start in the window, as they stand, or as they were known at ``as_of``, final where they were then.

    An ``as_of`` of this moment may still gain bars: a write is dated by its statement and seen at its commit
    (``coverage.hold_writers`` waits for it). Raises InvalidRequestError for an ``as_of`` from before the oldest
    revisions that are kept.
    """
    if as_of is not None and as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of!r} is naive: give it a time zone")
    step = max(timedelta(days=31), (window.end - window.start) / _MOST_STRETCHES)
    asked = {"instrument": instrument_id, "interval": interval.value, "start": window.start, "end": window.end}
    statement = _SQL["read" if as_of is None else "read_as_of"]
    with raw_psycopg(connection).cursor(binary=True) as cursor:
        cursor.execute(statement, {**asked, "step": step, "as_of": as_of}, prepare=False)
        stretches = sorted(cursor.fetchall())
    if as_of is not None:  # after the read: who deletes revisions says so beforehand
        refuse_lost(connection, as_of)
    _, *columns, providers = zip(*stretches, strict=True) if stretches else [()] * (len(_READ) + 2)
    values = {name: _joined(column, _READ[name]) for name, column in zip(_READ, columns, strict=True)}
    return StoredBars(
        bars=Bars(values["ts"] + PG_EPOCH_US, *(values[name] for name in _PRICES)),
        provider=_names(providers),
        final=values["final"],
        known_at_us=values["known_at"] + PG_EPOCH_US,
        attempt_id=values["attempt_id"],
    )


def read_coverage(
    connection: Connection, instrument_ids: Iterable[int], interval: Interval
) -> dict[int, list[TimeWindow]]:
    """What providers have answered for, per instrument asked for: disjoint windows in time order, [] when nothing."""
    found: dict[int, list[TimeWindow]] = {instrument: [] for instrument in instrument_ids}
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["read_coverage"], {"instruments": list(found), "interval": interval.value})
        for instrument, start, end in cursor:
            found[instrument].append(TimeWindow(start=start, end=end))
    return found


def _stage(cursor: Any, batches: Sequence[BarBatch]) -> None:
    """COPY the bars into the staging table, in order of instrument and start."""
    begin_staging(cursor)
    rows = _STAGED.rows(sum(len(batch.bars) for batch in batches))
    start = 0
    for batch in batches:
        part = rows[start : start + len(batch.bars)]
        start += len(batch.bars)
        if (np.diff(batch.bars.ts_us) <= 0).any():
            raise ValueError(f"bars of instrument {batch.instrument_id} are out of order or doubled")
        part["instrument_id"] = batch.instrument_id
        part["ts"] = batch.bars.ts_us - PG_EPOCH_US
        part["final"] = batch.bars.ts_us < batch.final_before_us
        for name, values in zip(_PRICES, batch.bars.columns, strict=True):
            part[name] = values
    if len(rows):
        with cursor.copy(_SQL["stage_copy"]) as copy:
            copy.write(_STAGED.encode(rows))


def _extent(batches: Sequence[BarBatch]) -> dict[str, object]:
    """Where the staged bars lie: per instrument, and all together (null when there are none)."""
    filled = [batch for batch in batches if len(batch.bars)]
    firsts = [from_us(batch.bars.ts_us[0]) for batch in filled]
    lasts = [from_us(batch.bars.ts_us[-1]) for batch in filled]
    return {
        "instruments": [batch.instrument_id for batch in filled],
        "firsts": firsts,
        "lasts": lasts,
        "first": min(firsts, default=None),
        "last": max(lasts, default=None),
    }


def _told(batches: Sequence[BarBatch], interval: Interval) -> dict[str, object]:
    return told(
        covered=((batch.instrument_id, each.start, each.end) for batch in batches for each in batch.covered),
        retracted=((batch.instrument_id, each.start, each.end) for batch in batches for each in batch.retracted),
        solid=_solid(batches, interval.seconds * 1_000_000),
    )


def _solid(batches: Sequence[BarBatch], step_us: int) -> Iterable[Stretch]:
    """The time of the staged bars that are final; runs of bars without a hole as one."""
    finals = [batch.bars.ts_us[batch.bars.ts_us < batch.final_before_us] for batch in batches]
    starts = np.concatenate(finals)
    owners = np.repeat([batch.instrument_id for batch in batches], list(map(len, finals)))
    first = np.flatnonzero((np.diff(starts, prepend=-1) != step_us) | (np.diff(owners, prepend=-1) != 0))
    last = np.append(first[1:], len(starts))[: len(first)] - 1
    runs = zip(owners[first].tolist(), starts[first].tolist(), (starts[last] + step_us).tolist(), strict=True)
    return ((owner, from_us(start), from_us(end)) for owner, start, end in runs)


def told(**stretches: Iterable[Stretch]) -> dict[str, object]:
    """What the write is told of series, as its parameters: stretches of time that are ``covered``, ``retracted``, or
    ``solid``, those of final bars.
    """
    rows = [(*each, what) for what, some in stretches.items() for each in some]
    columns = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
    return dict(zip(("told", "told_from", "told_to", "told_what"), columns, strict=True))


def _reached(batches: Sequence[BarBatch], interval: Interval) -> dict[str, object]:
    """Until when each series is fresh by its newest bar, settled or not, and by what is covered."""
    found: dict[int, datetime] = {}
    for batch in batches:
        ends = [window.end for window in (*batch.covered, *batch.retracted)]
        if len(batch.bars):
            ends.append(from_us(int(batch.bars.ts_us[-1]) + interval.seconds * 1_000_000))
        if ends:
            found[batch.instrument_id] = max(ends)
    return {"reached": list(found), "fresh_until": list(found.values())}


def _quarantine(cursor: Any, batches: Sequence[BarBatch], about: Mapping[str, object]) -> int:
    rejected = [(batch.instrument_id, bar) for batch in batches for bar in batch.rejected]
    if not rejected:
        return 0
    columns = {
        "instruments": [instrument for instrument, _ in rejected],
        "ts": [_nearest_time(bar.ts_us) for _, bar in rejected],
        "reasons": [bar.reason for _, bar in rejected],
        "bars": [_as_it_came(bar) for _, bar in rejected],
    }
    cursor.execute(_SQL["quarantine"], {**about, **columns}, prepare=False)
    return int(cursor.rowcount)


def _nearest_time(ts_us: int) -> datetime:
    """``ts_us`` as a datetime; what lies outside the years 1 to 9999 (NaT among it) as the end it lies beyond."""
    try:
        return from_us(ts_us)
    except OverflowError:
        return from_us(-62_135_596_800_000_000 if ts_us < 0 else 253_402_300_799_999_999)


def _as_it_came(bar: RejectedBar) -> str:
    """The bar as JSON; numbers JSON has no word for (NaN, infinity) as strings."""
    values = {name: getattr(bar, name) for name in _PRICES}
    shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
    return orjson.dumps({"ts_us": bar.ts_us, **shown}).decode()


def _joined(parts: Sequence[bytes], kind: str) -> NDArray[Any]:
    """A column out of its stretches, in native byte order."""
    stored = np.dtype(kind)
    return np.frombuffer(b"".join(parts), stored).astype(stored.newbyteorder("="))


def _names(stretches: Sequence[str]) -> NDArray[np.object_]:
    """Names out of comma-separated stretches, each distinct name one string."""
    one: dict[str, str] = {}
    return np.concatenate([np.empty(0, dtype=object), *(_names_of(stretch, one) for stretch in stretches)])


def _names_of(stretch: str, one: dict[str, str]) -> NDArray[np.object_]:
    first = stretch.partition(",")[0]
    count, rest = divmod(len(stretch) + 1, len(first) + 1)
    if not rest and f"{first}," * (count - 1) + first == stretch:  # nearly always one provider's
        return np.full(count, one.setdefault(first, first), dtype=object)
    return np.array([one.setdefault(name, name) for name in stretch.split(",")], dtype=object)
