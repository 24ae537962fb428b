"""Backfills over HTTP: asked for, watched, refused; and what happens to them when a server is away."""

from __future__ import annotations

import json
from typing import Any

import httpx
import redis

from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.settings import Settings
from tests.integration.web_server import asked, request_document, served, waiting_ids

NO_ONE_THERE = "redis://127.0.0.1:1/0"


def test_a_backfill_is_taken_cut_into_jobs_and_queued(client: httpx.Client, redis_client: redis.Redis) -> None:
    answer = asked(client)
    assert answer["ok"] is True
    assert {name: answer[name] for name in ("queued", "deferred", "merged", "covered", "refused")} == {
        "queued": 3,
        "deferred": 0,
        "merged": 0,
        "covered": 0,
        "refused": [],
    }
    assert len(waiting_ids(redis_client)) == 3


def test_asking_again_merges_with_what_waits(client: httpx.Client) -> None:
    asked(client)
    assert {name: asked(client)[name] for name in ("queued", "merged")} == {"queued": 0, "merged": 3}


def test_many_symbols_are_asked_for_at_once_in_the_tier_that_is_named(
    client: httpx.Client, redis_client: redis.Redis
) -> None:
    assert asked(client, symbol=["BTC-USD", "ETH-USD"], priority="T0")["queued"] == 6
    assert len(waiting_ids(redis_client, "T0")) == 6


def test_what_is_over_the_cap_is_told_as_deferred(settings: Settings, deps: Deps) -> None:
    with served(settings.model_copy(update={"cap_t1": 2})) as client:
        answer = asked(client)
        assert (answer["queued"], answer["deferred"]) == (2, 1)


def test_the_answer_says_where_progress_is_told(client: httpx.Client) -> None:
    answer = client.post("/ops/backfill", json=request_document())
    assert answer.headers["location"] == answer.json()["progress"] == f"/ops/backfill/{answer.json()['request']}"
    assert client.get(answer.headers["location"]).json() == {
        "request": answer.json()["request"],
        "jobs": {"queued": 3},
        "total": 3,
        "ended": 0,
        "finished": False,
        "bars": 0,
        "last_error": None,
    }


def test_an_unknown_request_has_no_progress(client: httpx.Client) -> None:
    for request_id in ("5e0a2f0e-9d8e-4b6e-8a54-0d2a8b9c1d11", "not-a-uuid", "%00"):
        answer = client.get(f"/ops/backfill/{request_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), request_id


WRONG: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"symbol": "NOPE"}, "symbol", "unknown symbol NOPE"),
    ({"symbol": "BTC-USDX"}, "symbol", "did you mean BTC-USD"),
    ({"symbol": []}, "symbol", "at least 1"),
    ({"symbol": "no spaces"}, "symbol.0", "pattern"),
    ({"interval": "2m"}, "interval", "1m"),
    ({"provider": "nobody"}, "provider", "not configured"),
    ({"priority": "T9"}, "priority", "T0"),
    ({"start": "2025-01-02T00:00:00"}, "start", "naive"),
    ({"start": "yesterday"}, "start", "datetime"),
    ({"start": "2025-01-05T00:00:00Z"}, "end", "not after start"),
    ({"start": "2999-01-05T00:00:00Z", "end": None}, "start", "future"),
    ({"start": "0001-01-01T00:00:00+14:00"}, "start", "before the year 1"),
    ({"start": "0001-01-01T00:00:00Z"}, "start", "too many"),
    ({"refetch": "perhaps"}, "refetch", "boolean"),
    ({"simbol": "BTC-USD"}, "simbol", "did you mean symbol?"),
)


def test_a_wrong_value_is_refused_with_its_field_and_nothing_is_queued(
    client: httpx.Client, redis_client: redis.Redis
) -> None:
    for changes, field, word in WRONG:
        answer = client.post("/ops/backfill", json=request_document(**changes))
        document = answer.json()
        assert (answer.status_code, document["ok"], document["field"]) == (422, False, field), document
        assert word in document["error"]
    assert client.get("/ops/jobs").json() == []
    assert waiting_ids(redis_client) == []


def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client) -> None:
    for body, word in (
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"start": NaN}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "array"),
        (b"null", "null"),
        (b'"text"', "string"),
        (b"true", "boolean"),
        (b"7", "number"),
    ):
        answer = client.post("/ops/backfill", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["field"]) == (422, "body"), body[:10]
        assert word in answer.json()["error"]


