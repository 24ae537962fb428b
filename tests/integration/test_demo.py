"""The demonstration: what it shows of an outage while that lasts, and what it has workers do meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mdtasks.cli.demo import outage_lines
from mdtasks.cli.demo_watch import Watcher
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.flows import demo
from mdtasks.flows.deps import Deps
from mdtasks.flows.providers import pause, resume, snapshot_once
from mdtasks.providers.faults import Faults
from mdtasks.providers.outages import Schedule
from mdtasks.store import job_reports
from mdtasks.store.reference import add_instruments
from tests.integration.cli_calls import work
from tests.integration.told import NAME, demote, promote

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def universe(cli_deps: Deps) -> None:
    with cli_deps.database.transaction() as connection:
        add_instruments(connection, demo.UNIVERSE)


def test_each_transition_is_a_line_once(cli_deps: Deps, capsys: pytest.CaptureFixture[str]) -> None:
    demote(cli_deps.health)
    snapshot_once(cli_deps, NOW)
    watcher = Watcher(cli_deps.database, [NAME, "simulator_2"])
    watcher.run_once(NOW)
    assert capsys.readouterr().err == ""  # from before it began
    promote(cli_deps.health)
    snapshot_once(cli_deps, NOW + timedelta(seconds=10))
    demote(cli_deps.health)
    snapshot_once(cli_deps, NOW + timedelta(seconds=20))
    watcher.run_once(NOW)
    watcher.run_once(NOW)
    promoted, demoted = capsys.readouterr().err.splitlines()
    assert promoted[8:].startswith(" UTC  simulator promoted: evidence 0.")
    assert promoted.endswith(">= 0.7; simulator serves   (mdtasks providers simulator)")
    assert demoted.endswith("< 0.55; simulator_2 serves   (mdtasks providers simulator)")


def test_a_pause_is_a_line_with_who_and_why(cli_deps: Deps, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher(cli_deps.database, [NAME])
    watcher.run_once(NOW)
    pause(NAME, "wrong splits", "ann", cli_deps, NOW)
    resume(NAME, "", "ben", cli_deps, NOW + timedelta(seconds=1))
    watcher.run_once(NOW)
    assert capsys.readouterr().err.splitlines() == [
        "09:30:00 UTC  simulator paused by ann: wrong splits; nobody is well   (mdtasks providers simulator)",
        "09:30:01 UTC  simulator resumed by ben; simulator serves   (mdtasks providers simulator)",
    ]


def test_it_says_what_will_happen_when() -> None:
    outage = Schedule.parse("45-75 latency_s=2.5; 75-150 error=1", NOW, Faults())
    lines = list(outage_lines(outage, NOW + timedelta(seconds=50)))
    assert lines[1:] == [
        "  09:30:45 to 09:31:15 UTC  it is slow (latency_s=2.5), now",
        "  09:31:15 to 09:32:30 UTC  it fails (error=1), in 25 s",
        "  from 09:32:30 UTC on it answers; once probes have shown it, it serves again by itself",
    ]
    assert list(outage_lines(Schedule(), NOW)) == []


def test_a_trickle_of_backfills_makes_jobs_that_anybody_may_serve(cli_deps: Deps) -> None:
    for number in (0, 1, 0):
        answer = demo.ask_further(cli_deps, number, NOW)
        assert answer.queued == 1
        assert work(cli_deps) == 1
    with cli_deps.database.transaction() as connection:
        rows = job_reports.list_jobs(connection, tier=Tier.T0)
    assert {row["interval"] for row in rows} == {str(Interval.M1)}
    assert {row["status"] for row in rows} == {"done"}
    assert {row["provider_hint"] for row in rows} == {None}
