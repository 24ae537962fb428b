"""A change of the policy: how long until every process of a stack works by it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.jobs import BackfillJob, Tier, TimeWindow
from mdtasks.flows import policies
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.policy_watch import EVERY_S, words
from mdtasks.stack.benches.measure import Result, Say, crew, scratch
from mdtasks.store.reference import Instrument, add_instruments

_START: Final = datetime(2025, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
#: Processes of a tier's worker.
_CHILDREN: Final = 2
#: How long a change may take before the benchmark gives up, seconds.
_PATIENCE_S: Final = 60.0


def bench_policy(say: Say, *, rounds: int = 20, web: bool = True) -> Result:
    """From the commit of a change until the last process has left word that it runs it: worker children, beat, web."""
    names = ("t0", "t1", "t2", "control", "beat", *(["web"] if web else []))
    lasts: list[float] = []
    with scratch() as deps, crew(deps, names, concurrency=_CHILDREN):
        processes = _all_at_work(deps, len(Tier) * _CHILDREN + len(names) - len(Tier))
        say(f"{len(processes)} processes follow the policy")
        for number in range(1, rounds + 1):
            candidate = f"retry: {{attempts: {number + 5}}}".encode()
            version = policies.apply(desk_of(deps), candidate, Asked("bench"), datetime.now(UTC)).version.version
            lasts.append(_until_all_run(deps, version, processes))
            say(f"round {number}  the last of {len(processes)} after {lasts[-1] * 1000:,.0f} ms")
    figures = {"median to the last process": statistics.median(lasts) * 1000, "slowest round": max(lasts) * 1000}
    ratios = {"slowest round / pause between two looks": max(lasts) / EVERY_S}
    return Result("policy", f"milliseconds, {len(processes)} processes", figures, ratios)


def _all_at_work(deps: Deps, count: int) -> Collection[str]:
    """The names of all processes, once each has had something to do and left its word."""
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument(f"P{tier}", "24/7", "crypto", tier) for tier in Tier])
    deadline, day = time.monotonic() + _PATIENCE_S, 0
    while len(found := {word.process for word in words(deps.state, datetime.now(UTC))}) < count:
        if time.monotonic() > deadline:
            raise UnavailableError(f"only {len(found)} of {count} processes came up", hint="is the machine very busy?")
        windows = [TimeWindow(start=_START + n * _DAY, end=_START + (n + 1) * _DAY) for n in range(day, day + 8)]
        jobs = [BackfillJob(symbol=f"P{t}", priority=t, time_window=window) for t in Tier for window in windows]
        enqueue_jobs(jobs, "bench", deps)
        day += len(windows)
        time.sleep(1.0)
    return found


def _until_all_run(deps: Deps, version: int, processes: Collection[str]) -> float:
    """Seconds until all run this version."""
    began = time.monotonic()
    while time.monotonic() < began + _PATIENCE_S:
        running = {word.process: word.version for word in words(deps.state, datetime.now(UTC))}
        if all(running.get(process) == version for process in processes):
            return time.monotonic() - began
        time.sleep(0.005)
    raise UnavailableError(f"not all processes run policy {version} after {_PATIENCE_S:.0f} s", hint="see their logs")
