"""Who may speak to the web app: this machine alone without a token, the token's bearer with one."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr

from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.web.access import LoopbackOnly, why_not_local
from tests.integration.web_server import request_document, served

TOKEN = "a-token-of-some-length"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def open_client(settings: Settings, deps: Deps) -> Iterator[httpx.Client]:
    """A client of an app without a token."""
    with served(settings) as found:
        yield found


@pytest.fixture
def guarded_client(settings: Settings, deps: Deps) -> Iterator[httpx.Client]:
    """A client of an app with a token; it does not send it."""
    with served(settings.model_copy(update={"api_token": SecretStr(TOKEN)})) as found:
        yield found


def _another_address() -> str | None:
    """An address of this machine that is not loopback."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    return found[0] if found else None


def _scope(**changes: Any) -> dict[str, Any]:
    headers = {"host": "localhost:8000"} | changes.pop("headers", {})
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    base = {"type": "http", "method": "GET", "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000)}
    return {**base, "headers": encoded, **changes}


def test_without_a_token_another_address_is_refused_everywhere(
    settings: Settings, deps: Deps, unavailable_here: Any
) -> None:
    address = _another_address()
    if address is None:
        unavailable_here("this machine has no address but loopback")
    with served(settings, "0.0.0.0") as client:
        port = client.base_url.port
        for path in ("/", "/health", "/ready", "/metrics", "/ops/jobs", "/nowhere"):
            answer = httpx.get(f"http://{address}:{port}{path}")
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
            assert str(address) in answer.json()["error"]
            assert "MDTASKS_API_TOKEN" in answer.json()["hint"]
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_with_a_token_other_addresses_are_served(settings: Settings, deps: Deps, unavailable_here: Any) -> None:
    address = _another_address()
    if address is None:
        unavailable_here("this machine has no address but loopback")
    with served(settings.model_copy(update={"api_token": SecretStr(TOKEN)}), "0.0.0.0") as client:
        url = f"http://{address}:{client.base_url.port}"
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/ops/jobs").status_code == 401
        assert httpx.get(f"{url}/ops/jobs", headers=BEARER).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"client": ("::1", 5), "server": ("::1", 8000), "headers": {"host": "[::1]:8000"}},
        {"client": ("::ffff:127.0.0.1", 5), "server": ("::ffff:127.0.0.1", 8000), "headers": {"host": "127.0.0.1"}},
        {"headers": {"host": "LocalHost"}},
        {"method": "POST"},
        {"method": "POST", "headers": {"origin": "http://localhost:8000"}},
        {"method": "POST", "headers": {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}},
        {"headers": {"sec-fetch-site": "cross-site"}},
    ],
)
def test_this_machine_is_served(changes: dict[str, Any]) -> None:
    assert why_not_local(_scope(**changes)) == ""


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"client": ("10.0.0.9", 5)}, "10.0.0.9"),
        ({"client": None}, "unknown"),
        ({"server": ("10.0.0.1", 8000)}, "10.0.0.1"),
        ({"server": ("/run/app.sock", None)}, "/run/app.sock"),
        ({"server": None}, "unknown"),
        ({"headers": {"x-forwarded-for": "127.0.0.1"}}, "proxy"),
        ({"headers": {"forwarded": "for=127.0.0.1"}}, "proxy"),
        ({"headers": {"host": "rebound.example:8000"}}, "rebound.example"),
        ({"headers": {"host": "127.0.0.1.example"}}, "127.0.0.1.example"),
        ({"headers": {"host": "localhost.example"}}, "localhost.example"),
        ({"headers": {"host": "[::2]:8000"}}, "[::2]"),
        ({"headers": {"host": ""}}, "without one"),
        ({"method": "POST", "headers": {"origin": "https://evil.example"}}, "evil.example"),
        ({"method": "POST", "headers": {"origin": "http://localhost:9000"}}, "localhost:9000"),
        ({"method": "DELETE", "headers": {"origin": "null"}}, "null"),
        ({"method": "POST", "headers": {"sec-fetch-site": "same-site"}}, "another site"),
    ],
)
def test_what_is_not_this_machine_is_refused_with_the_reason(changes: dict[str, Any], word: str) -> None:
    assert word in why_not_local(_scope(**changes))


def test_a_web_socket_from_elsewhere_is_closed(settings: Settings, deps: Deps) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> Any:
        raise AssertionError("it was let through")

    scope = _scope(type="websocket", client=("10.0.0.9", 5), state={"deps": deps})
    asyncio.run(LoopbackOnly(never)(scope, never, send))
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


