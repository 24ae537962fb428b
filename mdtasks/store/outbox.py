"""What the replay buffer has not heard of yet, at rest beside the bars; and bars as drafts of what it is told.

A write of bars leaves a row per series in its own transaction (``Note``). Whoever publishes takes the rows out in
a transaction that commits when Redis has them: a crash in between tells twice, which the buffer knows, and never not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Draft, StreamKey

_SQL: Final = {name: clause.text for name, clause in load_statements("mdtasks.store.sql", "outbox.sql").items()}


@dataclass(frozen=True, slots=True)
class Note:
    """What of a write the replay buffer is to hear of: the ``most`` newest bars of each series, none of them from
    before ``since``, and the starts of intervals that are complete without a bar, by instrument.
    """

    since: datetime
    most: int
    silent: Mapping[int, Sequence[datetime]]

    def concerns(self, written: Iterable[Bars]) -> bool:
        """Whether there may be anything to tell: most backfills are of long ago, and pay nothing for it."""
        since_us = to_us(self.since)
        return bool(self.silent) or any(len(bars) and bars.ts_us[-1] >= since_us for bars in written)

    def as_dict(self, interval: Interval) -> dict[str, object]:
        """What "write_note" of bars.sql asks for."""
        told = [(instrument, start) for instrument, starts in self.silent.items() for start in starts]
        return {
            "noted_since": self.since,
            "most": self.most,
            "reach": timedelta(seconds=interval.seconds * self.most),
            "silent": [instrument for instrument, _ in told],
            "silent_at": [start for _, start in told],
        }


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits to be published: rows, and the age of the oldest, seconds (0: nothing waits)."""

    rows: int
    oldest_age_s: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What waited of some series of one interval. ``drafts``: by instrument, in the order of the commits.

    ``written_us``: when the oldest of it was written, us since 1970. An instrument may have no draft left, where its
    bars have gone since.
    """

    drafts: dict[int, list[Draft]]
    written_us: int


def take(connection: Connection, interval: Interval, instrument_ids: Sequence[int]) -> Taken | None:
    """Take out what waits of these series; None: nothing does. The caller commits when it has told of it.

    Bars are told as they stand now; one that several commits changed is told once, in the place of the last.
    """
    about = {"interval": interval.value, "instruments": list(instrument_ids)}
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["take"], about, prepare=False)
        rows = cursor.fetchall()
        if not rows:
            return None
        told: dict[int, dict[datetime, None]] = {instrument: {} for instrument, *_ in rows}
        for instrument, bars, silent, _ in rows:
            for start in sorted([*bars, *silent]):
                told[instrument].pop(start, None)
                told[instrument][start] = None
        found = _bars(cursor, interval, [(instrument, start) for instrument, _bars, *_ in rows for start in _bars])
        quiet = {(instrument, start) for instrument, _, silent, _ in rows for start in silent}
    drafts = {
        instrument: [
            found[instrument, start] if (instrument, start) in found else silence(start)
            for start in starts
            if (instrument, start) in found or (instrument, start) in quiet
        ]
        for instrument, starts in told.items()
    }
    return Taken(drafts, min(to_us(written_at) for *_, written_at in rows))


def newest(
    connection: Connection, interval: Interval, instrument_ids: Iterable[int], most: int, since: datetime
) -> dict[int, list[Draft]]:
    """The newest ``most`` bars of each series, oldest first; [] where it has none.

    They are looked for after ``since`` first, which is quick; a series that has fewer there is looked at as a whole.
    """
    found: dict[int, list[Draft]] = {instrument: [] for instrument in instrument_ids}
    with raw_psycopg(connection).cursor() as cursor:
        for start in (since, _EVER):
            lacking = [instrument for instrument, drafts in found.items() if len(drafts) < most]
            if not lacking:
                break
            about = {"interval": interval.value, "instruments": lacking, "most": most, "since": start}
            cursor.execute(_SQL["newest"], about, prepare=False)
            found |= {instrument: [] for instrument in lacking}
            for instrument, *bar in cursor:
                found[instrument].append(_draft(bar))
    return found


def waiting(connection: Connection, before: datetime, most: int) -> list[StreamKey]:
    """The series of which something waits since before that, ``most`` at most, those that wait longest first."""
    return _series(connection, "waiting", before, most)


def drop_stale(connection: Connection, before: datetime, most: int) -> list[StreamKey]:
    """Drop rows from before that, ``most`` at most, the oldest first; returns the series that they were of."""
    return _series(connection, "stale", before, most)


def pending(connection: Connection) -> Pending:
    """What waits."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["pending"], prepare=False)
        return Pending(*cursor.fetchone())


def silence(start: datetime) -> Draft:
    """An interval that is complete without a bar."""
    return Draft(to_us(start), 0, orjson.dumps({"type": "interval_complete", "ts": start}, option=orjson.OPT_UTC_Z))


#: Before any bar.
_EVER: Final = datetime.fromisoformat("0001-01-02T00:00:00+00:00")
_NAMES: Final = ("ts", "open", "high", "low", "close", "volume", "final", "provider", "known_at")


def _bars(cursor: Any, interval: Interval, wanted: Sequence[tuple[int, datetime]]) -> dict[tuple[int, datetime], Draft]:
    """Those of the wanted bars that there are."""
    if not wanted:
        return {}
    starts = [start for _, start in wanted]
    about = {"interval": interval.value, "instruments": [instrument for instrument, _ in wanted], "starts": starts}
    cursor.execute(_SQL["bars"], {**about, "first": min(starts), "last": max(starts)}, prepare=False)
    return {(instrument, bar[0]): _draft(bar) for instrument, *bar in cursor}


def _draft(bar: Sequence[Any]) -> Draft:
    """A bar of the store, in the order of ``_NAMES``. Its version grows when it is revised, and when it is final."""
    ts, final, known_at = bar[0], bar[6], bar[8]
    body = {"type": "bar", **dict(zip(_NAMES, bar, strict=True))}
    return Draft(to_us(ts), 2 * to_us(known_at) + final, orjson.dumps(body, option=orjson.OPT_UTC_Z))


def _series(connection: Connection, statement: str, before: datetime, most: int) -> list[StreamKey]:
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL[statement], {"before": before, "most": most}, prepare=False)
        return [StreamKey(instrument, Interval(interval)) for instrument, interval in cursor]
