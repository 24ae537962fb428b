"""Probes and metrics; and how the app answers what no endpoint answers."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from mdtasks.domain.jobs import Tier
from mdtasks.flows import monitor, presence
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import reconcile_once
from mdtasks.observe import metrics
from mdtasks.observe.metrics import Gauge
from mdtasks.settings import Settings
from mdtasks.store.reference import Instrument, add_instruments
from mdtasks.store.schema import head_revision
from mdtasks.web.gauges import look_for_scrape, read_markets, readings
from mdtasks.web.parsing import MAX_BODY
from tests.integration.web_server import asked, request_document, served


def _without(settings: Settings, **urls: str) -> Settings:
    given = Settings.model_validate(urls)
    return settings.model_copy(update={name: getattr(given, name) for name in urls})


NO_REDIS = {"redis_url": "redis://127.0.0.1:1/0"}
NO_POSTGRES = {"database_url": "postgresql://nobody@127.0.0.1:1/none"}


def _samples(client: httpx.Client) -> dict[tuple[str, str], float]:
    """What a scrape reads: (metric, its labels' values in the order of their names) -> value."""
    scraped = client.get("/metrics")
    assert scraped.status_code == 200
    assert scraped.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, "/".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(scraped.text)
        for sample in family.samples
    }


def test_the_process_is_alive_whatever_is_away(settings: Settings) -> None:
    with served(_without(settings, **NO_REDIS, **NO_POSTGRES)) as client:
        assert client.get("/health").json() == {"ok": True}


def test_ready_names_every_part(client: httpx.Client) -> None:
    answer = client.get("/ready")
    assert answer.status_code == 200
    parts = {part: {"ok": True} for part in ("broker", "redis", "postgresql")}
    assert answer.json() == {"ok": True, "parts": parts}


@pytest.mark.parametrize(
    ("away", "parts", "code"),
    [(NO_REDIS, {"broker", "redis"}, "broker_unavailable"), (NO_POSTGRES, {"postgresql"}, "store_unavailable")],
)
def test_not_ready_says_which_part_and_why(
    settings: Settings, away: dict[str, str], parts: set[str], code: str
) -> None:
    with served(_without(settings, **away)) as client:
        answer = client.get("/ready")
    assert answer.status_code == 503
    said = answer.json()["parts"]
    assert {part for part in said if not said[part]["ok"]} == parts
    for part in parts:
        assert (said[part]["code"], bool(said[part]["error"]), bool(said[part]["hint"])) == (code, True, True)


