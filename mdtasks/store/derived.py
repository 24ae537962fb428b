"""Bars made of minutes, at rest: which changes of minutes are still to be followed, and making what follows from them.

Whatever writes a minute notes it in the same transaction (``minute_changes``); whoever makes the bars takes the note in
the transaction that writes them. So a crash loses none, and a change that commits meanwhile is followed by the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain.bars import from_us
from mdtasks.domain.derived import PROVIDER, Slots
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.spans import Spans
from mdtasks.store.bars import Stretch, WriteCounts, begin_staging, lock_writers, told, write_staged
from mdtasks.store.outbox import Note

_SQL: Final = {name: clause.text for name, clause in load_statements("mdtasks.store.sql", "derived.sql").items()}
#: Above this many instruments one lock keeps all writers of an interval out: a transaction makes several intervals.
_MOST_LOCKS: Final = 250


@dataclass(frozen=True, slots=True)
class Change:
    """Where minutes of an instrument changed, or what is known of them."""

    id: int
    instrument_id: int
    mic: str
    tier: Tier
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Bars of one interval and exchange that are to be made: pairs of an instrument and a position in ``slots``.

    ``halted``: by instrument, the time of its halts.
    """

    interval: Interval
    slots: Slots
    instruments: NDArray[np.int64]
    positions: NDArray[np.intp]
    halted: Mapping[int, Spans]


def next_changes(connection: Connection, most: int) -> list[Change]:
    """The oldest changes that are still to be followed, at most so many, of about one month; [] when there are none."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["next"], {"most": most})
        return [Change(number, who, mic, Tier(tier), start, end) for number, who, mic, tier, start, end in cursor]


def take(connection: Connection, changes: Sequence[Change]) -> list[Change] | None:
    """Take these changes to follow them in this transaction; those that somebody else has taken are absent.

    None: somebody else makes bars now. The transaction's end lets him in again.
    """
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["one_at_a_time"])
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(_SQL["take"], {"ids": [change.id for change in changes]})
        taken = {row[0] for row in cursor}
    return [change for change in changes if change.id in taken]


def forget_unowned(connection: Connection) -> int:
    """Drop changes of instruments that are no more; returns how many."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["forget_unowned"])
        return int(cursor.rowcount)


def waiting(connection: Connection) -> tuple[int, datetime | None]:
    """How many changes are still to be followed, and since when the oldest waits; None: none does."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["waiting"])
        count, since = cursor.fetchone()
    return int(count), since


def make(connection: Connection, wanted: Wanted, heard: Note | None = None) -> WriteCounts:
    """Make these bars of the minutes as they stand and store them as any bars are; extend or take back coverage.
    ``heard``: what of them the replay buffer is to hear of.

    In the caller's transaction, which holds ``take``. The partitions must exist. Idempotent: bars that are as their
    minutes make them are not touched.
    """
    if not len(wanted.instruments):
        return WriteCounts()
    with raw_psycopg(connection).cursor() as cursor:
        lock_writers(cursor, wanted.interval, np.unique(wanted.instruments).tolist(), _MOST_LOCKS)
        stage_wanted(cursor, wanted)
        begin_staging(cursor)
        parts = wanted.slots.parts
        extent = {"first": from_us(int(parts[:, 0].min())), "last": from_us(int(parts[:, 1].max()))}
        cursor.execute(_SQL["make"], extent, prepare=False)
        step = timedelta(seconds=wanted.interval.seconds)
        cursor.execute(_SQL["outcome"], {"interval": wanted.interval.value, "step": step}, prepare=False)
        values = _values(cursor.fetchall(), wanted.interval, step)
        return write_staged(connection, cursor, wanted.interval, values, heard)


def note(connection: Connection, wanted: Wanted) -> None:
    """Note as still to be made those of these bars that their minutes allow to be."""
    with raw_psycopg(connection).cursor() as cursor:
        stage_wanted(cursor, wanted)
        cursor.execute(_SQL["note"], {"interval": wanted.interval.value}, prepare=False)


def stage_wanted(cursor: Any, wanted: Wanted) -> None:
    """Put the wanted bars, with their minutes and whether those are answered for, into ``stage_derived``."""
    slots = wanted.slots
    halts = [(who, from_us(a), from_us(b)) for who, spans in wanted.halted.items() for a, b in spans.tolist()]
    values = {
        "numbers": list(range(len(slots))),
        "ts": [from_us(us) for us in slots.starts.tolist()],
        "since": [from_us(us) for us in slots.since.tolist()],
        "owners": slots.owner.tolist(),
        "parts_from": [from_us(us) for us in slots.parts[:, 0].tolist()],
        "parts_to": [from_us(us) for us in slots.parts[:, 1].tolist()],
        "instruments": wanted.instruments.tolist(),
        "wanted": wanted.positions.tolist(),
        "halted": [who for who, _, _ in halts],
        "halted_from": [start for _, start, _ in halts],
        "halted_to": [end for _, _, end in halts],
    }
    cursor.execute(_SQL["wanted_create"], prepare=False)
    cursor.execute(_SQL["wanted"], values, prepare=False)


def _values(rows: Sequence[tuple[Any, ...]], interval: Interval, step: timedelta) -> dict[str, object]:
    """The parameters of the write: where bars were made, and are final; what of the wanted time is answered for, and
    what no more.
    """
    extent: dict[int, tuple[datetime, datetime]] = {}
    reached: dict[int, datetime] = {}
    covered: list[Stretch] = []
    retracted: list[Stretch] = []
    solid: list[Stretch] = []
    for instrument, since, ts, whole, final in rows:
        reached[instrument] = max(ts + step, reached.get(instrument, ts))
        if final is not None:
            extent[instrument] = (extent.get(instrument, (ts, ts))[0], ts)
        if final:
            solid.append((instrument, ts, ts + step))
        if whole:  # what lies between two intervals is nobody's time: runs of them are one range
            covered.append((instrument, min(since, ts), ts + step))
        else:
            retracted.append((instrument, ts, ts + step))
    return {
        "interval": interval.value,
        "provider": PROVIDER,
        "attempt_id": None,
        "instruments": list(extent),
        "firsts": [first for first, _ in extent.values()],
        "lasts": [last for _, last in extent.values()],
        "first": min((first for first, _ in extent.values()), default=None),
        "last": max((last for _, last in extent.values()), default=None),
        **told(covered=covered, retracted=retracted, solid=solid),
        "reached": list(reached),
        "fresh_until": list(reached.values()),
    }
