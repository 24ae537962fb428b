"""Comparisons of bars of two sources, at rest: what to compare, and an append-only record of what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.crosschecks import Compared
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.universe import Listing
from mdtasks.store import derived
from mdtasks.store.derived import Wanted

_SQL: Final = {name: clause.text for name, clause in load_statements("mdtasks.store.sql", "crosschecks.sql").items()}


@dataclass(frozen=True, slots=True)
class Member:
    """An instrument whose bars may be compared."""

    id: int
    listing: Listing
    tier: Tier


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One stored bar and the other source's of the same time, each of shape (1,): who brought it, when it was known.

    ``other_provider``: of minutes all that brought one, joined by commas.
    """

    instrument_id: int
    provider: str
    known_at: datetime
    bar: Bars
    other_provider: str
    other_known_at: datetime
    other: Bars


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What a comparison found, on its way to the record. ``known_at``: of each compared bar, and of the other's."""

    kind: str
    instrument_id: int
    interval: Interval
    provider: str
    other_provider: str
    compared: Compared
    known_at: Sequence[datetime]
    other_known_at: Sequence[datetime]


@dataclass(frozen=True, slots=True)
class Tally:
    """How often two sources were compared, how often they disagreed, and how often which of them was found wrong.

    The worst distances in basis points, by field.
    """

    kind: str
    interval: str
    provider: str
    other_provider: str
    compared: int
    disagreed: int
    provider_wrong: int
    other_wrong: int
    open_bp: float
    high_bp: float
    low_bp: float
    close_bp: float
    volume_bp: float
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A comparison that disagreed, with both bars: open, high, low, close, volume, and how far apart they are."""

    at: datetime
    kind: str
    symbol: str | None
    interval: str
    ts: datetime
    provider: str
    bar: list[float]
    known_at: datetime
    other_provider: str
    other_bar: list[float]
    other_known_at: datetime
    apart_bp: list[float]
    beyond: list[str]
    wrong: str | None


def members(connection: Connection, tiers: Sequence[Tier]) -> list[Member]:
    """The instruments of these tiers, by id."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["members"], {"tiers": [tier.value for tier in tiers]})
        return [Member(number, Listing(symbol, mic, kind), Tier(tier)) for number, symbol, mic, kind, tier in cursor]


def days(connection: Connection, wanted: Wanted, most: int) -> list[Pair]:
    """Vendors' final daily bars among the wanted, beside what their minutes make, where all of those are final.

    Those that were compared since they last changed are absent. The newest first, at most ``most``.
    """
    if not len(wanted.instruments):
        return []
    parts = wanted.slots.parts
    extent = {"first": from_us(int(parts[:, 0].min())), "last": from_us(int(parts[:, 1].max()))}
    with raw_psycopg(connection).cursor() as cursor:
        derived.stage_wanted(cursor, wanted)
        cursor.execute(_SQL["days"], {**extent, "most": most}, prepare=False)
        return [_pair(row) for row in cursor]


def _pair(row: tuple[Any, ...]) -> Pair:
    instrument, ts, provider, known_at, *held = row[:9]
    other_provider, other_known_at, *other = row[9:]
    start = [to_us(ts)]
    return Pair(
        instrument,
        provider,
        known_at,
        Bars.of(start, *([value] for value in held)),
        other_provider,
        other_known_at,
        Bars.of(start, *([value] for value in other)),
    )


def keep(connection: Connection, findings: Sequence[Finding], policy_version: int) -> int:
    """Put what was found on record, a row for each bar; returns how many."""
    rows = [row for finding in findings for row in _rows(finding)]
    if rows:
        names = (
            "kinds", "instruments", "intervals", "ts", "providers", "bars", "known_ats", "other_providers",
            "other_bars", "other_known_ats", "aparts", "beyonds", "wrongs",
        )  # fmt: skip
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        with raw_psycopg(connection).cursor() as cursor:
            cursor.execute(_SQL["keep"], {**columns, "policy_version": policy_version})
    return len(rows)


def _rows(finding: Finding) -> Iterator[tuple[Any, ...]]:
    found = finding.compared
    names = {"held": finding.provider, "other": finding.other_provider, None: None}
    held, other = np.column_stack(found.held.columns), np.column_stack(found.other.columns)
    for number in range(len(found)):
        yield (
            finding.kind,
            finding.instrument_id,
            finding.interval.value,
            from_us(int(found.held.ts_us[number])),
            finding.provider,
            _array(held[number].tolist()),
            finding.known_at[number],
            finding.other_provider,
            _array(other[number].tolist()),
            finding.other_known_at[number],
            _array(found.apart_bp[:, number].tolist()),
            _array(found.fields_of(number)),
            names[found.wrong[number]],
        )


def _array(values: Sequence[object]) -> str:
    """An array as PostgreSQL reads it: an array of arrays would have to be rectangular."""
    return "{" + ",".join(map(str, values)) + "}"


def summary(connection: Connection, since: datetime, instruments: Sequence[int] | None) -> list[Tally]:
    """What was compared since then, of these instruments or (None) of all: those that disagree most first."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["summary"], {"since": since, "instruments": instruments})
        return [Tally(*row) for row in cursor]


def disagreements(
    connection: Connection, since: datetime, instruments: Sequence[int] | None, limit: int
) -> list[Disagreement]:
    """The newest comparisons since then that disagreed, of these instruments or (None) of all."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["disagreements"], {"since": since, "instruments": instruments, "limit": limit})
        return [Disagreement(*row) for row in cursor]
