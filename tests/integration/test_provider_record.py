"""Providers' health on record: what is decided in Redis is in PostgreSQL once, wherever it is cut off; pauses hold."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.connections import Database, open_redis
from mdtasks.domain.errors import (
    BrokerUnavailableError,
    ConflictError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownProviderError,
)
from mdtasks.domain.health import Circuit, Parts, Standing
from mdtasks.flows import providers as flow
from mdtasks.flows.backfill import BackfillRequest, request_backfill
from mdtasks.flows.deps import Deps
from mdtasks.flows.providers import forget_once, mirror_pauses, pause, resume, snapshot_once
from mdtasks.store import providers
from mdtasks.store.health import HealthBook
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.told import NAME, demote, promote
from tests.integration.web_server import START

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
TEN = timedelta(seconds=10)


@pytest.fixture
def deps(cli_deps: Deps) -> Deps:
    return cli_deps


@pytest.fixture
def away(deps: Deps, settings: Any) -> Iterator[Deps]:
    """The same with a Redis that is not there."""
    with closing(open_redis("redis://127.0.0.1:1/0")) as nowhere:
        yield replace(deps, state=nowhere, health=HealthBook(nowhere, deps.health.rules))


def rows(deps: Deps, statement: str) -> list[Any]:
    with deps.database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def kinds(deps: Deps) -> list[str]:
    """Of the transitions on record, in the order in which they happened."""
    return [kind for (kind,) in rows(deps, "SELECT kind FROM provider_transitions ORDER BY at, id")]


def standing(deps: Deps) -> Standing:
    (found,) = flow.standings(deps)
    return found


class _DiedError(Exception):
    """The process died here."""


@contextmanager
def dies_at(target: Any, name: str, *, after: int = 0) -> Iterator[None]:
    """What is done inside dies where ``name`` is called, but for the first ``after`` calls."""
    real, calls = getattr(target, name), itertools.count()

    def die(*args: Any) -> Any:
        if next(calls) < after:
            return real(*args)
        raise _DiedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(target, name, die)
        with pytest.raises(_DiedError):
            yield


# -- looks -----------------------------------------------------------------------------------------


def test_a_look_is_kept_in_both(deps: Deps) -> None:
    assert snapshot_once(deps, NOW) == {"providers": 1, "transitions": 0, "woken": 0, "pauses": 0, "busy": 0}
    demote(deps.health)
    snapshot_once(deps, NOW + TEN)
    first, second = deps.health.history(NAME)
    well = {"latency": 1.0, "errors": 1.0, "completeness": 1.0}
    assert first == {"timestamp": NOW.isoformat(), "health_score": 1.0, "state": "closed", "parts": well}
    assert second["state"] == "open"
    kept = rows(deps, "SELECT at, score, state, latency, requests FROM provider_snapshots ORDER BY at")
    assert kept[0] == (NOW, 1.0, "closed", 1.0, 0)
    assert kept[1] == (NOW + TEN, second["health_score"], "open", second["parts"]["latency"], 4)


def test_a_look_of_the_same_moment_is_kept_once(deps: Deps) -> None:
    for _ in range(2):
        snapshot_once(deps, NOW)
    assert len(deps.health.history(NAME)) == len(rows(deps, "SELECT 1 FROM provider_snapshots")) == 1


def test_history_ends_with_the_last_sixty(deps: Deps) -> None:
    for number in range(63):
        snapshot_once(deps, NOW + number * TEN)
    found = [each["timestamp"] for each in deps.health.history(NAME)]
    assert found == [(NOW + number * TEN).isoformat() for number in range(3, 63)]
    assert len(rows(deps, "SELECT 1 FROM provider_snapshots")) == 63


# -- transitions -----------------------------------------------------------------------------------


def test_a_transition_is_on_record_with_its_case(deps: Deps) -> None:
    demote(deps.health)
    promote(deps.health)
    assert snapshot_once(deps, NOW)["transitions"] == 2
    assert deps.health.transitions() == []
    with deps.database.transaction() as connection:
        promoted, demoted = providers.transitions(connection, NAME)
    assert (demoted.kind, promoted.kind) == ("demoted", "promoted")
    assert demoted.score is not None
    assert demoted.score < 0.55 * 0.55 < 0.8 < (promoted.score or 0)
    assert [each["code"] for each in demoted.case["samples"]] == ["vendor_error"] * 4
    assert demoted.case["rules"] == {"demote": 0.55, "promote": 0.7, "min_samples": 3, "cooldown_s": 60.0}
    assert "0.522 < 0.55 (BREAKER_DEMOTE_THRESHOLD)" in demoted.case["arithmetic"]
    assert demoted.case["samples"][0]["at"].endswith("Z")


@pytest.mark.parametrize("place", ["forget_transitions", "keep_history"])
def test_cut_off_after_the_commit_nothing_is_on_record_twice(deps: Deps, place: str) -> None:
    demote(deps.health)
    with dies_at(HealthBook, place):
        snapshot_once(deps, NOW)
    assert (kinds(deps), len(deps.health.transitions())) == (["demoted"], 1)
    assert snapshot_once(deps, NOW + TEN)["transitions"] == 0
    assert (kinds(deps), deps.health.transitions()) == (["demoted"], [])


def test_cut_off_before_the_commit_nothing_is_lost(deps: Deps) -> None:
    demote(deps.health)
    promote(deps.health)
    with dies_at(providers, "add_transition", after=1):
        snapshot_once(deps, NOW)
    assert (kinds(deps), deps.health.history(NAME)) == ([], [])
    assert snapshot_once(deps, NOW)["transitions"] == 2
    assert kinds(deps) == ["demoted", "promoted"]


def test_what_comes_while_it_drains_stays_for_the_next(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    demote(deps.health)
    real = providers.add_looks

    def meanwhile(*args: Any) -> set[str]:
        promote(deps.health)
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(providers, "add_looks", meanwhile)
        snapshot_once(deps, NOW)
    assert [each.kind for each in deps.health.transitions()] == ["promoted"]
    snapshot_once(deps, NOW + TEN)
    assert kinds(deps) == ["demoted", "promoted"]


def test_who_drains_late_takes_nothing_of_what_came_since(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two read the same; one is done, and more comes, before the other drops what it has read."""
    demote(deps.health)
    real = HealthBook.forget_transitions

    def late(book: HealthBook, elements: Any) -> None:
        real(book, elements)
        promote(book)
        real(book, elements)

    with monkeypatch.context() as patched:
        patched.setattr(HealthBook, "forget_transitions", late)
        snapshot_once(deps, NOW)
    assert [each.kind for each in deps.health.transitions()] == ["promoted"]


