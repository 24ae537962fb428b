"""Slow calls from a fetch to what people see of them: the record, its page, the commands, the links to it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from mdtasks.domain.jobs import BackfillJob
from mdtasks.flows import ingest, live
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.settings import Settings, load_settings
from mdtasks.store import job_reports, traces
from mdtasks.store.traces import TraceFilter, matching
from mdtasks.testing import bars_fetch_job, quotes_fetch_job
from tests.integration.cli_calls import Cli
from tests.integration.web_server import asked, dies, served, waiting_ids

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)


@pytest.fixture
def working(settings: Settings, deps: Deps) -> Iterator[Deps]:
    """Deps of a worker to which every call is slow."""
    opened = open_deps(settings.model_copy(update={"viztracer_slow_s": 1e-9, "viztracer_slow_p95": 0}))
    yield opened
    opened.close()


@pytest.fixture
def fetched(client: httpx.Client, deps: Deps, working: Deps) -> dict[str, Any]:
    """The record of a backfill's call, as the list of the web app shows it."""
    asked(client)
    job_id = waiting_ids(deps.broker)[0]
    ingest.run_backfill(BackfillJob.model_construct(job_id=job_id), working, "t1@here/1", NOW)
    (entry,) = client.get(f"/ops/traces?job_id={job_id}").json()["traces"]
    return dict(entry)


