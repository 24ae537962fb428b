"""What every test may ask for: real servers of its own, a migrated database, clean Redis, the shared data.

The servers start once a session (each worker of pytest-xdist has its own), in a folder of the session, on free ports,
and end with it (also when pytest is killed).
``MDTASKS_TEST_DATABASE_URL`` and ``MDTASKS_TEST_REDIS_URL`` name others to use instead: databases are made and
dropped in the first, and the second is FLUSHED before each test. No other variable of the caller's environment that
mdtasks knows reaches a test.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from psycopg import sql

from mdtasks.connections import Database
from mdtasks.settings import ENVIRONMENT, Settings, load_settings
from mdtasks.stack.embedded import PostgresServer, ValkeyServer, running
from mdtasks.store.schema import migrate

_GIVEN = {name: os.environ.pop(f"MDTASKS_TEST_{name}", "") for name in ("DATABASE_URL", "REDIS_URL")}
for _name in ENVIRONMENT:
    os.environ.pop(_name, None)

#: A file system in memory, how much of it must be free, and what the folders of the sessions there are called.
_MEMORY = Path("/dev/shm")
_PLENTY = 4 << 30
_IN_MEMORY = "mdtasks-tests-"
_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_TEMPLATE = f"mdtasks_test_template_{os.getpid()}"
_numbers = itertools.count(1)


# A shell without job control starts what is in its background with SIGINT ignored, and that is inherited: what a test
# starts and sends a Ctrl-C would never hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand on to a worker of pytest-xdist what this process took out of the environment."""
    node.workerinput["given"] = _GIVEN


def pytest_configure(config: pytest.Config) -> None:
    """Take the servers that the first process was given; refuse to flush one that another worker uses."""
    _GIVEN.update(getattr(config, "workerinput", {}).get("given", {}))
    if _GIVEN["REDIS_URL"] and (config.getoption("numprocesses", None) or 0) > 1:
        raise pytest.UsageError("MDTASKS_TEST_REDIS_URL is flushed before each test: one worker only, make test JOBS=1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--full-size``: what `make chaos` passes."""
    parser.addoption("--full-size", action="store_true", help="run the tests marked chaos at their full size")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only makes sense at full size."""
    if not config.getoption("--full-size"):
        left_out = [item for item in items if item.get_closest_marker("full_size_only")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def unavailable_here() -> Callable[[str], None]:
    """Call it with a reason when this machine lacks what a test needs: skips at a user's, fails where CI is set."""

    def leave(reason: str) -> None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return leave


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """``eventually(condition, within_s=10, what="...")``: return when the condition holds, fail when it never does.

    For what other processes do, where there is no signal to wait for.
    """

    def wait(condition: Callable[[], object], *, within_s: float = 10.0, what: str = "") -> None:
        until = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > until:
                pytest.fail(f"not within {within_s:.0f} s: {what or condition}")
            threading.Event().wait(0.02)

    return wait


@pytest.fixture(scope="session")
def full_size(request: pytest.FixtureRequest) -> bool:
    """Whether the long tests run at their full size (`make chaos`) or at about a tenth of it."""
    return bool(request.config.getoption("--full-size"))


@pytest.fixture(scope="session")
def shared_data(unavailable_here: Callable[[str], None]) -> Path:
    """The folder of real data that lies beside the checkout; read in place, never written."""
    if not _SHARED_DATA.is_dir():
        unavailable_here(f"the shared data is not on this machine ({_SHARED_DATA})")
    return _SHARED_DATA


@pytest.fixture(scope="session")
def _servers_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory where there is plenty: each test's database is 500 files that are made and removed."""
    if not (_MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _PLENTY):
        yield tmp_path_factory.mktemp("servers")
        return
    for left in _MEMORY.glob(f"{_IN_MEMORY}*"):  # of a session that was killed
        if not psutil.pid_exists(int(left.name.removeprefix(_IN_MEMORY))):
            shutil.rmtree(left, ignore_errors=True)
    home = _MEMORY / f"{_IN_MEMORY}{os.getpid()}"
    home.mkdir(mode=0o700)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def _redis_server_url(_servers_home: Path) -> Iterator[str]:
    if _GIVEN["REDIS_URL"]:
        yield _GIVEN["REDIS_URL"]
        return
    with running(ValkeyServer(_servers_home)) as server:
        yield server.url


@pytest.fixture(scope="session")
def _postgres_server_url(_servers_home: Path) -> Iterator[str]:
    """A URL in which ``{database}`` stands for the database's name."""
    if _GIVEN["DATABASE_URL"]:
        yield psycopg_url(_GIVEN["DATABASE_URL"])
        return
    # What a test writes need not outlive the power.
    server = PostgresServer(_servers_home, options={"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"})
    with running(server):
        _make_quick_to_enter(server.url_of("postgres"))
        yield server.url_of("{database}")


def _make_quick_to_enter(url: str) -> None:
    """Let the password be hashed once, not 4,096 times, by whoever connects: tests do so thousands of times."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET scram_iterations = 1")
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
        info = connection.info
        connection.execute(statement.format(sql.Identifier(info.user), sql.Literal(info.password)))


def psycopg_url(url: str) -> str:
    """``url`` with its database replaced by the placeholder ``{database}``."""
    base, _, query = url.partition("?")
    return f"{base.rpartition('/')[0]}/{{database}}" + (f"?{query}" if query else "")


def _administer(server_url: str, statement: str, name: str, **names: str) -> None:
    identifiers = {key: sql.Identifier(value) for key, value in {"name": name, **names}.items()}
    with psycopg.connect(server_url.format(database="postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(**identifiers))


@pytest.fixture(scope="session")
def _template(_postgres_server_url: str) -> Iterator[str]:
    """A database with the schema and no rows; tests get copies."""
    _administer(_postgres_server_url, "CREATE DATABASE {name}", _TEMPLATE)
    migrate(_postgres_server_url.format(database=_TEMPLATE))
    yield _TEMPLATE
    _administer(_postgres_server_url, "DROP DATABASE {name} WITH (FORCE)", _TEMPLATE)


@pytest.fixture
def database_url(_postgres_server_url: str, _template: str) -> Iterator[str]:
    """The URL of a fresh, migrated, empty PostgreSQL database."""
    name = f"mdtasks_test_{os.getpid()}_{next(_numbers)}"
    # Copying files is quick on our own server, which syncs nothing.
    strategy = "wal_log" if _GIVEN["DATABASE_URL"] else "file_copy"
    statement = f"CREATE DATABASE {{name}} TEMPLATE {{template}} STRATEGY {strategy}"
    _administer(_postgres_server_url, statement, name, template=_template)
    yield _postgres_server_url.format(database=name)
    _administer(_postgres_server_url, "DROP DATABASE {name} WITH (FORCE)", name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A pool on the fresh database."""
    opened = Database(database_url, application="tests")
    yield opened
    opened.close()


@pytest.fixture
def redis_client(_redis_server_url: str) -> Iterator[redis.Redis]:
    """A client of the empty Redis; answers are bytes."""
    with redis.Redis.from_url(_redis_server_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_url(_redis_server_url: str, redis_client: redis.Redis) -> str:
    """The URL of an empty Redis that no other test uses meanwhile."""
    return _redis_server_url


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a process on the test's own servers, simulator on, home in the test's folder."""
    return load_settings(
        {
            "MDTASKS_HOME": str(tmp_path / "home"),
            "MDTASKS_DATABASE_URL": database_url,
            "MDTASKS_REDIS_URL": redis_url,
            "MDTASKS_SIMULATOR": "1",
        }
    )
