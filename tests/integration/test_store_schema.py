"""The migrations and the tables tell the same story; migrating is safe at any moment, from any number of processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from mdtasks.connections import Database
from mdtasks.domain.errors import ConfigurationError, StoreUnavailableError
from mdtasks.store import reference, retention, schema
from mdtasks.store.tables import metadata

#: Every column, index and constraint of the tables in a schema, as PostgreSQL writes them down.
_CATALOGUE = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text,
       pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
UNION ALL
SELECT c.relname, '', pg_get_indexdef(i.indexrelid), '', '', '', ''
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname <> 'alembic_version'
UNION ALL
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid), '', '', '', ''
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname <> 'alembic_version'
UNION ALL
SELECT c.relname, coalesce(pg_get_partkeydef(c.oid), ''), array_to_string(c.reloptions, ','), '', '', '', ''
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
UNION ALL
SELECT t.typname, e.enumlabel, e.enumsortorder::text, '', '', '', ''
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
WHERE t.typnamespace = current_schema()::regnamespace
ORDER BY 1, 2, 3
"""


@pytest.fixture
def empty_url(database_url: str) -> str:
    """A URL of a database in which nothing has ever been made."""
    database = Database(database_url)
    with database.autocommit() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.close()
    return database_url


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    opened = Database(empty_url)
    yield opened
    opened.close()


def _catalogue(connection: Connection) -> list[Any]:
    return [tuple(row) for row in connection.execute(text(_CATALOGUE))]


def test_migrated_and_declared_schema_are_the_same_to_the_last_default(empty_url: str, empty: Database) -> None:
    schema.migrate(empty_url)
    with empty.transaction() as connection:
        migrated = _catalogue(connection)
        connection.execute(text("ALTER SCHEMA public RENAME TO migrated"))
        connection.execute(text("CREATE SCHEMA public"))
        # Functions are the migrations' alone; defaults name this one.
        connection.execute(
            text("CREATE FUNCTION universe_instant() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'")
        )
        metadata.create_all(connection)
        declared = _catalogue(connection)
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("ALTER SCHEMA migrated RENAME TO public"))
    assert migrated
    assert migrated == declared


def test_alembic_finds_nothing_to_add(empty_url: str, empty: Database) -> None:
    schema.migrate(empty_url)
    with empty.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_a_second_migration_changes_nothing(empty_url: str, empty: Database) -> None:
    assert schema.current_revision(empty) is None
    first = schema.migrate(empty_url)
    assert first == schema.head_revision() == schema.current_revision(empty)
    assert schema.migrate(empty_url) == first


def test_processes_that_migrate_at_once_all_find_it_done(empty_url: str, empty: Database) -> None:
    start = Barrier(4)

    def migrate(_: int) -> str:
        code = "import sys; from mdtasks.store.schema import migrate; sys.stdin.readline(); print(migrate(sys.argv[1]))"
        command = [sys.executable, "-W", "error", "-c", code, empty_url]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            start.wait(timeout=60)
            return process.communicate("go\n", timeout=60)[0].strip()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migrate, range(4))) == {schema.head_revision()}
    assert schema.current_revision(empty) == schema.head_revision()


def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_url: str, empty: Database) -> None:
    with empty.transaction() as connection:
        connection.execute(text("CREATE TABLE audit_log (mine integer)"))  # the last table of the first revision
    with pytest.raises(Exception, match="audit_log"):
        schema.migrate(empty_url)
    with empty.transaction() as connection:
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
        assert list(tables) == ["audit_log"]
    assert schema.current_revision(empty) is None


def test_a_database_of_a_newer_mdtasks_is_refused_by_name(empty_url: str, empty: Database) -> None:
    schema.migrate(empty_url)
    with empty.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="9999"):
        schema.migrate(empty_url)
    assert schema.current_revision(empty) == "9999"


def test_a_server_that_is_away_is_told_as_such(database_url: str) -> None:
    away = Database(database_url).engine.url.set(host="127.0.0.1", port=1, query={})
    with pytest.raises(StoreUnavailableError):
        schema.migrate(away.render_as_string(hide_password=False))


def test_a_store_that_had_bars_says_since_when_coverage_has_a_history(empty_url: str, empty: Database) -> None:
    begun = datetime.now(UTC)
    config = schema._config()
    for with_bars in (False, True):
        with empty.transaction() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0013")
            if with_bars:
                bare = (
                    "INSERT INTO coverage (instrument_id, interval, covered, fresh_until) VALUES (1, '1m', '{}', now())"
                )
                connection.execute(text(bare))
        schema.migrate(empty_url)
        with empty.transaction() as connection:
            lost = retention.lost_before(connection, "coverage")
            assert (lost is None) is not with_bars
            config.attributes["connection"] = connection
            command.downgrade(config, "0013")
    assert lost is not None
    assert lost > begun - timedelta(seconds=1)


def test_a_store_that_had_a_universe_keeps_the_tiers_that_are_on_record(empty_url: str, empty: Database) -> None:
    config, moments = schema._config(), [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 4, 6, 8)]
    with empty.transaction() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0015")
        for statement in _UNIVERSE.split(";"):
            connection.execute(text(statement))
    schema.migrate(empty_url)
    with empty.transaction() as connection:
        *told, now = (
            {each.symbol: each.tier.value for each in reference.instruments(connection, as_of=at)}
            for at in (*moments, None)
        )
    # What a person did before a version is not on record: it counts as having been so ever since it was known.
    assert told == [{}, {"A": "T0", "B": "T1"}, {"A": "T0", "B": "T1"}, {"A": "T1", "B": "T1"}, now]
    assert now == {"A": "T1", "B": "T2"}
    with empty.transaction() as connection:
        held = reference.tiers_between(connection, 1, moments[0], moments[-1])
    assert [(each.tier, each.source, each.actor) for each in held] == [
        ("T0", "version:v1", None),
        ("T1", "version:v2", "me"),
    ]
    with empty.transaction() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0015")
        connection.execute(text("UPDATE instruments SET tier = 'T0'"))  # no trigger is left
    schema.migrate(empty_url)


_UNIVERSE = """
INSERT INTO instruments (id, mic, tier, created_at, tier_since) OVERRIDING SYSTEM VALUE VALUES
    (1, 'XNYS', 'T1', '2026-03-01T12:00Z', '2026-03-05T12:00Z'),
    (2, 'XNYS', 'T2', '2026-03-01T12:00Z', '2026-03-07T12:00Z');
INSERT INTO symbols (instrument_id, symbol) VALUES (1, 'A'), (2, 'B');
INSERT INTO universe_versions
    (version_tag, hash, source_meta, header, members, members_sha256, policy_version, created_by)
SELECT 'v' || n, n, '{}', '{}', 2, '', 1, 'me' FROM generate_series(1, 2) n;
INSERT INTO universe_members (version, instrument, symbol, tier, rank, score) VALUES
    (1, 1, 'A', 'T0', 1, 1), (1, 2, 'B', 'T1', 2, 1), (2, 1, 'A', 'T1', 2, 1), (2, 2, 'B', 'T1', 1, 1);
INSERT INTO universe_activations (version, actor, reason, activated_at, counts) VALUES
    (1, 'me', '', '2026-03-03T12:00Z', '{}'), (2, 'me', '', '2026-03-05T12:00Z', '{}')
"""
