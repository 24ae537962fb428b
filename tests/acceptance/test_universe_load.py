"""The universe changes again and again while workers are at it: every backfill is done, once, in whichever tier."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mdtasks.domain.listings import Kept
from mdtasks.flows import policies
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.flows.following import Follower
from mdtasks.flows.policies import Asked as PolicyAsked
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.universe import Asked, activate, refresh
from mdtasks.store import reference
from tests.acceptance.harness import MINUTES, crew, differences, job_of, own_servers, rows, statuses, until
from tests.acceptance.test_caps import repeating

SYMBOLS = [f"P{number:02}" for number in range(24)]
#: Half of them are T0, a quarter T1: which ones, the listing says.
POLICY = """
universe: {margin: 0}
tiers:
  T0: {size: 12, max_queue: 60, cadence: {bars_1m: 60, eod: 1}}
  T1: {size: 6, max_queue: 60, cadence: {bars_1m: 300, eod: 1}}
  T2: {max_queue: 60, cadence: {eod: 1}}
"""


def version(deps: Deps, day: int, symbols: list[str]) -> str:
    """A version in which these symbols are ranked as they stand."""
    lines = (f"{symbol},24/7,1,{1000 - rank}" for rank, symbol in enumerate(symbols))
    body = "\n".join(["symbol,mic,close,volume", *lines]).encode()
    return refresh("csv", [Kept(date(2024, 1, day), body)], Asked("test"), deps).version.version_tag


@pytest.mark.chaos
def test_an_activation_loses_no_job_that_waits_or_runs(tmp_path: Path, full_size: bool) -> None:
    each = 400 if full_size else 25
    with own_servers(tmp_path) as servers, crew(servers, tmp_path / "workers") as workers:
        deps = open_deps(servers.settings())
        policies.apply(desk_of(deps), POLICY, PolicyAsked("test"), datetime.now(UTC))
        follower = Follower(deps)
        deps.policy.refresh(datetime.now(UTC), at_once=True)
        deps = follower.refresh(datetime.now(UTC))
        orders = [SYMBOLS, SYMBOLS[::-1], SYMBOLS[12:] + SYMBOLS[:12]]
        tags = itertools.cycle([version(deps, day, order) for day, order in enumerate(orders, 2)])
        activate(next(tags), "test", "", deps, force=True)
        for name, queues in (("t0", "T0.live,T0"), ("t12", "T1.live,T1,T2.live,T2")):
            workers.started(name, queues, concurrency=2)
        changes: Counter[str] = Counter()

        def change() -> None:
            made, _ = activate(next(tags), "test", "", deps, force=True)
            assert made is not None
            changes.update(made.counts)

        beside = open_deps(servers.settings())
        beside = Follower(beside).refresh(datetime.now(UTC))
        with ExitStack() as stack:
            stack.enter_context(repeating(lambda: dispatch_once(beside), pause_s=0.05))
            stack.enter_context(repeating(change, pause_s=0.05))
            for number in range(each):
                ask(deps, number)
            wanted = {"done": len(SYMBOLS) * each}
            until(
                lambda: statuses(deps.database) == wanted, "every job is done", within_s=1200, told=lambda: str(changes)
            )
        print(f"\n{wanted} with {dict(changes)}")
        assert (changes["jobs_moved"] > 0, changes["up"] > 0, changes["down"] > 0) == (True, True, True)
        assert differences(deps.database, SYMBOLS, each) == []
        (counts,) = rows(
            deps.database,
            "SELECT (SELECT count(*) FROM bars) AS bars, (SELECT count(*) FROM dead_letters) AS letters,"
            " (SELECT count(*) FROM job_attempts WHERE outcome = 'done') AS done",
        )
        assert counts == {"bars": wanted["done"] * MINUTES, "letters": 0, "done": wanted["done"]}
        beside.close()
        deps.close()


def ask(deps: Deps, number: int) -> None:
    """Ask for a window of every symbol, in the tier that it has now."""
    with deps.database.transaction() as connection:
        members = reference.instruments(connection)
    answer = enqueue_jobs([job_of(each.symbol, number, tier=each.tier) for each in members], "test", deps)
    assert answer.queued + answer.deferred == len(SYMBOLS)
