"""Valkey (which speaks Redis) and PostgreSQL out of wheels, data in a home: what `mdtasks up` runs when given no URL.

Each server is a value that can say how it is started, what its URL is and whether it answers. Both listen on 127.0.0.1
only, on a port of their own that is chosen when they start (the last one again where it is still free), and ask for a
password that is made once and kept in the home, readable by its owner only.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import psycopg
import redis

from mdtasks.domain.errors import ConfigurationError, UnavailableError
from mdtasks.stack.binaries import postgres_binaries, valkey_binary
from mdtasks.stack.home import write_private
from mdtasks.stack.kept import free_port, password_of
from mdtasks.stack.spawn import Command, RunAs, server_environ, spawn

Wait = Callable[[subprocess.Popen[Any]], object]


class EmbeddedServer(Protocol):
    """A server that the stack can run for itself."""

    name: ClassVar[str]
    #: Signals to stop it with, gentlest first.
    stop_signals: ClassVar[tuple[signal.Signals, ...]]

    @property
    def url(self) -> str: ...

    def prepare(self, wait: Wait = subprocess.Popen.wait) -> None:
        """Make folders, password and configuration, and choose a free port. Safe to repeat while it is not running.

        ``wait``: how the end of a program is awaited that takes its time; it may end the program, and raise.
        """

    def command(self) -> Command:
        """How the prepared server is started; it stays in the foreground."""

    def answers(self) -> bool:
        """Whether it takes a command now. Waits for a second at most."""


@dataclass
class ValkeyServer:
    """Redis for broker and shared state: append-only file on, nothing evicted."""

    home: Path
    port: int = 0
    name: ClassVar[str] = "redis"
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM, signal.SIGKILL)

    @property
    def url(self) -> str:
        return f"redis://:{password_of(self.home, self.name)}@127.0.0.1:{self.port}/0"

    def prepare(self, wait: Wait = subprocess.Popen.wait) -> None:
        del wait
        folder = self.home / "redis"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # queues hold what users asked for
        self.port = free_port(self.home, self.name)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": _quoted(str(folder.absolute())),
            "requirepass": password_of(self.home, self.name),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',  # the append-only file is the copy on disk; a second one costs a fork
            "maxmemory-policy": "noeviction",  # a full server refuses; it never drops a queue
            "databases": "16",
            "daemonize": "no",
            "stop-writes-on-bgsave-error": "no",
            "tcp-keepalive": "60",
        }
        text = "".join(f"{name} {value}\n" for name, value in options.items())
        write_private(folder / "valkey.conf", text)

    def command(self) -> Command:
        argv = (str(valkey_binary()), str((self.home / "redis" / "valkey.conf").absolute()))
        return Command(argv, environ=server_environ(self.home))

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@dataclass
class PostgresServer:
    """PostgreSQL 18. As root it runs as another user, since it refuses root."""

    home: Path
    port: int = 0
    options: dict[str, str] = field(default_factory=dict)
    name: ClassVar[str] = "postgres"
    #: Fast shutdown (ends transactions), immediate (recovers at the next start), the end.
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    #: Small: the whole stack shall fit in 1.2 GB. fsync and full_page_writes stay on: this is the truth.
    _DEFAULTS: ClassVar[dict[str, str]] = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",  # their paths may have 107 bytes; a home may be longer
        "max_connections": "120",
        "shared_buffers": "64MB",
        "work_mem": "8MB",
        "maintenance_work_mem": "64MB",
        "effective_cache_size": "512MB",
        "max_wal_size": "1GB",
        "io_method": "sync",  # no pool of reader processes beside a small cache
        "autovacuum_max_workers": "2",
        "max_wal_senders": "0",
        "wal_level": "minimal",
        "jit": "off",  # compiling costs more than our statements
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %a ",
        "log_checkpoints": "off",
    }

    @property
    def folder(self) -> Path:
        return (self.home / "postgres").absolute()

    @property
    def url(self) -> str:
        return self.url_of("mdtasks")

    def url_of(self, database: str) -> str:
        """The URL of a database of this server."""
        return f"postgresql://mdtasks:{password_of(self.home, self.name)}@127.0.0.1:{self.port}/{database}"

    def prepare(self, wait: Wait = subprocess.Popen.wait) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        run_as = self._run_as()
        if run_as is not None:
            os.chown(self.folder, run_as.uid, run_as.gid)
        if not (self.folder / "data" / "PG_VERSION").exists():
            self._initdb(run_as, wait)
        _check_version(self.folder / "data")
        self.port = free_port(self.home, self.name)

    def command(self) -> Command:
        options = {**self._DEFAULTS, "port": str(self.port), **self.options}
        switches = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        argv = (str(postgres_binaries() / "postgres"), "-D", str(self.folder / "data"), *switches)
        environ = server_environ(self.home)
        return Command(argv, die_with="SIGINT", run_as=self._run_as(), environ=environ, cwd=self.folder)

    def answers(self) -> bool:
        try:
            with psycopg.connect(self.url_of("postgres"), connect_timeout=2) as connection:
                connection.execute("SELECT 1")
                return True
        except psycopg.OperationalError:
            return False

    def ensure_database(self, name: str = "mdtasks") -> None:
        """Create the database where it is missing. Safe to repeat."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))

    def _initdb(self, run_as: RunAs | None, wait: Wait) -> None:
        # Made aside and renamed when whole: a kill in the midst leaves nothing that looks like a cluster.
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password = self.folder / "password.new"
        write_private(password, password_of(self.home, self.name))
        if run_as is not None:
            os.chown(password, run_as.uid, run_as.gid)
        options = {
            "-D": str(fresh),
            "--username": "mdtasks",
            "--pwfile": str(password),
            "--auth": "scram-sha-256",
            "--encoding": "UTF8",
            "--locale": "C",
            "--locale-provider": "builtin",
            "--builtin-locale": "C.UTF-8",
        }
        switches = [part for option in options.items() for part in option]
        argv = (str(postgres_binaries() / "initdb"), *switches, "--no-instructions", "--no-sync")
        command = Command(argv, run_as=run_as, environ={**server_environ(self.home), "LC_ALL": "C"}, cwd=self.folder)
        log = self.home / "logs" / "initdb.log"
        initdb = spawn(command, log)
        try:
            wait(initdb)
        finally:
            password.unlink(missing_ok=True)
        if initdb.returncode != 0:
            reason = log.read_text(errors="replace").strip().splitlines()[-1:] or [f"exit {initdb.returncode}"]
            raise UnavailableError(
                f"PostgreSQL could not make its data folder {self.folder}: {reason[0]}",
                hint="is the disk full, or the home on a file system without Unix owners? try another --home",
            )
        os.sync()
        fresh.rename(self.folder / "data")

    def _run_as(self) -> RunAs | None:
        if os.geteuid() != 0:
            return None
        data = self.folder / "data"
        owner = data.stat() if data.exists() else None
        user = pwd.getpwuid(owner.st_uid) if owner is not None and owner.st_uid != 0 else _server_user()
        closed = any(not _open_to_others(path) for path in (self.folder, postgres_binaries()))
        return RunAs(user.pw_uid, user.pw_gid, reach=closed)


