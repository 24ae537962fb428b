"""A policy that changes again and again while jobs run and workers are killed: nothing is lost or done twice, each
attempt has one version, and all end with the last.
"""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mdtasks.domain.jobs import Tier
from mdtasks.flows import policies
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import open_deps
from mdtasks.flows.dispatch import dispatch_once, reconcile_once
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.policy_status import status
from tests.acceptance.harness import Worker, add_symbols, crew, differences, job_of, own_servers, rows, statuses, until

SEED = 20261124
SYMBOLS = ("S0", "S1", "S2", "S3", "S4")
LIMITS = {
    "MDTASKS_SIMULATOR_FAULTS": "latency_s=0.03",
    "MDTASKS_RETRY_BASE_S": "0.1",
    "MDTASKS_RETRY_MAX_S": "0.2",
    "MDTASKS_TIME_LIMIT_S": "15",
    "MDTASKS_LEASE_MARGIN_S": "3",
}


def candidate(number: int) -> bytes:
    """The ``number``-th policy: other attempts and caps each time."""
    tiers = "".join(
        f"  {tier}: {{cadence: {{eod: 1}}, keep: ['1d'], max_queue: {100 + number % 7}}}\n" for tier in Tier
    )
    return f"retry: {{attempts: {40 + number % 50}}}\ntiers:\n{tiers}".encode()


def kill_a_child(worker: Worker, chance: random.Random) -> None:
    with suppress(ProcessLookupError):
        os.kill(chance.choice(worker.children() or [0]) or 0, signal.SIGKILL)


@pytest.mark.chaos
def test_reloads_while_jobs_run_and_workers_are_killed(tmp_path: Path, full_size: bool) -> None:
    windows, reloads = (1000, 200) if full_size else (60, 30)
    chance = random.Random(SEED)
    with own_servers(tmp_path / "servers") as servers, crew(servers, tmp_path / "crew", **LIMITS) as made:
        deps = open_deps(servers.settings(**LIMITS))
        desk = desk_of(deps)
        add_symbols(deps.database, SYMBOLS)
        worker = made.started("t0", "T0", concurrency=2)
        made.started("letters", "dlq")
        jobs = [job_of(symbol, number) for number in range(windows) for symbol in SYMBOLS]
        applied = 0

        def reload() -> int:
            nonlocal applied
            applied += 1
            outcome = policies.apply(desk, candidate(applied), Asked("tests", f"change {applied}"), datetime.now(UTC))
            return outcome.version.version

        def over() -> bool:
            if applied < reloads:
                reload()
                if applied % 5 == 0:
                    kill_a_child(worker, chance)
            dispatch_once(deps)
            reconcile_once(deps, datetime.now(UTC), grace_s=2.0)
            return applied >= reloads and statuses(deps.database) == {"done": len(jobs)}

        enqueue_jobs(jobs, "tests", deps)
        until(over, "all jobs", within_s=900 if full_size else 200, told=lambda: str(statuses(deps.database)))
        assert differences(deps.database, SYMBOLS, windows) == []

        attempts = rows(deps.database, "SELECT worker, policy_version, outcome FROM job_attempts ORDER BY id")
        assert {each["outcome"] for each in attempts} <= {"done", "lost", "retry", "released"}
        seen: dict[str, list[int]] = defaultdict(list)
        for each in attempts:
            seen[each["worker"]].append(each["policy_version"])
        for process, versions in seen.items():
            assert versions == sorted(versions), f"{process} went back to an older policy"
        assert len({version for versions in seen.values() for version in versions}) > 3
        assert {row["jobs"] for row in rows(deps.database, _TWICE)} == set()

        last = reload()

        def all_look() -> bool:
            told = status(desk, datetime.now(UTC)).standings
            return all(each.word.version == last for each in told if each.word.process.startswith("worker"))

        # Idle by now, they look all the same; a child in the place of a killed one leaves word with its first job.
        until(all_look, "the last policy", told=lambda: str(status(desk, datetime.now(UTC)).as_dict()))
        more = [job_of(symbol, windows + number) for number in range(8) for symbol in SYMBOLS]
        enqueue_jobs(more, "tests", deps)
        wanted = {"done": len(jobs) + len(more)}

        def all_follow() -> bool:
            dispatch_once(deps)
            told = status(desk, datetime.now(UTC)).as_dict()["processes"]
            working = [each for each in told if each["process"].startswith("worker")]
            return statuses(deps.database) == wanted and any(each["policy_version"] == last for each in working)

        until(all_follow, "the last policy", told=lambda: str(status(desk, datetime.now(UTC)).as_dict()))
        (newest,) = rows(deps.database, "SELECT max(policy_version) AS v FROM job_attempts")
        assert newest["v"] == last
        states = {each["state"] for each in status(desk, datetime.now(UTC)).as_dict()["processes"]}
        assert states <= {"current", "idle"}
        deps.close()


#: Jobs that ended well more than once.
_TWICE = "SELECT job_id, count(*) AS jobs FROM job_attempts WHERE outcome = 'done' GROUP BY job_id HAVING count(*) > 1"
