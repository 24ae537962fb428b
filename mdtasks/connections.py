"""Opens PostgreSQL and Redis, loads named SQL and Lua, and turns driver errors into ours: the only place that does.

Above this module nobody sees a psycopg, SQLAlchemy or redis exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import psycopg
import redis
import redis.asyncio
import redis.asyncio.retry
from redis.backoff import NoBackoff
from sqlalchemy import Connection, Engine, TextClause, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mdtasks.domain.errors import (
    BrokerUnavailableError,
    BusyError,
    ConfigurationError,
    InvalidRequestError,
    StoreFullError,
    StoreUnavailableError,
)

#: SQLSTATE classes in which the server is away or going away, not our statement wrong.
_AWAY = ("08", "57P")
#: SQLSTATEs in which the server ended what took too long: a statement, a transaction that was idle.
_TOO_LONG = ("57014", "25P03")
#: SQLSTATE of disk full and out of memory.
_FULL = ("53100", "53200")

#: SQLSTATE of a lock that was not to be had in time, and of a deadlock that this side lost.
_LOCKED = ("55P03", "40P01")
_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', CAST(:lock AS text), true)")

#: Bounds of a snapshot.
_LIMITS = text(
    "SELECT set_config('statement_timeout', CAST(:statement AS text), true), "
    "set_config('idle_in_transaction_session_timeout', CAST(:idle AS text), true)"
)

#: The client types, for those who hold one and may not know the driver.
Redis = redis.Redis
AsyncRedis = redis.asyncio.Redis


class Database:
    """A PostgreSQL pool of one process. Open it after the fork, never before."""

    def __init__(self, url: str, *, application: str = "mdtasks", pool_size: int = 4) -> None:
        try:
            parsed = make_url(url).set(drivername="postgresql+psycopg")
        except Exception as exc:
            raise ConfigurationError(
                "MDTASKS_DATABASE_URL is not a URL",
                name="MDTASKS_DATABASE_URL",
                hint="such as postgresql://user:password@host:5432/database; @ : / in a password are %40 %3A %2F",
            ) from exc
        self.engine: Engine = create_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 5,
                # A server that vanished without a word (a cable, a host) is noticed in about 25 s, not in two hours.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 20_000,
                "application_name": application,
                "options": "-c timezone=UTC",
            },
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: commits at the end of the block, rolls back on any error.

        Raises StoreUnavailableError when PostgreSQL is away, StoreFullError when its disk is full.
        """
        with translated_store_errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def waiting(self, lock_s: float) -> Iterator[Connection]:
        """A transaction that waits for no lock longer than so many seconds: raises BusyError then, and left nothing."""
        try:
            with self.transaction() as connection:
                connection.execute(_LOCK_TIMEOUT, {"lock": str(int(lock_s * 1000))})
                yield connection
        except (DBAPIError, psycopg.Error) as exc:
            if _state_of(exc.orig if isinstance(exc, DBAPIError) else exc) not in _LOCKED:
                raise
            raise BusyError(
                f"what was asked about has been written to for {lock_s:g} s, and still is",
                hint="ask again in a moment; `mdtasks status` shows what is going on",
            ) from exc

    @contextmanager
    def snapshot(self, *, statement_s: float, idle_s: float) -> Iterator[Connection]:
        """A transaction that only reads and sees one state of the store for its whole life.

        The server ends a statement that runs longer than ``statement_s``, and the transaction itself when its owner
        asks nothing for ``idle_s``: it would keep dead rows from being cleared away. Raises StoreUnavailableError then.
        """
        with translated_store_errors(), self.engine.connect() as opened:
            connection = opened.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                connection.execute(
                    _LIMITS, {"statement": str(int(statement_s * 1000)), "idle": str(int(idle_s * 1000))}
                )
                yield connection

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection on which each statement commits by itself (DDL, advisory work)."""
        with translated_store_errors(), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        """Close every pooled connection. The pool opens new ones when it is used again."""
        self.engine.dispose()


@contextmanager
def translated_store_errors() -> Iterator[None]:
    """Turn the driver's "server is away", "disk full" and "no such text" into ours; leave programming errors as they
    are.
    """
    try:
        yield
    except UnicodeEncodeError as exc:  # half a surrogate pair
        raise _no_text(f"{exc.object[exc.start : exc.end]!a}") from exc
    except PoolTimeoutError as exc:
        raise StoreUnavailableError("PostgreSQL: no free connection in 10 s", hint="`mdtasks doctor`") from exc
    except DBAPIError as exc:
        gone = exc.connection_invalidated or (isinstance(exc, OperationalError) and not _state_of(exc.orig))
        _raise_ours(exc, exc.orig, gone=gone)
        raise
    except psycopg.Error as exc:  # COPY goes past SQLAlchemy
        _raise_ours(exc, exc, gone=isinstance(exc, psycopg.OperationalError) and not _state_of(exc))
        raise


def _no_text(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"a value holds {what}, which is no text that can be stored", field="text", hint="leave that character out"
    )


def _state_of(error: BaseException | None) -> str:
    return getattr(error, "sqlstate", None) or ""


def _raise_ours(raised: Exception, error: BaseException | None, *, gone: bool) -> None:
    """Raise what a driver's ``error`` means to us, from ``raised``; return when it is a fault of the statement."""
    if isinstance(error, psycopg.DataError) and not _state_of(error) and "NUL" in str(error):  # said by the driver
        raise _no_text("NUL") from raised
    state = _state_of(error)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if state in _FULL:
        raise StoreFullError(
            f"PostgreSQL has no room left: {reason}", hint="free disk space; nothing was lost"
        ) from raised
    if state in _TOO_LONG:
        raise StoreUnavailableError(f"PostgreSQL gave up: {reason}", hint="ask for less at a time") from raised
    if gone or state.startswith(_AWAY):
        raise StoreUnavailableError(
            f"PostgreSQL does not answer: {reason}",
            hint="`mdtasks status`, `mdtasks doctor`; work resumes when it is back",
        ) from raised


