"""A policy that one tier tries first: who follows it, what it is judged by, how it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from mdtasks.domain.errors import CanaryError, ConflictError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy.canaries import Decision
from mdtasks.flows import policies as flow
from mdtasks.flows import policy_canaries
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import Desk, desk_of
from mdtasks.flows.policy_status import status
from mdtasks.flows.policy_watch import SURE_S, PolicyWatch
from mdtasks.settings import Settings
from mdtasks.store import canaries
from tests.integration.policy_calls import ME, NOW, Clock, attempts

TRY = Asked("me@here", "try it", canary=Tier.T2, watch_s=60)


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings, application="mdtasks-tests")
    yield opened
    opened.close()


@pytest.fixture
def watches(deps: Deps, clock: Clock) -> dict[str, PolicyWatch]:
    """A process for each tier, one for T1 and T2 together, and the web app."""
    serves = {"t0": Tier.T0, "t2": Tier.T2, "all": None, "web": None}
    return {
        name: PolicyWatch(deps.database, deps.state, {}, process=f"{name}@here/1", serves=tier, clock=clock)
        for name, tier in serves.items()
    }


def look(watches: dict[str, PolicyWatch], clock: Clock, later_s: float = 2.0) -> dict[str, int]:
    clock.at += later_s
    for each in watches.values():
        each.refresh(datetime.now(UTC))
    return {name: each.current.version for name, each in watches.items()}


def ended(deps: Deps, version: int, good: int, bad: int = 0) -> None:
    """Attempts that were made under a version and have ended."""
    with deps.database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO job_attempts (job_id, job_type, attempt, fence, worker, policy_version, started_at,"
                " ended_at, outcome) SELECT 'job-' || n, 'backfill', 1, n, 't@h/1', :version, now(), now(),"
                " CASE WHEN n <= :bad THEN 'retry' ELSE 'done' END FROM generate_series(1, :all) n"
            ),
            {"version": version, "bad": bad, "all": good + bad},
        )


def in_s(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_only_who_serves_the_tier_alone_tries_it_until_it_holds_everywhere(
    desk: Desk, deps: Deps, watches: dict[str, PolicyWatch], clock: Clock
) -> None:
    flow.apply(desk, attempts(3), ME, NOW)
    assert set(look(watches, clock).values()) == {1}
    outcome = flow.apply(desk, attempts(4), TRY, NOW)
    assert (outcome.version.version, outcome.canary, flow.newest(desk).version) == (2, Tier.T2, 1)
    assert look(watches, clock) == {"t0": 1, "t2": 2, "all": 1, "web": 1}
    assert {each.word.process: each.state for each in status(desk, datetime.now(UTC)).standings} == {
        "t0@here/1": "current",
        "t2@here/1": "canary",
        "all@here/1": "current",
        "web@here/1": "current",
    }
    ended(deps, 2, good=30)
    assert policy_canaries.judge_once(deps, in_s(30))["decision"] == "wait"
    assert policy_canaries.judge_once(deps, in_s(61))["decision"] == "promoted"
    assert policy_canaries.judge_once(deps, in_s(66)) == {"canary": None}
    assert flow.newest(desk).version == 2
    assert set(look(watches, clock).values()) == {2}
    assert flow.history(desk)[0].canary == (
        "promoted: 0 of 30 attempts did not end well under it, 0 of 0 attempts did not end well beside it"
    )


def test_one_that_is_worse_is_taken_back_and_nobody_else_has_seen_it(
    desk: Desk, deps: Deps, watches: dict[str, PolicyWatch], clock: Clock
) -> None:
    flow.apply(desk, attempts(3), ME, NOW)
    ended(deps, 1, good=40)
    flow.apply(desk, attempts(4), TRY, NOW)
    assert look(watches, clock)["t2"] == 2
    ended(deps, 2, good=2, bad=8)
    assert policy_canaries.judge_once(deps, in_s(5))["decision"] == "withdrawn"
    assert set(look(watches, clock).values()) == {1}
    assert (flow.newest(desk).version, deps.state.exists(canaries.CANARY_KEY)) == (1, 0)
    # The number is used up: the next change is another version, of which nobody can say that it was seen before.
    assert flow.apply(desk, attempts(5), ME, NOW).version.version == 3


def test_who_cannot_follow_it_ends_it(desk: Desk, deps: Deps, clock: Clock) -> None:
    flow.apply(desk, attempts(3), ME, NOW)
    t2 = PolicyWatch(deps.database, deps.state, {}, process="t2@here/1", serves=Tier.T2, clock=clock)

    def unfit(running: object) -> None:
        raise ValueError("no such provider here")

    t2.refresh(NOW)
    t2.fit = unfit
    flow.apply(desk, attempts(4), TRY, NOW)
    clock.at += 2
    t2.refresh(NOW)
    assert t2.current.version == 1
    found = policy_canaries.judge_once(deps, in_s(3))
    assert (found["decision"], found["why"]) == (
        "withdrawn",
        "it cannot be followed: t2@here/1: no such provider here",
    )


def test_while_it_is_tried_the_policy_changes_for_nobody_else(desk: Desk) -> None:
    flow.apply(desk, attempts(3), ME, NOW)
    first = flow.apply(desk, attempts(4), TRY, NOW)
    again = flow.apply(desk, attempts(4), TRY, NOW)
    assert (again.version.version, again.changed) == (first.version.version, False)
    for refused in (ME, Asked("me@here", canary=Tier.T1)):
        with pytest.raises(CanaryError, match="the workers of T2 try policy 2, applied by me@here"):
            flow.apply(desk, attempts(4), refused, NOW)
    with pytest.raises(CanaryError):
        flow.rollback(desk, 0, ME, NOW)
    policy_canaries.end(desk, Decision.WITHDRAWN, Asked("you@there", "no"), datetime.now(UTC))
    assert flow.history(desk)[0].canary == "withdrawn by you@there: no"
    assert flow.rollback(desk, 0, ME, NOW).version.version == 3


def test_it_is_ended_once(settings: Settings, desk: Desk) -> None:
    flow.apply(desk, attempts(4), TRY, NOW)
    answers: list[str] = []
    both = threading.Barrier(2)

    def end(decision: Decision) -> None:
        mine = open_deps(settings, application="mdtasks-tests")
        both.wait()
        try:
            policy_canaries.end(desk_of(mine), decision, Asked("x", ""), datetime.now(UTC))
            answers.append(decision)
        except ConflictError:
            answers.append("told")
        mine.close()

    threads = [threading.Thread(target=end, args=(each,)) for each in (Decision.PROMOTED, Decision.WITHDRAWN)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(answers) in (["promoted", "told"], ["told", "withdrawn"])
    with pytest.raises(ConflictError, match="no policy is being tried"):
        policy_canaries.end(desk, Decision.PROMOTED, Asked("x", ""), datetime.now(UTC))


def test_a_key_that_was_lost_or_is_wrong_is_put_right(
    desk: Desk, deps: Deps, watches: dict[str, PolicyWatch], clock: Clock
) -> None:
    flow.apply(desk, attempts(3), ME, NOW)
    flow.apply(desk, attempts(4), TRY, NOW)
    look(watches, clock)
    deps.state.flushall()
    assert look(watches, clock, SURE_S + 1) == {"t0": 1, "t2": 2, "all": 1, "web": 1}
    assert deps.state.get(canaries.CANARY_KEY) == b"2:T2"
    policy_canaries.end(desk, Decision.WITHDRAWN, Asked("x", ""), datetime.now(UTC))
    deps.state.set(canaries.CANARY_KEY, "2:T2")  # by somebody who had read PostgreSQL just before
    assert set(look(watches, clock, SURE_S + 1).values()) == {1}
    assert deps.state.get(canaries.CANARY_KEY) is None


def test_a_trial_reads_as_json(desk: Desk) -> None:
    flow.apply(desk, attempts(4), TRY, NOW)
    found = policy_canaries.trial(desk, datetime.now(UTC))
    assert found is not None
    told = json.loads(json.dumps(found.as_dict(), default=str))
    assert (told["policy_version"], told["tier"], told["would_be"], told["decision"]) == (1, "T2", "wait", None)
    assert told["evidence"] == {"under": {"attempts": 0, "errors": 0}, "beside": {"attempts": 0, "errors": 0}}
