"""The embedded servers: real ones, in homes of all kinds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from mdtasks.domain.errors import ConfigurationError, UnavailableError
from mdtasks.stack.embedded import PostgresServer, ValkeyServer, running


@pytest.mark.parametrize("folder", ["plain", "with spaces, and 'quotes\"", "x" * 120 + "/" + "y" * 60])
def test_both_servers_keep_their_data_between_runs_in_any_folder(tmp_path: Path, folder: str) -> None:
    home = tmp_path / folder
    for run in (1, 2):
        valkey, postgres = ValkeyServer(home), PostgresServer(home)
        with running(valkey), running(postgres):
            postgres.ensure_database()
            with redis.Redis.from_url(valkey.url) as client:
                assert client.incr("runs") == run
            with psycopg.connect(postgres.url) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS runs (number int)")
                connection.execute("INSERT INTO runs VALUES (%s)", (run,))
                assert connection.execute("SELECT count(*) FROM runs").fetchone() == (run,)


def test_several_stacks_run_beside_each_other(tmp_path: Path) -> None:
    first, second = ValkeyServer(tmp_path / "1"), ValkeyServer(tmp_path / "2")
    with running(first), running(second):
        assert first.port != second.port
        with redis.Redis.from_url(first.url) as client:
            client.set("name", "first")
        with redis.Redis.from_url(second.url) as client:
            assert client.get("name") is None


def test_nobody_comes_in_without_the_password(tmp_path: Path) -> None:
    valkey, postgres = ValkeyServer(tmp_path), PostgresServer(tmp_path)
    with running(valkey), running(postgres):
        with redis.Redis(port=valkey.port) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        with pytest.raises(psycopg.OperationalError, match=r"password"):
            psycopg.connect(f"postgresql://mdtasks@127.0.0.1:{postgres.port}/postgres", connect_timeout=5)
        for holder in (tmp_path / "servers.json", tmp_path / "redis" / "valkey.conf"):
            assert stat.S_IMODE(holder.stat().st_mode) == 0o600


def test_redis_refuses_when_full_and_syncs_its_file_every_second(tmp_path: Path) -> None:
    valkey = ValkeyServer(tmp_path)
    with running(valkey), redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_postgres_is_durable_and_speaks_utc(tmp_path: Path) -> None:
    postgres = PostgresServer(tmp_path)
    with running(postgres), psycopg.connect(postgres.url_of("postgres")) as connection:
        wanted = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on"}
        wanted |= {"TimeZone": "UTC", "server_encoding": "UTF8"}
        shown = {name: connection.execute(f"SHOW {name}").fetchone() for name in wanted}
        assert shown == {name: (value,) for name, value in wanted.items()}


def test_servers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from mdtasks.stack.embedded import PostgresServer, ValkeyServer, running\n"
        "v, p = ValkeyServer(Path(sys.argv[1])), PostgresServer(Path(sys.argv[1]))\n"
        "with running(v), running(p):\n"
        "    print(v.port, p.port, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -9, done.stderr
    # Both come back in the same home, which they could not beside their own leftovers.
    for server in (ValkeyServer(tmp_path), PostgresServer(tmp_path)):
        with running(server):
            assert server.answers()


def test_a_killed_initdb_does_not_spoil_the_home(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with running(PostgresServer(tmp_path)) as server:
        assert server.answers()


def test_data_of_another_postgres_version_is_refused_by_name(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 16; this is PostgreSQL 18"):
        PostgresServer(tmp_path).prepare()


def test_a_server_that_does_not_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, options={"shared_buffers": "many"})
    with pytest.raises(UnavailableError, match=r"postgres ended with 1: .*"), running(server):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has this trouble")
def test_as_root_postgres_runs_as_another_user_and_opens_no_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = PostgresServer(closed / "home")
    with running(server):
        assert (closed / "home" / "postgres" / "data").stat().st_uid != 0
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
