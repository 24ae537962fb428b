"""The policy over HTTP: shown, judged, changed, followed by the app itself; wrong ones refused by their place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.stack.ports import any_free_port
from mdtasks.web.following import reload_file
from tests.integration.cli_calls import environment_of
from tests.integration.web_server import says_what_next, served
from tests.wrong_policies import ALONE

YAML = {"Content-Type": "application/yaml"}


def attempts(client: httpx.Client) -> int:
    return int(client.get("/ops/policy").json()["policy"]["retry"]["attempts"])


def test_a_policy_is_judged_applied_and_followed(
    client: httpx.Client, deps: Deps, eventually: Callable[..., None]
) -> None:
    candidate = {"retry": {"attempts": 7}}
    judged = client.post("/ops/validate", json=candidate)
    assert judged.status_code == 200
    assert judged.json() == {
        "ok": True,
        "policy_version": 0,
        "changes": [{"path": "retry.attempts", "before": 5, "after": 7, "restart": False}],
        "beat": [],
        "over_cap": [],
        "leave": [],
        "come": [],
        "hidden": [],
        "restart": [],
        "deletes": [],
        "unseen": [],
    }
    assert attempts(client) == 5
    made = client.post("/ops/reload?reason=more%20lives", json=candidate).json()
    assert (made["ok"], made["policy_version"], made["changed"], made["announced"]) == (True, 1, True, True)
    assert (made["author"], made["reason"]) == ("127.0.0.1", "more lives")
    assert attempts(client) == 7
    assert client.post("/ops/reload", content=b"retry: {attempts: 7}", headers=YAML).json()["changed"] is False
    shown = client.get("/ops/policy?version=0").json()
    assert (shown["policy_version"], shown["policy"]["retry"]["attempts"], shown["overridden"]) == (0, 5, {})
    assert [each["policy_version"] for each in client.get("/ops/policy/history").json()] == [1]

    def web() -> dict[str, Any]:
        found = client.get("/stats/policy").json()["processes"]
        return next((each for each in found if each["process"].startswith("web@")), {})

    eventually(lambda: web().get("policy_version") == 1, what="the app follows its own change")
    assert web()["state"] == "current"


def test_a_wrong_candidate_is_refused_by_its_place(client: httpx.Client) -> None:
    for wrong in ALONE:
        if not wrong.data:  # without a body the file is read
            continue
        for path in ("/ops/validate", "/ops/reload"):
            answer = client.post(path, content=wrong.data, headers=YAML)
            document = answer.json()
            assert document["ok"] is False
            if len(wrong.data) > 1_000_000:
                assert answer.status_code == 413
                continue
            assert answer.status_code == 422
            assert wrong.path in [each["path"] for each in document["errors"]], wrong.name
            assert all(set(each) == {"path", "value", "rule", "line"} for each in document["errors"])
    assert client.get("/ops/policy").json()["policy_version"] == 0


def test_without_a_body_the_file_is_read(settings: Settings, client: httpx.Client) -> None:
    assert client.post("/ops/reload").json()["policy_version"] == 0
    settings.home.mkdir(exist_ok=True)
    (settings.home / "policy.yaml").write_text("retry: {attempts: 8}")
    assert [each["after"] for each in client.post("/ops/validate").json()["changes"]] == [8]
    assert client.post("/ops/reload").json()["policy_version"] == 1
    assert client.get("/ops/policy").json()["file"] == str(settings.home / "policy.yaml")
    (settings.home / "policy.yaml").unlink()
    gone = client.post("/ops/reload")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert attempts(client) == 8


def test_another_version_than_expected_is_a_conflict(client: httpx.Client) -> None:
    answer = client.post("/ops/reload?expect=3", json={"retry": {"attempts": 7}})
    assert answer.status_code == 409
    assert (answer.json()["code"], answer.json()["policy_version"]) == ("policy_changed", 0)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/ops/validate", {"Content-Type": "text/plain"}, 415),
        ("POST", "/ops/reload", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/ops/reload", {"Content-Type": "application/yaml", "Origin": "http://evil.example"}, 403),
        ("POST", "/ops/reload?because=x", YAML, 422),
        ("POST", "/ops/reload?expect=-1", YAML, 422),
        ("GET", "/ops/policy?version=7", {}, 404),
        ("GET", "/ops/policy?version=x", {}, 422),
        ("GET", "/ops/policy/history?limit=0", {}, 422),
        ("GET", "/stats/policy?x=1", {}, 422),
        ("GET", "/ops/reload", {}, 405),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: httpx.Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    body = b"retry: {attempts: 7}" if method == "POST" else None
    assert client.request(method, path, content=body, headers=headers).status_code == status
    assert client.get("/ops/policy").json()["policy_version"] == 0


def test_with_a_token_a_change_needs_it(settings: Settings) -> None:
    guarded = settings.model_copy(update={"api_token": _secret("open sesame")})
    with served(guarded) as client:
        assert client.post("/ops/reload", json={}).status_code == 401
        answer = client.post("/ops/reload", json={}, headers={"Authorization": "Bearer open sesame"})
        assert answer.json()["policy_version"] == 0
        assert client.get("/stats/policy").status_code == 200


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)


def test_what_cannot_be_read_from_the_file_is_logged_and_changes_nothing(
    deps: Deps, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.home.mkdir(exist_ok=True)
    file = settings.home / "policy.yaml"
    file.write_text("breaker: {demote: 0.9}\nretry: {atempts: 3}")
    reload_file(deps)
    assert deps.policy.current.version == 0
    assert "retry.atempts: 3 is an unknown key; did you mean attempts?" in caplog.text
    assert "breaker.demote: 0.9 must be below breaker.promote (0.7)" in caplog.text
    file.write_text("breaker: {demote: 0.6}")
    reload_file(deps)
    assert (deps.policy.current.version, deps.policy.policy.breaker.demote) == (1, 0.6)
    file.unlink()
    reload_file(deps)  # the defaults do not silently stand in for a file that is gone
    assert (deps.policy.current.version, deps.policy.policy.breaker.demote) == (1, 0.6)
    assert "there is no policy file" in caplog.text


def test_a_sighup_reloads_the_file(settings: Settings, eventually: Callable[..., None]) -> None:
    free_port = any_free_port()
    settings.home.mkdir(exist_ok=True)
    (settings.home / "policy.yaml").write_text("retry: {attempts: 9}")
    words = [sys.executable, "-P", "-m", "uvicorn", "mdtasks.web.app:app", "--port", str(free_port)]
    environ = {**os.environ, **environment_of(settings)}
    with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) as server:
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{free_port}", event_hooks={"response": [says_what_next]}
            ) as client:
                eventually(lambda: _answers(client), within_s=30, what="the app answers")
                eventually(lambda: bool(client.get("/stats/policy").json()["processes"]), what="the app has left word")
                server.send_signal(signal.SIGHUP)
                eventually(lambda: attempts(client) == 9, what="the app has read its file")
                (made,) = client.get("/ops/policy/history").json()
                assert made["author"].startswith("SIGHUP@")
                assert server.poll() is None
        finally:
            server.terminate()
            server.communicate(timeout=20)
    assert server.returncode in (0, -signal.SIGTERM)  # uvicorn stops in good order, then dies of what it was told


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_while_the_servers_are_away_the_answer_says_so(settings: Settings, client: httpx.Client) -> None:
    gone = settings.model_copy(update={"database_url": _secret("postgresql://nobody@127.0.0.1:1/none")})
    with served(gone) as other:
        assert other.post("/ops/validate", json={}).status_code == 503
        assert other.post("/ops/reload", json={}).status_code == 503
        assert other.get("/stats/policy").status_code == 503
        assert other.get("/health").status_code == 200
