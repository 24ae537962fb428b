"""Listings at rest: the bytes as they came, whom their rows mean, and what they tell of instruments."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements, storable
from mdtasks.domain.errors import NotFoundError
from mdtasks.domain.identities import Known, Learnt
from mdtasks.domain.listings import Traded
from mdtasks.domain.versions import Input, sha256

_SQL: Final = load_statements("mdtasks.store.sql", "listings.sql")

#: The sources that are no listing: whom keys mean, and what the store's own bars say.
KEYS: Final = "keys"
TRADED: Final = "traded"


def keep(connection: Connection, source: str, as_of: date, body: bytes, rows: int) -> Input:
    """Keep bytes. Idempotent: the same ones of a source and day are kept once."""
    kept = Input(source, as_of, sha256(body), rows)
    values = {
        "source": source,
        "as_of": as_of,
        "sha256": kept.sha256,
        "row_count": rows,
        "size_bytes": len(body),
        "body": zlib.compress(body, 6),
    }
    connection.execute(_SQL["keep"], values)
    return kept


def body_of(connection: Connection, kept: Input) -> bytes:
    """The bytes that were kept. Raises NotFoundError when they are gone or are not what they were."""
    key = {"source": kept.source, "as_of": kept.as_of, "sha256": kept.sha256}
    found = connection.execute(_SQL["body"], key).scalar_one_or_none()
    body = None if found is None else zlib.decompress(found)
    if body is None or sha256(body) != kept.sha256:
        what = "is not kept" if body is None else "is not what it was"
        raise NotFoundError(
            f"the {kept.source} listing of {kept.as_of} ({kept.sha256[:12]}) {what}",
            hint="restore listing_snapshots from a backup, or use what `mdtasks universe export` wrote",
        )
    return body


def newest_day(connection: Connection, source: str) -> date | None:
    """The newest day that a source has told of."""
    found: date | None = connection.execute(_SQL["newest_day"], {"source": source}).scalar_one()
    return found


def last_fetched(connection: Connection, source: str) -> datetime | None:
    """When a source last told something."""
    found: datetime | None = connection.execute(_SQL["last_fetched"], {"source": source}).scalar_one()
    return found


def window(connection: Connection, source: str, as_of: date, days: int) -> list[Input]:
    """A source's listings of the last days that it told of, up to one, the oldest first."""
    rows = connection.execute(_SQL["window"], {"source": source, "as_of": as_of, "days": days})
    return [Input(source, row.as_of, row.sha256, row.row_count) for row in rows]


def keys(connection: Connection, source: str, as_of: date) -> dict[str, list[tuple[date, int]]]:
    """Whom a source's keys mean, from which day on."""
    found: dict[str, list[tuple[date, int]]] = {}
    for key, since, instrument in connection.execute(_SQL["keys"], {"source": source, "as_of": as_of}):
        found.setdefault(key, []).append((since, instrument))
    return found


def known(
    connection: Connection, ids: Iterable[int], symbols: Iterable[str]
) -> tuple[dict[int, Known], dict[str, Known]]:
    """Instruments by id and, those that bear one of the symbols now, by symbol."""
    rows = connection.execute(_SQL["known"], {"ids": list(ids), "symbols": list(symbols)})
    by_id = {row.id: Known(**row._mapping) for row in rows}
    return by_id, {one.symbol: one for one in by_id.values() if one.symbol is not None}


def known_on(
    connection: Connection, ids: Iterable[int], symbols: Iterable[str], day: date
) -> tuple[dict[int, Known], dict[str, Known]]:
    """Instruments as a listing of a day knows them: by id, and by symbol those that bore it then. A symbol that nobody
    bore then and somebody bears since is that one's, who then has another ``symbol``.
    """
    rows = connection.execute(_SQL["known_on"], {"ids": list(ids), "symbols": list(symbols), "day": day}).all()
    by_id = {row.id: Known(*row[:6]) for row in rows}
    since = {row.now: by_id[row.id] for row in rows if row.changed and row.now is not None}
    return by_id, since | {one.symbol: one for one in by_id.values() if one.symbol is not None}


def learn(connection: Connection, source: str, as_of: date, found: Learnt, actor: str) -> None:
    """Put what a listing tells into effect: who bears what, who came to be, who lives until when, whom keys mean."""
    rename(connection, found.renames, found.ousted, as_of, (actor, source))
    keys_new = dict(found.keys)
    if found.births:
        rows = [row for row, _ in found.births]
        columns = {
            "symbols": [row.symbol for row in rows],
            "mics": [mic for _, mic in found.births],
            "kinds": [row.kind for row in rows],
            "listed": [row.listed_from for row in rows],
            "delisted": [row.delisted_on for row in rows],
        }
        ids = connection.execute(_SQL["bear"], columns).scalars()
        keys_new |= {row.key: one for row, one in zip(rows, ids, strict=True)}
    if found.lives:
        connection.execute(
            _SQL["live"],
            {
                "ids": [each.instrument for each in found.lives],
                "listed": [each.listed_from for each in found.lives],
                "delisted": [each.delisted_on for each in found.lives],
                "source": source,
            },
        )
    if keys_new:
        columns = {"keys": list(keys_new), "instruments": list(keys_new.values())}
        connection.execute(_SQL["add_keys"], {"source": source, "as_of": as_of, **columns})


def rename(
    connection: Connection, renames: Mapping[int, str], ousted: Sequence[int], on: date, by: tuple[str, str]
) -> None:
    """Let instruments bear other symbols from a day on, and those ``ousted`` none. ``by``: an actor, and a source.

    All that is given up is given up before anything is taken, so that two may swap theirs.
    """
    ids = [*renames, *(one for one in ousted if one not in renames)]
    if not ids:
        return
    before, _ = known(connection, ids, ())
    connection.execute(_SQL["close_symbols"], {"ids": ids, "as_of": on})
    connection.execute(_SQL["drop_empty"], {"ids": ids})
    connection.execute(
        _SQL["open_symbols"], {"ids": list(renames), "symbols": list(renames.values()), "as_of": on, "source": by[1]}
    )
    record = {"old": [before[one].symbol for one in ids], "new": [renames.get(one) for one in ids]}
    about = {"ids": ids, "as_of": on, "actor": storable(by[0]), "source": by[1]}
    connection.execute(_SQL["audit"], {**about, **record})


def traded(connection: Connection, as_of: date, days: int) -> dict[int, Traded]:
    """What the store's own daily bars before a day say, as they are known now."""
    rows = connection.execute(_SQL["traded"], {"as_of": as_of, "days": days})
    return {row.instrument_id: Traded(row.days, int(row.dollars)) for row in rows}
