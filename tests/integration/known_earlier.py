"""Instruments as if they had been known for long: reads as of a time long past are refused for those that were not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text

from mdtasks.connections import Database

LONG_AGO: Final = datetime(2019, 1, 1, tzinfo=UTC)

_KNOWN: Final = (
    "ALTER TABLE symbols DISABLE TRIGGER known",
    "UPDATE symbols SET known_at = :at",
    "ALTER TABLE symbols ENABLE TRIGGER known",
    "UPDATE instruments SET created_at = :at",
    "TRUNCATE symbol_revisions, instrument_revisions",
)


def known_since(database: Database, at: datetime = LONG_AGO) -> None:
    """Let all instruments be known since an instant, called and followed as they are now."""
    with database.transaction() as connection:
        for statement in _KNOWN:
            connection.execute(text(statement), {"at": at} if ":at" in statement else {})
