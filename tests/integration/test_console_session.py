"""Signing in to the console, and what a form must show to be believed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from pydantic import SecretStr

from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.web.console.session import COOKIE, LASTS_S, Session, csrf_token, session_of, signed_cookie
from tests.integration.web_server import served

TOKEN = "a-token-of-some-length"
LOGIN = "/console/login"
#: Forms, and what they would change.
FORMS = (
    "/console/dead-letters/requeue",
    "/console/dead-letters/purge",
    "/console/dead-letters/some/requeue",
    "/console/dead-letters/requeue/7949373b-0000-0000-0000-000000000000",
)


@pytest.fixture
def guarded(settings: Settings, deps: Deps) -> Iterator[httpx.Client]:
    """A browser's client of an app with a token, not signed in."""
    with served(settings.model_copy(update={"api_token": SecretStr(TOKEN)})) as client:
        client.headers["accept"] = "text/html"
        yield client


def csrf_of(client: httpx.Client, path: str) -> str:
    """What the forms of a page carry."""
    return str(re.findall(r'name="csrf" value="(\w+)"', client.get(path).text)[0])


def sign_in(client: httpx.Client, token: str = TOKEN, **fields: str) -> httpx.Response:
    """Send the form of the login page."""
    return client.post(LOGIN, data={"csrf": csrf_of(client, LOGIN), "token": token, **fields})


def test_whoever_is_not_signed_in_is_asked_to_and_comes_back(guarded: httpx.Client) -> None:
    asked = guarded.get("/console/dead-letters?tier=T1")
    assert asked.status_code == 303
    assert asked.headers["location"] == f"{LOGIN}?next=%2Fconsole%2Fdead-letters%3Ftier%3DT1"
    there = sign_in(guarded, next="/console/dead-letters?tier=T1")
    assert (there.status_code, there.headers["location"]) == (303, "/console/dead-letters?tier=T1")
    assert guarded.get("/console/dead-letters?tier=T1").status_code == 200
    assert guarded.get("/").status_code == 200
    assert guarded.get(LOGIN).status_code == 303  # signed in already


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(guarded: httpx.Client) -> None:
    given = sign_in(guarded).headers["set-cookie"]
    for rule in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert rule.lower() in given.lower()
    assert TOKEN not in given


def test_a_wrong_token_signs_nobody_in(guarded: httpx.Client) -> None:
    for wrong in ("", "another", TOKEN[:-1], TOKEN + "x", "é"):
        answer = sign_in(guarded, wrong)
        assert (answer.status_code, "is not the API token" in answer.text) == (401, True), wrong
    assert guarded.get("/").status_code == 303


def test_signing_out_ends_it(guarded: httpx.Client) -> None:
    sign_in(guarded)
    assert guarded.post("/console/logout", data={"csrf": csrf_of(guarded, "/")}).status_code == 303
    assert guarded.get("/").status_code == 303


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil", "/a\nb"])
def test_signing_in_leads_to_no_other_site(guarded: httpx.Client, elsewhere: str) -> None:
    assert sign_in(guarded, next=elsewhere).headers["location"] == "/"


@pytest.mark.parametrize("path", FORMS)
def test_a_form_changes_nothing_for_who_is_not_signed_in(guarded: httpx.Client, path: str) -> None:
    answer = guarded.post(path, data={"csrf": csrf_of(guarded, LOGIN)})
    assert (answer.status_code, "not signed in" in answer.text) == (401, True)


@pytest.mark.parametrize("path", [*FORMS, LOGIN, "/console/logout"])
@pytest.mark.parametrize("csrf", ["", "0" * 64])
def test_without_a_token_too_a_form_must_be_of_a_page_of_ours(client: httpx.Client, path: str, csrf: str) -> None:
    client.get("/")
    answer = client.post(path, data={"csrf": csrf})
    assert (answer.status_code, "not of a page that you have now" in answer.text) == (403, True)


def test_the_form_of_another_browser_is_refused(client: httpx.Client) -> None:
    client.get("/")
    theirs = csrf_token(Session(client.cookies[COOKIE], signed_in=True))
    assert client.post("/console/dead-letters/purge", data={"csrf": theirs}).status_code == 422  # believed
    client.cookies.clear()
    client.get("/")
    assert client.post("/console/dead-letters/purge", data={"csrf": theirs}).status_code == 403


@pytest.mark.parametrize("header", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_a_page_of_another_site_cannot_send_our_forms(client: httpx.Client, header: dict[str, str]) -> None:
    answer = client.post("/console/dead-letters/purge", data={"csrf": "x"}, headers=header)
    assert answer.status_code == 403


def test_a_form_is_a_form(client: httpx.Client) -> None:
    assert client.post("/console/dead-letters/purge", json={"csrf": "x"}).status_code == 415
    assert client.post("/console/dead-letters/purge", content=b"x" * 1_000_001, headers=_FORM).status_code == 413


_FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_events_are_for_who_is_signed_in(guarded: httpx.Client) -> None:
    answer = guarded.get("/console/events", headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_every_form_leaves_a_line_with_who_sent_it(
    guarded: httpx.Client, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    caplog.set_level(logging.INFO, "mdtasks.web.access")
    sign_in(guarded, "wrong")
    sign_in(guarded)
    guarded.post("/console/dead-letters/purge", data={"csrf": csrf_of(guarded, "/"), "confirmed": "yes"})

    def actors() -> list[str]:
        lines = [each.message for each in caplog.records if each.message.startswith("write")]
        return [re.findall(r'"actor": "(\w+)"', line)[0] for line in lines]

    eventually(lambda: actors() == ["nobody", "console", "console"], what="a line each")
    assert TOKEN not in caplog.text


def test_a_signed_cookie_holds_for_its_time_and_its_token() -> None:
    cookie = signed_cookie(TOKEN, 1000.0)
    assert session_of(cookie, TOKEN, 1000.0 + LASTS_S - 1).signed_in
    assert not session_of(cookie, TOKEN, 1000.0 + LASTS_S).signed_in
    assert not session_of(cookie, "another", 1001.0).signed_in
    kind, until, rest = cookie.split(".", 2)
    assert not session_of(f"{kind}.{int(until) + 1}.{rest}", TOKEN, 1001.0).signed_in
    assert not session_of("a." + "x" * 43, TOKEN, 1001.0).signed_in
    assert session_of("a." + "x" * 43, None, 1001.0).signed_in


def test_whoever_has_a_cookie_of_ours_keeps_it(client: httpx.Client) -> None:
    client.get("/")
    first = client.cookies[COOKIE]
    assert "set-cookie" not in client.get("/console/dead-letters").headers
    assert client.cookies[COOKIE] == first
    client.cookies.clear()
    assert COOKIE in client.get("/", headers={"cookie": f"{COOKIE}=nonsense"}).headers["set-cookie"]
