"""Real servers and workers that a test may kill: what the proofs of the promises are made of.

Nothing here is a stand-in: Valkey and PostgreSQL out of the wheels, `celery -A mdtasks worker` as a fleet runs it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

import numpy as np
import psutil
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.settings import Settings, load_settings
from mdtasks.stack.embedded import PostgresServer, ValkeyServer, stop, wait_until_answers
from mdtasks.stack.home import write_private
from mdtasks.stack.kept import password_of
from mdtasks.stack.spawn import spawn
from mdtasks.store import bars as store_bars
from mdtasks.store import reference
from mdtasks.store.reference import Instrument
from mdtasks.store.schema import migrate
from tests.kept import give_calendars

T = TypeVar("T")

#: Where the simulated windows begin: a Tuesday; the instruments trade at any hour.
START = datetime(2024, 1, 2, tzinfo=UTC)
#: Minutes of one simulated job.
MINUTES = 10


def until(condition: Callable[[], T], what: str, *, within_s: float = 60.0, told: Callable[[], str] = lambda: "") -> T:
    """Wait for what other processes do: return what the condition returns once it is true, fail when it never is.

    ``told``: more words for the failure.
    """
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what} {told()}"
        threading.Event().wait(0.05)
    return found


class Servers:
    """A Redis and a PostgreSQL of one test, which may stop, kill and start them again at the same place."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.redis = ValkeyServer(home)
        # What a test writes need not outlive the power.
        self.postgres = PostgresServer(home, options={"fsync": "off", "full_page_writes": "off"})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, server: ValkeyServer | PostgresServer) -> None:
        """Start a server, at its last port, and return when it answers."""
        server.prepare()
        log = self.home / "logs" / f"{server.name}.log"
        process = spawn(server.command(), log)
        self._processes[server.name] = process
        wait_until_answers(server, process, log)

    def end(self, server: ValkeyServer | PostgresServer, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a server a signal and return when it has ended."""
        process = self._processes[server.name]
        process.send_signal(number)
        process.wait(30)

    def signal(self, server: ValkeyServer | PostgresServer, number: signal.Signals) -> None:
        """Send a server a signal that it lives through."""
        self._processes[server.name].send_signal(number)

    def empty_redis(self) -> None:
        """Forget what the stopped Redis had on disk."""
        shutil.rmtree(self.home / "redis" / "appendonlydir")

    def stop_all(self) -> None:
        for name, process in self._processes.items():
            server = self.redis if name == "redis" else self.postgres
            stop(process, server.stop_signals)

    def settings(self, **environ: str) -> Settings:
        """Settings of a process on these servers, the simulator on."""
        return load_settings(self.environ(**environ))

    def environ(self, **environ: str) -> dict[str, str]:
        """The variables of such a process."""
        return {
            "MDTASKS_HOME": str(self.home / "home"),
            "MDTASKS_DATABASE_URL": self.postgres.url,
            "MDTASKS_REDIS_URL": self.redis.url,
            "MDTASKS_SIMULATOR": "1",
            **environ,
        }


@cache
def _migrated() -> Path:
    """The home of a PostgreSQL that has been migrated and stopped: made once, to be copied."""
    home = Path(mkdtemp(prefix="mdtasks-servers-"))
    home.chmod(0o755)  # as root the server runs as another user
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    servers = Servers(home)
    try:
        servers.start(servers.postgres)
        servers.postgres.ensure_database()
        migrate(servers.postgres.url)
    finally:
        servers.stop_all()
    return home


@contextmanager
def own_servers(home: Path) -> Iterator[Servers]:
    """Both servers, running, with a migrated database; stopped at the end."""
    home.mkdir(parents=True, exist_ok=True)
    made = _migrated()
    subprocess.run(["cp", "-pR", made / "postgres", home], check=True)  # with its owner
    # Its password goes with it, its port does not: whatever is left of an earlier test knocks there in vain.
    kept = {PostgresServer.name: {"password": password_of(made, PostgresServer.name)}}
    write_private(home / "servers.json", json.dumps(kept))
    servers = Servers(home)
    give_calendars(home / "home")
    try:
        servers.start(servers.redis)
        servers.start(servers.postgres)
        yield servers
    finally:
        servers.stop_all()


@dataclass
class Worker:
    """A `celery -A mdtasks worker` and its children."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def children(self) -> list[int]:
        """The pids of its pool."""
        return sorted(child.pid for child in psutil.Process(self.pid).children())

    def said(self) -> str:
        """All that it has logged."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End the whole tree at once, as a container that is killed."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Stop it as `mdtasks down` does: let it finish what it holds. Returns its exit code."""
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()


@dataclass
class Crew:
    """Workers on a set of servers; whatever still runs is ended with the crew."""

    folder: Path
    environ: Mapping[str, str]
    workers: list[Worker] = field(default_factory=list)

    def start(self, name: str, queues: str, *options: str, concurrency: int = 1, **environ: str) -> Worker:
        """Start a worker and return it at once."""
        argv = [sys.executable, "-P", "-m", "celery", "-A", "mdtasks", "worker", "-Q", queues, "-n", f"{name}@%h"]
        argv += ["--concurrency", str(concurrency), "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        log = self.folder / f"{name}-{len(self.workers)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*argv, *options],
                env={**os.environ, **self.environ, **environ},
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = Worker(name, log, process)
        self.workers.append(worker)
        return worker

    def started(self, name: str, queues: str, *options: str, concurrency: int = 1, **environ: str) -> Worker:
        """Start a worker and return when it is ready."""
        worker = self.start(name, queues, *options, concurrency=concurrency, **environ)
        self.ready(worker)
        return worker

    def ready(self, *workers: Worker) -> None:
        """Return when these are ready."""
        for worker in workers:
            until(lambda worker=worker: " ready." in worker.said() or not worker.alive, f"{worker.name} is ready")  # type: ignore[misc]
            assert worker.alive, worker.said()[-2000:]

    def stop(self) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.kill()


@contextmanager
def crew(servers: Servers, folder: Path, **environ: str) -> Iterator[Crew]:
    """A crew on these servers, with these settings."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Crew(folder, servers.environ(**environ))
    try:
        yield made
    finally:
        made.stop()


# -- jobs and what they shall leave behind -----------------------------------------------------------------------


def add_symbols(database: Database, symbols: Sequence[str], tier: Tier = Tier.T0) -> None:
    """Make instruments that trade at any hour."""
    with database.transaction() as connection:
        reference.add_instruments(connection, [Instrument(name, "24/7", "crypto", tier) for name in symbols])


def job_of(symbol: str, number: int, *, tier: Tier = Tier.T0, job_id: str | None = None) -> BackfillJob:
    """The ``number``-th window of ten minutes of a symbol."""
    start = START + timedelta(minutes=MINUTES * number)
    return BackfillJob(
        job_id=job_id or f"{symbol}.{number}",
        symbol=symbol,
        priority=tier,
        time_window=TimeWindow(start=start, end=start + timedelta(minutes=MINUTES)),
    )


def differences(database: Database, symbols: Sequence[str], windows: int) -> list[str]:
    """Where the store differs from what the simulator says of the first ``windows`` windows; [] when nowhere."""
    simulator = SimulatorProvider(Calendars())
    window = TimeWindow(start=START, end=START + timedelta(minutes=MINUTES * windows))
    found = []
    for symbol in symbols:
        with database.transaction() as connection:
            instrument = reference.current(connection, [symbol])[symbol]
            stored = store_bars.read_bars(connection, instrument.id, Interval.M1, window)
            covered = store_bars.read_coverage(connection, [instrument.id], Interval.M1)[instrument.id]
        answer = simulator.fetch_bars([instrument.listing], Interval.M1, window, datetime.now(UTC))
        wanted = answer.bars[symbol]
        if len(stored) != len(wanted) or not np.array_equal(stored.bars.ts_us, wanted.ts_us):
            found.append(f"{symbol}: {len(stored)} bars instead of {len(wanted)}")
        elif any(not np.array_equal(*pair) for pair in zip(stored.bars.columns, wanted.columns, strict=True)):
            found.append(f"{symbol}: other values")
        elif window not in covered:
            found.append(f"{symbol}: coverage {covered}")
    return found


def rows(database: Database, statement: str, **values: object) -> list[dict[str, Any]]:
    """The rows of a query."""
    with database.transaction() as connection:
        return [dict(row._mapping) for row in connection.execute(text(statement), values)]


def statuses(database: Database) -> dict[str, int]:
    """How many jobs have each status."""
    return {
        row["status"]: row["jobs"]
        for row in rows(database, "SELECT status::text, count(*) AS jobs FROM backfill_jobs GROUP BY 1")
    }
