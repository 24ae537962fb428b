"""Dead letters over HTTP: seen, requeued one by one, by filter and by plan, purged; right and wrong."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from sqlalchemy import text

from mdtasks.flows import letters
from mdtasks.flows.deps import Deps
from mdtasks.queue.letters import Reason
from mdtasks.settings import Settings
from mdtasks.testing import bars_fetch_job
from tests.integration.web_server import asked, dies, served, waiting_ids

DLQ = "/ops/dlq/backfills"


@pytest.fixture
def dead(client: httpx.Client, deps: Deps) -> list[str]:
    """Three dead backfills of BTC-USD, the last one died last; two of one cause."""
    asked(client)
    ids = waiting_ids(deps.broker)
    dies(deps, ids[0])
    dies(deps, ids[1])
    dies(deps, ids[2], error_class="auth", provider="files")
    return ids


@pytest.fixture
def live_letter(deps: Deps) -> str:
    """The letter of a live fetch that died."""
    raw = _live_envelope(deps)
    letter_id = str(uuid4())
    reason = Reason("timeout", "the vendor did not answer")
    assert letters.record(letters.Dead(letter_id, raw, reason, "T0.live"), deps) == "recorded"
    return letter_id


def _live_envelope(deps: Deps) -> str:
    deps.enqueuer.push_live(bars_fetch_job(), datetime.now(UTC), expires_s=60)
    raw = deps.broker.rpop("T0.live")
    assert isinstance(raw, bytes)
    return raw.decode()


def _poison(deps: Deps) -> str:
    letter_id = str(uuid4())
    assert letters.record(letters.Dead(letter_id, "not an envelope", Reason("undecodable", "?"), "T1"), deps)
    return letter_id


def test_dead_backfills_are_listed_newest_first_under_the_names_users_know(
    client: httpx.Client, dead: list[str], live_letter: str
) -> None:
    listed = client.get(DLQ).json()
    assert [letter["id"] for letter in listed] == dead[::-1]
    newest = listed[0]
    assert {name: newest[name] for name in ("symbol", "interval", "priority", "last_error", "attempts")} == {
        "symbol": "BTC-USD",
        "interval": "1m",
        "priority": "T1",
        "last_error": "files: cannot be read",
        "attempts": 1,
    }
    assert newest["start_ts"].endswith("Z")
    assert newest["end_ts"] > newest["start_ts"]
    assert newest["updated_at"].endswith("Z")
    assert (newest["provider"], newest["error_class"]) == ("files", "auth")


def test_letters_are_filtered(client: httpx.Client, dead: list[str]) -> None:
    for query, count in (
        ("limit=2", 2),
        ("error_class=auth", 1),
        ("provider=simulator", 2),
        ("symbol=BTC-USD&tier=T1", 3),
        ("symbol=ETH-USD", 0),
        ("tier=T0", 0),
        ("since=2025-01-01T00:00:00Z", 3),
        ("since=2025-01-01T00:00:00+00:00", 3),  # its plus sign arrives as a space
        ("since=2999-01-01T00:00:00%2B02:00", 0),
    ):
        assert len(client.get(f"{DLQ}?{query}").json()) == count, query


def test_a_wrong_filter_is_refused_with_its_field(client: httpx.Client, dead: list[str]) -> None:
    wrong = (
        "limit=0",
        "tier=T7",
        "since=2025-01-01T00:00:00",
        "since=long+ago",
        "error_class=%27+or+1",
        "provider=%00",
        "teir=T0",
    )
    for query, (method, path) in itertools.product(wrong, (("GET", DLQ), ("POST", f"{DLQ}/requeue"))):
        answer = client.request(method, f"{path}?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, query.partition("=")[0]), (method, query)
    assert len(client.get(DLQ).json()) == 3


def test_a_letter_is_shown_whole_with_its_history(client: httpx.Client, dead: list[str]) -> None:
    shown = client.get(f"{DLQ}/{dead[0]}").json()
    assert (shown["id"], shown["state"]) == (dead[0], "open")
    assert shown["traceback"].startswith("Traceback")
    assert shown["payload"]["job_id"] == dead[0]
    assert [attempt["outcome"] for attempt in shown["history"]] == ["failed"]
    assert client.get(f"{DLQ}/{shown['letter']}").json() == shown  # by the letter's own id too


def test_a_letter_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    names = ("unknown", "purge2", "%00", "a%0Ab", "x" * 400)
    for name, (method, path) in itertools.product(names, (("GET", DLQ), ("POST", f"{DLQ}/requeue"))):
        answer = client.request(method, f"{path}/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), name


def test_a_requeued_job_goes_back_to_its_queue_once(
    client: httpx.Client, dead: list[str], redis_client: redis.Redis
) -> None:
    answer = client.post(f"{DLQ}/requeue/{dead[0]}")
    assert (answer.status_code, answer.json()["ok"], answer.json()["job_id"]) == (200, True, dead[0])
    assert waiting_ids(redis_client) == [dead[0]]
    assert dead[0] not in [letter["id"] for letter in client.get(DLQ).json()]
    job = client.get(f"/ops/jobs/{dead[0]}").json()
    assert (job["status"], job["attempts"], len(job["history"])) == ("queued", 0, 1)  # history stays
    again = client.post(f"{DLQ}/requeue/{dead[0]}")
    assert (again.status_code, again.json()["ok"]) == (404, False)
    assert "is not failed" in again.json()["error"]


def test_a_job_that_never_failed_is_not_requeued_and_the_reason_is_told(
    client: httpx.Client, redis_client: redis.Redis
) -> None:
    asked(client)
    job_id = waiting_ids(redis_client)[0]
    answer = client.post(f"{DLQ}/requeue/{job_id}")
    assert (answer.status_code, answer.json()["error"]) == (404, f"{job_id} is not failed: it is queued")


def test_a_requeue_while_redis_is_away_is_done_and_the_job_waits(
    settings: Settings, deps: Deps, client: httpx.Client, dead: list[str]
) -> None:
    nowhere = settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"}).redis_url
    with served(settings.model_copy(update={"redis_url": nowhere})) as cut_off:
        assert cut_off.post(f"{DLQ}/requeue/{dead[0]}").status_code == 200
        refused = cut_off.post(f"{DLQ}/requeue?tier=T1")
        assert (refused.status_code, refused.json()["code"]) == (503, "broker_unavailable")
    assert client.get(f"/ops/jobs/{dead[0]}").json()["status"] == "deferred"
    assert len(client.get(DLQ).json()) == 2


def test_a_dry_run_freezes_the_set_and_its_plan_carries_out_exactly_that(
    client: httpx.Client, deps: Deps, dead: list[str], redis_client: redis.Redis
) -> None:
    shown = client.post(f"{DLQ}/requeue?provider=simulator&dry_run=true").json()
    assert (shown["ok"], shown["letters"], shown["by_tier"]["T1"]) == (True, 2, 2)
    assert shown["room"]["T1"] == deps.settings.cap_t1
    assert len(client.get(DLQ).json()) == 3  # nothing was done
    asked(client, symbol="ETH-USD", end="2025-01-03T00:00:00Z")
    late = waiting_ids(redis_client)[0]
    dies(deps, late)
    done = client.post(f"{DLQ}/requeue?plan={shown['plan']}").json()
    assert (done["ok"], done["requeued"]) == (True, 2)
    assert sorted(waiting_ids(redis_client)) == sorted(dead[:2])
    assert client.post(f"{DLQ}/requeue?plan={shown['plan']}").json() == done  # a second time only tells it
    assert sorted(letter["id"] for letter in client.get(DLQ).json()) == sorted([dead[2], late])


def test_a_requeue_by_filter_is_carried_out_at_once(
    client: httpx.Client, dead: list[str], redis_client: redis.Redis
) -> None:
    done = client.post(f"{DLQ}/requeue?error_class=auth").json()
    assert (done["ok"], done["requeued"]) == (True, 1)
    assert waiting_ids(redis_client) == dead[2:]


def test_everything_is_requeued_only_when_that_is_said(
    client: httpx.Client, dead: list[str], redis_client: redis.Redis
) -> None:
    for query in ("", "?all=false", "?dry_run=false"):
        refused = client.post(f"{DLQ}/requeue{query}")
        assert (refused.status_code, refused.json()["field"]) == (422, "all")
    assert client.post(f"{DLQ}/requeue?dry_run=true").json()["letters"] == 3
    assert client.post(f"{DLQ}/requeue?all=true&tier=T1").json()["field"] == "all"
    assert len(client.get(DLQ).json()) == 3
    assert client.post(f"{DLQ}/requeue?all=true").json()["requeued"] == 3
    assert len(waiting_ids(redis_client)) == 3


def test_a_wrong_plan_is_refused(client: httpx.Client) -> None:
    unknown = "5e0a2f0e-9d8e-4b6e-8a54-0d2a8b9c1d11"
    for query, status in (("plan=no-uuid", 422), (f"plan={unknown}", 404), (f"plan={unknown}&tier=T0", 422)):
        assert client.post(f"{DLQ}/requeue?{query}").status_code == status, query


def test_a_purge_deletes_old_letters_and_tells_who_did_it(
    client: httpx.Client, deps: Deps, dead: list[str], live_letter: str
) -> None:
    with deps.database.transaction() as connection:
        old = "UPDATE dead_letters SET died_at = died_at - interval '31 days' WHERE job_id = :job OR kind <> 'backfill'"
        connection.execute(text(old), {"job": dead[0]})
    looked = client.delete(f"{DLQ}/purge?dry_run=true").json()
    assert (looked["purged"], looked["would_purge"], [cause["letters"] for cause in looked["causes"]]) == (0, 1, [1])
    assert client.delete(f"{DLQ}/purge").json() == {"purged": 1}  # 30 days; letters of other kinds stay
    assert client.delete(f"{DLQ}/purge?days=30").json() == {"purged": 0}
    assert [letter["id"] for letter in client.get(DLQ).json()] == dead[:0:-1]
    assert [letter["id"] for letter in client.get("/ops/dlq/letters").json()] == [live_letter]
    with deps.database.transaction() as connection:
        audit = connection.execute(text("SELECT actor, action, details FROM audit_log ORDER BY id")).all()
    assert (audit[0].actor, audit[0].action, audit[0].details["count"]) == ("127.0.0.1", "dlq.purge", 1)


def test_a_wrong_purge_is_refused(client: httpx.Client, dead: list[str]) -> None:
    for query in ("days=-1", "days=0", "days=a", "days=", "days=1.5", "days=99999999", "day=3"):
        answer = client.delete(f"{DLQ}/purge?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, query.partition("=")[0]), query
    assert len(client.get(DLQ).json()) == 3


def test_letters_of_other_kinds_have_endpoints_of_their_own(
    client: httpx.Client, deps: Deps, dead: list[str], live_letter: str, redis_client: redis.Redis
) -> None:
    listed = client.get("/ops/dlq/letters").json()
    assert [(letter["id"], letter["kind"], letter["last_error"]) for letter in listed] == [
        (live_letter, "bars_fetch", "the vendor did not answer")
    ]
    assert client.get(f"/ops/dlq/letters/{live_letter}").json()["payload"]["symbols"] == ["AAPL", "MSFT"]
    for path, name in (("letters", dead[0]), ("backfills", live_letter)):
        for method, middle in (("GET", ""), ("POST", "requeue/")):
            assert client.request(method, f"/ops/dlq/{path}/{middle}{name}").status_code == 404
    assert client.post(f"/ops/dlq/letters/requeue/{live_letter}").json()["ok"] is True
    assert redis_client.llen("T0.live") == 1
    assert client.get("/ops/dlq/letters").json() == []
    assert len(client.get(DLQ).json()) == 3


def test_poison_is_shown_and_stays(client: httpx.Client, deps: Deps) -> None:
    letter_id = _poison(deps)
    shown = client.get(f"/ops/dlq/letters/{letter_id}").json()
    assert (shown["kind"], shown["envelope"], shown["payload"]) == ("poison", "not an envelope", None)
    answer = client.post(f"/ops/dlq/letters/requeue/{letter_id}")
    assert (answer.status_code, answer.json()["ok"]) == (404, False)
    assert "cannot be read" in answer.json()["error"]
    assert len(client.get("/ops/dlq/letters").json()) == 1


def test_stats_count_and_group_by_cause(client: httpx.Client, dead: list[str], live_letter: str) -> None:
    found: dict[str, Any] = client.get("/ops/dlq/stats").json()
    assert {
        name: found[name] for name in ("open", "backfills", "letters", "others", "requeued", "resolved", "in_queue")
    } == {
        "open": 4,
        "backfills": 3,
        "letters": 1,
        "others": 1,
        "requeued": 0,
        "resolved": 0,
        "in_queue": 0,
    }
    causes = [(group["provider"], group["error_class"], group["letters"]) for group in found["groups"]]
    assert causes[0] == ("simulator", "bad_payload", 2)
    assert sorted(causes[1:]) == [("", "timeout", 1), ("files", "auth", 1)]
    assert found["oldest"] <= found["newest"]