def test_a_body_that_does_not_say_it_is_json_is_refused(client: httpx.Client) -> None:
    for media_type in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {"content-type": media_type} if media_type else {}
        answer = client.post("/ops/backfill", content=json.dumps(request_document()), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "media_type"), media_type


def test_a_query_on_an_endpoint_that_takes_none_is_refused(client: httpx.Client) -> None:
    answer = client.post("/ops/backfill?dry_run=true", json=request_document())
    assert (answer.status_code, answer.json()["field"]) == (422, "dry_run")


def test_jobs_are_listed_newest_change_first_and_filtered(client: httpx.Client) -> None:
    asked(client, symbol="BTC-USD")
    asked(client, symbol="ETH-USD", priority="T0", end="2025-01-03T00:00:00Z")
    listed = client.get("/ops/jobs").json()
    assert [job["symbol"] for job in listed] == ["ETH-USD", "BTC-USD", "BTC-USD", "BTC-USD"]
    only = client.get("/ops/jobs?symbol=ETH-USD&tier=T0&status=queued&limit=5").json()
    assert only == listed[:1]
    assert {name: only[0][name] for name in ("interval", "start_ts", "end_ts", "priority", "status", "attempts")} == {
        "interval": "1m",
        "start_ts": "2025-01-02T00:00:00Z",
        "end_ts": "2025-01-03T00:00:00Z",
        "priority": "T0",
        "status": "queued",
        "attempts": 0,
    }
    assert client.get("/ops/jobs?status=done").json() == []
    assert len(client.get("/ops/jobs?limit=2").json()) == 2


def test_a_wrong_query_is_refused_with_its_field(client: httpx.Client) -> None:
    for query, field, word in (
        ("limit=0", "limit", "greater"),
        ("limit=1001", "limit", "less"),
        ("limit=many", "limit", "integer"),
        ("status=lost", "status", "deferred"),
        ("tier=T3", "tier", "T0"),
        ("symbol=%00", "symbol", "pattern"),
        ("symbols=AAPL", "symbols", "did you mean symbol?"),
        ("tier=T0&tier=T1", "tier", "more than once"),
    ):
        answer = client.get(f"/ops/jobs?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, field), query
        assert word in answer.json()["error"]


def test_a_job_is_shown_whole_with_its_attempts(client: httpx.Client, redis_client: redis.Redis) -> None:
    asked(client)
    job_id = waiting_ids(redis_client)[0]
    shown = client.get(f"/ops/jobs/{job_id}").json()
    assert (shown["id"], shown["status"], shown["history"]) == (job_id, "queued", [])
    assert client.get("/ops/jobs/no-such-job").status_code == 404


def test_a_backfill_is_taken_while_redis_is_away_and_waits_in_postgresql(settings: Settings, deps: Deps) -> None:
    away = settings.model_copy(update={"redis_url": settings.model_validate({"redis_url": NO_ONE_THERE}).redis_url})
    with served(away) as client:
        answer = asked(client)
        assert (answer["queued"], answer["deferred"]) == (0, 3)
        assert client.get(answer["progress"]).json()["jobs"] == {"deferred": 3}
        assert asked(client)["merged"] == 3
    dispatch_once(deps)
    assert len(waiting_ids(deps.broker)) == 3


def test_a_backfill_is_taken_when_redis_has_no_memory_left(
    client: httpx.Client, deps: Deps, redis_client: redis.Redis
) -> None:
    redis_client.config_set("maxmemory", 1)
    try:
        answer = asked(client)
    finally:
        redis_client.config_set("maxmemory", 0)
    assert (answer["queued"], answer["deferred"]) == (0, 3)
    dispatch_once(deps)
    assert len(waiting_ids(redis_client)) == 3


def test_a_backfill_is_refused_for_now_while_postgresql_is_away(settings: Settings, deps: Deps) -> None:
    gone = settings.model_validate({"database_url": "postgresql://nobody@127.0.0.1:1/none"}).database_url
    with served(settings.model_copy(update={"database_url": gone})) as client:
        answer = client.post("/ops/backfill", json=request_document())
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert waiting_ids(deps.broker) == []
