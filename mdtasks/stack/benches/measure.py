"""Benchmarks: what is ours measured side by side with the thing it replaces, in one run.

Machines are noisy, so a figure is the median of rounds that alternate, and what counts is the ratio within a run.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdtasks.flows.deps import Deps, open_deps
from mdtasks.settings import CONNECTION_FILE, load_settings
from mdtasks.stack.embedded import PostgresServer, ValkeyServer, running, stop
from mdtasks.stack.home import write_private
from mdtasks.stack.kept import free_port
from mdtasks.stack.processes import Plan, Spec, process_table
from mdtasks.stack.spawn import spawn
from mdtasks.store.schema import migrate

#: Told what is being measured: work that takes a while says so.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """Figures per second (medians of the rounds) and their ratios."""

    name: str
    unit: str
    figures: Mapping[str, float]
    ratios: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {
            "bench": self.name,
            "unit": self.unit,
            "figures": {name: round(value) for name, value in self.figures.items()},
            "ratios": {name: round(value, 3) for name, value in self.ratios.items()},
        }


@contextmanager
def scratch() -> Iterator[Deps]:
    """Deps on servers that live only for this run, beside whatever else runs here."""
    with tempfile.TemporaryDirectory(prefix="mdtasks-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # PostgreSQL may run as another user and must reach its data
        valkey, postgres = ValkeyServer(home), PostgresServer(home)
        with running(valkey), running(postgres):
            postgres.ensure_database()
            migrate(postgres.url)
            environ = {
                "MDTASKS_HOME": folder,
                "MDTASKS_DATABASE_URL": postgres.url,
                "MDTASKS_REDIS_URL": valkey.url,
                "MDTASKS_SIMULATOR": "1",
                "BACKFILL_MAX_QUEUE_T0": "1000000",
            }
            deps = open_deps(load_settings(environ), application="mdtasks-bench")
            try:
                yield deps
            finally:
                deps.close()


@contextmanager
def crew(deps: Deps, names: Sequence[str], *, concurrency: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of a stack on the scratch servers, started as `mdtasks up` starts them, with so many a worker."""
    settings = deps.settings
    urls = {"database_url": settings.require_database_url(), "redis_url": settings.require_redis_url()}
    write_private(settings.home / CONNECTION_FILE, json.dumps(urls))
    plan = Plan(
        settings.model_copy(update={"concurrency": concurrency}),
        free_port(settings.home, "web"),
        free_port(settings.home, "flower"),
        {"MDTASKS_SIMULATOR": "1"},
    )
    logs = settings.home / "logs"
    specs = {spec.name: spec for spec in process_table(plan)}
    with ExitStack() as stack:
        yield [_started(stack, specs[name], logs / f"{name}.log") for name in names]


def _started(stack: ExitStack, spec: Spec, log: Path) -> subprocess.Popen[bytes]:
    process = spawn(spec.command, log)
    stack.callback(stop, process, (signal.SIGTERM, signal.SIGKILL))
    return process


def alternate(
    cases: Mapping[str, Callable[[], int]], rounds: int, say: Say, *, before: Callable[[], None]
) -> dict[str, float]:
    """Rates of the cases, each in turn, so that a machine that slows down slows them all; the first round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            before()
            began = time.perf_counter()
            count = case()
            rate = count / (time.perf_counter() - began)
            say(f"{'warm-up' if number == 0 else f'round {number}'}  {name:<16} {rate:>12,.0f}/s")
            if number:
                rates[name].append(rate)
    return {name: statistics.median(found) for name, found in rates.items()}
