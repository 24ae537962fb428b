"""The policy at rest: versions, two operators at once, candidates that change nothing, quotas of what there is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mdtasks.connections import open_redis
from mdtasks.domain.errors import InvalidPolicyError, NotFoundError, PolicyChangedError, StackNotRunningError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.policy import Policy, canonical, digest
from mdtasks.domain.policy.checks import MESSAGE_BYTES
from mdtasks.flows import policies as flow
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import Desk, desk_of, desk_without_servers, policy_file, read_file, shipped_file
from mdtasks.flows.policy_watch import SURE_S
from mdtasks.queue.app import make_app
from mdtasks.settings import Settings, load_settings
from mdtasks.store import policies
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.policy_calls import ME, NOW, Clock, attempts, watch
from tests.wrong_policies import ALONE, HERE, RIGHT, Wrong


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


def stored(deps: Deps) -> list[tuple[int, str]]:
    with deps.database.transaction() as connection:
        rows = connection.execute(text("SELECT version, body::text FROM policy_versions ORDER BY version"))
        return [(row.version, row.body) for row in rows]


def test_a_version_is_kept_with_who_and_why_and_told_of(desk: Desk, deps: Deps) -> None:
    outcome = flow.apply(desk, attempts(7), ME, NOW)
    made = outcome.version
    assert (made.version, made.author, made.reason, made.parent, outcome.changed) == (1, "me@here", "why not", 0, True)
    assert [change.path for change in outcome.effects.changes] == ["retry.attempts"]
    assert outcome.announced
    assert not outcome.unseen
    assert policies.announced(deps.state)[0] == 1
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
    assert policies.announced(deps.state)[0] == 1


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
