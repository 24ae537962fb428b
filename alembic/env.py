"""Where Alembic meets the store's database.

``mdtasks.store.schema`` hands its connection over, inside its own transaction and lock. `alembic upgrade head` typed by
hand in the checkout takes the URL from the settings, as every other command does.
"""

from alembic import context
from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.settings import load_settings
from mdtasks.store.tables import metadata


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    database = Database(load_settings().require_database_url(), application="alembic")
    with database.transaction() as own:
        _run(own)
    database.close()