def test_a_database_that_was_not_migrated_is_not_ready(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'older'"))
    answer = client.get("/ready")
    assert answer.status_code == 503
    said = answer.json()["parts"]["postgresql"]
    assert said["error"] == f"the database is at revision older, this mdtasks needs {head_revision()}"
    assert said["hint"] == "run `mdtasks migrate`"


def test_a_part_that_does_not_answer_in_time_is_away_and_keeps_nobody_waiting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdtasks.web.looks.PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        frozen = {"redis_url": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"}
        with served(_without(settings, **frozen)) as client:
            said = client.get("/ready").json()["parts"]
    assert (said["postgresql"]["ok"], said["redis"]["ok"]) == (True, False)
    assert "did not answer" in said["redis"]["error"]


def test_a_scrape_reads_every_declared_gauge(client: httpx.Client, deps: Deps, redis_client: redis.Redis) -> None:
    asked(client)
    now = datetime.now(UTC)
    reconcile_once(deps, now)
    monitor.run_once(deps, now)
    presence.tick_arrived(deps, now)
    presence.worker_seen(deps.state, "t0@here", now)
    redis_client.lpush("dlq", b"a letter on its way")
    found = _samples(client)
    declared = {gauge.name for gauge in metrics.DECLARED if isinstance(gauge, Gauge)}
    # There is no outside coordinator here; tests/integration/test_intake.py reads the depths of one's lists,
    # test_web_providers.py what is left of a rate, and test_policy_gauges.py what only a change of the policy tells.
    changes = {"policy_last_reload_timestamp_seconds", "policy_canary_version"}
    elsewhere = {"intake_depth", "provider_budget_remaining", *changes}
    assert declared - elsewhere <= {name for name, _ in found}
    assert {tier: found["backfill_queue_depth", tier] for tier in ("T0", "T1", "T2")} == {"T0": 0, "T1": 3, "T2": 0}
    assert found["backfill_deferred", "T1"] == 0
    assert found["backfill_oldest_age_seconds", "T1"] > 0
    assert found["backfill_oldest_age_seconds", "T0"] == 0
    assert found["dlq_depth", ""] == 1
    assert found["reconciler_proof_age_seconds", ""] >= 0
    assert {part: found["mdtasks_up", part] for part in ("broker", "redis", "postgresql")} == dict.fromkeys(
        ("broker", "redis", "postgresql"), 1
    )
    assert found["backfill_jobs_enqueued_total", "queued/T1"] == 3
    for name in ("slo_monitor_last_run_timestamp_seconds", "beat_last_tick_timestamp_seconds"):
        assert found[name, ""] == pytest.approx(now.timestamp(), abs=1e-3)
    assert found["workers_last_seen_timestamp_seconds", "t0@here"] == pytest.approx(now.timestamp(), abs=1e-3)
    assert found["market_open", "24/7"] == 1
    # Two series that were added a moment ago: not late, their lag is younger than this test; nothing is covered yet.
    assert (found["slo_gap_violation_rate", "1m/T1"], found["slo_coverage_ratio", "1m/T1"]) == (0, 0)
    assert 0 <= found["ingestion_lag_seconds", "1m/T1"] < 200
    assert (found["slo_gap_expected_total", "1m/T1"], found["slo_gap_violations_total", "1m/T1"]) == (2, 0)
    assert ("slo_gap_violation_rate", "1m/T0") not in found  # no series: absent, not 0


def test_a_scrape_counts_open_gaps_by_the_tier_of_their_instrument(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        connection.execute(
            text(
                'INSERT INTO gaps (instrument_id, interval, "window", missing, found_by, closed_at)'
                " SELECT instrument_id, '1m', tstzrange('2026-11-20', '2026-11-21'), 1, 'scan', closed_at"
                " FROM symbols, unnest(CAST(ARRAY[NULL, NULL, '2026-11-22'] AS timestamptz[])) AS c (closed_at)"
            )
        )
    found = _samples(client)
    assert {labels: value for (name, labels), value in found.items() if name == "gaps_open"} == {
        "1m/T0": 0,
        "1d/T0": 0,
        "1m/T1": 4,
        "1d/T1": 0,
        "1d/T2": 0,
    }


def test_a_scrape_leaves_out_what_was_looked_at_too_long_ago(client: httpx.Client, deps: Deps) -> None:
    monitor.run_once(deps, datetime.now(UTC) - timedelta(seconds=151))
    found = {name for name, _ in _samples(client)}
    assert not {"slo_gap_violation_rate", "ingestion_lag_seconds"} & found
    assert {"slo_coverage_ratio", "slo_monitor_last_run_timestamp_seconds"} <= found  # looked at every minute


def test_lateness_vanishes_with_the_last_exchange_of_its_tier_that_trades(deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("A", "XNYS", tier=Tier.T0), Instrument("B", "XASX", tier=Tier.T0)])
    close = datetime(2026, 11, 20, 21, tzinfo=UTC)
    monitor.run_once(deps, close - timedelta(seconds=10))

    def told(at: datetime) -> set[str]:
        found = readings(anyio.run(look_for_scrape, deps, at), at)
        return {each.gauge.name for each in found if each.labels.get("tier") == "T0"}

    lateness = {"slo_gap_violation_rate", "ingestion_lag_seconds"}
    assert lateness <= told(close - timedelta(seconds=1))
    assert not lateness & told(close + timedelta(seconds=1))
    assert "slo_coverage_ratio" in told(close + timedelta(seconds=1))


def test_a_scrape_tells_which_markets_are_open_even_if_a_calendar_has_ended(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("A", "XNYS"), Instrument("600000", "XSHG")])
    beyond = deps.calendars.get("XSHG").horizon + timedelta(days=9, hours=15)
    assert set(read_markets(deps, beyond)) == {"24/7", "XNYS"}
    found = {labels for name, labels in _samples(client) if name == "market_open"}
    assert found == {"24/7", "XNYS", "XSHG"}


def test_a_scrape_leaves_out_what_others_count_in_the_same_place(settings: Settings, client: httpx.Client) -> None:
    theirs = "import prometheus_client as p; p.Counter('theirs_total', '').inc(); p.Gauge('their_state', '').set(1)"
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(settings.metrics_dir)}
    subprocess.run([sys.executable, "-c", theirs], env=environ, check=True, timeout=60)
    assert list(settings.metrics_dir.glob("gauge_*.db"))
    assert not [name for name, _ in _samples(client) if name.startswith("their")]
    assert not list(settings.metrics_dir.glob("gauge_*.db"))  # it ended: its state is nobody's


