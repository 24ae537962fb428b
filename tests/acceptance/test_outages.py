"""A server that goes away is waited for: nothing is lost, no queue is burnt, no worker needs a hand."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from mdtasks.flows.backfill import Answer, enqueue_jobs
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.queue import backlog
from tests.acceptance.harness import (
    Crew,
    Servers,
    Worker,
    add_symbols,
    crew,
    differences,
    job_of,
    own_servers,
    rows,
    statuses,
    until,
)

LIMITS = {"MDTASKS_RETRY_BASE_S": "0.1", "MDTASKS_RETRY_MAX_S": "0.2"}
SYMBOL = "OUT"
#: What becomes of Redis; also the symbol that is asked for meanwhile.
REDIS_ENDS = ("KILLED", "EMPTIED", "FROZEN")


@dataclass
class Scene:
    """Servers that a test may take away, and workers on them."""

    servers: Servers
    workers: Crew
    deps: Deps

    def enqueue(self, number: int, symbol: str = SYMBOL) -> Answer:
        """Ask for the first windows of a symbol."""
        return enqueue_jobs([job_of(symbol, each) for each in range(number)], "test", self.deps)

    def all_done(self, number: int, symbol: str = SYMBOL) -> None:
        """As beat would: send what waits, until all are done; each bar is there once."""

        def done() -> bool:
            dispatch_once(self.deps)
            return set(statuses(self.deps.database)) == {"done"}

        until(done, f"{number} jobs are done", told=self.told)
        assert differences(self.deps.database, [symbol], number) == []
        assert rows(self.deps.database, "SELECT ts FROM bar_revisions") == []

    def told(self) -> str:
        """How it stands, for a failure's message."""
        return f"{statuses(self.deps.database)} " + "\n".join(worker.said()[-2000:] for worker in self.workers.workers)

    def attempts(self) -> dict[tuple[str, str | None], int]:
        """How many attempts ended with each (outcome, error class)."""
        counted = "SELECT outcome, error_class, count(*) AS number FROM job_attempts GROUP BY 1, 2"
        return {(row["outcome"], row["error_class"]): row["number"] for row in rows(self.deps.database, counted)}

    def depths(self) -> dict[str, int]:
        """What waits in the queues."""
        return backlog.depths(self.deps.broker)


@contextmanager
def staged(folder: Path, **environ: str) -> Iterator[Scene]:
    """A scene in a folder."""
    settings = {**LIMITS, **environ}
    with own_servers(folder) as servers, crew(servers, folder / "workers", **settings) as workers:
        deps = open_deps(servers.settings(**settings))
        try:
            add_symbols(deps.database, [SYMBOL, *REDIS_ENDS])
            yield Scene(servers, workers, deps)
        finally:
            deps.close()


def same(worker: Worker) -> bool:
    """Whether the worker has lived through it all."""
    return worker.alive and worker.said().count(" ready.") == 1


def test_workers_that_hold_messages_while_postgres_is_away_wait_and_leave_the_queue_alone(tmp_path: Path) -> None:
    with staged(tmp_path, MDTASKS_SIMULATOR_FAULTS="latency_s=1") as scene:
        worker = scene.workers.started("t0", "T0.live,T0", concurrency=2)
        scene.enqueue(8)
        until(lambda: statuses(scene.deps.database).get("running") == 2, "both children are at work")
        scene.servers.end(scene.servers.postgres, signal.SIGINT)
        began, waiting = time.monotonic(), scene.depths()["T0"]
        assert waiting >= 4
        # Long past the second that their providers take: both now wait to tell how it ended.
        until(lambda: assert_equal(scene.depths()["T0"], waiting) and time.monotonic() > began + 6, "it is over")
        assert scene.depths()["dlq"] == 0
        scene.servers.start(scene.servers.postgres)
        scene.all_done(8)
        assert same(worker)
        outcomes = scene.attempts()
        assert outcomes.pop(("done", None)) == 8
        assert set(outcomes) <= {("retry", "store_unavailable")}
        assert rows(scene.deps.database, "SELECT id FROM dead_letters") == []


