"""A tier's queue is never deeper than its cap, whoever pushes, and nothing that was asked for gets lost over it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from mdtasks.domain.errors import QueueFullError
from mdtasks.flows.deps import open_deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.queue.app import make_app
from mdtasks.queue.enqueue import priority_lists
from mdtasks.settings import Settings
from tests.acceptance.harness import (
    MINUTES,
    Crew,
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
from tests.acceptance.producers import symbol_of

PRODUCERS = 64
#: What the whole queue holds, in one step of Redis.
DEPTH = "local depth = 0 for _, list in ipairs(KEYS) do depth = depth + redis.call('LLEN', list) end return depth"


@dataclass
class Samples:
    """What a sampler saw."""

    taken: int = 0
    deepest: int = 0
    refused: int = 0
    accepted: int = 0


@contextmanager
def repeating(work: Callable[[], object], *, pause_s: float = 0.0) -> Iterator[None]:
    """Do ``work`` again and again beside the block, in a thread; its error is the block's."""
    over = threading.Event()
    errors: list[Exception] = []

    def loop() -> None:
        try:
            while not over.wait(pause_s):
                work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]


def sampler(url: str, samples: Samples) -> Callable[[], None]:
    """Looks at the depth of T0 once."""
    client = redis.Redis.from_url(url)
    look = client.register_script(DEPTH)

    def sample() -> None:
        depth = int(look(keys=priority_lists("T0")))
        samples.taken += 1
        samples.deepest = max(samples.deepest, depth)

    return sample


def rogue(settings: Settings, samples: Samples) -> Callable[[], None]:
    """Pushes one message past all of mdtasks' own ways, as somebody with nothing but Celery would."""
    app = make_app(settings)
    app.loader.import_default_modules()
    task = app.tasks["mdtasks.backfill"]
    document = job_of("NOBODY", 0, job_id="rogue").model_dump(mode="json")

    def push() -> None:
        try:
            task.apply_async((document,), queue="T0")
            samples.accepted += 1
        except QueueFullError as error:
            samples.refused += (error.queue, error.cap) == ("T0", settings.cap_t0)

    return push


@pytest.mark.chaos
def test_64_producers_never_push_a_tier_past_its_cap_and_every_job_is_done(tmp_path: Path, full_size: bool) -> None:
    jobs, cap = (50_000, 1000) if full_size else (640, 100)
    each = -(-jobs // PRODUCERS)
    limits = {"BACKFILL_MAX_QUEUE_T0": str(cap)}
    symbols = [symbol_of(producer) for producer in range(PRODUCERS)]
    with own_servers(tmp_path) as servers, crew(servers, tmp_path / "workers", **limits) as workers:
        settings = servers.settings(**limits)
        deps = open_deps(settings)
        add_symbols(deps.database, symbols)
        worker = workers.started("t0", "T0.live,T0", concurrency=3)
        samples = Samples()
        began = time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(repeating(sampler(servers.redis.url, samples), pause_s=0 if full_size else 0.005))
            stack.enter_context(repeating(rogue(settings, samples), pause_s=0.1))
            # As beat does every second, but more often: one more who could push past the cap.
            stack.enter_context(repeating(lambda: dispatch_once(deps), pause_s=0.2))
            produce(workers, each)
            produced_s = time.monotonic() - began
            until(lambda: statuses(deps.database) == {"done": PRODUCERS * each}, "every job is done", within_s=2400)
        drained_s = time.monotonic() - began
        print(
            f"\n{PRODUCERS * each} jobs, cap {cap}: {samples}, produced {produced_s:.1f} s, drained {drained_s:.1f} s"
        )
        assert samples.deepest == cap
        assert samples.taken > 100
        assert (samples.refused > 0, samples.accepted > 0) == (True, True)
        assert differences(deps.database, symbols, each) == []
        (counts,) = rows(
            deps.database,
            "SELECT (SELECT count(*) FROM bars) AS bars, (SELECT count(*) FROM bar_revisions) AS revisions,"
            " (SELECT count(*) FROM dead_letters) AS letters, (SELECT count(*) FROM job_attempts) AS attempts",
        )
        wanted = {"bars": PRODUCERS * each * MINUTES, "revisions": 0, "letters": 0, "attempts": PRODUCERS * each}
        assert counts == wanted
        deps.close()
        assert_warm_stop(worker)


def produce(workers: Crew, each: int) -> None:
    """Let all producers enqueue their jobs."""
    argv = [sys.executable, "-m", "tests.acceptance.producers", str(PRODUCERS), str(each)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        argv, env={**os.environ, **workers.environ}, cwd=root, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]


def assert_warm_stop(worker: Worker) -> None:
    """It ends in good order."""
    assert worker.stop() == 0, worker.said()[-2000:]
