"""Taking listings: whose, the rows that they have, and what they tell of instruments at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, datetime

from sqlalchemy import Connection

from mdtasks.domain.errors import InvalidRequestError, UnsupportedError
from mdtasks.domain.identities import Learnt, learnt
from mdtasks.domain.listings import Kept, Listed
from mdtasks.domain.sessions import Calendars
from mdtasks.flows.deps import Deps
from mdtasks.providers.listings import format_of, read
from mdtasks.store import listings


@dataclass(slots=True)
class Told:
    """What listings told: new instruments, renamings, and of the newest day rows that mean nobody, by why, and keys
    that do not count, for their exchange has no calendar.
    """

    births: int = 0
    renames: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    unplaced: Set[str] = frozenset()


def listing_of(source: str, deps: Deps, now: datetime) -> Sequence[Kept]:
    """What a provider lists. Raises UnknownProviderError, UnsupportedError where it has no listing, ProviderError."""
    provider = deps.registry.get(source)
    if not provider.capabilities.listing:
        raise UnsupportedError(
            "does not list its instruments", provider=source, hint="lean, alpaca, massive, finnhub do"
        )
    format_of(source)
    with deps.registry.gate(source).call():
        return provider.listing(now, deps.running.policy.universe.days)


def read_rows(source: str, kept: Kept) -> list[Listed]:
    """The rows of a listing. Raises InvalidRequestError where it cannot be read or has none."""
    rows = read(source, kept.body)
    if not rows:
        raise InvalidRequestError(
            f"the {source} listing of {kept.as_of} has no rows", field="listing", hint="is it cut off?"
        )
    return rows


def take(
    connection: Connection,
    source: str,
    kept: Sequence[Kept],
    rows: Mapping[date, Sequence[Listed]],
    by: tuple[str, Calendars],
) -> Told:
    """Keep listings and learn from them, those of days before the newest that was taken aside."""
    told, newest = Told(), listings.newest_day(connection, source)
    fresh = [each for each in kept if newest is None or each.as_of >= newest]
    if not fresh:
        raise InvalidRequestError(
            f"the {source} listing of {kept[-1].as_of} is older than that of {newest}, which was taken",
            field="as_of",
            hint="listings are taken in the order of their days: what a later one told has happened already",
        )
    for each in fresh:
        listings.keep(connection, source, each.as_of, each.body, len(rows[each.as_of]))
        found = _learn(connection, (source, each.as_of), rows[each.as_of], by)
        told.births += len(found.births)
        told.renames += len(found.renames)
        told.skipped, told.unplaced = dict(found.skipped), found.unplaced  # of the newest day
    return told


def _learn(
    connection: Connection, about: tuple[str, date], rows: Sequence[Listed], by: tuple[str, Calendars]
) -> Learnt:
    (source, day), (actor, calendars) = about, by
    meant = {key: means[-1][1] for key, means in listings.keys(connection, source, day).items()}
    by_id, bearers = listings.known_on(connection, meant.values(), {row.symbol for row in rows}, day)
    meaning = {key: by_id[one] for key, one in meant.items() if one in by_id}
    found = learnt(rows, day, meaning, bearers, {mic: _exchange(mic, calendars) for mic in {row.mic for row in rows}})
    listings.learn(connection, source, day, found, actor)
    return found


def _exchange(mic: str, calendars: Calendars) -> str | None:
    """An exchange by the name that the store has for it; None: it has no calendar."""
    try:
        return calendars.plain(mic).mic
    except InvalidRequestError:
        return None