@contextmanager
def running(server: EmbeddedServer, *, timeout_s: float = 30.0) -> Iterator[EmbeddedServer]:
    """Run a server for a while: prepared, started, answering; stopped at the end. Raises UnavailableError."""
    server.prepare()
    log = server.home / "logs" / f"{server.name}.log"  # type: ignore[attr-defined]
    process = spawn(server.command(), log)
    try:
        wait_until_answers(server, process, log, timeout_s=timeout_s)
        yield server
    finally:
        stop(process, server.stop_signals)


def wait_until_answers(
    server: EmbeddedServer, process: subprocess.Popen[bytes], log: Path, *, timeout_s: float = 30.0
) -> None:
    """Return when the started server answers.

    Raises UnavailableError, with the last line of its log, when it ends or stays silent.
    """
    until = time.monotonic() + timeout_s
    while not server.answers():
        ended = process.poll()
        if ended is not None or time.monotonic() > until:
            lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
            what = f"ended with {ended}" if ended is not None else f"does not answer after {timeout_s:.0f} s"
            raise UnavailableError(
                f"{server.name} {what}: {lines[-1] if lines else 'no word in its log'}", hint=f"see {log}"
            )
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


def stop(process: subprocess.Popen[bytes], signals: tuple[signal.Signals, ...], *, patience_s: float = 5.0) -> int:
    """Stop the process with each signal in turn until it ends. Returns its exit code."""
    for number in signals:
        if process.poll() is not None:
            break
        with suppress(ProcessLookupError):
            process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    return process.wait()


def _check_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != "18":
        raise ConfigurationError(
            f"{data} was made by PostgreSQL {found}; this is PostgreSQL 18", hint="move it away, or use another --home"
        )


def _server_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigurationError(
        "PostgreSQL does not run as root, and this machine has no user postgres or nobody",
        hint="run `mdtasks up` as another user, or set MDTASKS_DATABASE_URL",
    )


def _open_to_others(path: Path) -> bool:
    """Whether any user can pass through all folders above ``path`` (the path itself may be closed)."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