def test_a_name_that_was_rebound_to_loopback_is_refused(open_client: httpx.Client) -> None:
    answer = open_client.get("/ops/jobs", headers={"host": "rebound.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_page_of_another_site_cannot_requeue(open_client: httpx.Client) -> None:
    answer = open_client.post("/ops/dlq/backfills/requeue?all=true", headers={"origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_what_is_not_under_ops_needs_no_token(guarded_client: httpx.Client) -> None:
    for path in ("/runbooks", "/console/api", "/health", "/ready", "/metrics"):
        assert guarded_client.get(path).status_code == 200, path


UNDER_OPS = (
    ("GET", "/ops/jobs"),
    ("GET", "/ops/dlq/stats"),
    ("GET", "/ops/dlq/backfills"),
    ("GET", "/ops/dlq/letters"),
    ("POST", "/ops/backfill"),
    ("POST", "/ops/dlq/backfills/requeue"),
    ("DELETE", "/ops/dlq/backfills/purge"),
    ("GET", "/ops/nothing/here"),
    ("GET", "/ops/"),
    ("PUT", "/ops/jobs"),
)
NO_TOKEN: tuple[dict[str, str], ...] = (
    {},
    {"authorization": "Bearer"},
    {"authorization": "Bearer wrong"},
    {"authorization": f"Bearer {TOKEN}x"},
    {"authorization": f"Basic {TOKEN}"},
    {"authorization": TOKEN},
)


def test_everything_under_ops_needs_the_token(guarded_client: httpx.Client) -> None:
    for (method, path), headers in itertools.product(UNDER_OPS, NO_TOKEN):
        answer = guarded_client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (method, path, headers)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "MDTASKS_API_TOKEN" in answer.json()["hint"]
        assert TOKEN not in answer.text


def test_the_token_opens_everything_under_ops(guarded_client: httpx.Client) -> None:
    assert guarded_client.get("/ops/jobs", headers=BEARER).status_code == 200
    assert guarded_client.get("/ops/jobs", headers={"authorization": f"bearer  {TOKEN}"}).status_code == 200
    assert guarded_client.post("/ops/backfill", json=request_document(), headers=BEARER).status_code == 202
    assert guarded_client.get("/ops/nothing", headers=BEARER).status_code == 404


def test_a_token_of_other_letters_than_latin_ones_is_refused_not_a_fault(guarded_client: httpx.Client) -> None:
    answer = guarded_client.get("/ops/jobs", headers=[(b"authorization", b"Bearer \xff\xfe")])
    assert answer.status_code == 401


def _written(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [record.getMessage() for record in caplog.records if record.name == "mdtasks.web.access"]
    return [json.loads(line.removeprefix("write ")) for line in lines]


def test_every_change_leaves_a_line_that_says_who_did_what(
    guarded_client: httpx.Client, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    with caplog.at_level(logging.INFO, "mdtasks.web.access"):
        guarded_client.get("/ops/jobs", headers=BEARER)
        guarded_client.post("/ops/backfill", json=request_document(), headers=BEARER)
        guarded_client.delete("/ops/dlq/backfills/purge?days=x%0Ay", headers=BEARER)
        guarded_client.post("/ops/backfill", json=request_document())
        guarded_client.post("/ops/nowhere", headers=BEARER)
        eventually(lambda: len(_written(caplog)) >= 4, what="a line of each, the last after its answer")
    lines = _written(caplog)
    assert [(line["actor"], line["client"], line["method"], line["path"], line["status"]) for line in lines] == [
        ("api", "127.0.0.1", "POST", "/ops/backfill", 202),
        ("api", "127.0.0.1", "DELETE", "/ops/dlq/backfills/purge", 422),
        ("nobody", "127.0.0.1", "POST", "/ops/backfill", 401),
        ("api", "127.0.0.1", "POST", "/ops/nowhere", 404),
    ]
    assert not any(TOKEN in str(line) for line in lines)


def test_without_a_token_the_actor_is_the_clients_address(
    open_client: httpx.Client, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    with caplog.at_level(logging.INFO, "mdtasks.web.access"):
        open_client.post("/ops/backfill", json=request_document())
        eventually(lambda: _written(caplog), what="its line, after its answer")
    assert [line["actor"] for line in _written(caplog)] == ["127.0.0.1"]
