"""Providers over HTTP: how they stand, what a scrape reads of them, pausing and resuming one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from mdtasks.domain.rates import Rate
from mdtasks.flows.deps import Deps
from mdtasks.flows.providers import pause, snapshot_once
from mdtasks.settings import Settings
from mdtasks.store.evidence import outcomes_of
from tests.integration.told import NAME, demote
from tests.integration.web_server import asked, dies, served, waiting_ids

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
PAUSE, RESUME = f"/ops/providers/{NAME}/pause", f"/ops/providers/{NAME}/resume"
WHY = {"reason": "wrong splits"}


#: What was asked for is not given back while a test runs.
SLOW = Rate(200, 86_400.0)


@pytest.fixture
def rated(settings: Settings, deps: Deps) -> Iterator[httpx.Client]:
    """A client of an app whose simulator's account has a rate."""
    with served(settings.model_copy(update={"vendor_rates": {NAME: (SLOW,)}})) as client:
        yield client


def gauges(client: httpx.Client) -> dict[str, float]:
    """What a scrape reads of the one provider."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    wanted = {"provider_health_score", "circuit_state", "provider_budget_remaining"}
    return {
        sample.name: sample.value
        for family in families
        for sample in family.samples
        if sample.name in wanted and sample.labels == {"provider": NAME}
    }


def test_a_provider_that_nobody_asked_is_well(client: httpx.Client) -> None:
    (found,) = client.get("/stats/providers").json()["providers"]
    assert found["name"] == NAME
    assert (found["health_score"], found["state"], found["why_aside"]) == (1.0, "closed", None)
    assert (found["latency_s"], found["errors"], found["history"]) == (None, {}, [])
    assert found["parts"] == {"breaker": 1.0, "latency": 1.0, "errors": 1.0, "completeness": 1.0}
    assert (found["rates"], found["budget"], found["policy"]) == (None, None, {"bars": 1, "eod": 1, "quotes": 1})
    assert found["capabilities"]["intervals"] == ["1m", "5m", "15m", "1h", "1d"]
    assert (found["capabilities"]["actions"], found["capabilities"]["listing"]) == (True, False)
    assert "transitions" not in found


def test_stats_tell_of_latency_errors_and_history(client: httpx.Client, deps: Deps) -> None:
    for latency_s in (0.1, 0.2, 4.0):
        deps.health.tell_request(NAME, "bars", latency_s, None)
    snapshot_once(deps, NOW)
    demote(deps.health)
    snapshot_once(deps, NOW + timedelta(seconds=10))
    (found,) = client.get("/stats/providers").json()["providers"]
    assert found["state"] == "open"
    assert found["why_aside"].startswith("demoted since ")
    assert found["errors"] == {"vendor_error": found["requests"] - 3}
    assert (found["latency_s"], found["slowest_s"]) == (0.1, 4.0)
    assert 0 < found["retry_in_s"] <= 60
    assert [each["timestamp"] for each in found["history"]] == ["2026-11-24T09:30:00Z", "2026-11-24T09:30:10Z"]
    assert found["history"][0]["health_score"] > found["history"][1]["health_score"]
    parts = found["parts"]
    assert found["health_score"] == pytest.approx(
        0.45 * parts["breaker"] + 0.25 * parts["latency"] + 0.2 * parts["errors"] + 0.1 * parts["completeness"]
    )


def test_one_provider_has_its_cases(client: httpx.Client, deps: Deps) -> None:
    demote(deps.health)
    snapshot_once(deps, NOW)
    found = client.get(f"/stats/providers/{NAME}").json()
    (case,) = found["transitions"]
    assert (case["kind"], case["case"]["opened"]) == ("demoted", 1)
    assert "0.522 < 0.55 (BREAKER_DEMOTE_THRESHOLD)" in case["case"]["arithmetic"]
    assert case["case"]["samples"] == found["samples"]
    assert found["outcomes"] == []
    assert re.fullmatch(r"score = 0.45 x breaker 0 \+ 0.55 x evidence 0.522 = 0.287", found["arithmetic"][-1])


def test_one_provider_has_the_outcomes_of_the_attempts_that_asked_it(client: httpx.Client, deps: Deps) -> None:
    asked(client)
    dies(deps, waiting_ids(deps.broker)[0], error_class="timeout", provider="files,simulator")
    dies(deps, waiting_ids(deps.broker)[0], error_class="timeout", provider="files")
    assert client.get(f"/stats/providers/{NAME}").json()["outcomes"] == [
        {
            "provider": "simulator",
            "error_class": "timeout",
            "attempts": 1,
            "example": "files,simulator: cannot be read",
        }
    ]


def test_an_attempt_counts_for_a_provider_by_what_that_one_did(deps: Deps) -> None:
    failed = {"provider": NAME, "answered": 0, "errors": {"vendor_error": "500"}}
    served_ = {"provider": "simulator_2", "answered": 1}
    aside = {"provider": "simulator_3", "why": "paused by ann: audit"}
    attempts: list[tuple[list[dict[str, Any]], str | None]] = [
        ([failed, served_, aside], None),
        ([failed, served_], None),
        ([{**failed, "answered": 1}], None),
        ([{"provider": NAME, "answered": 1}], "bad_bars"),
    ]
    with deps.database.transaction() as connection:
        for number, (route, error) in enumerate(attempts):
            connection.exec_driver_sql(
                "INSERT INTO job_attempts"
                " (job_id, job_type, attempt, fence, worker, provider, ended_at, outcome, error_class, route)"
                " VALUES (%s, 'backfill', 1, 1, 'w', 'simulator_2', now(), 'done', %s, %s)",
                (f"job-{number}", error, json.dumps(route)),
            )
        of = {name: outcomes_of(connection, name) for name in (NAME, "simulator_2", "simulator_3")}
    assert {each.error_class: each.attempts for each in of[NAME]} == {"vendor_error": 2, "": 1, "bad_bars": 1}
    assert {each.error_class: each.attempts for each in of["simulator_2"]} == {"": 2}
    assert of["simulator_3"] == []
    assert next(each.example for each in of[NAME] if each.error_class == "vendor_error") == "500"


@pytest.mark.parametrize("path", ["/stats/providers/simulater", "/ops/providers/simulater/pause"])
def test_an_unknown_provider_is_named_with_the_nearest(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json=WHY) if path.startswith("/ops") else client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_provider")
    assert "did you mean simulator?" in answer.json()["error"]


def test_a_provider_is_paused_and_resumed(client: httpx.Client, deps: Deps) -> None:
    made = client.post(PAUSE, json={"reason": " wrong splits "})
    assert made.status_code == 200
    document = made.json()
    assert {name: document[name] for name in ("ok", "provider", "state", "by", "reason", "in_force")} == {
        "ok": True,
        "provider": NAME,
        "state": "paused",
        "by": "127.0.0.1",
        "reason": "wrong splits",
        "in_force": True,
    }
    assert deps.health.admit(NAME, ()).verdict == "paused"
    (found,) = client.get("/stats/providers").json()["providers"]
    assert (found["state"], found["pause"]["by"], found["pause"]["at"]) == ("paused", "127.0.0.1", document["at"])
    again = client.post(PAUSE, json=WHY)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "by 127.0.0.1: wrong splits" in again.json()["error"]
    assert client.post(RESUME, json={"reason": "they are right"}).json()["state"] == "resumed"
    assert deps.health.admit(NAME, ()).verdict == "go"
    assert client.post(RESUME).status_code == 409
    told = client.get(f"/stats/providers/{NAME}").json()["transitions"]
    assert [(each["kind"], each["case"]["reason"]) for each in told] == [
        ("resumed", "they are right"),
        ("paused", "wrong splits"),
    ]


def test_resuming_needs_no_body(client: httpx.Client, deps: Deps) -> None:
    pause(NAME, "wrong splits", "ann", deps, NOW)
    assert client.post(RESUME).json()["reason"] == ""


@pytest.mark.parametrize(
    ("sent", "status", "field"),
    [
        ({"json": {"reason": "  "}}, 422, "reason"),
        ({"json": {}}, 422, "reason"),
        ({}, 422, "reason"),
        ({"json": {"reason": 7}}, 422, "reason"),
        ({"json": {"reason": "x" * 1001}}, 422, "reason"),
        ({"json": {"reason": None}}, 422, "reason"),
        ({"json": {"reson": "why"}}, 422, "reson"),
        ({"json": ["why"]}, 422, "body"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "body"),
        ({"content": b"reason=why"}, 415, "body"),
        ({"json": WHY, "params": {"force": "1"}}, 422, "force"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_done(
    client: httpx.Client, deps: Deps, sent: dict[str, Any], status: int, field: str
) -> None:
    answer = client.post(PAUSE, **sent)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert deps.health.admit(NAME, ()).verdict == "go"


def test_other_ways_are_refused(client: httpx.Client) -> None:
    assert client.get(PAUSE).status_code == 405
    assert client.post("/stats/providers").status_code == 405
    assert client.get("/stats/providers?nmae=x").status_code == 422
    assert client.get("/stats/provider").json()["hint"] == "did you mean GET /stats/providers?"


def test_pausing_needs_the_token_and_looking_does_not(settings: Settings) -> None:
    token = "a token of sixteen or more"
    guarded = Settings.model_validate({**settings.model_dump(), "api_token": token})
    with served(guarded) as client:
        assert client.post(PAUSE, json=WHY).status_code == 401
        assert client.post(PAUSE, json=WHY, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/stats/providers").status_code == 200
        assert client.get(f"/stats/providers/{NAME}").status_code == 200
        made = client.post(PAUSE, json=WHY, headers={"authorization": f"Bearer {token}"})
        assert made.json()["by"] == "api"


def test_without_redis_a_pause_is_taken_and_stats_say_what_is_away(settings: Settings) -> None:
    away = settings.model_copy(
        update={"redis_url": Settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"}).redis_url}
    )
    with served(away) as client:
        assert client.post(PAUSE, json=WHY).json()["in_force"] is False
        assert client.get("/stats/providers").json()["code"] == "broker_unavailable"
        assert gauges(client) == {}


def test_a_scrape_reads_score_breaker_and_budget(rated: httpx.Client, deps: Deps, redis_client: redis.Redis) -> None:
    assert gauges(rated) == {"provider_health_score": 1.0, "circuit_state": 1.0, "provider_budget_remaining": 20.0}
    deps.health.admit(NAME, (SLOW,))
    demote(deps.health)
    found = gauges(rated)
    assert (found["circuit_state"], found["provider_budget_remaining"]) == (0.0, 19.0)
    assert found["provider_health_score"] == pytest.approx(0.287, abs=0.001)
    redis_client.hset(f"mdtasks:provider:{NAME}", "until_us", 0)
    assert gauges(rated)["circuit_state"] == 0.5
    pause(NAME, "wrong splits", "ann", deps, NOW)
    assert gauges(rated)["circuit_state"] == 0.0
    (stats,) = rated.get("/stats/providers").json()["providers"]
    assert (stats["rates"], stats["budget"]) == ("200/day", 19)


def test_without_a_rate_there_is_no_budget(client: httpx.Client) -> None:
    assert gauges(client) == {"provider_health_score": 1.0, "circuit_state": 1.0}
