"""A whole stack under fire: workers killed every second, both servers taken away again and again; nothing gets lost.

The stack is `mdtasks up --detach` in a home of its own. Nobody helps it: its supervisor, dispatcher and reconciler mend
what is broken while jobs are still coming in.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import redis

from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.jobs import BackfillJob, Tier
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import last_proof
from mdtasks.queue import backlog
from mdtasks.settings import load_settings
from mdtasks.stack.home import Home
from tests.acceptance.harness import MINUTES, add_symbols, differences, job_of, rows, statuses, until
from tests.kept import give_calendars

T = TypeVar("T")

SEED = 20240102
#: The jobs are asked for in this many calls, while everything burns.
BATCHES = 10
#: Windows of each symbol.
WINDOWS = 20
#: What the stack runs with.
LIMITS = {
    "MDTASKS_SIMULATOR": "1",
    # A beat that starts again looks for gaps at once: its jobs would be taken for those that are counted here.
    "MDTASKS_GAP_SCAN_S": "0",
    "MDTASKS_SIMULATOR_FAULTS": "error=0.03,timeout=0.01,rate_limit=0.01,retry_after_s=0.2,latency_s=0.1",
    # A kill costs the job under work an attempt, and here there are hundreds: this is not about giving up.
    "MDTASKS_MAX_ATTEMPTS": "20",
    "MDTASKS_RETRY_BASE_S": "0.2",
    "MDTASKS_RETRY_MAX_S": "2",
    # Leases of 18 s, so that what was lost without a word is soon found; not less, for Celery takes up to 11 s to see
    # that a child has gone, and what has not ended by its limit counts as too slow.
    "MDTASKS_TIME_LIMIT_S": "15",
    "MDTASKS_LEASE_MARGIN_S": "3",
}
WORKERS = ("t0", "t1", "t2", "control")


def mdtasks(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the stack in ``home``."""
    command = [sys.executable, "-m", "mdtasks", *words, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def calmly(ask: Callable[[], T]) -> T | None:
    """What ``ask`` answers; None while a server is away."""
    try:
        return ask()
    except UnavailableError:
        return None


@dataclass
class Monkey:
    """Kills. ``done`` tells what, in order."""

    home: Path
    random: random.Random
    done: list[str] = field(default_factory=list)

    def pid(self, name: str) -> int | None:
        """The pid of a process of the stack; None while it is not there."""
        record = Home(self.home).read()
        return next((each.pid for each in record.processes if each.name == name), None) if record else None

    def kill_a_worker(self, at_work: set[int]) -> None:
        """End a child of a worker, one of those ``at_work`` if there is one, or (one time in eight) a worker, at once.

        Workers not more often: what keeps dying is started with growing pauses, and who does not work is not hit.
        """
        there = {name: pid for name in WORKERS if (pid := self.pid(name))}
        children: dict[int, str] = {}
        for name, pid in there.items():
            with suppress(psutil.Error):
                children |= {child.pid: f"child of {name}" for child in psutil.Process(pid).children()}
        if children and self.random.random() < 7 / 8:
            child = self.random.choice(sorted(children.keys() & at_work or children))
            self._send(child, signal.SIGKILL, children[child])
        elif there:
            name = self.random.choice(sorted(there))
            self._send(there[name], signal.SIGKILL, name)

    def kill_redis(self) -> None:
        self._server("redis", signal.SIGKILL)

    def empty_redis(self) -> None:
        """Kill it, and let it come back with nothing."""
        shutil.rmtree(self.home / "redis" / "appendonlydir", ignore_errors=True)
        self._server("redis", signal.SIGKILL, "emptied")

    def restart_postgres(self) -> None:
        """Its fast shutdown: transactions under way are rolled back."""
        self._server("postgres", signal.SIGINT)

    def crash_postgres(self) -> None:
        """Its immediate one: it recovers when it starts again."""
        self._server("postgres", signal.SIGQUIT)

    def _server(self, name: str, number: signal.Signals, how: str = "") -> None:
        pid = self.pid(name)
        if pid:
            self._send(pid, number, f"{name} {how or number.name}")

    def _send(self, pid: int, number: signal.Signals, what: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            self.done.append(what)


def at_work(deps: Deps) -> set[int]:
    """The pids of the children that now run a job, as the record of their attempts names them."""
    found = rows(deps.database, "SELECT worker FROM job_attempts WHERE ended_at IS NULL AND job_type = 'backfill'")
    return {int(row["worker"].rpartition("/")[2]) for row in found}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of a running stack."""
    home = tmp_path / "home"
    for name, value in LIMITS.items():
        monkeypatch.setenv(name, value)
    give_calendars(home)
    started = mdtasks(home, "up", "--detach")
    try:
        assert started.returncode == 0, started.stderr
        yield home
    finally:
        mdtasks(home, "down")


@contextmanager
def deps_of(home: Path) -> Iterator[Deps]:
    """What a process beside the stack would have."""
    deps = open_deps(load_settings(home=home), application="chaos")
    try:
        yield deps
    finally:
        deps.close()


def jobs_of(symbols: Sequence[str]) -> list[BackfillJob]:
    """Every window of every symbol, over all tiers."""
    tiers = list(Tier)
    return [
        job_of(symbol, window, tier=tiers[number % 3])
        for window in range(WINDOWS)
        for number, symbol in enumerate(symbols)
    ]


def ask_again_and_again(batch: Sequence[BackfillJob], deps: Deps) -> None:
    """Enqueue while servers come and go: a call that fails is repeated whole, as its caller would."""
    until(lambda: calmly(lambda: enqueue_jobs(batch, "chaos", deps)), "the batch was taken", within_s=120)


@dataclass
class Watch:
    """How many jobs were done at which second."""

    deps: Deps
    jobs: int
    began: float = field(default_factory=time.monotonic)
    seen: list[tuple[int, int]] = field(default_factory=list)

    def share_done(self) -> float:
        """The share of all jobs that are done; as it was last seen while PostgreSQL is away."""
        now_s = int(time.monotonic() - self.began)
        counts = calmly(lambda: statuses(self.deps.database))
        if counts is not None and (not self.seen or now_s >= self.seen[-1][0] + 5 or counts.get("done") == self.jobs):
            self.seen.append((now_s, counts.get("done", 0)))
        return (counts.get("done", 0) if counts else self.seen[-1][1] if self.seen else 0) / self.jobs


def fire(monkey: Monkey, watch: Watch, batches: Iterator[Sequence[BackfillJob]], *, rounds: int, every_s: int) -> None:
    """Kill somebody each second, take a server away every few seconds, and ask for more meanwhile."""
    servers = [monkey.kill_redis, monkey.restart_postgres, monkey.empty_redis, monkey.crash_postgres]
    pace = max(rounds * every_s // (BATCHES - 1), 1)
    for second in range(1, rounds * every_s + 1):
        due_at = time.monotonic() + 1
        monkey.kill_a_worker(calmly(lambda: at_work(watch.deps)) or set())
        if second % every_s == 0:
            servers[(second // every_s - 1) % len(servers)]()
        batch = next(batches, None) if second % pace == 1 % pace else None
        if batch is not None:
            ask_again_and_again(batch, watch.deps)
        if watch.share_done() > 0.9:
            return
        threading.Event().wait(max(due_at - time.monotonic(), 0))


@pytest.mark.chaos
def test_whatever_is_killed_every_job_is_done_once_and_nothing_is_lost(stack: Path, full_size: bool) -> None:
    symbols = [f"C{number:03}" for number in range(250 if full_size else 25)]
    wanted = jobs_of(symbols)
    monkey = Monkey(stack, random.Random(SEED))
    with deps_of(stack) as deps:
        add_symbols(deps.database, symbols)
        size = len(wanted) // BATCHES
        batches = iter([wanted[start : start + size] for start in range(0, len(wanted), size)])
        watch = Watch(deps, len(wanted))
        ask_again_and_again(next(batches), deps)
        fire(monkey, watch, batches, rounds=8 if full_size else 4, every_s=15 if full_size else 2)
        fired_s = time.monotonic() - watch.began
        for batch in batches:
            ask_again_and_again(batch, deps)
        until(
            lambda: watch.share_done() == 1,
            "every job is done",
            within_s=900 if full_size else 200,
            told=lambda: f"{watch.seen} {mdtasks(stack, 'status').stdout}",
        )
        ended_s = time.monotonic() - watch.began
        story = rows(deps.database, "SELECT outcome, count(*) AS number FROM job_attempts GROUP BY 1 ORDER BY 1")
        print(f"\n{len(wanted)} jobs, {len(monkey.done)} kills in {fired_s:.0f} s: {monkey.done}")
        print(f"done {ended_s:.0f} s after the first, {ended_s - fired_s:.0f} s after the last; {story}; {watch.seen}")
        print(mdtasks(stack, "status").stdout)
        assert_every_bar_is_there_once(deps, symbols)
        assert_attempts_tell_the_story(deps, len(wanted))
        assert_nothing_is_lost(deps)
    assert_nothing_is_left(stack)


def assert_every_bar_is_there_once(deps: Deps, symbols: Sequence[str]) -> None:
    """The store holds what the simulator says, each bar written by the attempt that did its job."""
    assert differences(deps.database, symbols, WINDOWS) == []
    (counts,) = rows(
        deps.database,
        "SELECT count(*) AS bars, count(*) FILTER (WHERE a.outcome = 'done' AND a.job_type = 'backfill') AS done"
        " FROM bars b JOIN job_attempts a ON a.id = b.attempt_id WHERE b.ts < '2025-01-01'",
    )
    assert counts == dict.fromkeys(("bars", "done"), len(symbols) * WINDOWS * MINUTES)
    assert rows(deps.database, "SELECT ts FROM bar_revisions WHERE ts < '2025-01-01'") == []


def assert_attempts_tell_the_story(deps: Deps, jobs: int) -> None:
    """Of each job: fences 1, 2, 3 …, one attempt that did it, the last; none beyond the limit; none still open."""
    found = rows(
        deps.database,
        "SELECT j.id, j.attempts, j.fence, j.max_attempts, j.bars,"
        " array_agg(a.fence ORDER BY a.id) AS fences, array_agg(a.outcome ORDER BY a.id) AS outcomes,"
        " array_agg(a.attempt ORDER BY a.id) AS numbers, bool_and(a.ended_at >= a.started_at) AS ended"
        " FROM backfill_jobs j JOIN job_attempts a ON a.job_id = j.id GROUP BY j.id",
    )
    assert len(found) == jobs
    for job in found:
        numbers = list(range(1, job["attempts"] + 1))
        assert job["fences"] == job["numbers"] == numbers, job
        assert (job["fence"], job["bars"], job["ended"]) == (job["attempts"], MINUTES, True), job
        assert job["outcomes"][-1] == "done", job
        assert set(job["outcomes"][:-1]) <= {"retry", "lost"}, job
        assert job["attempts"] < job["max_attempts"], job
    (story,) = rows(
        deps.database,
        "SELECT (SELECT sum(attempts) FROM backfill_jobs) AS counted, count(*) AS kept,"
        " count(*) FILTER (WHERE outcome = 'lost') AS lost FROM job_attempts WHERE job_type = 'backfill'",
    )
    assert story["counted"] == story["kept"]
    assert story["lost"] > 0  # else nothing was under fire


def assert_nothing_is_lost(deps: Deps) -> None:
    """The reconciler says so, after the end; no letter of a job or of poison is there, no message is left over."""
    ended_at = rows(deps.database, "SELECT now() AS now")[0]["now"].isoformat()

    def proof() -> object:
        found = calmly(lambda: last_proof(deps))
        return found and found.at > ended_at and (found.queued, found.lost, found.doubled, found.orphans) == (0,) * 4

    until(proof, "the reconciler proves it", within_s=120, told=lambda: str(last_proof(deps)))
    assert rows(deps.database, "SELECT kind FROM dead_letters WHERE kind IN ('backfill', 'poison')") == []
    until(lambda: not any(backlog.depths(deps.broker)[tier] for tier in ("T0", "T1", "T2", "dlq")), "queues are empty")
    until(lambda: not any(backfills_in_hand(deps.broker)), "no worker holds a backfill", within_s=90)


def backfills_in_hand(client: redis.Redis) -> list[object]:
    """The messages of backfills that workers hold."""
    return [value for value in client.hvals("unacked") if "mdtasks.backfill" in str(value)]


def assert_nothing_is_left(home: Path) -> None:
    """After `down` no process of the stack is there, and no command finds it."""
    stopped = mdtasks(home, "down")
    assert (stopped.returncode, stopped.stderr) == (0, "stopped\n")
    assert mdtasks(home, "status").returncode == 5
    assert not Home(home).connection_file.exists()
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if str(home) in " ".join(words) or process.environ().get("MDTASKS_HOME") == str(home):
                left.append(words)
    assert left == []
