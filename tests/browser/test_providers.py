"""Providers in a real browser: charts that are drawn, a case that is read, a pause and its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from mdtasks.domain.jobs import BackfillJob
from mdtasks.flows import ingest, providers
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.settings import Settings
from tests.browser.looking import Console
from tests.integration.told import NAME, demote
from tests.integration.web_server import asked, waiting_ids

LIST = "/console/providers"
ONE = f"{LIST}/{NAME}"


@pytest.fixture
def ill(console: Console, deps: Deps, settings: Settings) -> None:
    """The simulator: well for an hour, then demoted; one of its calls was slow and traced."""
    now = datetime.now(UTC)
    for minutes in range(90, 5, -1):
        if not 40 < minutes < 55:  # nobody looked
            deps.health.tell_request(NAME, "bars", 0.2 + (minutes % 7) * 0.5, None)
            providers.snapshot_once(deps, now - timedelta(minutes=minutes))
    demote(deps.health)
    for minutes in range(5, 0, -1):
        providers.snapshot_once(deps, now - timedelta(minutes=minutes))
    asked(console.client)
    traced = open_deps(settings.model_copy(update={"viztracer_slow_s": 1e-9, "viztracer_sample": 1.0}))
    ingest.run_backfill(BackfillJob.model_construct(job_id=waiting_ids(deps.broker)[0]), traced, "t1@here/1", now)
    traced.close()


def test_a_provider_that_is_ill_is_shown_with_its_case(console: Console, ill: None) -> None:
    page = console.page()
    page.goto("/")
    page.get_by_role("link", name=NAME, exact=True).click()
    page.wait_for_url(f"**{ONE}")
    page.get_by_role("link", name="1h").click()
    expect(page.locator("[data-chart] .scatterlayer")).to_have_count(4)
    page.get_by_text("Its case:").click()
    expect(page.get_by_role("cell", name="vendor_error").first).to_be_visible()
    console.picture(page, "provider-case-open")
    page.get_by_role("link", name="flame chart").click()
    page.wait_for_url("**/console/traces/*")
    console.looked_at(LIST, "providers")
    console.looked_at(ONE, "provider")


def test_pausing_and_resuming(console: Console, deps: Deps) -> None:
    console.expected = ("409",)
    page, other = console.page(), console.page()
    for each in (page, other):
        each.goto(ONE)
    page.get_by_role("button", name="Pause simulator").click()
    expect(page.get_by_role("status")).to_have_count(0)  # the browser wants a reason
    page.get_by_label("Why, for the record").fill("wrong splits")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("simulator is paused")
    expect(page.get_by_text("by 127.0.0.1: wrong splits").first).to_be_visible()
    console.looked_at(ONE, "provider-paused")
    other.get_by_label("Why, for the record").fill("I say so too")
    other.get_by_role("button", name="Pause simulator").click()
    expect(other.get_by_role("alert")).to_contain_text("is paused already")
    expect(other.get_by_label("Why, for the record")).to_have_value("I say so too")
    page.get_by_role("button", name="Resume simulator").click()
    expect(page.get_by_role("status")).to_contain_text("simulator is asked again")


def test_without_scripts_there_are_pictures(console: Console, ill: None) -> None:
    page = console.page(java_script_enabled=False)
    page.goto(ONE)
    expect(page.locator(".chart .spark")).to_have_count(4)
    console.picture(page, "provider-no-script")