class _Page(HTMLParser):
    """What a page would load, and whether it holds anything that runs beside its scripts."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self._type: str | None = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [f"{tag} {name}={given[name]}" for name in ("src", "href", "srcset", "action") if name in given]
        assert not [name for name in given if name.startswith("on") or name == "style"], given
        if tag == "script":
            self._type = given.get("type", "")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and data.strip():
            self.scripts.append(data)


def test_a_backfill_leaves_a_record_with_its_context_and_its_trace(fetched: dict[str, Any], deps: Deps) -> None:
    told = {name: fetched[name] for name in ("provider", "capability", "symbols", "attempt", "worker", "error_class")}
    assert told == {
        "provider": "simulator",
        "capability": "bars_1m",
        "symbols": ["BTC-USD"],
        "attempt": 1,
        "worker": "t1@here/1",
        "error_class": None,
    }
    assert fetched["end_ts"] > fetched["start_ts"]
    assert fetched["started_at"].endswith("Z")
    assert fetched["trace"] == f"/ops/traces/{fetched['id']}"
    with deps.database.transaction() as connection:
        (attempt,) = job_reports.attempts(connection, fetched["job_id"])
    assert (attempt["id"], attempt["traces"]) == (fetched["attempt_id"], [fetched["id"]])


def test_a_quotes_fetch_is_recorded_too(working: Deps, client: httpx.Client) -> None:
    job = quotes_fetch_job(symbols=["BTC-USD", "ETH-USD"])
    live.run_quotes_fetch(job, working, "t0@here/1", NOW)
    (entry,) = client.get("/ops/traces?capability=quotes").json()["traces"]
    assert (entry["job_id"], entry["symbols"], entry["start_ts"]) == (job.job_id, ["BTC-USD", "ETH-USD"], None)


def test_a_call_that_fails_is_recorded_with_its_error(settings: Settings, deps: Deps, client: httpx.Client) -> None:
    asked(client)
    job_id = waiting_ids(deps.broker)[0]
    changes = {"viztracer_slow_s": 1e-9, "simulator_faults": "timeout=1"}
    opened = open_deps(settings.model_copy(update=changes))
    ingest.run_backfill(BackfillJob.model_construct(job_id=job_id), opened, "t1@here/1", NOW)
    opened.close()
    (entry,) = client.get("/ops/traces").json()["traces"]
    assert (entry["error_class"], entry["job_id"]) == ("timeout", job_id)


def test_switched_off_nothing_is_recorded(settings: Settings, deps: Deps, client: httpx.Client) -> None:
    asked(client)
    off = load_settings({"VIZTRACER_ENABLED": "0", "VIZTRACER_SLOW_S": "1e-9"}, home=settings.home)
    assert not off.viztracer_enabled
    opened = open_deps(settings.model_copy(update={"viztracer_enabled": False, "viztracer_slow_s": 1e-9}))
    assert opened.recorder is None
    ingest.run_backfill(BackfillJob.model_construct(job_id=waiting_ids(deps.broker)[0]), opened, "t1@here/1", NOW)
    opened.close()
    with deps.database.transaction() as connection:
        assert matching(connection, TraceFilter(), 10) == []


def test_a_store_that_takes_no_record_does_not_fail_the_fetch(
    client: httpx.Client, deps: Deps, working: Deps, caplog: pytest.LogCaptureFixture
) -> None:
    asked(client)
    with deps.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE slow_calls RENAME COLUMN latency_s TO was_latency_s")
    job = BackfillJob.model_construct(job_id=waiting_ids(deps.broker)[0])
    assert ingest.run_backfill(job, working, "t1@here/1", NOW).outcome == "done"
    assert "was not kept" in caplog.text


def test_a_record_that_would_have_to_wait_is_given_up_and_the_fetch_is_done(
    client: httpx.Client, deps: Deps, working: Deps, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(client)
    monkeypatch.setattr(traces, "HURRY_MS", 50)
    job = BackfillJob.model_construct(job_id=waiting_ids(deps.broker)[0])
    with deps.database.transaction() as other:
        other.exec_driver_sql("LOCK TABLE slow_calls IN ACCESS EXCLUSIVE MODE")
        assert ingest.run_backfill(job, working, "t1@here/1", NOW).outcome == "done"
    assert "statement timeout" in caplog.text


def test_live_bars_are_recorded_with_their_attempt(working: Deps, client: httpx.Client) -> None:
    job = bars_fetch_job(symbols=["BTC-USD", "ETH-USD"])
    live.run_bars_fetch(job, working, "t0@here/1", NOW)
    (entry,) = client.get(f"/ops/traces?job_id={job.job_id}&provider=simulator").json()["traces"]
    assert (entry["symbol_count"], entry["worker"], entry["attempt"]) == (2, "t0@here/1", 1)
    with working.database.transaction() as connection:
        (attempt,) = job_reports.attempts(connection, job.job_id)
    assert attempt["id"] == entry["attempt_id"]


def test_jobs_show_tells_of_a_live_fetch_what_is_kept_of_it(working: Deps, cli: Cli) -> None:
    job = bars_fetch_job(symbols=["BTC-USD", "ETH-USD"])
    live.run_bars_fetch(job, working, "t0@here/1", NOW)
    shown = cli("jobs", "show", job.job_id)
    assert (shown.code, "asked simulator (answered)" in shown.out) == (0, True)
    assert "is a live fetch" in shown.err
    found = cli("jobs", "show", job.job_id, "--json").json
    assert (found["id"], [each["worker"] for each in found["history"]]) == (job.job_id, ["t0@here/1"])


def test_the_page_is_whole_by_itself_and_its_policy_lets_nothing_else_run(
    client: httpx.Client, fetched: dict[str, Any]
) -> None:
    answer = client.get(fetched["trace"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)
    page = _Page(answer.text)
    assert page.loads == ["link href=data:,"]
    assert "://" not in answer.text
    data, script = page.scripts
    document = json.loads(data)
    assert any("SimulatorProvider.fetch_bars" in name for name in document["names"])
    assert document["slices"][0][:3] == [0, 0, 0]
    assert "SimulatorProvider.fetch_bars" in answer.text.partition("Where the time went")[2]
    assert script.strip().startswith("'use strict'")


def test_what_a_name_holds_cannot_leave_its_place_in_the_page() -> None:
    from mdtasks.observe.flames import Flame, Slice
    from mdtasks.web.flame import flame_page

    evil = "</script><script>alert(1)</script><!--"
    context: dict[str, Any] = {
        **dict.fromkeys(("window", "job_id", "attempt", "policy_version", "error_class")),
        **dict.fromkeys(("provider", "capability", "started_at", "worker"), evil),
        "symbols": [evil],
        "symbol_count": 1,
        "latency_s": 1.0,
        "threshold_s": 1.0,
    }
    page = _Page(flame_page(Flame([Slice(evil, 1, 0, 0.0, 1.0, 1.0)], {1: evil}, context, overflow=False), evil))
    data, _script = page.scripts
    assert json.loads(data)["names"] == [evil]


def test_the_raw_trace_is_viztracers_own(client: httpx.Client, fetched: dict[str, Any], tmp_path: Path) -> None:
    answer = client.get(f"{fetched['trace']}.json")
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["mdtasks"]["job_id"] == fetched["job_id"]
    assert document["viztracer_metadata"]["version"]
    # VizTracer reads it: its own tool combines it into a report.
    trace, combined = tmp_path / "trace.json", tmp_path / "combined.json"
    trace.write_bytes(answer.content)
    done = subprocess.run(
        [sys.executable, "-m", "viztracer", "--combine", str(trace), "-o", str(combined)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "SimulatorProvider.fetch_bars" in combined.read_text()


def test_what_is_not_there_and_what_is_wrong_is_refused(client: httpx.Client) -> None:
    assert client.get("/ops/traces/1").status_code == 404
    assert client.get("/ops/traces/1.json").json()["code"] == "not_found"
    assert client.get("/ops/traces/99999999999999999999999").status_code == 404
    assert client.get("/ops/traces/x").status_code == 404
    for wrong in ("limit=0", "min_latency_s=nan", "since=yesterday", "provider=A B", "job=1"):
        answer = client.get(f"/ops/traces?{wrong}")
        assert (answer.status_code, answer.json()["field"]) == (422, wrong.partition("=")[0])


def test_with_a_token_traces_are_for_its_bearer_alone(settings: Settings) -> None:
    with served(load_settings(_with_a_token(settings))) as client:
        for path in ("/ops/traces", "/ops/traces/1", "/ops/traces/1.json"):
            assert client.get(path).status_code == 401
        assert client.get("/ops/traces", headers={"Authorization": "Bearer open sesame"}).status_code == 200


def _with_a_token(settings: Settings) -> dict[str, str]:
    return {
        "MDTASKS_HOME": str(settings.home),
        "MDTASKS_DATABASE_URL": settings.require_database_url(),
        "MDTASKS_REDIS_URL": settings.require_redis_url(),
        "MDTASKS_API_TOKEN": "open sesame",
    }


def test_the_job_and_its_letter_point_to_the_trace(
    client: httpx.Client, deps: Deps, fetched: dict[str, Any], cli: Cli
) -> None:
    job = fetched["job_id"]
    (attempt,) = client.get(f"/ops/jobs/{job}").json()["history"]
    assert (attempt["slow_calls"], attempt["traces"]) == (1, [fetched["id"]])
    assert f"`mdtasks traces show {fetched['id']}`" in cli("jobs", "show", job).err
    dead = next(each for each in waiting_ids(deps.broker) if each != job)
    dies(deps, dead)
    with deps.database.transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE slow_calls SET job_id = a.job_id, attempt_id = a.id FROM job_attempts a WHERE a.job_id = %s",
            (dead,),
        )
    (attempt,) = client.get(f"/ops/dlq/backfills/{dead}").json()["history"]
    assert attempt["traces"] == [fetched["id"]]
    assert f"`mdtasks traces show {fetched['id']}`" in cli("dlq", "show", dead).err


def test_the_commands_list_show_and_save(cli: Cli, fetched: dict[str, Any], tmp_path: Path) -> None:
    number = str(fetched["id"])
    (row,) = cli("traces", "--provider", "simulator", "--job", fetched["job_id"], "--json").json
    assert (row["id"], row["job_id"]) == (fetched["id"], fetched["job_id"])
    listed = cli("traces")
    assert (listed.code, "simulator" in listed.out, "BTC-USD" in listed.out) == (0, True, True)
    assert "no slow provider calls like that" in cli("traces", "--capability", "quotes").err
    shown = cli("traces", "show", number)
    assert (shown.code, "SimulatorProvider." in shown.out, fetched["job_id"] in shown.out) == (0, True, True)
    functions = cli("traces", "show", number, "--json").json["functions"]
    assert "mdtasks/providers/simulator.py" in next(
        each["where"] for each in functions if each["function"].startswith("SimulatorProvider.")
    )
    page, raw = tmp_path / "slow.html", tmp_path / "slow.json"
    assert cli("traces", "save", number, "--output", str(page)).code == 0
    assert _Page(page.read_text()).loads == ["link href=data:,"]
    assert cli("traces", "save", number, "--output", str(raw)).code == 0
    assert json.loads(raw.read_text())["mdtasks"]["job_id"] == fetched["job_id"]


def test_the_commands_refuse_with_the_codes_of_all_others(cli: Cli, tmp_path: Path) -> None:
    assert cli("traces", "show", "1").code == 3
    assert cli("traces", "save", "1", "--output", str(tmp_path / "x.json")).code == 3
    assert not list(tmp_path.glob("x*"))
    for words in (
        ("show", "one"),
        ("save", "1", "--output", "x.svg"),
        ("save", "1"),
        ("--min-latency", "-1"),
        ("--since", "soon"),
    ):
        assert cli("traces", *words).code == 2, words
    assert "no slow provider calls" in cli("traces").err