def test_one_snapshot_at_a_time(deps: Deps) -> None:
    demote(deps.health)
    with deps.database.transaction() as connection:
        assert providers.take_turn(connection)
        assert snapshot_once(deps, NOW)["busy"] == 1
    assert (kinds(deps), len(deps.health.transitions()), deps.health.history(NAME)) == ([], 1, [])


def test_many_at_once_put_each_transition_on_record_once(deps: Deps) -> None:
    start = threading.Barrier(5)

    def snapshots(number: int) -> None:
        start.wait()
        for turn in range(10):
            snapshot_once(deps, NOW + timedelta(microseconds=100 * turn + number))

    def changes() -> int:
        start.wait()
        for _ in range(6):
            demote(deps.health)
            promote(deps.health)
        return 12

    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(snapshots, number) for number in range(4)]
        count = pool.submit(changes).result()
        for each in running:
            each.result()
    snapshot_once(deps, NOW + TEN)
    assert kinds(deps) == ["demoted", "promoted"] * (count // 2)
    assert deps.health.transitions() == []
    assert len(deps.health.history(NAME)) == min(60, len(rows(deps, "SELECT 1 FROM provider_snapshots")))


def test_what_cannot_be_read_is_dropped_with_a_word(
    deps: Deps, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.rpush("mdtasks:provider-transitions", b'{"of": "another version"}')
    demote(deps.health)
    assert snapshot_once(deps, NOW)["transitions"] == 1
    assert "another version" in caplog.text
    assert redis_client.llen("mdtasks:provider-transitions") == 0


# -- servers that are away -------------------------------------------------------------------------


def test_without_redis_nothing_is_made_up(away: Deps) -> None:
    with pytest.raises(BrokerUnavailableError):
        snapshot_once(away, NOW)
    assert rows(away, "SELECT 1 FROM provider_snapshots") == []


def test_without_postgresql_what_waits_stays(deps: Deps) -> None:
    demote(deps.health)
    with closing(Database("postgresql://nobody@127.0.0.1:1/none")) as nowhere, pytest.raises(StoreUnavailableError):
        snapshot_once(replace(deps, database=nowhere), NOW)
    assert snapshot_once(deps, NOW)["transitions"] == 1


# -- pauses ----------------------------------------------------------------------------------------


def test_a_pause_holds_everywhere_and_is_on_record(deps: Deps) -> None:
    snapshot_once(deps, NOW - TEN)
    made = pause(NAME, "  wrong splits ", "ann@desk", deps, NOW)
    assert (made.state, made.reason, made.in_force) == ("paused", "wrong splits", True)
    assert deps.health.admit(NAME, (), insist=True).verdict == "paused"
    assert (standing(deps).why_aside, standing(deps).circuit_gauge) == ("paused by ann@desk: wrong splits", 0.0)
    back = resume(NAME, "", "bob@desk", deps, NOW + TEN)
    assert (back.state, back.in_force, standing(deps).state) == ("resumed", True, "closed")
    with deps.database.transaction() as connection:
        resumed, paused = providers.transitions(connection)
    assert (paused.kind, paused.score, paused.case) == ("paused", 1.0, {"by": "ann@desk", "reason": "wrong splits"})
    assert resumed.case["paused"]["by"] == "ann@desk"
    assert rows(deps, "SELECT actor, action, details ->> 'provider' FROM audit_log ORDER BY id") == [
        ("ann@desk", "provider.pause", NAME),
        ("bob@desk", "provider.resume", NAME),
    ]


def test_who_pauses_what_is_paused_is_told_by_whom(deps: Deps) -> None:
    pause(NAME, "wrong splits", "ann@desk", deps, NOW)
    with pytest.raises(ConflictError, match=r"since 2026-11-24 09:30 UTC by ann@desk: wrong splits"):
        pause(NAME, "again", "bob@desk", deps, NOW + TEN)
    resume(NAME, "", "bob@desk", deps, NOW + TEN)
    with pytest.raises(ConflictError, match="is not paused"):
        resume(NAME, "", "bob@desk", deps, NOW + 2 * TEN)
    assert kinds(deps) == ["paused", "resumed"]


@pytest.mark.parametrize("change", [pause, resume])
def test_an_unknown_provider_is_refused_with_the_nearest(deps: Deps, change: Callable[..., Any]) -> None:
    with pytest.raises(UnknownProviderError, match="did you mean simulator"):
        change("simulater", "why", "ann", deps, NOW)


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 1001])
def test_a_reason_says_something_and_not_too_much(deps: Deps, reason: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        pause(NAME, reason, "ann", deps, NOW)
    assert (refused.value.field, kinds(deps)) == ("reason", [])


def test_a_reason_that_postgresql_could_not_hold_is_kept_readable(deps: Deps) -> None:
    pause(NAME, "odd \x00 \ud800", "ann", deps, NOW)
    assert mirror_pauses(deps).changed == 0  # what Redis holds is what PostgreSQL holds
    assert standing(deps).why_aside == r"paused by ann: odd \x00 \ud800"


def test_one_of_many_pauses(deps: Deps) -> None:
    start = threading.Barrier(6)

    def try_it(number: int) -> str:
        start.wait()
        try:
            return pause(NAME, f"reason {number}", f"user{number}", deps, NOW).by
        except ConflictError as told:
            return told.message

    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(try_it, range(6)))
    (winner,) = [each for each in said if each.startswith("user")]
    assert all(f"by {winner}:" in each for each in said if each != winner)
    assert standing(deps).pause == providers_pause(deps)
    assert kinds(deps) == ["paused"]


