"""What was answered for at an instant, out of what is answered for now and what changed since."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain.bars import to_us
from mdtasks.domain.coverage import Change, Turned, undone
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.gaps import intersect, spans_of
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.spans import Spans
from mdtasks.store.bars import lock_writers, read_coverage
from mdtasks.store.binary_copy import PG_EPOCH_US
from mdtasks.store.retention import lost_before, refuse_lost

_SQL: Final = {name: clause.text for name, clause in load_statements("mdtasks.store.sql", "coverage.sql").items()}
#: What the record of what was deleted calls the first instant whose coverage is on record.
_SUBJECT: Final = "coverage"


def hold_writers(connection: Connection, interval: Interval, instrument_ids: Iterable[int]) -> None:
    """Wait for writers of these instruments' bars and keep others waiting until the transaction ends: who reads in the
    next one, as of an instant before this, misses nothing that was under way.
    """
    with raw_psycopg(connection).cursor() as cursor:
        lock_writers(cursor, interval, sorted(instrument_ids))


def coverage_as_of(
    connection: Connection, instrument_id: int, interval: Interval, window: TimeWindow, as_of: datetime
) -> Spans:
    """What was answered for of a window at an instant. Read it in a snapshot, taken after ``hold_writers``.

    Raises InvalidRequestError for an ``as_of`` from before the oldest changes that are kept.
    """
    about = {
        "instrument": instrument_id,
        "interval": interval.value,
        "start": window.start,
        "end": window.end,
        "as_of": as_of,
    }
    covered = read_coverage(connection, [instrument_id], interval)[instrument_id]
    with raw_psycopg(connection).cursor(binary=True) as cursor:
        cursor.execute(_SQL["turned_since"], about, prepare=False)
        turned = [(to_us(ts), to_us(at)) for ts, at in cursor]
        cursor.execute(_SQL["changed_since"], about, prepare=False)
        changes = [Change(to_us(at), _spans(covered), _spans(uncovered)) for at, covered, uncovered in cursor]
    refuse_untold(connection, as_of)
    starts, times = np.array(turned, dtype=np.int64).reshape(-1, 2).T
    now = intersect(spans_of(covered), spans_of([window]))
    return intersect(undone(now, changes, Turned(starts, times), interval.seconds * 1_000_000), spans_of([window]))


def refuse_untold(connection: Connection, as_of: datetime) -> None:
    """Raise InvalidRequestError when what was answered for at an instant cannot be told: what it was may be gone, or
    was not put on record yet.
    """
    refuse_lost(connection, as_of)
    begun = lost_before(connection, _SUBJECT)
    if begun is not None and as_of < begun:
        raise InvalidRequestError(
            f"what was answered for as of {as_of:%Y-%m-%d %H:%M:%S} UTC cannot be told: it is on record since"
            f" {begun:%Y-%m-%d %H:%M:%S} only",
            field="as_of",
            hint=f"give {begun + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ} or later; bars without silence are told",
        )


def _spans(raw: Any) -> Spans:
    pairs = np.frombuffer(raw or b"", ">i8").astype(np.int64).reshape(-1, 2)
    return pairs + PG_EPOCH_US
