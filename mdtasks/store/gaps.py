"""Gaps at rest: what is missing of a whole tier by one statement, and the ledger of what was found and became of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.gaps import Spans
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.ledger import OpenGap, Run, Settled
from mdtasks.domain.universe import Listing
from mdtasks.store.binary_copy import PG_EPOCH_US

_SQL: Final = {name: clause.text for name, clause in load_statements("mdtasks.store.sql", "gaps.sql").items()}

#: Entries of the ledger that people are shown of a series.
_LEDGER: Final = 200


@dataclass(frozen=True, slots=True)
class Scope:
    """The series that are looked at: of a tier and an interval, all or these ``instruments``."""

    tier: Tier
    interval: Interval
    instruments: Sequence[int] | None = None

    def as_dict(self) -> dict[str, Any]:
        chosen = None if self.instruments is None else list(self.instruments)
        return {"tier": self.tier.value, "interval": self.interval.value, "instruments": chosen}


@dataclass(frozen=True, slots=True, eq=False)
class Lacking:
    """What a series lacks: ``missing`` all of it (never empty), ``asked`` what of it jobs are to fetch, ``unasked``
    what of it no job works on, not even one that failed.
    """

    instrument_id: int
    listing: Listing
    missing: Spans
    asked: Spans
    unasked: Spans


@dataclass(frozen=True, slots=True)
class Closed:
    """A gap that was closed. ``took_s``: from when it was found, seconds."""

    instrument_id: int
    outcome: str
    took_s: float


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A gap as people read of it, with a job of it: one that works on it, else one that has died, else the newest; and
    its letter if it died. As it was at an earlier instant it is without its job.
    """

    id: int
    start: datetime
    end: datetime
    missing: int
    found_at: datetime
    found_by: str
    closed_at: datetime | None
    outcome: str | None
    job: str | None
    job_status: str | None
    attempts: int | None
    max_attempts: int | None
    last_error: str | None
    last_error_class: str | None
    not_before: datetime | None
    letter: str | None

    @property
    def took_s(self) -> float | None:
        """Time to repair, seconds; None while it is open."""
        return None if self.closed_at is None else (self.closed_at - self.found_at).total_seconds()


def lock(connection: Connection) -> None:
    """Keep others from looking until the transaction ends."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["lock"])


def lacking(
    connection: Connection, scope: Scope, expected: Mapping[str, Spans], halted: Mapping[int, Spans]
) -> list[Lacking]:
    """What is missing now of each series in the scope; a series that lacks nothing is absent.

    ``expected``: by exchange, the time in which intervals are expected that are due, on the interval's grid.
    ``halted``: by instrument, the time in which it did not trade.
    """
    with raw_psycopg(connection).cursor(binary=True) as cursor:
        cursor.execute(_of_look("missing"), _look_columns(scope, expected, halted), prepare=False)
        return [
            Lacking(instrument, Listing(symbol, mic, kind), *map(_spans, spans))
            for instrument, symbol, mic, kind, *spans in cursor
        ]


def standing(connection: Connection, scope: Scope) -> dict[tuple[int, str], list[OpenGap]]:
    """The open gaps of the scope's series, by (instrument id, exchange)."""
    found: defaultdict[tuple[int, str], list[OpenGap]] = defaultdict(list)
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["standing"], scope.as_dict())
        for instrument, gap, start, end, mic in cursor:
            found[instrument, mic].append(OpenGap(gap, (to_us(start), to_us(end))))
    return dict(found)


def record(
    connection: Connection, interval: Interval, settled: Mapping[int, Settled], found_by: str
) -> tuple[int, list[Closed]]:
    """Write what a look found, by instrument id; returns how many gaps are new, and those that were closed."""
    new = [(instrument, run) for instrument, each in settled.items() for run in each.new]
    grown = [pair for each in settled.values() for pair in each.grown]
    closed = [gap for each in settled.values() for gap in each.closed]
    with raw_psycopg(connection).cursor() as cursor:
        if new:
            about = {"interval": interval.value, "found_by": found_by}
            cursor.execute(_SQL["add"], {**about, **_run_columns("instruments", new)})
        if grown:
            cursor.execute(_SQL["grow"], _run_columns("ids", grown))
        if not closed:
            return len(new), []
        cursor.execute(_SQL["close"], {"ids": closed})
        return len(new), [Closed(*row) for row in cursor]


