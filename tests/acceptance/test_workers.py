"""Workers start not on calendars that lie, not at the cost of a fellow of their name, and run what is given again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from mdtasks.domain.jobs import BarsFetchJob, Interval, Tier, TimeWindow
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps
from tests.acceptance.harness import START, Crew, Servers, add_symbols, crew, job_of, rows, until

_LOSES_A_SESSION = """
from exchange_calendars.exchange_calendar import ExchangeCalendar

made = ExchangeCalendar.__init__

def make(self, *args, **options):
    made(self, *args, **options)
    self.schedule = self.schedule.drop("2025-02-01", errors="ignore")

ExchangeCalendar.__init__ = make
"""


@pytest.fixture
def workers(servers: Servers, tmp_path: Path) -> Iterator[Crew]:
    """A crew whose provider hangs at the symbol HANGS."""
    with crew(servers, tmp_path, MDTASKS_SIMULATOR_FAULTS="hang=HANGS") as made:
        yield made


def test_a_worker_refuses_to_run_on_a_library_that_loses_a_session(workers: Crew, deps: Deps, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_LOSES_A_SESSION)
    add_symbols(deps.database, ["WAITS"])
    enqueue_jobs([job_of("WAITS", 0)], "test", deps)
    worker = workers.start(
        "t0", "T0.live,T0", PYTHONPATH=str(tmp_path), MDTASKS_HOME=str(tmp_path / "a home without calendars")
    )
    until(lambda: not worker.alive, "the worker has ended", told=worker.said)
    assert worker.process.returncode == 1
    said = worker.said()
    assert "error: the calendar of XBOM is wrong on 2025-02-01: no session instead of 2025-02-01 03:45Z" in said
    assert "Traceback" not in said
    assert deps.broker.llen("T0") == 1


def test_a_worker_spares_what_a_living_one_of_its_name_holds_and_releases_what_a_dead_one_held(
    workers: Crew, deps: Deps
) -> None:
    add_symbols(deps.database, ["HANGS"])
    enqueue_jobs([job_of("HANGS", 0)], "test", deps)

    def attempts() -> list[tuple[str, str | None]]:
        found = rows(
            deps.database,
            "SELECT a.outcome, a.error_class FROM job_attempts a JOIN backfill_jobs j ON j.id = a.job_id"
            " WHERE j.id = 'HANGS.0' ORDER BY a.id",
        )
        return [(each["outcome"], each["error_class"]) for each in found]

    first = workers.started("t0", "T0.live,T0")
    until(lambda: len(attempts()) == 1, "the job is at work")
    begun = attempts()
    (child,) = first.children()
    workers.started("t0", "T1.live,T1")
    assert attempts() == begun
    assert psutil.pid_exists(child)
    os.killpg(first.pid, signal.SIGKILL)
    first.process.wait()
    until(lambda: not psutil.pid_exists(child), "its child has gone")
    third = workers.started("t0", "T2.live,T2")
    assert attempts() == [("lost", "worker_lost")], third.said()
    assert "1 jobs were held when this node last stopped" in third.said()


def test_a_live_fetch_that_is_given_back_after_its_time_runs(workers: Crew, deps: Deps) -> None:
    add_symbols(deps.database, ["LATE"])
    window = TimeWindow(start=START, end=START + timedelta(minutes=10))
    job = BarsFetchJob(symbols=("LATE",), interval=Interval.M1, time_window=window, priority=Tier.T0)
    deps.enqueuer.push_live(job, datetime.now(UTC) - timedelta(hours=1), expires_s=60)
    envelope = deps.broker.rpop("T0.live")
    assert isinstance(envelope, bytes)
    assert deps.enqueuer.push_raw("T0.live", envelope.decode())
    worker = workers.started("t0", "T0.live,T0")
    until(lambda: "succeeded" in worker.said() or "revoked" in worker.said(), "it has been taken", told=worker.said)
    assert "revoked" not in worker.said()
    assert rows(deps.database, "SELECT count(*) AS bars FROM bars")[0]["bars"] == 10
