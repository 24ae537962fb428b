"""Slow provider calls of a real prefork worker: traced in each child that asks, and without a secret."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps
from mdtasks.store import job_reports
from tests.acceptance.harness import Crew, Servers, add_symbols, crew, job_of, rows, until

#: A token that no trace may hold, and which every process of the stack is given.
SECRET = "hush-hush-0815"
SLOW = "latency_s=0.3,only=SLOW"


@pytest.fixture
def workers(servers: Servers, tmp_path: Path) -> Iterator[Crew]:
    """A crew whose provider is slow at the symbol SLOW."""
    environ = {"MDTASKS_SIMULATOR_FAULTS": SLOW, "VIZTRACER_SLOW_S": "0.25", "MDTASKS_API_TOKEN": SECRET}
    with crew(servers, tmp_path, **environ) as made:
        yield made


def test_children_of_a_worker_leave_traces_that_name_what_was_slow_and_the_attempts_point_to_them(
    workers: Crew, servers: Servers, deps: Deps
) -> None:
    add_symbols(deps.database, ["SLOW", "QUICK"])
    enqueue_jobs([job_of(symbol, number) for symbol in ("SLOW", "QUICK") for number in range(4)], "test", deps)
    worker = workers.started("t0", "T0.live,T0", concurrency=2)
    done = "SELECT count(*) AS jobs FROM backfill_jobs WHERE status = 'done'"
    until(lambda: rows(deps.database, done)[0]["jobs"] == 8, "all jobs are done", told=worker.said)

    slow = rows(deps.database, "SELECT * FROM slow_calls ORDER BY id")
    assert {call["job_id"] for call in slow} >= {f"SLOW.{number}" for number in range(4)}
    traced = [call for call in slow if call["job_id"].startswith("SLOW")]
    # Both children ask, each with a ring of its own.
    pids = set()
    for call in traced:
        document = orjson.loads(gzip.decompress(call["trace"]))
        events = document["traceEvents"]
        named = {event["name"].partition(" (")[0] for event in events if event["ph"] == "X"}
        assert {"SimulatorProvider.fetch_bars", "suffer"} <= named
        (pid,) = {event["pid"] for event in events}
        assert call["worker"] == f"{worker.name}@{call['worker'].partition('@')[2].partition('/')[0]}/{pid}"
        pids.add(pid)
        text = gzip.decompress(call["trace"])
        for secret in (SECRET, servers.postgres.url, servers.redis.url):
            assert secret.encode() not in text
        with deps.database.transaction() as connection:
            (attempt,) = job_reports.attempts(connection, call["job_id"])
        assert (attempt["id"], attempt["traces"]) == (call["attempt_id"], [call["id"]])
    assert len(pids) == 2
    assert worker.process.pid not in pids