def withdraw_unkept(connection: Connection, tier: Tier, kept: Iterable[Interval]) -> int:
    """Close the open gaps of a tier's series that are not kept complete any more; returns how many."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["withdraw"], {"tier": tier.value, "kept": [interval.value for interval in kept]})
        return int(cursor.rowcount)


def failed_reach(connection: Connection, scope: Scope) -> dict[str, tuple[datetime, datetime]]:
    """From when to when the scope's failed jobs reach, by exchange; those asked of one provider by name aside."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["failed_reach"], scope.as_dict())
        return {mic: (start, end) for mic, start, end in cursor}


def answered_failed(
    connection: Connection,
    scope: Scope,
    look: tuple[Mapping[str, Spans], Mapping[int, Spans]],
    closed: Iterable[int],
) -> list[str]:
    """The failed jobs of which nothing is missing any more.

    ``look``: what is expected, by exchange, and halted, by instrument, as for ``lacking``, as far as the jobs reach.
    ``closed``: instruments of which gaps were closed just now.
    """
    values = {**_look_columns(scope, *look), "closed": list(closed)}
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_of_look("answered_failed"), values, prepare=False)
        return [job for (job,) in cursor]


def resolve(connection: Connection, jobs: Sequence[str], actor: str) -> int:
    """Give up failed jobs of which nothing is missing any more, and close their letters; returns how many letters."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["resolve"], {"jobs": list(jobs), "actor": actor})
        return int(cursor.rowcount)


def revivable(connection: Connection, tier: Tier, outages: Iterable[str]) -> list[str]:
    """Open letters of jobs that died of an outage (one of these error classes) which is over since."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["revivable"], {"tier": tier.value, "outages": list(outages)})
        return [letter for (letter,) in cursor]


def history(
    connection: Connection,
    instrument_id: int,
    interval: Interval,
    window: TimeWindow,
    as_of: datetime | None = None,
) -> list[LedgerEntry]:
    """The ledger of a series where it reaches into a window, now or at an instant: open gaps first, then the newest,
    _LEDGER at most.
    """
    about = {"instrument": instrument_id, "interval": interval.value, "start": window.start, "end": window.end}
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(
            _SQL["history" if as_of is None else "history_as_of"], {**about, "as_of": as_of, "limit": _LEDGER}
        )
        return [LedgerEntry(*row) for row in cursor]


def open_count(connection: Connection) -> dict[tuple[Tier, Interval], int]:
    """How many gaps are open, by tier and interval; none where nothing is."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["open_count"])
        return {(Tier(tier), Interval(interval)): count for tier, interval, count in cursor}


def _of_look(name: str) -> str:
    return f"{_SQL['look']}\n{_SQL[name]}"


def _look_columns(scope: Scope, expected: Mapping[str, Spans], halted: Mapping[int, Spans]) -> dict[str, Any]:
    return {
        **scope.as_dict(),
        **_columns(("mics", "starts", "ends"), expected),
        **_columns(("halted", "halted_from", "halted_to"), halted),
    }


def _columns(names: tuple[str, str, str], spans: Mapping[Any, Spans]) -> dict[str, list[Any]]:
    keys = [key for key, each in spans.items() for _ in range(len(each))]
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *spans.values()]).tolist()
    return dict(zip(names, (keys, [from_us(a) for a, _ in pairs], [from_us(b) for _, b in pairs]), strict=True))


def _run_columns(key: str, runs: Sequence[tuple[int, Run]]) -> dict[str, list[Any]]:
    return {
        key: [owner for owner, _ in runs],
        "starts": [run.window.start for _, run in runs],
        "ends": [run.window.end for _, run in runs],
        "missing": [run.missing for _, run in runs],
    }


def _spans(raw: bytes | None) -> Spans:
    return np.frombuffer(raw or b"", ">i8").astype(np.int64).reshape(-1, 2) + PG_EPOCH_US
