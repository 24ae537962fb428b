"""An outside coordinator's jobs are each done once, though the process that takes them is killed again and again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import reconcile_once
from mdtasks.observe.scrape import exposition
from mdtasks.settings import load_settings
from tests.acceptance.harness import Crew, Worker, add_symbols, crew, differences, job_of, own_servers, rows, until

KILLS = 5
SYMBOLS = [f"RLC{number}" for number in range(20)]
#: Of a hundred jobs: backfills, live fetches, and one that is not valid.
BACKFILLS, LIVE = 90, 9
INVALID = (
    "{",
    json.dumps({"type": "quotes_fetch", "symbols": []}),
    job_of("NOBODY", 0).model_dump_json(),
    job_of("RLC0", 0).model_dump_json().replace('"T0"', '"T7"'),
)


def pushed(hundreds: range) -> Iterator[tuple[str, str]]:
    """(list, element) of so many hundreds of jobs; no two of them want the same."""
    for hundred in hundreds:
        for number in range(hundred * BACKFILLS, (hundred + 1) * BACKFILLS):
            job = job_of(SYMBOLS[number % len(SYMBOLS)], number // len(SYMBOLS))
            yield "market:backfills:T0", job.model_dump_json()
        for number in range(LIVE):
            fetch = {"job_id": f"quotes.{hundred}.{number}", "type": "quotes_fetch", "priority": "T0"}
            yield "market:jobs", json.dumps({**fetch, "symbols": [SYMBOLS[number]]})
        yield "market:jobs", INVALID[hundred % len(INVALID)]


def started(made: Crew) -> Worker:
    """An intake, as it is typed by hand."""
    log = made.folder / f"intake-{len(made.workers)}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mdtasks", "intake"],
            env={**os.environ, **made.environ},
            cwd=made.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    worker = Worker("intake", log, process)
    made.workers.append(worker)
    return worker


def depths(deps: Deps) -> dict[str, int]:
    """What waits in the coordinator's lists, and what intakes hold."""
    assert deps.coordinator is not None
    return deps.coordinator.depths()


def killed_at_work(intake: Worker, deps: Deps) -> None:
    """Kill an intake while it holds jobs. Looks often: it holds them for some hundredths of a second."""
    deadline = time.monotonic() + 60
    while not depths(deps)["held"]:
        assert intake.alive, intake.said()
        assert time.monotonic() < deadline, intake.said()
        threading.Event().wait(0.001)
    intake.kill()


@pytest.mark.chaos
def test_jobs_of_a_coordinator_are_each_done_once_though_the_intake_is_killed_five_times(
    tmp_path: Path, full_size: bool
) -> None:
    hundreds = 100 if full_size else 10
    with (
        own_servers(tmp_path / "servers") as servers,
        crew(servers, tmp_path / "crew", USE_RLC="1", RLC_LIVE_EXPIRES_S="3600") as made,
        closing(open_deps(load_settings(dict(made.environ)))) as deps,
    ):
        add_symbols(deps.database, SYMBOLS)
        made.started("t0", "T0.live,T0", concurrency=2)
        for part in range(KILLS):
            intake = started(made)
            for key, element in pushed(range(hundreds * part // KILLS, hundreds * (part + 1) // KILLS)):
                deps.broker.lpush(key, element)
            killed_at_work(intake, deps)
        last = started(made)
        until(lambda: not any(depths(deps).values()), "all are taken", told=last.said)
        until(lambda: _done(deps) == hundreds * (BACKFILLS + LIVE), "all are done", within_s=600)
        last.process.send_signal(signal.SIGTERM)
        assert last.process.wait(15) == 0, last.said()
        _each_once(deps, hundreds)
        counted = exposition(lambda: (), deps.settings.metrics_dir).decode()
        assert 'intake_jobs_total{result="queued",type="backfill"}' in counted
        assert differences(deps.database, SYMBOLS, hundreds * BACKFILLS // len(SYMBOLS)) == []


def test_while_a_server_is_away_the_intake_waits_and_then_takes_everything_once(tmp_path: Path) -> None:
    elements = list(pushed(range(3)))
    with (
        own_servers(tmp_path / "servers") as servers,
        crew(servers, tmp_path / "crew", USE_RLC="1", RLC_LIVE_EXPIRES_S="3600") as made,
        closing(open_deps(load_settings(dict(made.environ)))) as deps,
    ):
        add_symbols(deps.database, SYMBOLS)
        intake = started(made)
        for server, part in ((servers.postgres, elements[:100]), (servers.redis, elements[100:200])):
            servers.end(server)
            if server is servers.postgres:
                _push(deps, part)
                until(lambda: depths(deps)["held"], "they are held", told=intake.said)
            said = intake.said().count("jobs wait in their lists")
            until(lambda said=said: intake.said().count("jobs wait") > said, "it waits", told=intake.said)  # type: ignore[misc]
            servers.start(server)
            _push(deps, part)  # a coordinator that repeats what it said before
        _push(deps, elements[200:])
        until(lambda: not any(depths(deps).values()), "all are taken", told=intake.said)
        assert intake.alive
        found = rows(deps.database, "SELECT id FROM backfill_jobs")
        assert (len(found), deps.broker.llen("T0.live")) == (3 * BACKFILLS, 3 * LIVE)
        assert reconcile_once(deps, datetime.now(UTC), grace_s=0).doubled == 0


def _push(deps: Deps, elements: list[tuple[str, str]]) -> None:
    for key, element in elements:
        deps.broker.lpush(key, element)


def _done(deps: Deps) -> int:
    """How many jobs are done. Does beat's round: what was killed between row and message is sent by it."""
    reconcile_once(deps, datetime.now(UTC), grace_s=5)
    found = rows(deps.database, "SELECT count(DISTINCT job_id) AS jobs FROM job_attempts WHERE outcome = 'done'")
    return int(found[0]["jobs"])


def _each_once(deps: Deps, hundreds: int) -> None:
    """Every valid job has one attempt, every invalid one a letter that names what is wrong; there is nothing else."""
    doubled = "SELECT job_id, count(*) FROM job_attempts GROUP BY job_id HAVING count(*) > 1"
    assert rows(deps.database, doubled) == []
    by_type = rows(deps.database, "SELECT job_type, count(*) AS jobs FROM job_attempts GROUP BY 1 ORDER BY 1")
    assert {row["job_type"]: row["jobs"] for row in by_type} == {
        "backfill": hundreds * BACKFILLS,
        "quotes_fetch": hundreds * LIVE,
    }
    letters = rows(deps.database, "SELECT kind, message FROM dead_letters")
    assert len(letters) == hundreds
    assert {row["kind"] for row in letters} == {"poison"}
    assert {row["message"].partition(":")[0] for row in letters} == {"job", "symbols", "symbol", "priority"}
