"""Corporate actions at rest: append-only statements, who has answered for which days, the closes dividends go by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row

from mdtasks.connections import load_statements, storable
from mdtasks.domain.action_news import News
from mdtasks.domain.actions import Action, Days, Kind, Told
from mdtasks.domain.bars import to_us
from mdtasks.domain.jobs import Interval
from mdtasks.store.letters import Letter

_SQL: Final = load_statements("mdtasks.store.sql", "actions.sql")
#: The last close before a day is looked for so far back: longer than any holidays since 2010 (12 days, XSAU).
CLOSE_REACH: Final = timedelta(days=14)
_DATES: Final = ("declared_on", "record_on", "pay_on")


@dataclass(frozen=True, slots=True)
class Answered:
    """Which days' actions of an instrument a provider has answered for (None: for none yet), and when it was asked
    last; ``error``: why it did not answer then.
    """

    instrument_id: int
    source: str
    days: Days | None
    asked_at: datetime
    error: str | None = None


def told(
    connection: Connection,
    instrument_ids: Iterable[int],
    as_of: datetime | None = None,
    kinds: Sequence[Kind] | None = None,
) -> dict[int, list[Told]]:
    """Every statement about each of these instruments (of these kinds), or every one known at ``as_of``, in the order
    told.

    The same ``as_of``, once it has passed, gives the same statements for ever to transactions whose snapshot is taken
    after ``await_writers``. Raises ValueError for a naive ``as_of``.
    """
    if as_of is not None and as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of!r} is naive: give it a time zone")
    found: dict[int, list[Told]] = {each: [] for each in instrument_ids}
    of = None if kinds is None else [kind.value for kind in kinds]
    for row in connection.execute(_SQL["told"], {"instruments": list(found), "as_of": as_of, "kinds": of}):
        found[row.instrument_id].append(_told(row))
    return found


def await_writers(connection: Connection) -> None:
    """Wait for whoever is writing statements: what was dated until now is committed then.

    In a transaction of its own, before the one that reads: a snapshot that is taken before the wait is over would not
    see what was waited for, and one that is held while somebody downloads would keep all writers waiting.
    """
    connection.execute(_SQL["lock_shared"])


def _told(row: Row[Any]) -> Told:
    action = Action(
        Kind(row.kind), row.ex_date, row.value, row.currency, row.symbol, row.reference, *(row[i] for i in (8, 9, 10))
    )
    return Told(row.id, action, row.source, row.known_at, row.withdrawn, row.reason)


def lock(connection: Connection) -> None:
    """Hold all other writers off until this transaction ends: call it before what was looked at to decide."""
    connection.execute(_SQL["lock"])


def tell(connection: Connection, made: Sequence[tuple[int, News]], source: str, actor: str | None = None) -> list[int]:
    """Put statements about instruments on record, all dated alike; returns their ids. Call ``lock`` before."""
    if not made:
        return []
    actions = [each.action for _, each in made]
    columns = {
        "instruments": [instrument for instrument, _ in made],
        "kinds": [each.kind.value for each in actions],
        "ex_dates": [each.ex_date for each in actions],
        "values": [each.value for each in actions],
        "currencies": [each.currency for each in actions],
        "symbols": [each.symbol for each in actions],
        "references": [each.reference for each in actions],
        **{name.removesuffix("_on"): [getattr(each, name) for each in actions] for name in _DATES},
        "withdrawn": [each.withdrawn for _, each in made],
        "reasons": [None if each.reason is None else storable(each.reason) for _, each in made],
    }
    about = {"source": source, "actor": None if actor is None else storable(actor)}
    return sorted(connection.execute(_SQL["tell"], {**columns, **about}).scalars())


def remember_answer(connection: Connection, instrument_ids: Sequence[int], source: str, days: Days) -> None:
    """Remember that a provider has answered for these days."""
    about = {"instruments": list(instrument_ids), "source": source, "error": None}
    connection.execute(_SQL["answered"], {**about, "first_day": days.first, "last_day": days.last})


def remember_refusal(connection: Connection, instrument_ids: Sequence[int], source: str, error: str) -> None:
    """Remember that a provider was asked and has no answer, and would have none if it were asked again soon."""
    about = {"instruments": list(instrument_ids), "source": source, "error": storable(error)}
    connection.execute(_SQL["answered"], {**about, "first_day": None, "last_day": None})


def bars_since(connection: Connection, instrument_ids: Iterable[int]) -> dict[int, date]:
    """The first day of which there are bars, of any interval; an instrument without any is absent."""
    rows = connection.execute(_SQL["since"], {"instruments": list(instrument_ids)})
    return {row.instrument_id: row.since.date() for row in rows}


def answers(connection: Connection, instrument_ids: Iterable[int]) -> list[Answered]:
    """Who has answered for which days of these instruments, by instrument and source."""
    rows = connection.execute(_SQL["answers"], {"instruments": list(instrument_ids)})
    return [
        Answered(
            row.instrument_id,
            row.source,
            None if row.first_day is None else Days(row.first_day, row.last_day),
            row.asked_at,
            row.error,
        )
        for row in rows
    ]


def closes_before(
    connection: Connection,
    instrument_id: int,
    interval: Interval,
    befores: Sequence[datetime],
    as_of: datetime | None = None,
) -> list[tuple[int, float] | None]:
    """For each moment, the start (us since 1970) and raw close of the last bar that starts before it, or was known to
    at ``as_of``; None where there is none within CLOSE_REACH of it.
    """
    found: list[tuple[int, float] | None] = [None] * len(befores)
    asked = {"instrument": instrument_id, "interval": interval.value, "befores": list(befores), "as_of": as_of}
    for place, ts, close in connection.execute(_SQL["closes"], {**asked, "reach": CLOSE_REACH}):
        found[place - 1] = (to_us(ts), close)
    return found


@dataclass(frozen=True, slots=True)
class DailyStep:
    """A daily bar and the close of the one before it."""

    instrument_id: int
    ts: datetime
    bar: dict[str, float]
    provider: str
    attempt_id: int
    close_before: float
    day_before: date


def steps(connection: Connection, instrument_ids: Sequence[int], since: datetime) -> list[DailyStep]:
    """Those daily bars of these instruments since a day by which the price jumped, or should have by an action."""
    rows = connection.execute(_SQL["steps"], {"instruments": list(instrument_ids), "since": since})
    names = ("open", "high", "low", "close", "volume")
    return [
        DailyStep(
            instrument_id=row.instrument_id,
            ts=row.ts,
            bar={name: getattr(row, name) for name in names},
            provider=row.provider,
            attempt_id=row.attempt_id,
            close_before=row.close_before,
            day_before=row.ts_before.date(),
        )
        for row in rows
    ]


def keep_suspect(connection: Connection, step: DailyStep, reason: str, bar: str) -> bool:
    """Keep the bar of a suspicion in the quarantine; False when it was kept before. It stays stored as well."""
    values = {
        "instrument": step.instrument_id,
        "ts": step.ts,
        "reason": reason,
        "provider": step.provider,
        "attempt_id": step.attempt_id,
        "bar": bar,
    }
    return connection.execute(_SQL["suspect"], values).scalar_one_or_none() is not None


def restate(connection: Connection, letter: Letter) -> bool:
    """Let the letter of a finding that is on record and holds say what is known now (numbers grow, names change).

    Returns whether it was opened again: it had been closed as mended.
    """
    said = {"id": letter.id, "symbol": letter.symbol, "message": storable(letter.message)}
    return bool(connection.execute(_SQL["restate"], said).scalar_one_or_none())


def resolve(
    connection: Connection, instrument_ids: Iterable[int], since: date, held: Sequence[str], *, names: bool = False
) -> int:
    """Close the letters of findings about these instruments' days since one, but for those that hold; how many.

    ``names``: those about their names and lives, not those about bars.
    """
    asked = {
        "instruments": list(map(str, instrument_ids)),
        "since": since.isoformat(),
        "held": list(held),
        "names": names,
    }
    return connection.execute(_SQL["resolve"], asked).rowcount
