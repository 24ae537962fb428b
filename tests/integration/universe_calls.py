"""What the tests of the universe share: listings made here, taken and activated; and what the store says then."""

from __future__ import annotations

from datetime import date

from sqlalchemy import text

from mdtasks.domain.listings import Kept
from mdtasks.flows import universe as flow
from mdtasks.flows.deps import Deps
from mdtasks.flows.universe import Asked, Made
from mdtasks.flows.universe_bundle import Checked, bundle_of, checked
from mdtasks.store import reference
from mdtasks.store import universe as store

#: A Tuesday, and the days after it.
DAY = date(2024, 1, 2)


def csv_of(*rows: str, columns: str = "symbol,mic,close,volume") -> bytes:
    return "\n".join([columns, *rows, ""]).encode()


def with_ids(*rows: str) -> bytes:
    return csv_of(*rows, columns="id,symbol,mic,close,volume")


def taken(deps: Deps, body: bytes, day: date = DAY, tag: str = "", source: str = "csv") -> Made:
    return flow.refresh(source, [Kept(day, body)], Asked("me@here", tag), deps)


def activated(deps: Deps, made: Made, reason: str = "") -> dict[str, int]:
    """What letting it hold changed, but for what is 0."""
    activation, _ = flow.activate(made.version.version_tag, "me@here", reason, deps, force=True)
    assert activation is not None
    return {name: count for name, count in activation.counts.items() if count}


def held(deps: Deps, body: bytes, day: date = DAY) -> dict[str, int]:
    """Take a listing and let its version hold."""
    return activated(deps, taken(deps, body, day))


def tiers(deps: Deps) -> dict[str, str]:
    """Who is followed, in which tier."""
    with deps.database.transaction() as connection:
        return {each.symbol: each.tier.value for each in reference.instruments(connection)}


def again(deps: Deps, tag: str) -> Checked:
    with deps.database.transaction() as connection:
        return checked(bundle_of(connection, store.one(connection, tag)))


def borne(deps: Deps, symbol: str) -> list[tuple[int, str, str, str]]:
    """(instrument, symbol, from, until) of all that bore it."""
    with deps.database.transaction() as connection:
        found = reference.ever(connection, symbol)
    return [(each.instrument_id, each.symbol, str(each.valid_from or ""), str(each.valid_to or "")) for each in found]


def counted(deps: Deps, sql: str) -> int:
    with deps.database.transaction() as connection:
        return int(connection.execute(text(sql)).scalar_one())


def done(deps: Deps, sql: str, **values: object) -> None:
    with deps.database.transaction() as connection:
        connection.execute(text(sql), values)
