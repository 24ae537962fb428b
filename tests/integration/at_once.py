"""What processes do at once to a provider's account in Redis: they are forked from one that has imported this page."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from mdtasks.connections import open_redis
from mdtasks.domain.errors import RateSpentError
from mdtasks.domain.health import Rules
from mdtasks.domain.rates import Rate
from mdtasks.store.gates import SharedGate
from mdtasks.store.health import HealthBook

#: A demoted provider may be probed at once.
AT_ONCE = Rules(cooldown_s=0.001)
NAME = "vendor"


def gate(url: str, rates: tuple[Rate, ...] = (), rules: Rules = AT_ONCE) -> SharedGate:
    return SharedGate(NAME, rates, HealthBook(open_redis(url), rules))


def of_eight(work: Callable[..., None], *arguments: object) -> list[Any]:
    """Call ``work`` with the arguments, a barrier and a queue in eight processes; what each has put into the queue."""
    # Not forked from here, where threads may run; and each that is spawned would import for a second.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    start, told = context.Barrier(8), context.Queue()
    workers = [context.Process(target=work, args=(*arguments, start, told)) for _ in range(8)]
    for worker in workers:
        worker.start()
    found = [told.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    return found


def take(url: str, rates: tuple[Rate, ...], start: Any, sent: Any) -> None:
    """Make requests as fast as the gate lets them through; tells between which times, by the clock of the machine, each
    was granted.
    """
    found, times = gate(url, rates), list[tuple[float, float]]()
    start.wait()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            asked = time.monotonic()
            with found.call(), found.request("bars"):
                times.append((asked, time.monotonic()))
        except RateSpentError:
            break
    sent.put(times)


def probe(url: str, start: Any, verdicts: Any) -> None:
    """Ask to be let through fifty times; tells what was said."""
    book = HealthBook(open_redis(url), AT_ONCE)
    start.wait()
    verdicts.put([book.admit(NAME, ()).verdict for _ in range(50)])
