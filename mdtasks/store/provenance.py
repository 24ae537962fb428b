"""Where bars come from, as the store knows it: versions, what was kept out, the attempts behind them. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.jobs import Interval, TimeWindow

_SQL: Final = load_statements("mdtasks.store.sql", "provenance.sql")


@dataclass(frozen=True, slots=True)
class Version:
    """A bar as it stands or stood. ``final_at``: when it became final, where it was provisional first.
    ``superseded_at``: when it was replaced; None: it stands.
    """

    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    provider: str
    status: str
    known_at: datetime
    final_at: datetime | None
    superseded_at: datetime | None
    attempt_id: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bar that came and was kept out: the rule that it broke, and its values as they came."""

    ts: datetime
    reason: str
    provider: str
    bar: Mapping[str, Any]
    seen_at: datetime
    attempt_id: int


@dataclass(frozen=True, slots=True)
class Origin:
    """An attempt and what is behind it. ``asked``: the providers that answered it. What the policy does not keep any
    more is None: the job and who asked for it; of the attempt its message and its route.
    """

    attempt_id: int
    job_id: str
    job_type: str
    attempt: int
    worker: str
    asked: str | None
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    error_class: str | None
    message: str | None
    bars: int
    route: Sequence[Mapping[str, Any]] | None
    policy_version: int | None
    policy_author: str | None
    policy_reason: str | None
    policy_applied_at: datetime | None
    job_status: str | None
    tier: str | None
    job_start: datetime | None
    job_end: datetime | None
    request: str | None
    requested_by: str | None
    requested_at: datetime | None


def at_one_moment(connection: Connection) -> None:
    """Let all that the transaction reads be of one moment; the first thing to say in it."""
    connection.execute(_SQL["at_one_moment"])


def versions(connection: Connection, instrument_id: int, interval: Interval, ts: datetime) -> list[Version]:
    """Every version of one bar that is kept, the newest first; [] where there never was one."""
    about = {"instrument": instrument_id, "interval": interval, "ts": ts}
    return [Version(*row) for row in connection.execute(_SQL["versions"], about)]


def candidates(connection: Connection, instrument_id: int, interval: Interval, window: TimeWindow) -> list[Candidate]:
    """The bars that came for an interval's time and broke a rule, those seen first first."""
    about = {"instrument": instrument_id, "interval": interval, "ts": window.start, "until": window.end}
    return [Candidate(*row) for row in connection.execute(_SQL["candidates"], about)]


def origins(connection: Connection, attempts: Iterable[int]) -> dict[int, Origin]:
    """The attempts of these ids that are on record."""
    rows = connection.execute(_SQL["origins"], {"attempts": sorted(set(attempts))})
    return {row.attempt_id: Origin(*row) for row in rows}


def between(
    connection: Connection, what: str, series: tuple[int, Interval, TimeWindow], since: datetime, until: datetime
) -> list[dict[str, Any]]:
    """What the record learned of a series in a window after one instant and until another: ``ledger``, ``silences``."""
    instrument, interval, window = series
    about = {"instrument": instrument, "interval": interval, "start": window.start, "end": window.end}
    rows = connection.execute(_SQL[f"{what}_between"], {**about, "since": since, "until": until})
    return [dict(row._mapping) for row in rows]
