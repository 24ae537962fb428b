"""A server that goes away is waited for: nothing is lost, no queue is burnt, no worker needs a hand.

One worker tree of tier T0 and one for letters live through it all; each test asks for a symbol of its own.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from mdtasks.flows.backfill import Answer, enqueue_jobs
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import dispatch_once, reconcile_once
from mdtasks.queue import backlog
from tests.acceptance.harness import Servers, Worker, add_symbols, crew, differences, job_of, own_servers, rows, until

LIMITS = {
    "MDTASKS_RETRY_BASE_S": "0.1",
    "MDTASKS_RETRY_MAX_S": "0.2",
    # A task waits for a server for 4 s, which are 2 s less.
    "MDTASKS_TIME_LIMIT_S": "6",
    "MDTASKS_LEASE_MARGIN_S": "60",
    "MDTASKS_SIMULATOR_FAULTS": "latency_s=0.5",
}
#: What becomes of Redis; also the symbol that is asked for meanwhile.
REDIS_ENDS = ("KILLED", "EMPTIED", "FROZEN")
SYMBOLS = (*REDIS_ENDS, "SHORT", "LONG", "LAST")


@dataclass
class Scene:
    """Servers that a test may take away, and workers on them."""

    servers: Servers
    tier: Worker
    control: Worker
    deps: Deps

    def enqueue(self, symbol: str, number: int) -> Answer:
        """Ask for the first windows of a symbol."""
        return enqueue_jobs([job_of(symbol, each) for each in range(number)], "test", self.deps)

    def statuses(self, symbol: str) -> dict[str, int]:
        """How many jobs of the symbol have each status."""
        statement = "SELECT status::text, count(*) AS jobs FROM backfill_jobs WHERE symbol = :symbol GROUP BY 1"
        return {row["status"]: row["jobs"] for row in rows(self.deps.database, statement, symbol=symbol)}

    def until_at_work(self, symbol: str) -> None:
        """Until both children of the tier's worker have claimed a job."""
        until(lambda: self.statuses(symbol).get("running") == 2, "both children are at work", told=self.tier.said)

    def all_done(self, symbol: str, number: int) -> None:
        """As beat would: send what waits, until all are done. Each bar is there once, and the workers are the same."""

        def done() -> bool:
            dispatch_once(self.deps)
            return self.statuses(symbol) == {"done": number}

        until(done, f"{number} jobs of {symbol} are done", told=self.told)
        assert differences(self.deps.database, [symbol], number) == []
        assert rows(self.deps.database, "SELECT ts FROM bar_revisions") == []
        assert rows(self.deps.database, "SELECT id FROM dead_letters") == []
        assert (same(self.tier), same(self.control)) == (True, True)

    def told(self) -> str:
        """The last words of both workers, for a failure's message."""
        return "\n".join(worker.said()[-3000:] for worker in (self.tier, self.control))

    def ends(self, symbol: str) -> set[tuple[str, str | None]]:
        """The (outcome, error class) of all attempts at the symbol's jobs."""
        statement = "SELECT outcome, error_class FROM job_attempts WHERE job_id LIKE :job"
        return {(row["outcome"], row["error_class"]) for row in rows(self.deps.database, statement, job=f"{symbol}.%")}

    def depth(self, queue: str) -> int:
        """What waits in a queue."""
        return backlog.depths(self.deps.broker)[queue]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("outages")
    with own_servers(folder) as servers, crew(servers, folder / "workers", **LIMITS) as workers:
        tier = workers.start("t0", "T0.live,T0", concurrency=2)
        control = workers.start("control", "control,dlq")
        deps = open_deps(servers.settings(**LIMITS))
        try:
            add_symbols(deps.database, SYMBOLS)
            workers.ready(tier, control)
            yield Scene(servers, tier, control, deps)
        finally:
            deps.close()


def same(worker: Worker) -> bool:
    """Whether the worker has lived through it all."""
    return worker.alive and worker.said().count(" ready.") == 1


@pytest.mark.parametrize("end", REDIS_ENDS)
def test_what_is_asked_for_while_redis_is_away_is_done_when_it_is_back(scene: Scene, end: str) -> None:
    servers = scene.servers
    if end == "FROZEN":
        servers.signal(servers.redis, signal.SIGSTOP)
    else:
        servers.end(servers.redis)
    answer = scene.enqueue(end, 4)
    assert (answer.queued, answer.deferred) == (0, 4)
    if end == "EMPTIED":
        servers.empty_redis()
    if end == "FROZEN":
        servers.signal(servers.redis, signal.SIGCONT)
    else:
        servers.start(servers.redis)
    scene.all_done(end, 4)


