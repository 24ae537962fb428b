"""What servers answer when they cannot do what is asked, and how long a silent one is believed."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from mdtasks.connections import Database, raw_psycopg, translated_redis_errors
from mdtasks.domain.errors import BrokerUnavailableError, ConfigurationError, StoreFullError
from mdtasks.stack.embedded import ValkeyServer, running


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[redis.Redis]:
    """A Redis that a test may spoil."""
    with running(ValkeyServer(tmp_path)) as server, redis.Redis.from_url(server.url) as client:
        yield client
        client.config_set("save", "")  # with a copy that it cannot write it would not stop before it is killed


def test_what_is_no_url_of_a_database_is_refused_with_an_example() -> None:
    with pytest.raises(ConfigurationError, match="MDTASKS_DATABASE_URL is not a URL") as refused:
        Database("localhost")
    assert "postgresql://user:password@host:5432/database" in refused.value.hint


def test_a_redis_that_cannot_write_to_its_disk_is_full(
    own_redis: redis.Redis, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    (tmp_path / "redis" / "dump.rdb").mkdir()  # where its copy would be written
    own_redis.config_set("stop-writes-on-bgsave-error", "yes")
    own_redis.config_set("save", "3600 1000000")
    with contextlib.suppress(redis.ResponseError):  # one that has begun by itself
        own_redis.bgsave()
    eventually(lambda: own_redis.info("persistence")["rdb_last_bgsave_status"] == "err")
    push = own_redis.register_script("return redis.call('LPUSH', KEYS[1], 'x')")
    for write in (lambda: own_redis.set("key", "x"), lambda: push(keys=["list"]), lambda: _piped(own_redis)):
        with pytest.raises(StoreFullError, match="disk"), translated_redis_errors():
            write()


def test_a_redis_that_became_a_replica_is_away_for_writers(own_redis: redis.Redis) -> None:
    own_redis.replicaof("127.0.0.1", "1")
    writes: tuple[Callable[[], object], ...] = (lambda: own_redis.set("key", "x"), lambda: _piped(own_redis))
    for write in writes:
        with pytest.raises(BrokerUnavailableError, match="takes no writes"), translated_redis_errors():
            write()


def _piped(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    pipe.set("key", "x")
    pipe.execute()


def test_a_command_that_is_wrong_stays_the_programmers_fault(redis_client: redis.Redis) -> None:
    redis_client.set("key", "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"), translated_redis_errors():
        redis_client.lpush("key", "x")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name these options otherwise")
def test_a_silent_postgres_is_given_up_within_half_a_minute(database: Database) -> None:
    with (
        database.transaction() as connection,
        socket.socket(fileno=socket.dup(raw_psycopg(connection).fileno())) as wire,
    ):
        assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert [wire.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [10, 5, 3, 20_000]
