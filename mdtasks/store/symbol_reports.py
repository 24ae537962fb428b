"""The universe as people look through it: each symbol with how its data stand. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.jobs import Interval, Tier, TimeWindow

_SQL: Final = load_statements("mdtasks.store.sql", "symbol_reports.sql")

#: dead: a job of it has failed for good; gaps: some are open; fetching: jobs work on it; empty: there is nothing of it
#: yet; quiet: none of these.
SymbolState = Literal["dead", "gaps", "fetching", "empty", "quiet"]


@dataclass(frozen=True, slots=True)
class SymbolRow:
    """A symbol and how its data stand. ``intervals``: those that were ever answered for; ``fresh_until``: to where the
    freshest of them reaches; ``gaps`` open, ``active`` jobs that are not over, ``failed`` jobs that have died.
    """

    symbol: str
    mic: str
    kind: str
    tier: Tier
    intervals: Sequence[str]
    fresh_until: datetime | None
    gaps: int
    active: int
    failed: int
    state: SymbolState


@dataclass(frozen=True, slots=True)
class SymbolFilter:
    """Which symbols. ``search``: letters that it has in it, as they stand."""

    search: str | None = None
    tier: Tier | None = None
    state: SymbolState | None = None


def symbols(connection: Connection, which: SymbolFilter, limit: int) -> list[SymbolRow]:
    """The symbols that match, by tier and name; what a search begins with goes before what it is elsewhere in."""
    about = {"search": which.search, "tier": which.tier, "state": which.state, "limit": limit}
    rows = connection.execute(_SQL["symbols"], about)
    return [SymbolRow(**{**row._mapping, "tier": Tier(row.tier)}) for row in rows]


@dataclass(frozen=True, slots=True)
class SeriesJob:
    """A job of a series that is not over, or has died; ``letter``: the open letter of one that has."""

    id: str
    start: datetime
    end: datetime
    status: str
    attempts: int
    max_attempts: int
    last_error: str | None
    last_error_class: str | None
    request_id: str | None
    letter: str | None


def jobs(
    connection: Connection, instrument_id: int, interval: Interval, window: TimeWindow, limit: int
) -> list[SeriesJob]:
    """The jobs that work on a window of a series or have died of it, the newest window first."""
    about = {"instrument": instrument_id, "interval": interval, "start": window.start, "end": window.end}
    return [SeriesJob(*row) for row in connection.execute(_SQL["jobs"], {**about, "limit": limit})]


def by_tier(connection: Connection) -> dict[Tier, int]:
    """How many symbols each tier has."""
    return {Tier(tier): count for tier, count in connection.execute(_SQL["by_tier"])}