def providers_pause(deps: Deps) -> Any:
    with deps.database.transaction() as connection:
        return providers.pauses(connection).get(NAME)


def test_redis_that_comes_back_empty_is_told_of_the_pause_again(deps: Deps, redis_client: redis.Redis) -> None:
    pause(NAME, "wrong splits", "ann", deps, NOW)
    redis_client.flushall()
    assert standing(deps).pause is None
    assert snapshot_once(deps, NOW + TEN)["pauses"] == 1
    assert standing(deps).pause == providers_pause(deps)
    assert [each["state"] for each in deps.health.history(NAME)] == ["paused"]
    assert snapshot_once(deps, NOW + 2 * TEN)["pauses"] == 0


def test_a_pause_while_redis_is_away_takes_force_when_it_is_back(deps: Deps, away: Deps) -> None:
    assert pause(NAME, "wrong splits", "ann", away, NOW).in_force is False
    snapshot_once(deps, NOW + TEN)
    assert standing(deps).state == "paused"
    assert resume(NAME, "", "ann", away, NOW + TEN).in_force is False
    snapshot_once(deps, NOW + 2 * TEN)
    assert standing(deps).state == "closed"


def test_one_that_is_no_longer_configured_can_be_resumed(deps: Deps) -> None:
    pause(NAME, "wrong splits", "ann", deps, NOW)
    with deps.database.transaction() as connection:
        connection.execute(text("UPDATE provider_pauses SET provider = 'gone'"))
    mirror_pauses(deps)
    assert deps.health.admit("gone", ()).verdict == "paused"
    resume("gone", "", "ann", deps, NOW + TEN)
    assert deps.health.admit("gone", ()).verdict == "go"


# -- what waits for a provider ---------------------------------------------------------------------