def assert_equal(found: int, wanted: int) -> bool:
    assert found == wanted
    return True


def test_letters_wait_in_dlq_while_postgres_is_away_and_no_job_dies_of_an_outage(tmp_path: Path) -> None:
    limits = {"MDTASKS_TIME_LIMIT_S": "6", "MDTASKS_LEASE_MARGIN_S": "60"}
    with staged(tmp_path, MDTASKS_SIMULATOR_FAULTS="latency_s=0.5", **limits) as scene:
        tier = scene.workers.start("t0", "T0.live,T0", concurrency=2)
        control = scene.workers.start("control", "control,dlq")
        scene.workers.ready(tier, control)
        scene.enqueue(6)
        until(lambda: statuses(scene.deps.database).get("running") == 2, "both children are at work")
        scene.servers.end(scene.servers.postgres, signal.SIGQUIT)
        with redis.Redis.from_url(scene.servers.redis.url) as client:
            # Longer than a worker's patience: everything ends up among the letters, and waits there.
            until(lambda: len(letters(client)) == 6, "every message is a letter", told=tier.said)
            assert set(letters(client)) == {"store_unavailable"}
            assert scene.depths()["T0"] == 0
        scene.servers.start(scene.servers.postgres)
        scene.all_done(6)
        until(lambda: scene.depths()["dlq"] == 0, "no letter is left")
        assert (same(tier), same(control)) == (True, True)
        assert rows(scene.deps.database, "SELECT id FROM dead_letters") == []
        assert set(scene.attempts()) <= {("done", None), ("lost", "store_unavailable"), ("retry", "store_unavailable")}


def letters(client: redis.Redis) -> list[str]:
    """Why each letter that waits in ``dlq``, or that its consumer holds, was written."""
    held = [json.loads(value)[0] for value in client.hvals("unacked")]
    waiting = [json.loads(element) for element in client.lrange("dlq", 0, -1)]
    shown = [each["headers"]["argsrepr"] for each in held + waiting if each["headers"]["task"] == "mdtasks.dead_letter"]
    return [words.strip("(").partition(":")[0] for words in shown]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A scene with a worker, for all the ways in which Redis may go away, one after the other."""
    with staged(tmp_path_factory.mktemp("redis")) as made:
        made.workers.started("t0", "T0.live,T0", concurrency=2)
        yield made


@pytest.mark.parametrize("end", REDIS_ENDS)
def test_what_is_asked_for_while_redis_is_away_is_done_when_it_is_back(scene: Scene, end: str) -> None:
    servers = scene.servers
    if end == "FROZEN":
        servers.signal(servers.redis, signal.SIGSTOP)
    else:
        servers.end(servers.redis)
    answer = scene.enqueue(8, end)
    assert (answer.queued, answer.deferred) == (0, 8)
    if end == "EMPTIED":
        servers.empty_redis()
    if end == "FROZEN":
        servers.signal(servers.redis, signal.SIGCONT)
    else:
        servers.start(servers.redis)
    scene.all_done(8, end)
    assert same(scene.workers.workers[0])


def test_a_worker_that_is_told_to_stop_finishes_what_it_holds(tmp_path: Path) -> None:
    with staged(tmp_path, MDTASKS_SIMULATOR_FAULTS="latency_s=1") as scene:
        worker = scene.workers.started("t0", "T0.live,T0", concurrency=2)
        scene.enqueue(6)
        until(lambda: statuses(scene.deps.database).get("running") == 2, "both children are at work")
        assert worker.stop() == 0
        assert "running" not in statuses(scene.deps.database)
        assert scene.attempts().keys() == {("done", None)}
        assert scene.depths()["T0"] == statuses(scene.deps.database)["queued"]
        assert scene.deps.broker.hlen("unacked") == 0