def test_a_scrape_while_redis_is_away_tells_what_postgresql_knows(settings: Settings, deps: Deps) -> None:
    with served(_without(settings, **NO_REDIS)) as client:
        asked(client)
        found = _samples(client)
    assert (found["mdtasks_up", "broker"], found["mdtasks_up", "postgresql"]) == (0, 1)
    assert found["backfill_deferred", "T1"] == 3
    assert not any(name in {"backfill_queue_depth", "dlq_depth"} for name, _ in found)


def test_a_scrape_while_postgresql_is_away_tells_what_redis_knows(settings: Settings) -> None:
    with served(_without(settings, **NO_POSTGRES)) as client:
        found = _samples(client)
    assert (found["mdtasks_up", "redis"], found["mdtasks_up", "postgresql"]) == (1, 0)
    assert found["backfill_queue_depth", "T0"] == 0
    assert not any(name == "backfill_deferred" for name, _ in found)


def test_head_answers_as_get_without_a_body(client: httpx.Client) -> None:
    for path in ("/", "/health", "/ready", "/metrics", "/ops/jobs", "/ops/dlq/stats"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert answer.headers["content-type"] == client.get(path).headers["content-type"]


def test_an_unknown_path_is_told_the_nearest_one(client: httpx.Client) -> None:
    for path, near in (
        ("/metric", "GET /metrics"),
        ("/ops/job", "GET /ops/jobs"),
        ("/ops/jobs/", "GET /ops/jobs"),
        ("/ops/dlq/backfill", "GET /ops/dlq/backfills"),
        ("/ops/backfills", "POST /ops/backfill"),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert near in answer.json()["hint"], path
    assert "GET /" in client.get("/%3Cscript%3E").json()["hint"]


def test_a_method_that_is_not_allowed_is_told_which_are(client: httpx.Client) -> None:
    for method, path, allowed in (
        ("POST", "/metrics", "GET, HEAD"),
        ("GET", "/ops/backfill", "POST"),
        ("PUT", "/ops/jobs", "GET, HEAD"),
        ("GET", "/ops/dlq/backfills/purge", "DELETE"),
        ("GET", "/ops/dlq/letters/requeue", "POST"),
        ("OPTIONS", "/ops/jobs", "GET, HEAD"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path
        assert (answer.json()["ok"], answer.json()["code"]) == (False, "method_not_allowed")


def test_an_unknown_query_is_refused_everywhere_it_could_mislead(client: httpx.Client) -> None:
    for path in ("/ready?x=1", "/ops/dlq/stats?x=1", "/ops/jobs?x=1", "/ops/dlq/backfills?x=1"):
        assert (client.get(path).status_code, client.get(path).json()["field"]) == (422, "x"), path


def test_a_fault_of_ours_is_told_without_its_traceback_and_logged(
    settings: Settings, deps: Deps, caplog: pytest.LogCaptureFixture
) -> None:
    with deps.database.transaction() as connection:
        connection.execute(text("DROP TABLE dead_letters"))
    with served(settings) as client:
        answer = client.get("/ops/dlq/backfills")
    assert (answer.status_code, answer.json()["error"]) == (500, "unexpected error")
    assert "Traceback" not in answer.text
    assert "dead_letters" not in answer.text
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert any(record.exc_info for record in faults)


def test_a_body_over_the_limit_is_refused_while_it_is_sent(client: httpx.Client) -> None:
    def endless(sent: list[int]) -> Iterator[bytes]:
        for _ in range(64):
            sent.append(1)
            yield b"x" * 1_000_000

    headers = {"content-type": "application/json"}
    for content in (b"x" * (MAX_BODY + 1), b"x" * 30_000_000, endless([])):
        answer = client.post("/ops/backfill", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    fits = json.dumps(request_document()).encode().ljust(MAX_BODY)
    assert client.post("/ops/backfill", content=fits, headers=headers).status_code == 202


def test_a_body_over_the_limit_is_not_waited_for(client: httpx.Client) -> None:
    """A client that asks first (as curl does) is refused before it sends anything."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(
            b"POST /ops/backfill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 30000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_client_that_goes_away_while_it_sends_is_no_fault(
    settings: Settings, deps: Deps, caplog: pytest.LogCaptureFixture
) -> None:
    with served(settings) as client:
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(
                b"POST /ops/backfill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
        assert client.get("/health").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_probes_answer_while_every_worker_thread_is_busy(settings: Settings, deps: Deps) -> None:
    with served(settings) as client, deps.database.transaction() as connection:
        connection.execute(text("LOCK TABLE dead_letters"))  # who reads it now waits
        waiting = [
            threading.Thread(target=httpx.get, args=(f"{client.base_url}/ops/dlq/stats",), kwargs={"timeout": 30})
            for _ in range(7)
        ]
        for thread in waiting:
            thread.start()
        assert client.get("/health").json() == {"ok": True}
        assert client.get("/ready").status_code == 200
        connection.rollback()
        for thread in waiting:
            thread.join()


def test_importing_the_app_reads_nothing_and_a_start_without_a_stack_says_so_in_a_line(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MDTASKS_")}
    started = subprocess.run(
        [sys.executable, "-m", "uvicorn", "mdtasks.web.app:app", "--port", "0"],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode != 0
    assert "no mdtasks stack runs in" in started.stderr
    assert "Traceback" not in started.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_app_runs_by_hand_under_uvicorn(
    settings: Settings, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    log = tmp_path / "log"
    environ = os.environ | {
        "MDTASKS_HOME": str(settings.home),
        "MDTASKS_DATABASE_URL": settings.require_database_url(),
        "MDTASKS_REDIS_URL": settings.require_redis_url(),
    }
    command = [sys.executable, "-m", "uvicorn", "mdtasks.web.app:app", "--port", "0", "--no-access-log"]
    with log.open("w") as output, subprocess.Popen(command, env=environ, stderr=output) as process:
        try:
            eventually(lambda: "running on" in log.read_text(), within_s=60, what="uvicorn is up")
            found = re.search(r"running on (\S+)", log.read_text())
            assert found is not None
            assert httpx.get(f"{found[1]}/ready", timeout=30).status_code == 200
            httpx.post(f"{found[1]}/ops/backfill", json={}, timeout=30)
        finally:
            process.terminate()
    assert '"actor": "127.0.0.1"' in log.read_text()  # seen without any logging set up
    assert process.returncode in (0, -15)
