"""Calendar overrides at rest: versioned, never overwritten, undone by a mark. Who reads a version has all before it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements, storable
from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import ConflictError, NotFoundError
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.overrides import Kind, Overrides

_SQL: Final = load_statements("mdtasks.store.sql", "overrides.sql")


@dataclass(frozen=True, slots=True)
class NewOverride:
    """What somebody tells: of an exchange's ``session``, or of one instrument, that ``window`` was no trading."""

    kind: Kind
    window: TimeWindow
    reason: str
    mic: str | None = None
    session: date | None = None
    instrument_id: int | None = None


@dataclass(frozen=True, slots=True)
class Override:
    """An override on record. ``symbol``: what a halted instrument bears now. ``undone_at`` is None while it holds."""

    id: int
    kind: str
    mic: str | None
    instrument_id: int | None
    symbol: str | None
    session: date | None
    start: datetime
    end: datetime
    reason: str
    actor: str
    version: int
    created_at: datetime
    undone_at: datetime | None
    undone_by: str | None
    undone_reason: str | None
    undone_version: int | None

    def as_dict(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name != "instrument_id"}


def lock(connection: Connection) -> None:
    """Hold all other changes of calendars off until this transaction ends."""
    connection.execute(_SQL["lock"])


def version(connection: Connection) -> int:
    """The newest version of all calendars; 0 when nothing was ever told."""
    return int(connection.execute(_SQL["version"]).scalar_one())


def standing(connection: Connection, at: datetime | None = None) -> Overrides:
    """All that holds, or held at an instant, as calendars apply it."""
    rows = connection.execute(_SQL["standing"] if at is None else _SQL["standing_at"].bindparams(at=at)).all()
    told = [
        (row.mic if row.mic is not None else row.instrument_id, (to_us(row.starts_at), to_us(row.ends_at)))
        for row in rows
        if row.starts_at is not None
    ]
    return Overrides.of(int(rows[0].newest), told)


def add(connection: Connection, new: NewOverride, actor: str) -> Override:
    """Put an override on record, with an audit row. Call ``lock`` before what was looked at to decide it."""
    values = {
        "mic": new.mic,
        "instrument_id": new.instrument_id,
        "kind": new.kind.value,
        "session": new.session,
        "start": new.window.start,
        "end": new.window.end,
        "reason": storable(new.reason),
        "actor": storable(actor),
    }
    return one(connection, int(connection.execute(_SQL["add"], values).scalar_one()))


def undo(connection: Connection, override_id: int, reason: str, actor: str) -> Override:
    """Let an override no longer hold, with an audit row. Raises NotFoundError, and ConflictError when it was undone."""
    lock(connection)
    before = one(connection, override_id)
    values = {"id": override_id, "reason": storable(reason), "actor": storable(actor)}
    if connection.execute(_SQL["undo"], values).one_or_none() is None:
        raise ConflictError(
            f"override {override_id} was undone on {before.undone_at:%Y-%m-%d %H:%M} UTC by {before.undone_by}",
            hint="`mdtasks calendar list` shows those that hold",
        )
    return one(connection, override_id)


def one(connection: Connection, override_id: int) -> Override:
    """One override by its id, undone or not. Raises NotFoundError."""
    found = matching(connection, override_id=override_id, undone=True) if 0 < override_id < 2**63 else []
    if not found:
        raise NotFoundError(f"no override {override_id}", hint="`mdtasks calendar list` shows those that hold")
    return found[0]


def matching(
    connection: Connection,
    *,
    override_id: int | None = None,
    mic: str | None = None,
    instrument_id: int | None = None,
    undone: bool = False,
) -> list[Override]:
    """Overrides of one exchange (its calendar's own name), one instrument, or all; with those ``undone`` too, or not.
    The newest time first.
    """
    values = {"id": override_id, "mic": mic, "instrument_id": instrument_id, "undone": undone}
    return [Override(**row._mapping) for row in connection.execute(_SQL["matching"], values)]