@pytest.fixture
def held(deps: Deps) -> Deps:
    """Backfills of five days: two held back, one failed, one held back from another provider, one queued."""
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("BTC-USD", "24/7", "crypto")])
    asked = {"symbol": "BTC-USD", "start": START, "end": START + timedelta(days=5)}
    assert request_backfill(BackfillRequest.model_validate(asked), "tests", deps, NOW).queued == 5
    statement = """
        UPDATE backfill_jobs SET status = 'deferred', not_before = now() + interval '1 hour',
            last_error_class = (ARRAY['circuit_open', 'rate_spent', 'vendor_error', 'circuit_open'])[n],
            provider_hint = CASE n WHEN 2 THEN 'simulator' WHEN 4 THEN 'files' END
        FROM (SELECT id AS job, row_number() OVER (ORDER BY lower("window")) AS n FROM backfill_jobs) numbered
        WHERE id = job AND n < 5
    """
    with deps.database.transaction() as connection:
        connection.execute(text(statement))
    return deps


def due(deps: Deps) -> list[bool]:
    found = rows(
        deps, "SELECT coalesce(not_before <= now(), status = 'queued') FROM backfill_jobs ORDER BY lower(\"window\")"
    )
    return [each for (each,) in found]


def test_a_promotion_lets_what_waited_go_out_once(held: Deps) -> None:
    demote(held.health)
    assert snapshot_once(held, NOW)["woken"] == 0
    promote(held.health)
    with dies_at(HealthBook, "forget_transitions"):
        snapshot_once(held, NOW + TEN)
    assert due(held) == [True, True, False, False, True]
    with held.database.transaction() as connection:
        connection.execute(
            text("UPDATE backfill_jobs SET not_before = now() + interval '1 hour' WHERE status = 'deferred'")
        )
    assert snapshot_once(held, NOW + 2 * TEN)["woken"] == 0


def test_a_resumed_provider_lets_what_waited_go_out(held: Deps) -> None:
    pause(NAME, "wrong splits", "ann", held, NOW)
    assert due(held) == [False, False, False, False, True]
    resume(NAME, "", "ann", held, NOW + TEN)
    assert due(held) == [True, True, False, False, True]


def test_cut_off_between_the_servers_a_resume_is_ended_by_the_next_look(held: Deps) -> None:
    pause(NAME, "wrong splits", "ann", held, NOW)
    with dies_at(HealthBook, "pause"):
        resume(NAME, "", "ann", held, NOW + TEN)
    assert (standing(held).state, due(held)) == ("paused", [False, False, False, False, True])
    assert snapshot_once(held, NOW + TEN)["woken"] == 2
    assert (standing(held).state, due(held)) == ("closed", [True, True, False, False, True])


# -- retention -------------------------------------------------------------------------------------

#: Ages of looks up to ten days, several to ten minutes, each with how fast the provider was.
AGES = st.integers(0, 5760).map(lambda number: timedelta(seconds=150 * number))
LOOKS = st.lists(st.tuples(AGES, st.sampled_from([0.2, 0.5, 1.0])), unique_by=lambda look: look[0], max_size=40)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    looks=LOOKS,
    base=st.sampled_from([timedelta(days=days) for days in (0, 3, 392, 398)]),
    steps=st.lists(st.integers(0, 3000).map(lambda s: timedelta(seconds=s)), max_size=4),
)
def test_what_is_kept_is_the_worst_of_ten_minutes_however_often_it_is_thinned(
    deps: Deps, looks: list[tuple[timedelta, float]], base: timedelta, steps: list[timedelta]
) -> None:
    with deps.database.transaction() as connection:
        connection.execute(text("TRUNCATE provider_snapshots"))
        for age, latency in looks:
            look = Standing(NAME, Circuit.CLOSED, Parts(latency=latency))
            providers.add_looks(connection, [look], NOW - base - age)
    now = NOW - sum(steps, timedelta())
    for step in steps:
        forget_once(deps, now)
        now += step
    forget_once(deps, NOW)
    assert forget_once(deps, NOW) == {"pruned": 0, "thinned": 0}
    found = dict(rows(deps, "SELECT at, latency FROM provider_snapshots"))
    made = {NOW - base - age: latency for age, latency in looks if base + age <= timedelta(days=400)}
    young = {at: latency for at, latency in made.items() if at >= NOW - providers.KEPT_WHOLE}
    worst: dict[int, tuple[float, float]] = {}
    for at, latency in made.items():
        if at not in young:
            place = int(at.timestamp()) // 600
            worst[place] = min(worst.get(place, (2.0, 0.0)), (latency, -at.timestamp()))
    assert found == young | {datetime.fromtimestamp(-at, UTC): latency for latency, at in worst.values()}


def test_transitions_are_kept_as_long_as_looks_and_the_last_of_the_old_ones_for_ever(deps: Deps) -> None:
    with deps.database.transaction() as connection:
        for days in (399, 401, 402):
            providers.add_transition(connection, providers.Entry(NAME, NOW - timedelta(days=days), "demoted", 0.2, {}))
    assert forget_once(deps, NOW) == {"pruned": 1, "thinned": 0}