def open_redis(url: str, *, socket_timeout_s: float = 5.0, setting: str = "MDTASKS_REDIS_URL") -> redis.Redis:
    """A Redis client with bounded waits; answers are bytes. Connects at the first command.

    Raises ConfigurationError naming the ``setting`` that the URL came from when it is none.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=socket_timeout_s,
            socket_connect_timeout=3,
            health_check_interval=10,
            socket_keepalive=True,
        )
    except ValueError as exc:
        raise ConfigurationError(f"{setting} is not a Redis URL", name=setting) from exc


def open_async_redis(url: str, *, setting: str = "MDTASKS_REDIS_URL") -> redis.asyncio.Redis:
    """A Redis client on asyncio that never connects again behind its user's back. Raises as ``open_redis``."""
    try:
        return redis.asyncio.Redis.from_url(
            url,
            socket_timeout=5,
            socket_connect_timeout=3,
            socket_keepalive=True,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        )
    except ValueError as exc:
        raise ConfigurationError(f"{setting} is not a Redis URL", name=setting) from exc


@contextmanager
def translated_redis_errors() -> Iterator[None]:
    """Turn the driver's "server is away" or "only a replica" into BrokerUnavailableError, "out of memory" and "cannot
    write to disk" into StoreFullError; leave programming errors as they are.
    """
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError) as exc:
        raise BrokerUnavailableError(
            f"Redis does not answer: {exc}",
            hint="`mdtasks status`, `mdtasks doctor`; queued work waits in PostgreSQL",
        ) from exc
    except redis.exceptions.OutOfMemoryError as exc:
        raise StoreFullError(
            "Redis has no memory left", hint="lower the caps or give it more memory; nothing was lost"
        ) from exc
    except redis.exceptions.ReadOnlyError as exc:
        raise BrokerUnavailableError(
            f"Redis takes no writes: {exc}", hint="is it a replica, in the midst of a failover? queued work waits"
        ) from exc
    except redis.ResponseError as exc:
        if "MISCONF" not in str(exc):  # no class of its own in the driver; a pipeline puts words before it
            raise
        raise StoreFullError(
            f"Redis cannot write to its disk: {exc}", hint="free disk space, `mdtasks logs redis`; nothing was lost"
        ) from exc


_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_statements(package: str, filename: str) -> Mapping[str, TextClause]:
    """The named statements of a ``.sql`` file in ``package``.

    Each begins with a line ``-- name: <name>`` and a line of purpose; parameters are written ``:name``.
    """
    parts = _NAME.split(files(package).joinpath(filename).read_text())
    return {name: text(body.strip()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def load_script(package: str, filename: str) -> str:
    """The text of a Lua script beside its module. Its head lists keys, arguments and the answer."""
    return files(package).joinpath(filename).read_text()


def storable(value: str) -> str:
    """The text as PostgreSQL can hold it: NUL and half surrogate pairs, which it refuses, are written as escapes."""
    return value.replace("\x00", "\\x00").encode(errors="backslashreplace").decode()


def raw_psycopg(connection: Connection) -> Any:
    """The psycopg connection under a SQLAlchemy one, for COPY; it takes part in the same transaction."""
    return connection.connection.driver_connection
