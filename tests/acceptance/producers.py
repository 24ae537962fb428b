"""Many processes that enqueue at once: ``python -m tests.acceptance.producers PROCESSES JOBS_EACH``.

Forked from one that has imported, as a fleet of web workers is; each has a symbol of its own and opens its own
connections after the fork. They start together. Exits with the number of those that failed.
"""

from __future__ import annotations

import os
import sys
import traceback

from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import open_deps
from mdtasks.worker import tasks
from tests.acceptance.harness import job_of

#: Jobs of one call: many calls meet each other.
BATCH = 5


def symbol_of(producer: int) -> str:
    """The symbol that a producer asks for."""
    return f"P{producer:02}"


def _produce(producer: int, jobs: int) -> None:
    deps = open_deps(application=f"producer-{producer}")
    for start in range(0, jobs, BATCH):
        batch = [job_of(symbol_of(producer), number) for number in range(start, min(start + BATCH, jobs))]
        answer = enqueue_jobs(batch, f"producer-{producer}", deps)
        assert answer.queued + answer.deferred == len(batch), answer
    deps.close()


def main() -> int:
    """Fork, let go all at once, wait for all."""
    assert tasks  # loaded once, before the fork, with what only the first call imports
    deps = open_deps(application="producers")
    enqueue_jobs([], "producers", deps)
    deps.close()
    processes, jobs = (int(word) for word in sys.argv[1:])
    gate, opener = os.pipe()
    children = []
    for producer in range(processes):
        child = os.fork()
        if not child:
            os.close(opener)
            os.read(gate, 1)  # returns when the parent has closed the other end
            try:
                _produce(producer, jobs)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    os.close(opener)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main())
