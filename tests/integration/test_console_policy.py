"""The pages of the policy over HTTP: shown, judged, applied, tried, brought back; what is refused and what is kept."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy import Policy
from mdtasks.domain.policy.pages import yaml_of
from mdtasks.flows import policies as flow
from mdtasks.flows import policy_canaries
from mdtasks.flows.deps import Deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import desk_of
from mdtasks.settings import Settings
from tests.integration.console_forms import field_of, sent, text_of, words_of
from tests.integration.policy_calls import attempts
from tests.integration.web_server import served
from tests.wrong_policies import ALONE

PAGE, CANDIDATE, APPLY = "/console/policy", "/console/policy/candidate", "/console/policy/apply"
SEVEN = "retry: {attempts: 7}"
EVIL = "</textarea><script>alert(1)</script>"


def applied(deps: Deps, number: int, by: str = "ann") -> int:
    """Somebody changes the policy elsewhere; the version."""
    return flow.apply(desk_of(deps), attempts(number), Asked(by, "elsewhere"), datetime.now(UTC)).version.version


def checked(client: httpx.Client, text: str = SEVEN, expect: int = 0) -> dict[str, str]:
    """The fields of a form whose text was checked."""
    page = sent(client, CANDIDATE, text=text, expect=expect)
    return {"text": text_of(page), "expect": field_of(page, "expect"), "judged": field_of(page, "judged")}


def test_what_holds_is_shown_and_who_follows_it(client: httpx.Client, deps: Deps) -> None:
    shown = words_of(client.get(PAGE))
    for words in ("The default policy holds", "Nothing was ever applied", "What providers must serve", "defaults hold"):
        assert words in shown
    applied(deps, 3)
    page = client.get(PAGE)
    shown = words_of(page)
    for words in ("Policy 1 holds", "Applied by ann", "retry 3 fields, 1 not the default", "default 5"):
        assert words in shown
    assert f'href="{PAGE}/versions/1"' in page.text


def test_what_the_environment_sets_is_named(
    settings: Settings, deps: Deps, monkeypatch: pytest.MonkeyPatch, client: httpx.Client
) -> None:
    monkeypatch.setenv("MDTASKS_MAX_ATTEMPTS", "2")
    applied(deps, 3)
    with served(settings.model_copy(update={"max_attempts": 2})) as overridden:
        shown = words_of(overridden.get(PAGE))
        assert "retry.attempts 2 3 MDTASKS_MAX_ATTEMPTS" in shown
        page = sent(overridden, CANDIDATE, text=SEVEN, expect=1)
        assert "retry.attempts stays as it is where MDTASKS_MAX_ATTEMPTS is set" in words_of(page)


def test_a_candidate_begins_as_what_holds_a_version_or_the_file(
    settings: Settings, client: httpx.Client, deps: Deps
) -> None:
    assert text_of(client.get(CANDIDATE)) == yaml_of(Policy(), comments=False)
    applied(deps, 3)
    assert "attempts: 3" in text_of(client.get(CANDIDATE))
    assert "attempts: 5" in text_of(client.get(f"{CANDIDATE}?version=0"))
    assert client.get(f"{CANDIDATE}?start=file").status_code == 404
    settings.home.mkdir(exist_ok=True)
    (settings.home / "policy.yaml").write_text(f"\n\n{SEVEN}")
    assert text_of(client.get(f"{CANDIDATE}?start=file")) == f"\n\n{SEVEN}"
    assert client.get(f"{CANDIDATE}?version=9").status_code == 404


def test_a_candidate_is_judged_and_nothing_is_changed(client: httpx.Client, deps: Deps) -> None:
    page = sent(client, CANDIDATE, text=SEVEN, expect=0)
    shown = words_of(page)
    assert page.status_code == 200
    for words in ("It changes 1 field of the defaults", "retry.attempts 5 7", "What providers would have to serve"):
        assert words in shown
    assert flow.newest(desk_of(deps)).version == 0


@pytest.mark.parametrize("path", [CANDIDATE, APPLY])
def test_wrong_candidates_are_told_by_path_and_line_and_kept(client: httpx.Client, deps: Deps, path: str) -> None:
    for wrong in ALONE:
        try:
            text = wrong.data.decode()
        except UnicodeDecodeError:
            continue  # no text area holds it
        if len(text) > 100_000 or any(each < " " and each not in "\t\n" for each in text):
            continue
        page = sent(client, path, text=text, expect=0, reason="why")
        if path == APPLY:
            assert page.status_code in (409, 422), wrong.name
        else:
            assert page.status_code == 422, wrong.name
        assert text_of(page) == text, wrong.name
        assert field_of(page, "reason") == "why"
        assert wrong.rule in words_of(page), wrong.name
        if wrong.line:
            assert f'data-line="{wrong.line}"' in page.text, wrong.name
    assert flow.newest(desk_of(deps)).version == 0


def test_a_candidate_that_does_not_fit_is_told_what_would(client: httpx.Client, deps: Deps) -> None:
    page = sent(client, CANDIDATE, text="limits: {simulator: 1/min}", expect=0)
    shown = words_of(page)
    assert page.status_code == 422
    for words in ("1 thing is wrong", "too much", "One of these makes it fit: "):
        assert words in shown
    assert flow.newest(desk_of(deps)).version == 0


def test_what_is_typed_does_nothing_in_a_browser(client: httpx.Client) -> None:
    page = sent(client, CANDIDATE, text=f"{EVIL}: {EVIL}", expect=0, reason=f'"{EVIL}')
    assert "<script>alert" not in page.text
    assert text_of(page) == f"{EVIL}: {EVIL}"


def test_a_change_is_applied_with_its_reason_and_followed(client: httpx.Client, deps: Deps) -> None:
    done = sent(client, APPLY, **checked(client), reason="more lives")
    assert (done.status_code, done.headers["location"]) == (303, PAGE)
    shown = words_of(client.get(PAGE))
    assert "Policy 1 holds in place of 0." in shown
    assert "by 127.0.0.1" in shown
    assert "more lives" in shown
    assert client.get("/ops/policy").json()["policy"]["retry"]["attempts"] == 7  # the app itself follows
    sent(client, APPLY, **checked(client, expect=1))
    assert "Policy 1 has this content already: nothing was changed." in words_of(client.get(PAGE))


def test_a_text_that_was_not_checked_is_shown_first(client: httpx.Client, deps: Deps) -> None:
    fields = checked(client) | {"text": "retry: {attempts: 8}"}
    page = sent(client, APPLY, **fields, reason="typed on")
    assert page.status_code == 409
    assert "not the text that was checked" in words_of(page)
    assert "retry.attempts 5 8" in words_of(page)
    assert flow.newest(desk_of(deps)).version == 0
    again = {name: field_of(page, name) for name in ("expect", "judged", "reason")}
    assert sent(client, APPLY, text=text_of(page), **again).status_code == 303
    assert flow.newest(desk_of(deps)).version == 1


def test_a_change_by_somebody_else_meanwhile_is_refused_and_told(client: httpx.Client, deps: Deps) -> None:
    fields = checked(client)
    applied(deps, 9, by="cat")
    page = sent(client, APPLY, **fields, reason="more lives", canary="T2", watch_s="60")
    assert page.status_code == 409
    assert "applied by cat" in words_of(page)
    assert "retry.attempts 9 7" in words_of(page)
    kept = {name: field_of(page, name) for name in ("expect", "reason", "watch_s")}
    assert kept == {"expect": "1", "reason": "more lives", "watch_s": "60"}
    assert '<option value="T2" selected>' in page.text
    assert flow.newest(desk_of(deps)).version == 1
    again = sent(client, CANDIDATE, text=SEVEN, expect=0)
    assert "Somebody changed the policy meanwhile: version 1 holds, applied by cat" in words_of(again)


@pytest.mark.parametrize(
    ("name", "value"),
    [("watch_s", "0"), ("watch_s", "soon"), ("watch_s", "1e9"), ("canary", "T7"), ("reason", "x" * 1001)],
)
def test_every_wrong_field_is_told_where_it_stands(client: httpx.Client, deps: Deps, name: str, value: str) -> None:
    fields = {**checked(client), "reason": "why", "watch_s": "60", "canary": "T2", name: value}
    page = sent(client, APPLY, **fields)
    assert page.status_code == 422
    assert f'id="wrong-{name}"' in page.text
    if name != "canary":
        assert field_of(page, name) == value
    assert text_of(page) == SEVEN
    assert flow.newest(desk_of(deps)).version == 0


def test_a_trial_is_shown_and_ended(client: httpx.Client, deps: Deps) -> None:
    sent(client, APPLY, **checked(client), canary="T2", watch_s="60")
    page = client.get(PAGE)
    for words in ("The workers of T2 try policy 1; 0 holds elsewhere.", "On trial: policy 1", "of 60 s", "nobody yet"):
        assert words in words_of(page)
    assert 'data-refresh="/console/policy"' in page.text
    other = sent(client, APPLY, **checked(client, "retry: {attempts: 8}"))
    assert (other.status_code, "try policy 1" in words_of(other)) == (409, True)
    wrong = sent(client, f"{PAGE}/canary/promote", reason="x" * 1001, expect="1")
    assert (wrong.status_code, 'id="wrong-reason"' in wrong.text) == (422, True)
    assert sent(client, f"{PAGE}/canary/promote", reason="it is well", expect="1").status_code == 303
    shown = words_of(client.get(PAGE))
    assert "Policy 1, tried by T2, is promoted." in shown
    assert "promoted by 127.0.0.1: it is well" in shown
    over = sent(client, f"{PAGE}/canary/stop", reason="too late", expect="1")
    assert (over.status_code, field_of(over, "reason")) == (409, "too late")
    assert policy_canaries.trial(desk_of(deps), datetime.now(UTC)) is None


def test_an_earlier_version_is_brought_back_when_that_is_confirmed(client: httpx.Client, deps: Deps) -> None:
    applied(deps, 3)
    applied(deps, 4)
    path = f"{PAGE}/versions/1"
    page = client.get(path)
    assert "Would change 1 field of version 2" in words_of(page)
    back = {"expect": field_of(page, "expect"), "reason": "too patient"}
    unsure = sent(client, f"{path}/rollback", **back)
    assert (unsure.status_code, 'id="wrong-confirmed"' in unsure.text) == (422, True)
    assert field_of(unsure, "reason") == "too patient"
    applied(deps, 6, by="cat")
    moved = sent(client, f"{path}/rollback", **back, confirmed="yes")
    assert (moved.status_code, "applied by cat" in words_of(moved)) == (409, True)
    assert (field_of(moved, "expect"), field_of(moved, "reason")) == ("3", "too patient")
    done = sent(client, f"{path}/rollback", **back | {"expect": "3"}, confirmed="yes")
    assert done.status_code == 303
    assert "Policy 4 holds in place of 3." in words_of(client.get(PAGE))
    assert flow.newest(desk_of(deps)).restores == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [(f"{PAGE}/versions/9", 404), (f"{PAGE}?x=1", 422), (f"{CANDIDATE}?version=x", 422), (f"{PAGE}/versions/0", 200)],
)
def test_other_questions(client: httpx.Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status


@pytest.mark.parametrize(
    "path", [CANDIDATE, APPLY, f"{PAGE}/canary/promote", f"{PAGE}/canary/stop", f"{PAGE}/versions/0/rollback"]
)
def test_forms_must_be_of_a_page_of_ours(client: httpx.Client, deps: Deps, path: str) -> None:
    client.get("/runbooks")
    assert client.post(path, data={"csrf": "0" * 64, "text": SEVEN, "expect": "0"}).status_code == 403
    assert flow.newest(desk_of(deps)).version == 0


def test_while_redis_is_away_it_is_not_known_who_runs_what(settings: Settings, deps: Deps) -> None:
    flow.apply(desk_of(deps), attempts(3), Asked("ann", canary=Tier.T2), datetime.now(UTC))
    gone = Settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"}).redis_url
    with served(settings.model_copy(update={"redis_url": gone})) as client:
        page = client.get(PAGE)
    assert page.status_code == 200
    assert "Who runs which version Not known:" in words_of(page)
