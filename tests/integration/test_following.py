"""How processes work by a policy that was applied: between two pieces of work, whole, and each by the same values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import text

from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.flows import policies as flow
from mdtasks.flows.backfill import BackfillRequest, request_backfill
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.flows.following import Follower
from mdtasks.flows.ingest import run_backfill
from mdtasks.flows.monitor import forget_once, run_once
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.policy_status import status
from mdtasks.queue.app import make_app
from mdtasks.settings import Settings
from mdtasks.store.letters import Letter, record
from mdtasks.store.reference import Instrument, add_instruments
from mdtasks.worker.schedule import Scheduler
from tests.integration.cli_calls import environment_of
from tests.integration.policy_calls import ME

JSON = {"Content-Type": "application/json"}
NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)
TIERS: dict[str, dict[str, Any]] = {
    tier: {"cadence": {"bars_1m": 60.0, "eod": 1}, "max_queue": 20_000} for tier in ("T0", "T1", "T2")
}


@pytest.fixture
def follower(settings: Settings) -> Iterator[Follower]:
    opened = Follower(open_deps(settings, application="mdtasks-worker-1"))
    with opened.deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("BTC-USD", "24/7", "crypto", Tier.T0)])
    yield opened
    opened.close()


@pytest.fixture
def apply(follower: Follower) -> Callable[..., int]:
    """Applies a policy; returns its version. The processes under test have not looked yet."""

    def apply_(**sections: Any) -> int:
        outcome = flow.apply(desk_of(follower.deps), yaml.safe_dump(sections).encode(), ME, NOW)
        return outcome.version.version

    return apply_


def later(follower: Follower) -> Deps:
    """The Deps of a piece of work that begins after the watch looked again."""
    follower.deps.policy._next_s = float("-inf")
    return follower.refresh(NOW)


def test_the_next_piece_of_work_has_the_new_policy_and_the_one_under_way_the_old(
    follower: Follower, apply: Callable[..., int]
) -> None:
    before = follower.refresh(NOW)
    tiers = {**TIERS, "T0": {**TIERS["T0"], "max_queue": 7, "chunk_minutes": 30}}
    version = apply(
        tiers=tiers, breaker={"demote": 0.3, "promote": 0.9}, retry={"attempts": 9}, limits={"simulator": "5/min"}
    )
    after = later(follower)
    assert (before.settings.cap_t0, before.settings.max_attempts, before.running.version) == (20_000, 5, 0)
    assert (after.settings.cap_t0, after.settings.max_attempts, after.running.version) == (7, 9, version)
    assert (after.health.rules.demote, after.health.rules.promote) == (0.3, 0.9)
    assert [str(rate) for rate in after.registry.get("simulator").capabilities.rates] == ["5/min"]
    assert before.health.rules.demote == 0.55
    assert follower.refresh(NOW) is after
    (process,) = [each for each in status(desk_of(after), NOW).as_dict()["processes"] if "worker" in each["process"]]
    assert (process["policy_version"], process["state"]) == (version, "current")


def test_caps_and_pieces_of_the_new_policy_hold_at_once(follower: Follower, apply: Callable[..., int]) -> None:
    tiers = {**TIERS, "T0": {**TIERS["T0"], "max_queue": 3, "chunk_minutes": 10}}
    apply(tiers=tiers)
    deps = later(follower)
    start = NOW - timedelta(hours=2)
    asked = BackfillRequest(
        symbol=("BTC-USD",), interval=Interval.M1, start=start, end=start + timedelta(hours=1), refetch=True
    )
    answer = request_backfill(asked, "tests", deps, NOW)
    assert (answer.queued, answer.deferred) == (3, 3)
    app = deps.enqueuer._app
    assert app.conf.broker_transport_options["caps"]["T0"] == 3
    with app.connection_for_write() as connection:
        assert connection.default_channel.caps["T0"] == 3
        apply(tiers=TIERS)
        later(follower)
        assert connection.default_channel.caps["T0"] == 20_000  # a channel that is open has the new cap too


def test_a_cap_under_what_waits_loses_nothing_and_defers_what_is_new(
    follower: Follower, apply: Callable[..., int]
) -> None:
    def ask(deps: Deps, hours: int) -> tuple[int, int]:
        start = NOW - timedelta(hours=hours)
        asked = BackfillRequest(symbol=("BTC-USD",), refetch=True, start=start, end=start + timedelta(hours=1))
        answer = request_backfill(asked, "tests", deps, NOW)
        return answer.queued, answer.deferred

    small = {**TIERS, "T0": {**TIERS["T0"], "chunk_minutes": 10}}
    apply(tiers=small)
    assert ask(later(follower), 5) == (6, 0)
    apply(tiers={**small, "T0": {**small["T0"], "max_queue": 2}})
    deps = later(follower)
    assert ask(deps, 3) == (0, 6)
    assert deps.broker.llen("T0") == 6
    assert dispatch_once(deps).get("T0", 0) == 0
    deps.broker.ltrim("T0", 0, 0)  # a worker took five of them
    assert dispatch_once(deps)["T0"] == 1
    assert deps.broker.llen("T0") == 2


def test_looks_are_kept_as_long_as_the_policy_says(follower: Follower, apply: Callable[..., int]) -> None:
    deps = follower.refresh(NOW)
    columns = "objective, tier, interval, at, expected, violations, session_s, calendar_version, worst"
    looks = f"INSERT INTO slo_snapshots ({columns}) VALUES"
    with deps.database.transaction() as connection:
        for days in (10, 100, 300):
            at = NOW - timedelta(days=days)
            connection.execute(text(f"{looks} ('gap', 'T0', '1m', :at, 1, 0, 0, 0, '[]')"), {"at": at})
    assert forget_once(deps, NOW)["pruned"] == 0
    apply(retention={"slo_days": 60})
    assert forget_once(later(follower), NOW)["pruned"] == 2


def test_jobs_attempts_letters_and_looks_bear_the_version_that_they_were_made_under(
    follower: Follower, apply: Callable[..., int]
) -> None:
    version = apply(retry={"attempts": 9})
    deps = later(follower)
    window = TimeWindow(start=NOW - timedelta(hours=2), end=NOW - timedelta(hours=1))
    asked = BackfillRequest(symbol=("BTC-USD",), interval=Interval.M1, start=window.start, end=window.end)
    request_backfill(asked, "tests", deps, NOW)
    with deps.database.transaction() as connection:
        job_id = connection.execute(text("SELECT id FROM backfill_jobs")).scalar_one()
    run_backfill(BackfillJob(job_id=job_id, symbol="BTC-USD", time_window=window), deps, "t0@here/1", NOW)
    assert run_once(deps, NOW)["snapshots"]
    with deps.database.transaction() as connection:
        record(connection, Letter("letter", "backfill", "{}", "lost", "its worker was killed", job_id=job_id))
        for table in ("backfill_jobs", "job_attempts", "dead_letters", "slo_snapshots"):
            found = connection.execute(text(f"SELECT DISTINCT policy_version FROM {table}")).scalars().all()
            assert found == [version], table


def test_a_process_that_lacks_a_provider_of_the_order_keeps_the_old_policy_and_says_why(
    settings: Settings, follower: Follower, apply: Callable[..., int]
) -> None:
    other = Follower(
        open_deps(settings.model_copy(update={"simulator": False, "files_map": None}), application="mdtasks-worker-2")
    )
    before = other.refresh(NOW)
    version = apply(orders={"bars_1m": ["simulator"]})
    assert later(follower).running.version == version
    assert later(other).running.version == 0
    later(other)  # and says so
    assert other.deps is before
    told = {each["process"].partition("@")[0]: each for each in status(desk_of(before), NOW).as_dict()["processes"]}
    refusing = told["worker-2"]
    assert (refusing["state"], refusing["policy_version"]) == ("refuses", 0)
    assert "simulator" in refusing["error"]
    other.close()


def test_the_environment_wins_in_its_process(settings: Settings, apply: Callable[..., int]) -> None:
    pinned = Follower(open_deps(settings.model_copy(update={"max_attempts": 2}), application="mdtasks-worker-3"))
    apply(retry={"attempts": 9, "base_s": 7.0})
    deps = later(pinned)
    assert (deps.settings.max_attempts, deps.settings.retry_base_s) == (2, 7.0)
    pinned.close()


def test_a_request_to_the_web_app_has_the_policy_that_holds(
    client: httpx.Client, deps: Deps, eventually: Callable[..., None]
) -> None:
    answer = client.post("/ops/reload", content=json.dumps({"tiers": TIERS}), headers=JSON)
    assert answer.json()["ok"], answer.text

    def told() -> bool:
        tiers = client.get("/stats/cadence").json()["tiers"]
        return bool(tiers["T1"]["bars_1m"]["cadence_s"] == 60.0)

    eventually(told, within_s=10, what="the web app follows")


def test_a_command_works_by_the_policy(cli: Any, cli_deps: Deps, settings: Settings, tmp_path: Path) -> None:
    with cli_deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("BTC-USD", "24/7", "crypto", Tier.T0)])
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({"tiers": {**TIERS, "T0": {**TIERS["T0"], "max_queue": 1, "chunk_minutes": 10}}}))
    assert cli("policy", "apply", str(path), "--reason", "small").code == 0
    asked = ("backfill", "BTC-USD", "--start", "2026-11-20T10:00Z", "--end", "2026-11-20T11:00Z", "--json")
    answer = cli(*asked).json
    assert (answer["queued"], answer["deferred"]) == (1, 5)


@pytest.mark.filterwarnings("ignore:RedBeat will stop falling back")
def test_beats_table_is_that_of_the_newest_policy(
    settings: Settings, apply: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    app = make_app(settings)
    scheduler = Scheduler(app=app, lazy=True)
    scheduler.setup_schedule()

    def entries() -> dict[str, float]:
        found = app.redbeat_conf.schedule
        return {name: entry["schedule"] for name, entry in found.items() if name.startswith(("live_", "gaps_"))}

    assert entries()["live_T0_bars_1m"] == 60.0
    apply(
        tiers={
            **TIERS,
            "T0": {"cadence": {"bars_1m": 30.0, "eod": 1}, "max_queue": 5},
            "T1": {"cadence": {"eod": 1}, "max_queue": 5},
        }
    )
    scheduler._policy._next_s = float("-inf")
    scheduler.lock_key = None  # beat takes the lock when it starts
    scheduler.tick()
    assert entries()["live_T0_bars_1m"] == 30.0
    assert "live_T1_bars_1m" not in entries()
    kept = {str(key) for key in scheduler._policy._state.keys("mdtasks:beat*")}
    assert not any("live_T1_bars_1m" in key for key in kept)
    assert any("live_T0_bars_1m" in key for key in kept)
    scheduler.close()
