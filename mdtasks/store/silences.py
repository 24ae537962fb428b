"""Silence at rest: who was asked for bars and had none, and what is known of a series to weigh that by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain.gaps import Spans, merge
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import Times
from mdtasks.domain.silence import PERSON, Silence
from mdtasks.store.binary_copy import PG_EPOCH_US

_SQL: Final = {name: clause.text for name, clause in load_statements("mdtasks.store.sql", "silences.sql").items()}


@dataclass(frozen=True, slots=True, eq=False)
class KnownAround:
    """What the store knows of a series in a stretch of time: see ``domain.silence.Around``."""

    covered: Spans
    doubted: Spans
    seconded: Spans
    bars_us: Times


@dataclass(frozen=True, slots=True)
class Heard:
    """What somebody said of a run without bars. ``provider``: ``person:NAME`` for one who accepted it by hand."""

    starts_at: datetime
    ends_at: datetime
    provider: str
    believed: bool
    answered_at: datetime
    attempt_id: int | None

    @property
    def by_hand(self) -> bool:
        """Whether a person said so, not a provider."""
        return self.provider.startswith(PERSON)


def keep(cursor: Any, heard: Sequence[tuple[int, Silence]], about: Mapping[str, object]) -> None:
    """Record runs by instrument id, on psycopg's cursor of the write they belong to; idempotent.

    ``about``: interval, provider and attempt_id of the answer.
    """
    if heard:
        columns = {
            "heard": [instrument for instrument, _ in heard],
            "heard_from": [each.window.start for _, each in heard],
            "heard_to": [each.window.end for _, each in heard],
            "believed": [each.believed for _, each in heard],
        }
        cursor.execute(_SQL["keep"], {**about, **columns}, prepare=False)


def known_around(
    connection: Connection, interval: Interval, stretches: Mapping[int, TimeWindow], provider: str
) -> dict[int, KnownAround]:
    """What is known of each instrument in its stretch of time, all in one statement.

    ``provider``: whose answer is weighed; its own earlier word seconds nothing.
    """
    if not stretches:
        return {}
    sinces, untils = ([getattr(window, edge) for window in stretches.values()] for edge in ("start", "end"))
    columns = {"instruments": list(stretches), "sinces": sinces, "untils": untils}
    bounds = {"since": min(sinces), "until": max(untils)}
    about = {"interval": interval.value, "provider": provider}
    with raw_psycopg(connection).cursor(binary=True) as cursor:
        cursor.execute(_SQL["around"], {**about, **columns, **bounds}, prepare=False)
        return {
            instrument: KnownAround(_spans(covered), _spans(doubted), _spans(seconded), _times(bars))
            for instrument, covered, doubted, seconded, bars in cursor
        }


def accept(
    connection: Connection, instrument_id: int, interval: Interval, window: TimeWindow, word: tuple[str, str]
) -> None:
    """Count the window's silence as no trade on somebody's word: (actor, reason). Idempotent; leaves an audit row.

    Call ``hold_writers`` before: what was answered for until now is put on record.
    """
    actor, reason = word
    about = {"instrument": instrument_id, "interval": interval.value, "start": window.start, "end": window.end}
    details = {**about, "start": window.start.isoformat(), "end": window.end.isoformat(), "reason": reason}
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["accept"], {**about, "provider": PERSON + actor})
        cursor.execute(_SQL["audit"], {"actor": actor, "action": "gaps.accept", "details": json.dumps(details)})


def heard(
    connection: Connection,
    instrument_id: int,
    interval: Interval,
    window: TimeWindow,
    as_of: datetime | None = None,
) -> list[Heard]:
    """What was said of the runs of a series that reach into a window, by now or by an instant, in order of time."""
    about = {"instrument": instrument_id, "interval": interval.value, "start": window.start, "end": window.end}
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["heard" if as_of is None else "heard_as_of"], {**about, "as_of": as_of})
        return [Heard(*row) for row in cursor]


def _times(raw: bytes | None) -> NDArray[np.int64]:
    """Big-endian times of PostgreSQL, as microseconds since 1970."""
    return np.frombuffer(raw or b"", ">i8").astype(np.int64) + PG_EPOCH_US


def _spans(raw: bytes | None) -> Spans:
    return merge(_times(raw).reshape(-1, 2))
