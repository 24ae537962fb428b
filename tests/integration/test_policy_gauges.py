"""What a scrape tells of the policy: which process runs which version, and whether all that looked run the newest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import httpx
import pytest

from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy.canaries import Decision
from mdtasks.flows import policies as flow
from mdtasks.flows import policy_canaries
from mdtasks.flows.deps import Deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.policy_watch import EVERY_S, RUNNING_KEY, PolicyWatch
from mdtasks.observe import metrics
from mdtasks.settings import Settings
from mdtasks.store import policies
from mdtasks.web.gauges import look_for_scrape, readings
from tests.integration.policy_calls import ME, NOW, Clock, watch
from tests.integration.web_server import served

_THEIRS = "breaker: {demote: 0.85, promote: 0.9}"


def told(deps: Deps) -> dict[str, float]:
    """What a scrape now would read of the policy: metric, or metric and process -> value."""
    now = datetime.now(UTC)
    found = readings(anyio.run(look_for_scrape, deps, now), now)
    return {
        " ".join((each.gauge.name, *each.labels.values())): each.value
        for each in found
        if each.gauge.name.startswith("policy_")
    }


def test_two_processes_of_two_versions_are_told_apart(client: httpx.Client, deps: Deps, clock: Clock) -> None:
    quick = watch(deps, clock, "quick@here/1")
    stubborn = watch(deps, clock, "stubborn@here/1", BREAKER_PROMOTE_THRESHOLD="0.8")
    for each in (quick, stubborn):
        each.refresh(datetime.now(UTC))
    made = flow.apply(desk_of(deps), _THEIRS.encode(), ME, NOW).version
    clock.at += EVERY_S
    for each in (quick, stubborn):
        each.refresh(datetime.now(UTC))
    lines = client.get("/metrics").text.splitlines()
    assert 'policy_version{process="quick@here/1"} 1.0' in lines
    assert 'policy_version{process="stubborn@here/1"} 0.0' in lines
    assert "policy_newest_version 1.0" in lines
    assert "policy_reload_success 0.0" in lines
    assert made.created_at is not None
    (changed,) = [line for line in lines if line.startswith("policy_last_reload_timestamp_seconds ")]
    assert float(changed.split()[1]) == pytest.approx(made.created_at.timestamp(), abs=1e-3)
    stubborn.close()
    assert "policy_reload_success 1.0" in client.get("/metrics").text.splitlines()


def test_before_the_first_change_the_defaults_hold_everywhere(deps: Deps, clock: Clock) -> None:
    watch(deps, clock).refresh(datetime.now(UTC))
    assert told(deps) == {"policy_version one@here/1": 0, "policy_newest_version": 0, "policy_reload_success": 1}


def test_a_process_with_nothing_to_do_since_a_change_is_no_failure_and_one_that_lags_is(
    deps: Deps, clock: Clock
) -> None:
    idle, lags = watch(deps, clock, "idle@here/1"), watch(deps, clock, "lags@here/1")
    idle.refresh(datetime.now(UTC) - timedelta(hours=1))
    flow.apply(desk_of(deps), _THEIRS.encode(), ME, NOW)
    found = told(deps)
    assert (found["policy_version idle@here/1"], found["policy_newest_version"]) == (0, 1)
    assert found["policy_reload_success"] == 1
    policies.announce(deps.state, 0, seen=1)
    lags._sure_s = float("inf")  # it goes by the key alone
    lags.refresh(datetime.now(UTC) + timedelta(minutes=1))
    found = told(deps)
    assert (found["policy_version lags@here/1"], found["policy_reload_success"]) == (0, 0)


def test_who_refused_an_earlier_version_and_had_nothing_to_do_since_is_no_failure(deps: Deps, clock: Clock) -> None:
    stubborn = watch(deps, clock, BREAKER_PROMOTE_THRESHOLD="0.8")
    flow.apply(desk_of(deps), _THEIRS.encode(), ME, NOW)
    stubborn.refresh(datetime.now(UTC))
    assert told(deps)["policy_reload_success"] == 0
    flow.rollback(desk_of(deps), 0, ME, NOW)
    found = told(deps)
    assert (found["policy_version one@here/1"], found["policy_newest_version"]) == (0, 2)
    assert found["policy_reload_success"] == 1


def test_a_part_that_is_away_takes_along_only_what_it_would_have_said(
    settings: Settings, deps: Deps, clock: Clock
) -> None:
    watch(deps, clock).refresh(datetime.now(UTC))
    for url, kept in (("database_url", "policy_version{"), ("redis_url", "policy_newest_version ")):
        nowhere = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}[url]
        away = Settings.model_validate({url: nowhere})
        with served(settings.model_copy(update={url: getattr(away, url)})) as client:
            lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("policy_")]
        assert lines, url
        assert all(line.startswith(kept) for line in lines), lines


def test_a_word_that_cannot_be_read_hides_nothing_but_who_runs_what(deps: Deps) -> None:
    deps.state.hset(RUNNING_KEY, "strange@here/1", "{}")
    now = datetime.now(UTC)
    looked = anyio.run(look_for_scrape, deps, now)
    parts = {each.labels["part"]: each.value for each in readings(looked, now) if each.gauge is metrics.UP}
    assert parts == {"broker": 1, "redis": 1, "postgresql": 1}
    assert told(deps) == {"policy_newest_version": 0}


def test_what_a_tier_tries_is_told_while_it_does(deps: Deps, clock: Clock) -> None:
    desk = desk_of(deps)
    tries = PolicyWatch(deps.database, deps.state, {}, process="t2@here/1", serves=Tier.T2, clock=clock)
    other = watch(deps, clock, "t0@here/1")
    flow.apply(desk, b"retry: {attempts: 7}", ME, NOW)
    flow.apply(desk, b"retry: {attempts: 8}", Asked("me@here", canary=Tier.T2), NOW)
    for each in (tries, other):
        each.refresh(datetime.now(UTC))
    found = told(deps)
    assert (found["policy_canary_version T2"], found["policy_newest_version"], found["policy_reload_success"]) == (
        2,
        1,
        1,
    )
    assert (found["policy_version t2@here/1"], found["policy_version t0@here/1"]) == (2, 1)
    policy_canaries.end(desk, Decision.WITHDRAWN, Asked("me@here", ""), datetime.now(UTC))
    assert "policy_canary_version T2" not in told(deps)
