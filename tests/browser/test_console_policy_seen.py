"""The policy in a real browser: written, refused by line, looked at, applied, tried, brought back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from mdtasks.flows import policies as flow
from mdtasks.flows.deps import Deps
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import desk_of
from tests.browser.looking import Console
from tests.integration.policy_calls import attempts

PAGE, CANDIDATE = "/console/policy", "/console/policy/candidate"


@pytest.fixture
def applied(deps: Deps) -> None:
    """Two versions."""
    now = datetime.now(UTC)
    flow.apply(desk_of(deps), attempts(3), Asked("ann", "fewer tries"), now)
    flow.apply(desk_of(deps), b"retry: {attempts: 4}\nbreaker: {demote: 0.5}", Asked("bob", "be patient"), now)


def written(page: Page, text: str) -> None:
    """Write a candidate and check it."""
    page.get_by_label("The policy, YAML or JSON").fill(text)
    page.get_by_role("button", name="Check it").click()


def test_what_is_wrong_is_told_by_line_and_what_was_typed_stays(console: Console, applied: None) -> None:
    console.expected = ("422",)
    page = console.page()
    page.goto(PAGE)
    page.get_by_role("link", name="Change it").click()
    text = "retry:\n  atempts: 3\nbreaker:\n  demote: 0.9\nslo:\n  targets: {T0: 7}\n"
    written(page, text)
    expect(page.get_by_role("heading", name="things are wrong")).to_be_visible()
    expect(page.locator(".findings")).to_contain_text("retry.atempts")
    expect(page.get_by_label("The policy, YAML or JSON")).to_have_value(text)
    page.get_by_role("button", name="line 2").click()
    chosen = page.evaluate("(([t]) => t.value.slice(t.selectionStart, t.selectionEnd))([document.activeElement])")
    assert chosen == "  atempts: 3"
    console.picture(page, "policy-wrong-desktop-light")
    other = console.page("phone", "dark")
    other.goto(CANDIDATE)
    written(other, text)
    console.picture(other, "policy-wrong-phone-dark")


def test_a_change_is_looked_at_applied_and_brought_back(console: Console, applied: None) -> None:
    page = console.page()
    page.goto(CANDIDATE)
    console.looked_at(CANDIDATE, "policy-candidate")
    written(page, "retry: {attempts: 7}\n")
    expect(page.get_by_role("heading", name="It is right")).to_be_visible()
    expect(page.get_by_role("row", name="retry.attempts 4 7")).to_be_visible()
    console.picture(page, "policy-right")
    page.get_by_label("Why, for the record").fill("more lives")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("status")).to_have_text("Policy 3 holds in place of 2.")
    expect(page.locator("#following")).to_contain_text("current")
    console.looked_at(PAGE, "policy")
    page.locator("#versions ~ .table [data-row]", has_text="1").click()
    page.wait_for_url(f"**{PAGE}/versions/1")
    console.looked_at(page.url, "policy-version")
    page.get_by_label("hold again everywhere").check()
    page.get_by_role("button", name="Go back").click()
    expect(page.get_by_role("status")).to_have_text("Policy 4 holds in place of 3.")


def test_a_trial_is_looked_on_and_stopped(console: Console, deps: Deps, applied: None) -> None:
    page = console.page()
    page.goto(CANDIDATE)
    written(page, "retry: {attempts: 7}\n")
    page.get_by_label("Where").select_option("T2")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("status")).to_have_text("The workers of T2 try policy 3; 2 holds elsewhere.")
    expect(page.get_by_role("heading", name="On trial")).to_be_visible()
    console.looked_at(PAGE, "policy-trial")
    page.get_by_label("Why, for the record").fill("it waits too long")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Policy 3, tried by T2, is withdrawn.")
    assert flow.newest(desk_of(deps)).version == 2


def test_another_change_meanwhile_is_told_and_nothing_is_lost(console: Console, deps: Deps, applied: None) -> None:
    console.expected = ("409",)
    page = console.page()
    page.goto(CANDIDATE)
    written(page, "retry: {attempts: 7}\n")
    page.get_by_label("Why, for the record").fill("more lives")
    flow.apply(desk_of(deps), attempts(9), Asked("cat", "mine first"), datetime.now(UTC))
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("applied by cat")
    expect(page.get_by_role("row", name="retry.attempts 9 7")).to_be_visible()
    expect(page.get_by_label("Why, for the record")).to_have_value("more lives")
    console.picture(page, "policy-moved")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("status")).to_have_text("Policy 4 holds in place of 3.")
