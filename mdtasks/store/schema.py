"""Brings a database to the shape this version of mdtasks needs, before anything else touches it.

The migrations are the Alembic scripts in the checkout's ``alembic/``; inside a wheel they are the package
``mdtasks.migrations``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, text

from mdtasks.connections import Database
from mdtasks.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config

#: Advisory lock that one migration at a time holds: "mdtasks" in ASCII, so that it meets no one else's.
_LOCK: Final = 0x6D647461736B73


def migrate(database_url: str) -> str:
    """Bring the database to the newest revision and return it; one that is there already is only read.

    Safe when several processes do it at once: one migrates, the others wait and find it done. All in one transaction:
    a migration that fails leaves the database as it was. Raises ConfigurationError when the database is newer than
    this installation, StoreUnavailableError when it does not answer.
    """
    head = head_revision()
    database = Database(database_url, application="mdtasks-migrate", pool_size=1)
    try:
        if current_revision(database) != head:
            _upgrade(database)
    finally:
        database.close()
    return head


def current_revision(database: Database) -> str | None:
    """The revision the database is at; None before its first migration."""
    with database.transaction() as connection:
        return _revision_of(connection)


def head_revision() -> str:
    """The newest revision this installation knows."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the installation carries no migrations"
    return head


def _upgrade(database: Database) -> None:
    from alembic import command
    from alembic.util import CommandError

    with database.transaction() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = _config()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as exc:
            raise ConfigurationError(
                f"the database is at revision {_revision_of(connection)}, which this mdtasks does not know",
                name="MDTASKS_DATABASE_URL",
                hint="a newer mdtasks has migrated it: install that version here too",
            ) from exc


def _revision_of(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> Path:
    """The folder of the migrations: beside the modules in a wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "migrations", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise ConfigurationError(
        f"the migrations are missing from {package}", hint="this installation is damaged: install mdtasks again"
    )
