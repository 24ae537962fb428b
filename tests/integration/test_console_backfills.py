"""The pages of backfills over HTTP: what would be asked for is what is asked for, and what waits is cancelled."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from mdtasks.domain.jobs import BackfillJob, Interval, Tier
from mdtasks.flows import ingest, scan
from mdtasks.flows.backfill import BackfillRequest
from mdtasks.flows.backfill_preview import preview
from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.store import gaps as store_gaps
from mdtasks.store import request_reports
from tests.integration.console_forms import hidden_fields, sent, words_of
from tests.integration.web_server import asked, dies, opened, request_document, served, waiting_ids

LIST = "/console/backfills"
NEW = f"{LIST}/new"
QUERY = "symbols=BTC-USD+ETH-USD&interval=1m&start=2025-01-02&end=2025-01-05"


def _statuses(deps: Deps, request_id: str) -> dict[str, int]:
    with deps.database.transaction() as connection:
        return dict(request_reports.one(connection, request_id).jobs)


def test_what_is_told_before_is_what_becomes_of_it(client: httpx.Client, deps: Deps) -> None:
    asked(client)
    done, *_ = waiting_ids(deps.broker)
    ingest.run_backfill(BackfillJob.model_construct(job_id=done), deps, "t1@here/1", datetime.now(UTC))
    page = client.get(f"{NEW}?{QUERY}")
    said = words_of(page)
    assert re.search(r"T1 3 19,99\d 0", said), said
    assert "2 windows are being fetched already" in said
    answer = sent(client, LIST, **hidden_fields(page))
    assert answer.status_code == 303
    assert "3 queued, 2 being fetched already." in client.get(answer.headers["location"]).text
    assert _statuses(deps, answer.headers["location"].rpartition("/")[2]) == {"queued": 5}


@pytest.mark.parametrize("changes", [{}, {"priority": "T0"}, {"refetch": True}, {"symbol": ["BTC-USD", "ETH-USD"]}])
def test_a_preview_counts_what_a_request_does(client: httpx.Client, deps: Deps, changes: dict[str, Any]) -> None:
    first = asked(client, end="2025-01-03T00:00:00Z")
    done = waiting_ids(deps.broker)[0]
    ingest.run_backfill(BackfillJob.model_construct(job_id=done), deps, "t1@here/1", datetime.now(UTC))
    asked(client, end="2025-01-04T00:00:00Z")
    wanted = BackfillRequest.parse(request_document(**changes))
    told = preview(wanted, deps, datetime.now(UTC))
    became = asked(client, **changes)
    assert (told.jobs, told.merged, told.covered) == (became["queued"], became["merged"], became["covered"])
    assert first["request"] != became["request"]


def test_what_is_complete_cannot_be_asked_for(client: httpx.Client, deps: Deps) -> None:
    asked(client, end="2025-01-03T00:00:00Z")
    job = BackfillJob.model_construct(job_id=waiting_ids(deps.broker)[0])
    ingest.run_backfill(job, deps, "t1@here/1", datetime.now(UTC))
    page = client.get(f"{NEW}?symbols=BTC-USD&start=2025-01-02&end=2025-01-03")
    assert "1 symbol is complete already" in words_of(page)
    assert re.search(r"disabled>\s*Ask for 0 jobs", page.text)


def test_a_window_of_sessions_is_fixed_by_the_look(client: httpx.Client) -> None:
    fields = hidden_fields(client.get(f"{NEW}?symbols=BTC-USD&sessions=2"))
    assert fields["sessions"] == "2"
    assert datetime.fromisoformat(fields["end"]) <= datetime.now(UTC)
    assert "start" not in fields


def test_while_redis_is_away_the_room_is_not_known_and_all_waits(settings: Settings) -> None:
    away = settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"}).redis_url
    with opened(settings) as deps, served(settings.model_copy(update={"redis_url": away})) as client:
        page = client.get(f"{NEW}?{QUERY}")
        assert "T1 6 \N{EN DASH} 6" in words_of(page)
        assert "all of it waits in PostgreSQL" in page.text
        answer = sent(client, LIST, **hidden_fields(page))
        assert _statuses(deps, answer.headers["location"].rpartition("/")[2]) == {"deferred": 6}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("symbols=NOPE", "Unknown symbol NOPE"),
        ("symbols=BTC-USD&interval=2m", "Interval: Input should be"),
        ("symbols=BTC-USD&sessions=0", "sessions"),
        ("symbols=BTC-USD&sessions=1&start=2025-01-02", "not both"),
        ("symbols=BTC-USD&start=2025-01-02&end=2025-01-01", "not after start"),
        ("symbols=BTC-USD&start=2025-01-02T00:00", "naive"),
        ("symbols=no%00where", "pattern"),
        ("symbols=<script>", "pattern"),
        ("symbol=BTC-USD", "did you mean symbols?"),
        (f"symbols={'A' * 4001}", "4000"),
    ],
)
def test_what_is_wrong_is_said_beside_what_was_given(client: httpx.Client, query: str, words: str) -> None:
    page = client.get(f"{NEW}?{query}")
    assert (page.status_code, words in words_of(page)) == (422, True), words_of(page)
    assert "<script>" not in page.text.replace("<script type", "").replace("<script id", "")
    assert sent(client, LIST, symbols="NOPE").status_code == 422
    assert client.get("/ops/jobs").json() == []


def test_requests_are_listed_by_who_asked(client: httpx.Client, deps: Deps) -> None:
    asked(client, symbol=["BTC-USD", "ETH-USD"])
    scope = store_gaps.Scope(Tier.T1, Interval.M1)
    scan.scan(scope, deps, datetime.now(UTC), found_by=scan.ACTOR)
    everybody, people, scans = (words_of(client.get(f"{LIST}{each}")) for each in ("", "?by=people", "?by=scan"))
    for said in ("BTC-USD, ETH-USD, 1m, 2025-01-02 00:00 to 2025-01-05 00:00", "0 of 6"):
        assert (said in everybody, said in people, said in scans) == (True, True, False)
    assert ("2 T1 symbols, 1m" in everybody, "2 T1 symbols, 1m" in people, "2 T1 symbols, 1m" in scans) == (
        True,
        False,
        True,
    )
    assert client.get(f"{LIST}?by=nobody").status_code == 422


def test_ready_made_jobs_are_a_request_too(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        connection.exec_driver_sql("""INSERT INTO requests (requested_by, spec) VALUES ('<b>', '{"jobs": 3}')""")
    page = client.get(LIST)
    assert "3 ready-made jobs" in page.text
    assert "nothing to fetch" in page.text
    assert "&lt;b&gt;" in page.text


def test_a_request_is_shown_with_its_jobs_by_status(client: httpx.Client, deps: Deps) -> None:
    request_id = asked(client)["request"]
    job = waiting_ids(deps.broker)[0]
    dies(deps, job)
    for query, rows in (("", 3), ("?status=failed", 1), ("?status=queued", 2), ("?status=done", 0)):
        page = client.get(f"{LIST}/{request_id}{query}")
        assert page.text.count("data-row ") == rows, query
    assert "data-refresh" in page.text
    failed = client.get(f"{LIST}/{request_id}?status=failed").text
    (letter,) = re.findall(r'href="(/console/dead-letters/[^"]+)"', failed)
    assert job in client.get(letter).text
    for path in ("none", str(uuid4())):
        assert client.get(f"{LIST}/{path}").status_code == 404


def test_only_what_has_not_started_and_nobody_else_waits_for_is_cancelled(client: httpx.Client, deps: Deps) -> None:
    request_id = asked(client)["request"]
    first, second, third = waiting_ids(deps.broker)
    ingest.run_backfill(BackfillJob.model_construct(job_id=first), deps, "t1@here/1", datetime.now(UTC))
    other = asked(client, start="2025-01-03T00:00:00Z", end="2025-01-04T00:00:00Z")
    assert other["merged"] == 1
    path = f"{LIST}/{request_id}/cancel"
    assert sent(client, path).status_code == 422  # the box was not ticked
    said = words_of(client.get(f"{LIST}/{request_id}"))
    assert "Cancel what has not started: 1 job now" in said
    assert "1 more that has not started goes on" in said
    assert sent(client, path, confirmed="yes").status_code == 303
    assert "1 job was cancelled." in client.get(f"{LIST}/{request_id}").text
    statuses = {each["id"]: each["status"] for each in client.get("/ops/jobs").json()}
    assert statuses == {first: "done", second: "queued", third: "cancelled"}
    sent(client, path, confirmed="yes")
    assert "0 jobs were cancelled." in client.get(f"{LIST}/{request_id}").text
    assert sent(client, f"{LIST}/{uuid4()}/cancel", confirmed="yes").status_code == 404
