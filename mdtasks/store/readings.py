"""What a reader must know of series before it reads them: where bars lie, and whether they are what they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import Connection, text

from mdtasks.connections import load_statements, raw_psycopg
from mdtasks.domain.jobs import Interval, TimeWindow

_SQL: Final = {name: clause.text for name, clause in load_statements("mdtasks.store.sql", "readings.sql").items()}

#: Instruments with the window of each.
Windows: TypeAlias = Sequence[tuple[int, TimeWindow]]
#: Starts of a window's first and last bar; None where there is none.
Extent: TypeAlias = tuple[datetime, datetime] | None


@dataclass(frozen=True, slots=True)
class State:
    """What differs whenever the bars of a window do: how many, how many final, the sum of the times of their writes."""

    bars: int
    finals: int
    known: str | None

    @property
    def may_be_promoted(self) -> bool:
        """Whether a bar may still become final, which leaves its time as it is; of bars as they stand."""
        return self.finals < self.bars


def extents(connection: Connection, interval: Interval, windows: Windows) -> list[Extent]:
    """Per window the starts of the first and the last bar that is or ever was there; None where there is none."""
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["extents"], _arguments(interval, windows), prepare=False)
        found = {number: (first, last) for number, first, last in cursor if first is not None}
    return [found.get(number) for number in range(1, len(windows) + 1)]


def states(
    connection: Connection, interval: Interval, windows: Windows, as_of: datetime | None, most: int | None = None
) -> list[State]:
    """Per window the state of its bars, or of its first ``most`` ones; as they stand, or as they were at ``as_of``."""
    if not windows:
        return []
    bounds = {
        "since": min(window.start for _, window in windows),  # constants, so that only their partitions are planned
        "until": max(window.end for _, window in windows),
        "as_of": as_of,
        "most": most,
    }
    statement = _SQL["states" if as_of is None else "states_as_of"]
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(statement, {**_arguments(interval, windows), **bounds}, prepare=False)
        return [State(*rest) for _, *rest in sorted(cursor)]


def clock(connection: Connection) -> datetime:
    """What the store's clock says."""
    found: datetime = connection.execute(text(_SQL["clock"])).scalar_one()
    return found


def is_settled(connection: Connection, as_of: datetime, margin_s: float) -> bool:
    """Whether nothing can become known any more as of an instant that is ``margin_s`` ago or longer.

    True only for snapshots that are taken after this was asked.
    """
    with raw_psycopg(connection).cursor() as cursor:
        cursor.execute(_SQL["settled"], {"as_of": as_of, "margin_s": margin_s}, prepare=False)
        return bool(cursor.fetchone()[0])


def _arguments(interval: Interval, windows: Windows) -> dict[str, object]:
    return {
        "interval": interval.value,
        "instruments": [instrument for instrument, _ in windows],
        "sinces": [window.start for _, window in windows],
        "untils": [window.end for _, window in windows],
    }
