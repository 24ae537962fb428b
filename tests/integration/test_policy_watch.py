"""How processes follow the policy: what they ask whom, with Redis or PostgreSQL away, and how they are seen to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from sqlalchemy import text

from mdtasks.connections import Database, open_redis
from mdtasks.flows import policies as flow
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.policy_facts import Desk, desk_of
from mdtasks.flows.policy_status import status
from mdtasks.flows.policy_watch import AWAY_S, EVERY_S, RUNNING_KEY, SURE_S, PolicyWatch
from mdtasks.settings import Settings
from mdtasks.store import policies
from tests.integration.policy_calls import ME, NOW, Clock, attempts, watch


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings, application="mdtasks-tests")
    yield opened
    opened.close()


@pytest.fixture
def away(settings: Settings) -> Iterator[redis.Redis]:
    """A Redis that does not answer."""
    client = open_redis("redis://127.0.0.1:1/0")
    yield client
    client.close()


def test_without_redis_a_change_is_made_and_told_of_later(
    desk: Desk, deps: Deps, away: redis.Redis, clock: Clock
) -> None:
    follower = watch(deps, clock)
    follower.refresh(NOW)
    assert policies.announced(deps.state)[0] == 0
    blind = Desk(desk.settings, desk.registry, {}, desk.database, away, away)
    outcome = flow.apply(blind, attempts(7), ME, NOW)
    assert (outcome.changed, outcome.announced, outcome.version.version) == (True, False, 1)
    again = flow.apply(blind, attempts(7), ME, NOW)
    assert (again.changed, again.version) == (False, outcome.version)
    clock.at += EVERY_S
    follower.refresh(NOW)
    assert follower.current.version == 0  # nobody told
    clock.at += SURE_S
    follower.refresh(NOW)
    assert follower.current.version == 1  # it looks by itself, and tells the others
    assert policies.announced(deps.state)[0] == 1


def test_a_process_without_redis_looks_into_postgresql(desk: Desk, deps: Deps, away: redis.Redis, clock: Clock) -> None:
    follower = PolicyWatch(deps.database, away, {}, process="one@here/1", clock=clock)
    follower.refresh(NOW)
    flow.apply(desk, attempts(7), ME, NOW)
    clock.at += AWAY_S - 0.1
    follower.refresh(NOW)
    assert follower.current.version == 0
    clock.at += 0.1
    follower.refresh(NOW)
    assert follower.policy.retry.attempts == 7


def test_without_both_the_last_good_one_holds(deps: Deps, desk: Desk, away: redis.Redis, clock: Clock) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none")
    follower = PolicyWatch(nowhere, away, {"WS_REPLAY_MAX_BARS": "60"}, clock=clock)
    follower.refresh(NOW)
    assert (follower.current.version, follower.policy.replay.max_bars) == (0, 60)
    nowhere.close()


def test_who_begins_while_postgresql_is_away_follows_what_the_others_did(deps: Deps, desk: Desk, clock: Clock) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none")
    beginner = PolicyWatch(nowhere, deps.state, {"WS_REPLAY_MAX_BARS": "60"}, clock=clock)
    beginner.refresh(NOW)
    assert beginner.current.version == 0  # nobody has followed anything yet
    flow.apply(desk, attempts(7), ME, NOW)
    watch(deps, clock).refresh(NOW)
    clock.at += AWAY_S
    beginner.refresh(NOW)
    assert (beginner.current.version, beginner.policy.retry.attempts, beginner.policy.replay.max_bars) == (1, 7, 60)
    assert beginner.current.hash == flow.newest(desk).hash
    nowhere.close()


def test_a_process_asks_redis_once_a_second_and_postgresql_only_for_what_is_new(
    desk: Desk, deps: Deps, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(name: str) -> None:
        real = getattr(policies, name)

        def call(*args: object) -> object:
            asked.append(name)
            return real(*args)

        monkeypatch.setattr(policies, name, call)

    for name in ("announced", "holding", "one"):
        counted(name)
    follower = watch(deps, clock)
    follower.refresh(NOW)
    asked.clear()
    for _ in range(10):
        follower.refresh(NOW)
    assert asked == []
    for _ in range(5):
        clock.at += EVERY_S
        follower.refresh(NOW)
    assert asked == ["announced"] * 5
    flow.apply(desk, attempts(7), ME, NOW)
    asked.clear()
    clock.at += EVERY_S
    follower.refresh(NOW)
    assert asked == ["announced", "holding", "one"]
    assert follower.policy.retry.attempts == 7


def test_what_a_process_began_with_it_ends_with(desk: Desk, deps: Deps, clock: Clock) -> None:
    follower = watch(deps, clock)
    follower.refresh(NOW)
    begun = follower.current
    flow.apply(desk, attempts(7), ME, NOW)
    clock.at += EVERY_S
    follower.refresh(NOW)
    assert (begun.version, begun.policy.retry.attempts, follower.current.version) == (0, 5, 1)


@pytest.mark.parametrize("key", [None, "9", "rubbish", "0"])
def test_a_key_that_is_wrong_is_put_right(desk: Desk, deps: Deps, clock: Clock, key: str | None) -> None:
    flow.apply(desk, attempts(7), ME, NOW)
    follower = watch(deps, clock)
    follower.refresh(NOW)
    if key is None:
        deps.state.delete(policies.VERSION_KEY)
    else:
        deps.state.set(policies.VERSION_KEY, key)
    clock.at += EVERY_S
    follower.refresh(NOW)
    assert policies.announced(deps.state)[0] == 1
    assert follower.current.version == 1


def test_telling_late_does_not_hide_a_later_version(deps: Deps) -> None:
    policies.announce(deps.state, 6)
    policies.announce(deps.state, 5)
    assert policies.announced(deps.state)[0] == 6
    policies.announce(deps.state, 5, seen=4)  # read before 6 was told of
    assert policies.announced(deps.state)[0] == 6
    policies.announce(deps.state, 5, seen=6)  # a database that was restored
    assert policies.announced(deps.state)[0] == 5


def test_a_nudge_is_published(deps: Deps) -> None:
    with deps.state.pubsub() as heard:  # type: ignore[no-untyped-call]
        heard.subscribe(policies.CHANNEL)
        assert heard.get_message(timeout=5) is not None
        policies.announce(deps.state, 3)
        message = heard.get_message(timeout=5)
        assert message is not None
        assert message["data"] == b"3"


def test_who_runs_what_is_seen(desk: Desk, deps: Deps, clock: Clock) -> None:
    quick, idle = (watch(deps, clock, f"{name}@here/1") for name in ("quick", "idle"))
    stubborn = watch(deps, clock, "stubborn@here/1", BREAKER_PROMOTE_THRESHOLD="0.8")
    before = datetime.now(UTC) - timedelta(hours=1)
    for each in (quick, idle, stubborn):
        each.refresh(before)
    assert [each.state for each in status(desk, before).standings] == ["current"] * 3
    flow.apply(desk, b"breaker: {demote: 0.85, promote: 0.9}", ME, NOW)
    later = datetime.now(UTC) + timedelta(seconds=60)
    clock.at += EVERY_S
    quick.refresh(later)
    stubborn.refresh(later)
    found = status(desk, later)
    states = {each.word.process.partition("@")[0]: each for each in found.standings}
    assert {name: each.state for name, each in states.items()} == {
        "quick": "current",
        "idle": "idle",
        "stubborn": "refuses",
    }
    assert "breaker.demote: 0.85 must be below breaker.promote (0.8)" in states["stubborn"].why
    assert [each.word.process for each in found.behind] == ["stubborn@here/1"]
    assert (states["quick"].word.version, states["quick"].word.since) == (1, later)
    assert (found.version.version, found.announced) == (1, 1)
    assert stubborn.policy.breaker.promote == 0.8  # the last good one, with its own variable
    flow.rollback(desk, 0, ME, NOW)
    clock.at += EVERY_S
    for each in (quick, idle, stubborn):
        each.refresh(later)
    assert (stubborn.current.version, status(desk, later).behind) == (2, [])


def test_a_process_that_has_looked_and_runs_another_version_lags(desk: Desk, deps: Deps, clock: Clock) -> None:
    one = watch(deps, clock)
    one.refresh(datetime.now(UTC) + timedelta(minutes=5))
    flow.apply(desk, attempts(7), ME, NOW)
    assert [each.state for each in status(desk, NOW).standings] == ["lags"]


def test_who_is_gone_is_forgotten(desk: Desk, deps: Deps, clock: Clock) -> None:
    left, killed, far = (watch(deps, clock, f"{name}@here/1") for name in ("left", "killed", "far"))
    for each in (left, killed, far):
        each.refresh(NOW)
    left.close()
    word = json.loads(deps.state.hget(RUNNING_KEY, "killed@here/1") or b"")
    deps.state.hset(RUNNING_KEY, "killed@here/1", json.dumps({**word, "started": word["started"] - 60}))
    deps.state.hset(RUNNING_KEY, "far@here/1", json.dumps({**word, "host": "far", "pid": 1}))
    assert [each.word.process for each in status(desk, NOW).standings] == ["far@here/1"]
    assert status(desk, NOW + timedelta(days=2)).standings == ()
    assert deps.state.hlen(RUNNING_KEY) == 0


def test_a_command_leaves_no_word_and_a_worker_does(settings: Settings) -> None:
    for application, names in (("mdtasks-cli", []), (f"mdtasks-worker-{os.getpid()}", ["worker"])):
        opened = open_deps(settings, application=application)
        opened.policy.refresh(NOW)
        found = status(desk_of(opened), NOW).standings
        assert [each.word.process.partition("@")[0] for each in found] == names
        opened.close()


def test_a_version_that_this_mdtasks_cannot_read_is_not_followed_and_can_be_replaced(
    desk: Desk, deps: Deps, clock: Clock
) -> None:
    flow.apply(desk, attempts(7), ME, NOW)
    follower = watch(deps, clock)
    follower.refresh(NOW)
    with deps.database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO policy_versions (hash, body, author, reason, parent)"
                " VALUES ('x', '{\"new_section\": {}}', 'a newer mdtasks', '', 1)"
            )
        )
    clock.at += SURE_S
    follower.refresh(NOW)
    assert follower.policy.retry.attempts == 7
    (standing,) = status(desk, NOW).standings
    assert (standing.state, "new_section" in standing.why) == ("refuses", True)
    assert flow.apply(desk, attempts(8), ME, NOW).version.version == 3
    clock.at += EVERY_S
    follower.refresh(NOW)
    assert follower.policy.retry.attempts == 8
