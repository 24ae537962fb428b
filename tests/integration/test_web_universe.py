"""The universe over HTTP: versions shown to all, changed by whoever may, each wrong value named."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from tests.integration.universe_calls import csv_of
from tests.integration.web_server import served

CSV = {"Content-Type": "text/csv"}
BODY = csv_of("AAPL,XNAS,190,1000", "MSFT,XNAS,370,2000")


def refreshed(client: httpx.Client, body: bytes = BODY, **query: str) -> dict[str, Any]:
    answer = client.post("/ops/universe/refresh", params={"source": "csv", **query}, content=body, headers=CSV)
    assert answer.status_code in (200, 201), answer.text
    document: dict[str, Any] = answer.json()
    assert document["changed"] is (answer.status_code == 201)
    return document


def test_from_a_listing_to_the_tiers(client: httpx.Client, deps: Deps) -> None:
    assert client.get("/universe").status_code == 404
    first = refreshed(client, tag="first", as_of="2024-01-02")
    assert (first["ok"], first["births"], first["tiers"]) == (True, 2, {"T0": 2, "T1": 0, "T2": 0})
    assert (first["created_by"], first["inputs"][0]["rows"], first["terms"]["days"]) == ("127.0.0.1", 2, 20)
    assert not refreshed(client, as_of="2024-01-02")["changed"]
    made = client.post("/ops/universe/activate", json={"tag": "first", "reason": "begin"}).json()
    assert (made["changed"], made["counts"]["came"], made["reason"]) == (True, 2, "begin")
    assert client.post("/ops/universe/activate", json={"tag": "first"}).json()["changed"] is False
    shown = client.get("/universe", params={"tier": "T0", "limit": 1}).json()
    assert shown["version_tag"] == "first"
    assert shown["listed"] == [{"rank": 1, "symbol": "MSFT", "tier": "T0", "score": 740000, "instrument": 4}]
    second = refreshed(client, csv_of("AAPL,XNAS,190,1000"))
    diff = client.get("/universe/diff", params={"old": "ACTIVE", "new": second["version_tag"]}).json()
    assert [(each["symbol"], each["after"]) for each in diff["moves"]] == [("MSFT", None)]
    assert (second["leaving"], second["held"], second["down"], second["too_many"]) == (1, 2, {}, True)
    refused = client.post("/ops/universe/activate", json={"tag": second["version_tag"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_leave")
    assert (refused.json()["leaving"], refused.json()["held"]) == (1, 2)
    assert client.get("/universe").json()["version_tag"] == "first"
    forced = client.post("/ops/universe/activate", json={"tag": second["version_tag"], "force": True})
    assert forced.status_code == 200
    assert client.get("/universe", params={"as_of": made["activated_at"]}).json()["version_tag"] == "first"
    assert [each["version_tag"] for each in client.get("/universe/history").json()] == [second["version_tag"], "first"]
    assert [each["active"] for each in client.get("/universe/versions").json()] == [True, False]
    assert client.get("/universe/recompute", params={"tag": "first"}).json()["same"] is True
    bundle = client.get("/universe/export", params={"tag": "ACTIVE"})
    assert bundle.headers["content-disposition"] == f'attachment; filename="{second["version_tag"]}.zip"'
    assert "members.csv" in zipfile.ZipFile(io.BytesIO(bundle.content)).namelist()


def test_a_renaming_is_told_and_shown(client: httpx.Client) -> None:
    done = client.post("/ops/universe/rename", json={"old": "BTC-USD", "new": "XBT-USD", "on": "2024-01-02"}).json()
    assert (done["ok"], done["old"], done["new"], done["on"]) == (True, "BTC-USD", "XBT-USD", "2024-01-02")
    rows = client.get("/universe/symbols/XBT-USD").json()
    assert [(row["symbol"], row["valid_to"]) for row in rows] == [("BTC-USD", "2024-01-02"), ("XBT-USD", None)]
    taken = client.post("/ops/universe/rename", json={"old": "ETH-USD", "new": "XBT-USD"})
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "field"),
    [
        ("POST", "/ops/universe/refresh", {"content": BODY, "headers": CSV}, 422, "source"),
        ("POST", "/ops/universe/refresh?source=csv", {"json": {}}, 415, "body"),
        ("POST", "/ops/universe/refresh?source=csv", {"content": b"x", "headers": CSV}, 422, "listing"),
        ("POST", "/ops/universe/refresh?source=csv&as_of=2999-01-01", {"content": BODY, "headers": CSV}, 422, "as_of"),
        ("POST", "/ops/universe/refresh?source=csv&as_of=x", {"content": BODY, "headers": CSV}, 422, "as_of"),
        ("POST", "/ops/universe/refresh?source=csv&tag=a%20b", {"content": BODY, "headers": CSV}, 422, "tag"),
        ("POST", "/ops/universe/refresh?source=csv", {"content": bytes(16_000_001), "headers": CSV}, 413, "body"),
        ("POST", "/ops/universe/refresh?source=alpaca&as_of=2024-01-02", {}, 422, "as_of"),
        ("POST", "/ops/universe/refresh?source=alpaca", {}, 422, "provider"),
        ("POST", "/ops/universe/refresh?source=simulator", {}, 502, None),
        ("POST", "/ops/universe/activate", {"json": {"tag": "none"}}, 404, None),
        ("POST", "/ops/universe/activate", {"json": {"tga": "none"}}, 422, "tga"),
        ("POST", "/ops/universe/activate", {"json": {}}, 422, "tag"),
        ("POST", "/ops/universe/activate", {"json": {"tag": "x", "force": "yes"}}, 422, "force"),
        ("POST", "/ops/universe/rename", {"json": {"old": "NONE", "new": "X"}}, 422, "symbol"),
        ("POST", "/ops/universe/rename", {"json": {"old": "BTC-USD", "new": "X", "on": "2999-01-01"}}, 422, "on"),
        ("GET", "/universe?tag=none", {}, 404, None),
        ("GET", "/universe?tag=none&as_of=2024-01-02", {}, 422, "as_of"),
        ("GET", "/universe?as_of=2024-01-02", {}, 404, None),
        ("GET", "/universe?limit=0", {}, 422, "limit"),
        ("GET", "/universe/diff?old=x", {}, 422, "new"),
        ("GET", "/universe/diff?old=x&new=y", {}, 404, None),
        ("GET", "/universe/recompute?tag=x", {}, 404, None),
        ("GET", "/universe/export", {}, 422, "tag"),
        ("GET", "/universe/symbols/NONE", {}, 422, "symbol"),
        ("GET", "/universe/versions?limit=x", {}, 422, "limit"),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: httpx.Client, method: str, path: str, options: dict[str, Any], status: int, field: str | None
) -> None:
    answer = client.request(method, path, **options)
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text
    assert client.get("/universe/versions").json() == []


def test_with_a_token_only_changes_need_it(settings: Settings) -> None:
    with served(settings.model_copy(update={"api_token": SecretStr("open sesame")})) as client:
        for path in ("refresh?source=csv", "activate", "rename"):
            assert client.post(f"/ops/universe/{path}", content=BODY, headers=CSV).status_code == 401
        bearer = {**CSV, "Authorization": "Bearer open sesame"}
        made = client.post("/ops/universe/refresh?source=csv", content=BODY, headers=bearer)
        assert made.json()["created_by"] == "api"
        assert len(client.get("/universe/versions").json()) == 1
