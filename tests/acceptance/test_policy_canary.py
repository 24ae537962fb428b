"""A policy that real workers of one tier try: only they follow it, their attempts judge it, all follow in the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from mdtasks.domain.jobs import Tier
from mdtasks.flows import policies, policy_canaries
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import open_deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.policy_status import status
from tests.acceptance.harness import add_symbols, crew, job_of, own_servers, rows, statuses, until


def test_a_tier_tries_it_and_then_all_follow(tmp_path: Path) -> None:
    with own_servers(tmp_path / "servers") as servers, crew(servers, tmp_path / "crew") as made:
        deps = open_deps(servers.settings())
        desk = desk_of(deps)
        add_symbols(deps.database, ("S0",))
        made.started("t0", "T0.live,T0", concurrency=1)
        made.started("t2", "T2.live,T2", concurrency=1)
        asked = 0

        def work() -> None:
            """A job for each tier."""
            nonlocal asked
            jobs = [job_of("S0", asked + n, tier=tier) for n, tier in enumerate((Tier.T0, Tier.T2))]
            asked += len(jobs)
            enqueue_jobs(jobs, "tests", deps)

        def versions() -> dict[str | None, int]:
            dispatch_once(deps)
            told = status(desk, datetime.now(UTC)).standings
            return {each.word.serves: each.word.version for each in told}

        work()
        until(lambda: versions() == {"T0": 0, "T2": 0}, "both at work", told=lambda: str(versions()))
        tried = Asked("tests", "try it", canary=Tier.T2, watch_s=30)
        version = policies.apply(desk, b"retry: {attempts: 9}", tried, datetime.now(UTC)).version.version
        # Idle as they are: nobody gives them anything to do until they have looked.
        until(lambda: versions() == {"T0": 0, "T2": version}, "the tier tries it", told=lambda: str(versions()))
        for _ in range(5):
            work()
        until(lambda: statuses(deps.database) == {"done": asked}, "its jobs")
        under = rows(deps.database, "SELECT worker, policy_version FROM job_attempts WHERE policy_version = 1")
        assert len(under) == 5
        assert all(each["worker"].startswith("t2@") for each in under)

        found = policy_canaries.judge_once(deps, datetime.now(UTC) + timedelta(seconds=31))
        assert found["decision"] == "promoted", found
        until(lambda: versions() == {"T0": version, "T2": version}, "all follow", told=lambda: str(versions()))
        deps.close()
