"""The policy with real servers: versions, two operators at once, Redis away, and who follows what."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mdtasks.connections import Database, open_redis
from mdtasks.domain.errors import InvalidPolicyError, NotFoundError, PolicyChangedError, StackNotRunningError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.policy import Policy, canonical, digest
from mdtasks.domain.policy.checks import MESSAGE_BYTES
from mdtasks.flows import policies as flow
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import Desk, desk_of, desk_without_servers, policy_file, read_file, shipped_file
from mdtasks.flows.policy_watch import AWAY_S, EVERY_S, RUNNING_KEY, SURE_S, PolicyWatch
from mdtasks.queue.app import make_app
from mdtasks.settings import Settings, load_settings
from mdtasks.store import policies
from mdtasks.store.reference import Instrument, add_instruments
from tests.wrong_policies import ALONE, HERE, RIGHT, Wrong

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)
ME = Asked("me@here", "why not")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings, application="mdtasks-tests")
    yield opened
    opened.close()


@pytest.fixture
def desk(deps: Deps) -> Desk:
    return desk_of(deps)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def away(settings: Settings) -> Iterator[redis.Redis]:
    """A Redis that does not answer."""
    client = open_redis("redis://127.0.0.1:1/0")
    yield client
    client.close()


def watch(deps: Deps, clock: Clock, name: str = "one@here/1", **environ: str) -> PolicyWatch:
    return PolicyWatch(deps.database, deps.state, environ, process=name, clock=clock)


def stored(deps: Deps) -> list[tuple[int, str]]:
    with deps.database.transaction() as connection:
        rows = connection.execute(text("SELECT version, body::text FROM policy_versions ORDER BY version"))
        return [(row.version, row.body) for row in rows]


def attempts(number: int) -> bytes:
    return f"retry: {{attempts: {number}}}".encode()


def test_a_version_is_kept_with_who_and_why_and_told_of(desk: Desk, deps: Deps) -> None:
    outcome = flow.apply(desk, attempts(7), ME, NOW)
    made = outcome.version
    assert (made.version, made.author, made.reason, made.parent, outcome.changed) == (1, "me@here", "why not", 0, True)
    assert [change.path for change in outcome.effects.changes] == ["retry.attempts"]
    assert outcome.announced
    assert not outcome.unseen
    assert policies.announced(deps.state) == 1
    policy = Policy.model_validate({"retry": {"attempts": 7}})
    assert made.hash == digest(policy)
    assert json.loads(stored(deps)[0][1]) == json.loads(canonical(policy))
    with deps.database.transaction() as connection:
        audit = connection.execute(text("SELECT actor, action, details FROM audit_log")).one()
    assert (audit.actor, audit.action, audit.details["version"]) == ("me@here", "policy.apply", 1)


def test_the_same_content_makes_no_version_however_it_is_written(desk: Desk, deps: Deps) -> None:
    first = flow.apply(desk, attempts(7), ME, NOW)
    again = flow.apply(desk, b'{"slo": {}, "retry": {"base_s": 2, "attempts": 7}}', Asked("you", expect=0), NOW)
    assert (again.version, again.changed) == (first.version, False)
    assert len(stored(deps)) == 1
    assert not flow.apply(desk_of(deps), flow_text(flow.newest(desk)), ME, NOW).changed


def flow_text(version: policies.Version) -> str:
    return json.dumps(version.body)


def test_the_defaults_are_version_0_and_applying_them_makes_none(desk: Desk, deps: Deps) -> None:
    outcome = flow.apply(desk, RIGHT, ME, NOW)
    assert (outcome.version.version, outcome.changed) == (0, False)
    assert stored(deps) == []


@pytest.mark.parametrize("expect", [0, 2, 99])
def test_another_version_than_was_expected_changes_nothing(desk: Desk, deps: Deps, expect: int) -> None:
    flow.apply(desk, attempts(7), ME, NOW)
    before = stored(deps)
    with pytest.raises(PolicyChangedError, match=f"at version 1, applied by me@here on .* not at {expect}") as refused:
        flow.apply(desk, attempts(8), Asked("you", expect=expect), NOW)
    assert refused.value.as_dict()["policy_version"] == 1
    assert stored(deps) == before


def test_of_two_operators_at_once_one_wins_and_the_other_is_told(settings: Settings, deps: Deps) -> None:
    both = threading.Barrier(2)
    won: list[int] = []
    told: list[PolicyChangedError] = []

    def operate(number: int) -> None:
        own = open_deps(settings, application="mdtasks-cli")
        try:
            desk = desk_of(own)
            verdict = flow.validate(desk, attempts(number), NOW)
            both.wait()
            asked = Asked(f"operator {number}", expect=verdict.base.version)
            won.append(flow.apply(desk, attempts(number), asked, NOW).version.version)
        except PolicyChangedError as error:
            told.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=operate, args=(number,)) for number in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]
    (error,) = told
    assert error.version == 1
    assert "applied by operator" in error.message
    assert len(stored(deps)) == 1


def test_who_judged_an_older_version_is_told_without_having_named_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = flow.validate

    def slowly(desk: Desk, data: bytes | str, now: datetime) -> flow.Verdict:
        verdict = judged(desk, data, now)
        monkeypatch.setattr(flow, "validate", judged)
        flow.apply(desk, attempts(8), Asked("faster"), now)
        return verdict

    monkeypatch.setattr(flow, "validate", slowly)
    with pytest.raises(PolicyChangedError, match="applied by faster"):
        flow.apply(desk, attempts(7), ME, NOW)


def test_no_wrong_candidate_changes_a_byte(desk: Desk, deps: Deps, clock: Clock) -> None:
    flow.apply(desk, attempts(7), ME, NOW)
    follower = watch(deps, clock)
    follower.refresh(NOW)
    before, running = stored(deps), follower.current
    content = canonical(running.policy)
    too_much = Wrong(
        "a quota", b"limits: {simulator: 5/min}", "tiers.T0.cadence.quotes_l1", "asks too much of simulator"
    )
    for wrong in (*ALONE, *HERE, too_much):
        assert wrong.path in [each.path for each in flow.validate(desk, wrong.data, NOW).wrongs], wrong.name
        with pytest.raises(InvalidPolicyError) as refused:
            flow.apply(desk, wrong.data, ME, NOW)
        assert wrong.path in [error["path"] for error in refused.value.errors], wrong.name
        clock.at += SURE_S
        follower.refresh(NOW)
        assert follower.current is running, wrong.name
    assert canonical(follower.policy) == content
    assert stored(deps) == before
    assert policies.announced(deps.state) == 1


def test_a_rollback_is_a_version_of_its_own(desk: Desk, deps: Deps) -> None:
    for number in (7, 8):
        flow.apply(desk, attempts(number), ME, NOW)
    outcome = flow.rollback(desk, 1, Asked("me", "too many"), NOW)
    made = outcome.version
    assert (made.version, made.parent, made.restores, made.hash) == (3, 2, 1, flow.one(desk, 1).hash)
    assert not flow.rollback(desk, 1, ME, NOW).changed
    back = flow.rollback(desk, 0, ME, NOW).version
    assert (back.restores, back.hash) == (0, digest(Policy()))
    assert [each.version for each in flow.history(desk)] == [4, 3, 2, 1]
    with pytest.raises(NotFoundError, match="no policy version 99"):
        flow.rollback(desk, 99, ME, NOW)
    with pytest.raises(NotFoundError):
        flow.rollback(desk, 10**30, ME, NOW)
    with pytest.raises(PolicyChangedError):
        flow.rollback(desk, 2, Asked("me", expect=3), NOW)


def test_what_could_not_be_looked_at_is_said(desk: Desk, away: redis.Redis) -> None:
    blind = Desk(desk.settings, desk.registry, {}, desk.database, away, away)
    verdict = flow.validate(blind, attempts(7), NOW)
    assert verdict.policy is not None
    assert [what.partition(":")[0] for what in verdict.unseen] == ["queues", "the broker's memory"]


def test_without_redis_a_change_is_made_and_told_of_later(
    desk: Desk, deps: Deps, away: redis.Redis, clock: Clock
) -> None:
    follower = watch(deps, clock)
    follower.refresh(NOW)
    assert policies.announced(deps.state) == 0
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
    assert policies.announced(deps.state) == 1


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

    for name in ("announced", "newest_version", "newest"):
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
    assert asked == ["announced", "newest_version", "newest"]
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
    assert policies.announced(deps.state) == 1
    assert follower.current.version == 1


def test_telling_late_does_not_hide_a_later_version(deps: Deps) -> None:
    policies.announce(deps.state, 6)
    policies.announce(deps.state, 5)
    assert policies.announced(deps.state) == 6
    policies.announce(deps.state, 5, seen=4)  # read before 6 was told of
    assert policies.announced(deps.state) == 6
    policies.announce(deps.state, 5, seen=6)  # a database that was restored
    assert policies.announced(deps.state) == 5


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
    assert [each.state for each in flow.status(desk, before).standings] == ["current"] * 3
    flow.apply(desk, b"breaker: {demote: 0.85, promote: 0.9}", ME, NOW)
    later = datetime.now(UTC) + timedelta(seconds=60)
    clock.at += EVERY_S
    quick.refresh(later)
    stubborn.refresh(later)
    found = flow.status(desk, later)
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
    assert (stubborn.current.version, flow.status(desk, later).behind) == (2, [])


def test_a_process_that_has_looked_and_runs_another_version_lags(desk: Desk, deps: Deps, clock: Clock) -> None:
    one = watch(deps, clock)
    one.refresh(datetime.now(UTC) + timedelta(minutes=5))
    flow.apply(desk, attempts(7), ME, NOW)
    assert [each.state for each in flow.status(desk, NOW).standings] == ["lags"]


def test_who_is_gone_is_forgotten(desk: Desk, deps: Deps, clock: Clock) -> None:
    left, killed, far = (watch(deps, clock, f"{name}@here/1") for name in ("left", "killed", "far"))
    for each in (left, killed, far):
        each.refresh(NOW)
    left.close()
    word = json.loads(deps.state.hget(RUNNING_KEY, "killed@here/1") or b"")
    deps.state.hset(RUNNING_KEY, "killed@here/1", json.dumps({**word, "started": word["started"] - 60}))
    deps.state.hset(RUNNING_KEY, "far@here/1", json.dumps({**word, "host": "far", "pid": 1}))
    assert [each.word.process for each in flow.status(desk, NOW).standings] == ["far@here/1"]
    assert flow.status(desk, NOW + timedelta(days=2)).standings == ()
    assert deps.state.hlen(RUNNING_KEY) == 0


def test_a_command_leaves_no_word_and_a_worker_does(settings: Settings) -> None:
    for application, names in (("mdtasks-cli", []), (f"mdtasks-worker-{os.getpid()}", ["worker"])):
        opened = open_deps(settings, application=application)
        opened.policy.refresh(NOW)
        found = flow.status(desk_of(opened), NOW).standings
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
    (standing,) = flow.status(desk, NOW).standings
    assert (standing.state, "new_section" in standing.why) == ("refuses", True)
    assert flow.apply(desk, attempts(8), ME, NOW).version.version == 3
    clock.at += EVERY_S
    follower.refresh(NOW)
    assert follower.policy.retry.attempts == 8


def test_numbers_of_versions_are_given_by_postgresql_alone(deps: Deps) -> None:
    statement = (
        "INSERT INTO policy_versions (version, hash, body, author, reason, parent) VALUES (1, '', '{}', '', '', 0)"
    )
    with (
        pytest.raises(DBAPIError, match="cannot insert a non-DEFAULT value"),
        deps.database.transaction() as connection,
    ):
        connection.execute(text(statement))


def test_quotas_are_of_the_symbols_that_there_are(desk: Desk, deps: Deps) -> None:
    limited = b"limits: {simulator: 12/min}"
    members = [Instrument(f"S{number}", "XNYS", tier=Tier.T0) for number in range(1500)]
    with deps.database.transaction() as connection:
        add_instruments(connection, members[:10])
    found = flow.plan_of(desk, limited, NOW)
    assert ({tier: n for tier, n in found.symbols.items() if n}, found.counted, found.fits) == ({"T0": 10}, True, False)
    assert [(quota.live_per_min, quota.limit_per_min) for quota in found.quotas] == [(13.0, 12.0)]
    flow.apply(desk, b"limits: {simulator: 13/min}", ME, NOW)
    with deps.database.transaction() as connection:
        add_instruments(connection, members[10:])
    assert flow.plan_of(desk, None, NOW).quotas[0].over_per_min == 13.0
    # what does not fit already hinders no change that makes it no worse
    assert flow.apply(desk, b"limits: {simulator: 13/min}\nretry: {attempts: 9}", ME, NOW).changed


def test_the_memory_of_a_waiting_job_is_not_more_than_is_planned(deps: Deps, settings: Settings) -> None:
    """Caps are held against the broker's memory by this figure."""
    app = make_app(settings)
    window = TimeWindow(start=NOW - timedelta(days=1), end=NOW)
    jobs = [
        BackfillJob(symbol=f"SYM{number}", interval=Interval.M1, time_window=window, priority=Tier.T0)
        for number in range(500)
    ]
    for job in jobs:
        app.send_task("mdtasks.backfill", args=[job.model_dump(mode="json")], queue="T0")
    used = deps.broker.memory_usage("T0", samples=0)
    assert deps.broker.llen("T0") == 500
    verdict = flow.validate(desk_of(deps), canonical(Policy()).replace('"max_queue":20000', '"max_queue":400'), NOW)
    assert verdict.effects.over_cap == (("T0", 400, 500),)
    assert used is not None
    assert MESSAGE_BYTES / 3 < used / 500 < MESSAGE_BYTES


def test_where_no_stack_runs_policies_are_judged_and_not_changed(tmp_path: Path) -> None:
    settings = load_settings({"MDTASKS_SIMULATOR": "1"}, home=tmp_path)
    desk = desk_without_servers(settings)
    assert flow.validate(desk, attempts(7), NOW).as_dict()["policy_version"] == 0
    with pytest.raises(StackNotRunningError):
        flow.apply(desk, attempts(7), ME, NOW)
    assert policy_file(settings) == shipped_file()
    assert flow.validate(desk, read_file(shipped_file()), NOW).effects.changes == ()
    (tmp_path / "policy.yaml").write_text("{}")
    assert policy_file(settings) == tmp_path / "policy.yaml"
    named = load_settings({"MDTASKS_POLICY_FILE": "/etc/mdtasks.yaml"}, home=tmp_path)
    assert policy_file(named) == Path("/etc/mdtasks.yaml")