def test_workers_that_hold_messages_while_postgres_is_away_wait_and_leave_the_queue_alone(scene: Scene) -> None:
    scene.enqueue("SHORT", 8)
    scene.until_at_work("SHORT")
    scene.servers.end(scene.servers.postgres, signal.SIGINT)
    waiting, began = scene.depth("T0"), time.monotonic()
    assert waiting >= 4

    def looked_long_enough() -> bool:
        # Long past the half second that their providers take: both wait to tell how it ended.
        assert (scene.depth("T0"), scene.depth("dlq")) == (waiting, 0)
        return time.monotonic() > began + 3

    until(looked_long_enough, "it is over")
    scene.servers.start(scene.servers.postgres)
    scene.all_done("SHORT", 8)
    assert scene.ends("SHORT") <= {("done", None), ("retry", "store_unavailable"), ("lost", "store_unavailable")}


def test_letters_wait_in_dlq_while_postgres_is_away_and_no_job_dies_of_an_outage(scene: Scene) -> None:
    scene.enqueue("LONG", 4)
    scene.until_at_work("LONG")
    scene.servers.end(scene.servers.postgres, signal.SIGQUIT)
    # Longer than a worker's patience: every message ends up among the letters, and waits there.
    until(lambda: len(letters(scene.deps.broker)) == 4, "every message is a letter", told=scene.told)
    assert set(letters(scene.deps.broker)) == {"store_unavailable"}
    assert scene.depth("T0") == 0
    scene.servers.start(scene.servers.postgres)
    scene.all_done("LONG", 4)
    until(lambda: scene.depth("dlq") == 0, "no letter is left")
    assert scene.ends("LONG") <= {("done", None), ("lost", "store_unavailable"), ("retry", "store_unavailable")}


def letters(client: redis.Redis) -> list[str]:
    """Why each letter that waits in ``dlq``, or that its consumer holds, was written."""
    held = [json.loads(value)[0] for value in client.hvals("unacked")]
    waiting = [json.loads(element) for element in client.lrange("dlq", 0, -1)]
    shown = [each["headers"]["argsrepr"] for each in held + waiting if each["headers"]["task"] == "mdtasks.dead_letter"]
    return [words.strip("(").partition(":")[0] for words in shown]


def test_a_worker_that_is_told_to_stop_finishes_what_it_holds(scene: Scene) -> None:
    scene.enqueue("LAST", 8)
    scene.until_at_work("LAST")
    assert scene.tier.stop() == 0
    left = scene.statuses("LAST")
    assert set(left) == {"done", "queued"}
    assert scene.ends("LAST") == {("done", None)}
    assert (scene.depth("T0"), scene.deps.broker.hlen("unacked")) == (left["queued"], 0)


@pytest.mark.chaos
@pytest.mark.full_size_only
def test_a_frozen_worker_that_wakes_up_late_leaves_nothing(tmp_path: Path) -> None:
    limits = {**LIMITS, "MDTASKS_LEASE_MARGIN_S": "2", "MDTASKS_SIMULATOR_FAULTS": "latency_s=2"}
    with own_servers(tmp_path) as servers, crew(servers, tmp_path / "workers", **limits) as workers:
        deps = open_deps(servers.settings(**limits))
        add_symbols(deps.database, ["LATE"])
        frozen = workers.started("frozen", "T0.live,T0")
        other = workers.start("other", "T0.live,T0,dlq")
        os.killpg(other.pid, signal.SIGSTOP)
        scene = Scene(servers, frozen, other, deps)
        scene.enqueue("LATE", 1)
        until(lambda: scene.statuses("LATE") == {"running": 1}, "it is at work")
        os.killpg(frozen.pid, signal.SIGSTOP)
        os.killpg(other.pid, signal.SIGCONT)
        until(lambda: reconcile_once(deps, datetime.now(UTC)).expired, "its lease has run out")
        until(lambda: dispatch_once(deps)["T0"], "it is sent again")
        until(lambda: scene.statuses("LATE") == {"done": 1}, "the other has done it", told=scene.told)
        os.killpg(frozen.pid, signal.SIGCONT)
        until(lambda: not deps.broker.hlen("unacked") and not scene.depth("dlq"), "both messages are settled")
        scene.all_done("LATE", 1)
        assert [row["outcome"] for row in rows(deps.database, "SELECT outcome FROM job_attempts ORDER BY id")] == [
            "lost",
            "done",
        ]
        deps.close()
