"""`mdtasks runbook`: each fault is caused on real servers, named first, and repaired where mdtasks can do it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
import redis
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.jobs import Tier
from mdtasks.flows import doctor, policies
from mdtasks.flows.backfill import BackfillRequest, request_backfill
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import last_proof, reconcile_once
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.policy_watch import EVERY_S
from mdtasks.flows.runbooks import books
from mdtasks.flows.runbooks.rounds import CHECKS, look
from mdtasks.queue import backlog
from mdtasks.store import jobs
from mdtasks.store import policies as policies_at_rest
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.cli_calls import Called, Cli
from tests.integration.policy_calls import ME, NOW, Clock, watch
from tests.integration.web_server import START, dies, waiting_ids


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of these tests are heard ten times a second: nobody has to listen for two."""
    monkeypatch.setattr(doctor, "_HEARTBEAT_EVERY_S", 0.4)


@contextmanager
def alive(client: redis.Redis, *nodes: str) -> Iterator[None]:
    """Workers that say that they live."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.1):
            for node in nodes:
                message = orjson.dumps({"headers": {"hostname": node}, "body": ""})
                client.publish("/0.celeryev/worker.heartbeat", message)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def sound(redis_client: redis.Redis, cli_deps: Deps) -> Iterator[None]:
    """Workers of every queue, and a beat that ticks."""
    reconcile_once(cli_deps, datetime.now(UTC))
    with alive(redis_client, "t0@test", "t1@test", "t2@test", "control@test"):
        yield


def first(called: Called) -> dict[str, Any]:
    """The likeliest cause."""
    assert called.json["findings"], called.out
    found: dict[str, Any] = called.json["findings"][0]
    return found


def audited(database: Database) -> list[tuple[str, dict[str, Any]]]:
    """What people have done: action and details."""
    with database.transaction() as connection:
        return [(row.action, row.details) for row in connection.execute(text("SELECT action, details FROM audit_log"))]


def run(database: Database, statement: str, **values: Any) -> None:
    """One statement, as the fault itself would leave it."""
    with database.transaction() as connection:
        connection.execute(text(statement), values)


def asked(deps: Deps, count: int) -> list[str]:
    """So many queued backfills of T1, a day each; their ids, the next one first."""
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("BTC-USD", "24/7", "crypto")])
    request = BackfillRequest.model_validate(
        {"symbol": "BTC-USD", "start": START, "end": START + timedelta(days=count)}
    )
    assert request_backfill(request, "tests", deps, datetime.now(UTC)).queued
    return waiting_ids(deps.broker)


def claimed(deps: Deps, job_id: str) -> None:
    """A worker is at it."""
    with deps.database.transaction() as connection:
        assert jobs.claim(connection, job_id, "t1@test/1", 60) is not None


def test_every_alert_is_looked_at() -> None:
    assert set(CHECKS) == set(books.names())


def test_the_list_names_every_alert(cli: Cli) -> None:
    listed = cli("runbook", "--json")
    assert list(listed.json) == books.names()
    assert "PartDown" in cli("runbook").out


@pytest.mark.usefixtures("sound")
def test_nothing_wrong_is_said_so(cli: Cli) -> None:
    found = cli("runbook", "backfillqueuetoodeep")
    assert (found.code, "nothing was found" in found.out) == (0, True)
    assert cli("runbook", "BackfillQueueTooDeep", "--apply").code == 4
    assert cli("runbook", "BackfillQueueToDeep").code == 3


def test_a_postgresql_that_is_away_is_named_and_what_leans_on_it_is_not_guessed_at(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDTASKS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    found = cli("runbook", "SLOGapViolationHighT0", "--json")
    assert first(found)["cause"] == "postgres cannot be used"
    assert found.code == 1
    assert any(words.startswith("letters_by_cause: ") for words in found.json["unseen"])


def test_a_redis_without_memory_is_named(cli: Cli, redis_client: redis.Redis) -> None:
    used = int(redis_client.info("memory")["used_memory"])
    redis_client.config_set("maxmemory", used + used // 20)
    try:
        found = cli("runbook", "PartDown", "--json")
    finally:
        redis_client.config_set("maxmemory", 0)
    assert first(found)["cause"] == "redis cannot be used"
    assert "give it more memory" in first(found)["repair"]


def test_workers_that_are_all_silent_are_named(cli: Cli, cli_deps: Deps) -> None:
    reconcile_once(cli_deps, datetime.now(UTC))
    asked(cli_deps, 2)
    found = first(cli("runbook", "WorkerMissing", "--json"))
    assert found["cause"] == "no worker is alive"
    assert "T1 holds 2" in found["evidence"]


def test_a_queue_that_nobody_serves_is_named(cli: Cli, cli_deps: Deps, redis_client: redis.Redis) -> None:
    reconcile_once(cli_deps, datetime.now(UTC))
    asked(cli_deps, 2)
    with alive(redis_client, "t0@test", "control@test"):
        found = first(cli("runbook", "BackfillOldestTooOld", "--json"))
    assert found["cause"] == "no worker takes from the queue T1"
    assert found["repair"] == "celery -A mdtasks worker -Q T1.live,T1 -n t1@%h"


@pytest.mark.parametrize("alert", ["BeatMissing", "ReconcilerProofTooOld"])
def test_a_beat_that_is_silent_is_named_and_its_round_done(
    cli: Cli, cli_deps: Deps, database: Database, redis_client: redis.Redis, alert: str
) -> None:
    asked(cli_deps, 1)
    claimed(cli_deps, *waiting_ids(cli_deps.broker))
    with alive(redis_client, "t1@test", "control@test"):
        found = cli("runbook", alert, "--json")
        assert (first(found)["cause"], first(found)["automatic"]) == ("beat does not tick", True)
        assert last_proof(cli_deps) is None  # to look changes nothing
        assert audited(database) == []
        assert cli("runbook", alert, "--apply").code == 2  # there is nobody to ask
        assert audited(database) == []
        done = cli("runbook", alert, "--apply", "--yes", "--json")
    assert done.code == 0
    proof = last_proof(cli_deps)
    assert proof is not None
    assert done.json["done"]["result"]["reconciled"]["at"] == proof.at
    ((action, details),) = audited(database)
    assert action == f"runbook.{alert}"
    assert details["cause"] == "beat does not tick"
    assert details["result"]["reconciled"]["lost"] == 0


def test_messages_that_nobody_takes_from_control_are_told_from_a_beat_that_is_silent(
    cli: Cli, redis_client: redis.Redis
) -> None:
    redis_client.rpush("control", *["{}"] * 30)
    with alive(redis_client, "t1@test"):
        assert first(cli("runbook", "BeatMissing", "--json"))["cause"] == "no worker serves the queue control"


@pytest.mark.usefixtures("sound")
def test_what_the_broker_lost_is_named_and_sent_again(
    cli: Cli, cli_deps: Deps, database: Database, redis_client: redis.Redis
) -> None:
    lost = asked(cli_deps, 3)
    redis_client.delete("T1")
    run(database, "UPDATE backfill_jobs SET queued_at = now() - interval '1 minute'")
    found = first(cli("runbook", "BackfillOldestTooOld", "--json"))
    assert found["cause"] == "the broker lost messages"
    assert cli("runbook", "BackfillOldestTooOld", "--apply", typed="y\n").code == 0
    assert sorted(waiting_ids(cli_deps.broker)) == sorted(lost)
    ((action, details),) = audited(database)
    assert (action, details["result"]["reconciled"]["lost"]) == ("runbook.BackfillOldestTooOld", 3)


def test_what_is_deferred_and_not_sent_is_sent(
    cli: Cli, cli_deps: Deps, database: Database, redis_client: redis.Redis
) -> None:
    asked(cli_deps, 3)
    redis_client.delete("T1")
    run(database, "UPDATE backfill_jobs SET status = 'deferred', queued_at = NULL")
    with alive(redis_client, "t1@test", "control@test"):
        causes = [each["cause"] for each in cli("runbook", "BackfillDrainsTooSlowly", "--json").json["findings"]]
        assert causes[:2] == ["beat does not tick", "what is deferred is not sent"]
        assert cli("runbook", "BackfillDrainsTooSlowly", "--apply", "--yes").code == 0
    assert backlog.depths(cli_deps.broker)["T1"] == 3


@pytest.mark.usefixtures("sound")
def test_letters_are_named_by_cause_and_the_largest_group_sent_again(
    cli: Cli, cli_deps: Deps, database: Database
) -> None:
    ids = asked(cli_deps, 4)
    for job_id in ids[:3]:
        dies(cli_deps, job_id, error_class="no_data")
    dies(cli_deps, ids[3], error_class="unsupported")
    found = cli("runbook", "DLQGrowing", "--json")
    assert [each["cause"] for each in found.json["findings"]] == [
        "jobs failed for good: no_data of simulator",
        "jobs failed for good: unsupported of simulator",
    ]
    assert first(found)["repair"].endswith("mdtasks dlq requeue --error no_data --provider simulator")
    done = cli("runbook", "DLQGrowing", "--apply", "--yes", "--json")
    assert done.json["done"]["result"]["requeued"] == 3
    assert sorted(waiting_ids(cli_deps.broker)) == sorted(ids[:3])
    ((action, details),) = audited(database)
    assert (action, details["result"]["requeued"]) == ("runbook.DLQGrowing", 3)


@pytest.mark.usefixtures("sound")
def test_poison_is_not_sent_again(cli: Cli, database: Database) -> None:
    run(
        database,
        "INSERT INTO dead_letters (id, kind, error_class, message, envelope, task)"
        " VALUES ('p', 'poison', 'bad_message', 'no JSON', '{', '')",
    )
    assert first(cli("runbook", "DLQGrowing", "--json"))["automatic"] is False
    refused = cli("runbook", "DLQGrowing", "--apply", "--yes", "--json")
    assert (refused.code, refused.json["code"]) == (4, "conflict")
    assert audited(database) == []


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize(
    ("error_class", "repair"),
    [("auth", "renew its key"), ("vendor_error", "there is no other provider: wait for it")],
)
def test_a_provider_that_fails_is_named_before_the_letters_it_causes(
    cli: Cli, cli_deps: Deps, error_class: str, repair: str
) -> None:
    for job_id in asked(cli_deps, 4):
        dies(cli_deps, job_id, error_class=error_class)
    for alert in ("ProviderDown", "ProviderDemoted", "SLOGapViolationHighT1", "DLQGrowing"):
        found = first(cli("runbook", alert, "--json"))
        assert found["cause"] == "the provider simulator fails"
        assert "4 of 4 attempts" in found["evidence"][0]
        assert repair in found["repair"]


def ended_before(database: Database, minutes: int) -> None:
    """What has ended until now ended so long ago."""
    run(database, f"UPDATE job_attempts SET ended_at = now() - interval '{minutes} minutes'")


@pytest.mark.usefixtures("sound")
def test_a_provider_that_answered_well_until_minutes_ago_is_named_first_and_gets_no_letters(
    cli: Cli, cli_deps: Deps, database: Database
) -> None:
    ids = asked(cli_deps, 34)
    for job_id in ids[:30]:
        claimed(cli_deps, job_id)
    run(
        database,
        "UPDATE job_attempts SET outcome = 'done', provider = 'simulator', ended_at = now()",
    )
    ended_before(database, 10)
    for job_id in ids[30:]:
        dies(cli_deps, job_id, error_class="vendor_error")
    found = cli("runbook", "DLQGrowing", "--json")
    assert (first(found)["cause"], first(found)["automatic"]) == ("the provider simulator fails", False)
    assert first(found)["evidence"][0] == "4 of 4 attempts within 5 min"
    assert not any(each["automatic"] for each in found.json["findings"])
    refused = cli("runbook", "DLQGrowing", "--apply", "--yes", "--json")
    assert (refused.code, "wait for it" in refused.json["hint"]) == (4, True)
    assert audited(database) == []


@pytest.mark.usefixtures("sound")
def test_a_single_failure_of_now_keeps_letters_from_being_sent_to_its_provider(
    cli: Cli, cli_deps: Deps, database: Database
) -> None:
    ids = asked(cli_deps, 5)
    for job_id in ids[:4]:
        dies(cli_deps, job_id, error_class="timeout")
    ended_before(database, 10)
    sent = first(cli("runbook", "DLQGrowing", "--json"))
    assert (sent["cause"], sent["automatic"]) == ("jobs failed for good: timeout of simulator", True)
    assert "the gap scan revives them by itself" in sent["repair"]
    dies(cli_deps, ids[4], error_class="timeout")
    assert cli("runbook", "DLQGrowing", "--apply", "--yes", "--json").code == 4
    assert backlog.depths(cli_deps.broker)["T1"] == 0


@pytest.mark.usefixtures("sound")
def test_a_provider_that_limits_the_rate_is_named(cli: Cli, cli_deps: Deps) -> None:
    for job_id in asked(cli_deps, 4):
        with cli_deps.database.transaction() as connection:
            claim = jobs.claim(connection, job_id, "t1@test/1", 60)
            assert claim is not None
            jobs.fail(connection, claim, jobs.Ending("retry", "simulator", "rate_limited", "429"), 600)
        cli_deps.broker.delete("T1")
    causes = [each["cause"] for each in cli("runbook", "SLOGapViolationHighT1", "--json").json["findings"]]
    assert causes[0] == "simulator limits the rate"
    assert "jobs of T1 failed and are tried again" in causes


@pytest.mark.usefixtures("sound")
def test_an_exchange_without_a_bar_this_session_may_be_shut(cli_deps: Deps, database: Database) -> None:
    symbols = [Instrument(name, "XHKG") for name in ("0001.HK", "0005.HK", "0700.HK")]
    with database.transaction() as connection:
        add_instruments(connection, [*symbols, Instrument("BTC-USD", "24/7", "crypto")])
    # The day of the typhoon: the library holds it for a session.
    now = datetime(2023, 9, 1, 3, tzinfo=UTC)
    run(
        database,
        "INSERT INTO coverage (instrument_id, interval, covered, fresh_until)"
        " SELECT id, '1m', '{}', CASE mic WHEN '24/7' THEN CAST(:now AS timestamptz)"
        " ELSE CAST('2023-08-31 08:00Z' AS timestamptz) END FROM instruments",
        now=now,
    )
    found = look("SLOGapViolationHighT1", cli_deps, now).findings[0]
    assert found.cause == "XHKG may be shut today"
    assert "mdtasks calendar close XHKG 2023-09-01" in found.repair.words
    assert "others have bars: 24/7" in found.evidence
    run(database, "UPDATE coverage SET fresh_until = '2023-09-01 02:59Z' WHERE instrument_id = 1")
    causes = [each.cause for each in look("SLOGapViolationHighT1", cli_deps, now).findings]
    assert "XHKG may be shut today" not in causes


def test_a_calendar_that_ends_soon_is_named(cli_deps: Deps, database: Database) -> None:
    with database.transaction() as connection:
        add_instruments(connection, [Instrument("500325.BO", "XBOM")])
    horizon = cli_deps.calendars.get("XBOM").horizon
    found = look("CalendarHorizonNear", cli_deps, horizon - timedelta(days=40)).findings[0]
    assert found.cause == "a calendar ends soon"
    assert "XBOM" in found.evidence[0]
    assert not look("CalendarHorizonNear", cli_deps, horizon - timedelta(days=400)).findings


@pytest.mark.usefixtures("sound")
def test_bars_that_were_refused_are_named(cli: Cli, database: Database) -> None:
    run(
        database,
        "INSERT INTO bar_quarantine (instrument_id, interval, ts, reason, provider, attempt_id, bar)"
        " SELECT 1, '1m', now() - n * interval '1 minute', 'high_below_low', 'files', 1, '{}'"
        " FROM generate_series(1, 60) n",
    )
    found = first(cli("runbook", "QuarantineGrowing", "--json"))
    assert found["cause"] == "files sends bars that break a rule: high_below_low"
    assert "60 bars of 1 instruments" in found["evidence"][0]


@pytest.mark.usefixtures("sound")
def test_a_queue_at_its_cap_is_named_with_the_cap_that_would_do(
    cli: Cli, cli_deps: Deps, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = asked(cli_deps, 4)
    claimed(cli_deps, ids[0])
    run(database, "UPDATE backfill_jobs SET status = 'deferred', queued_at = NULL WHERE id = :id", id=ids[1])
    monkeypatch.setenv("BACKFILL_MAX_QUEUE_T1", "4")
    found = first(cli("runbook", "BackfillQueueTooDeep", "--json"))
    assert found["cause"] == "the queue T1 is at its cap"
    assert found["repair"].endswith("BACKFILL_MAX_QUEUE_T1=5")


@pytest.mark.usefixtures("sound")
def test_more_than_the_workers_do_is_named(cli: Cli, cli_deps: Deps) -> None:
    claimed(cli_deps, asked(cli_deps, 15)[0])
    found = first(cli("runbook", "BackfillQueueTooDeep", "--json"))
    assert found["cause"] == f"{Tier.T1} is asked for more than its workers do"
    assert "MDTASKS_CONCURRENCY=4" in found["repair"]


@pytest.mark.usefixtures("sound")
def test_who_does_not_follow_the_policy_is_named_with_why(cli: Cli, cli_deps: Deps) -> None:
    clock = Clock()
    desk = desk_of(cli_deps)
    stubborn = [
        watch(cli_deps, clock, f"worker@here/{number}", BREAKER_PROMOTE_THRESHOLD="0.8") for number in range(1, 8)
    ]
    idle = watch(cli_deps, clock, "idle@here/1")
    for each in (*stubborn, idle):
        each.refresh(datetime.now(UTC) - timedelta(hours=1))
    assert cli("runbook", "PolicyNotFollowed", "--json").json["findings"] == []
    policies.apply(desk, b"breaker: {demote: 0.85, promote: 0.9}", ME, NOW)
    clock.at += EVERY_S
    stubborn[0].refresh(datetime.now(UTC))
    found = first(cli("runbook", "PolicyNotFollowed", "--json"))
    assert (found["cause"], found["automatic"]) == ("worker@here/1 refuses policy 1", False)
    assert found["evidence"][0] == "they say: breaker.demote: 0.85 must be below breaker.promote (0.8)"
    assert re.fullmatch(r"worker@here/1 runs version 0, last heard \d+ s ago", found["evidence"][1])
    assert found["repair"].endswith('mdtasks policy rollback 0 --reason "..."')
    for each in stubborn[1:]:
        each.refresh(datetime.now(UTC))
    found = first(cli("runbook", "PolicyNotFollowed", "--json"))
    assert found["cause"] == "7 processes refuse policy 1"
    assert found["evidence"][-1] == "and 2 more: mdtasks policy status"
    assert not any("idle@here" in line for line in found["evidence"])
    for each in (*stubborn, idle):
        each.close()
    ahead = watch(cli_deps, clock, "ahead@here/1")
    policies_at_rest.announce(cli_deps.state, 0, seen=1)
    ahead._sure_s = float("inf")  # it goes by the key alone, which is wrong
    ahead.refresh(datetime.now(UTC) + timedelta(minutes=5))
    found = first(cli("runbook", "PolicyNotFollowed", "--json"))
    assert found["cause"] == "ahead@here/1 lags behind policy 1"
    assert found["evidence"] == ["ahead@here/1 runs version 0, its clock is 5 min ahead"]


def test_letters_that_nobody_records_are_named(cli: Cli, cli_deps: Deps, redis_client: redis.Redis) -> None:
    reconcile_once(cli_deps, datetime.now(UTC))
    redis_client.rpush("dlq", "{}", "{}")
    with alive(redis_client, "t1@test"):
        found = first(cli("runbook", "DLQStuck", "--json"))
    assert found["cause"] == "nobody consumes the queue dlq"
    assert "2 letters wait" in found["evidence"]


@pytest.mark.usefixtures("sound")
def test_a_session_that_holds_others_up_is_named(
    cli: Cli, database_url: str, database: Database, eventually: Any
) -> None:
    with (
        psycopg.connect(database_url, application_name="somebody") as holder,
        psycopg.connect(database_url, autocommit=True) as watcher,
    ):
        pid = holder.info.backend_pid
        holder.execute("LOCK TABLE coverage IN ACCESS EXCLUSIVE MODE")
        waiting = threading.Thread(target=run, args=(database, "LOCK TABLE coverage"))
        waiting.start()

        def waits() -> bool:
            row = watcher.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
            return row is not None and row[0] > 0

        eventually(waits)
        found = first(cli("runbook", "WriteLatencyHigh", "--json"))
        holder.rollback()
        waiting.join()
    assert found["cause"] == "a session holds locks that others wait for"
    assert found["evidence"][0].startswith(f"somebody (pid {pid}, idle in transaction)")
    assert f"pg_terminate_backend({pid})" in found["repair"]


@pytest.mark.usefixtures("sound")
def test_a_monitor_that_does_not_look_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert first(cli("runbook", "SLOMonitorDead", "--json"))["cause"] == "the monitor does not look"
    monkeypatch.setenv("SLO_EVERY_S", "0")
    assert first(cli("runbook", "SLOMonitorDead", "--json"))["cause"] == "the monitor is turned off"


@pytest.mark.usefixtures("sound")
def test_a_web_app_that_cannot_be_reached_is_named(cli: Cli) -> None:
    assert first(cli("runbook", "MetricsAbsent", "--json"))["cause"] == "the web app cannot be reached"


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize("alert", ["GapsOpenTooLong", "CoverageIncomplete"])
def test_gaps_are_named_with_their_symbols(cli: Cli, database: Database, alert: str) -> None:
    with database.transaction() as connection:
        add_instruments(connection, [Instrument("AAPL", "XNYS", tier=Tier.T0)])
    run(
        database,
        'INSERT INTO gaps (instrument_id, interval, "window", missing, found_at, found_by)'
        " SELECT id, '1m', '[2024-01-02 15:00Z,2024-01-02 16:00Z)', 60, now() - interval '3 hours', 'scan'"
        " FROM instruments",
    )
    found = first(cli("runbook", alert, "--json"))
    assert found["cause"] == "gaps of T0 1m are open"
    assert found["evidence"] == ["1 open, the oldest for 3 h: AAPL"]


@pytest.mark.usefixtures("sound")
def test_the_series_that_reaches_least_far_is_named(cli: Cli, database: Database) -> None:
    with database.transaction() as connection:
        add_instruments(connection, [Instrument("AAPL", "24/7"), Instrument("MSFT", "24/7")])
    run(
        database,
        "INSERT INTO coverage (instrument_id, interval, covered, fresh_until)"
        " SELECT id, '1m', '{}', now() - id * interval '1 hour' FROM instruments",
    )
    assert first(cli("runbook", "IngestionLagHigh", "--json"))["cause"] == "24/7 1m: MSFT, AAPL reach least far"
