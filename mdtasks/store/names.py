"""Names and lives at rest: all spans of instruments, and writing them anew where actions tell of renamings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.names import ACTIONS, EVER, STILL, Span

_SQL: Final = load_statements("mdtasks.store.sql", "names.sql")


@dataclass(frozen=True, slots=True)
class Life:
    """An instrument's exchange, tier and life; ``source``: who told last when it ended, or that it did not."""

    id: int
    mic: str
    tier: str | None
    listed_from: date | None
    delisted_on: date | None
    source: str


@dataclass(frozen=True, slots=True)
class Fact:
    """What a source's listing, which the universe that holds is made of, called an instrument on its day."""

    symbol: str
    as_of: date
    source: str


def due(connection: Connection, first: date, last: date) -> set[int]:
    """The instruments of which a renaming or a delisting was told for one of the days from first to last."""
    return set(connection.execute(_SQL["due"], {"first": first, "last": last}).scalars())


def concerned(connection: Connection, ids: Iterable[int]) -> set[int]:
    """Of these instruments those of which a renaming or a delisting was ever told."""
    return set(connection.execute(_SQL["concerned"], {"ids": list(ids)}).scalars())


def bearers(connection: Connection, symbols: Iterable[str]) -> set[int]:
    """Who has ever borne one of these symbols."""
    return set(connection.execute(_SQL["bearers"], {"symbols": list(symbols)}).scalars())


def spans(connection: Connection, ids: Iterable[int]) -> dict[int, list[Span]]:
    """All that these instruments have borne, the oldest first."""
    found: dict[int, list[Span]] = {one: [] for one in ids}
    for row in connection.execute(_SQL["spans"], {"ids": list(found)}):
        since, until = row.valid_from or EVER, row.valid_to or STILL
        found[row.instrument_id].append(Span(since, until, row.symbol, row.source))
    return found


def lives(connection: Connection, ids: Iterable[int]) -> dict[int, Life]:
    """The lives of these instruments."""
    return {row.id: Life(*row) for row in connection.execute(_SQL["lives"], {"ids": list(ids)})}


def listed(connection: Connection, ids: Iterable[int]) -> dict[int, Fact]:
    """What the listing of the version that holds says of those of these instruments that are its members."""
    rows = connection.execute(_SQL["listed"], {"ids": list(ids)})
    return {row.instrument: Fact(row.symbol, row.as_of, row.source) for row in rows}


def last_bar(connection: Connection, instrument: int, since: datetime) -> datetime | None:
    """When an instrument's last bar starts, of whatever interval; None where it has none since then."""
    found: datetime | None = connection.execute(_SQL["last_bar"], {"id": instrument, "since": since}).scalar_one()
    return found


def rewrite(connection: Connection, changed: Mapping[int, Sequence[Span]]) -> None:
    """Let instruments have borne these symbols, and no others. All give up what they bore first, so two may swap."""
    rows = [(one, span) for one, spans in changed.items() for span in spans]
    columns = {
        "ids": [one for one, _ in rows],
        "symbols": [span.symbol for _, span in rows],
        "since": [None if span.since == EVER else span.since for _, span in rows],
        "until": [None if span.until == STILL else span.until for _, span in rows],
        "sources": [span.source for _, span in rows],
    }
    connection.execute(_SQL["forget"], {"ids": list(changed)})
    connection.execute(_SQL["bear"], columns)


def end_life(connection: Connection, instrument: int, day: date | None) -> None:
    """Let an instrument's life have ended as the actions tell; None: they tell nothing (any more)."""
    source = None if day is None else ACTIONS
    connection.execute(_SQL["live"], {"id": instrument, "day": day, "source": source})
