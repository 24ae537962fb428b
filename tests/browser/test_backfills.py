"""Backfills in a real browser: asked for after a look, watched, cancelled."""

from __future__ import annotations

from playwright.sync_api import expect

from mdtasks.flows.deps import Deps
from tests.browser.looking import Console
from tests.integration.web_server import asked, dies, waiting_ids

LIST = "/console/backfills"


def test_a_backfill_is_asked_for_after_a_look_at_what_that_does(console: Console, deps: Deps) -> None:
    page = console.page()
    page.goto(LIST)
    page.get_by_role("link", name="Ask for one").click()
    page.get_by_label("Symbols").fill("BTC-USD, ETH-USD")
    page.get_by_label("Last sessions").fill("")
    page.get_by_label("or from, UTC").fill("2025-01-02")
    page.get_by_label("to, UTC", exact=True).fill("2025-01-05")
    page.get_by_label("Tier").select_option("T0")
    page.get_by_role("button", name="Show what it would do").click()
    expect(page.get_by_role("row", name="T0 6 20,000 0")).to_be_visible()
    assert waiting_ids(deps.broker, "T0") == []
    console.looked_at(page.url, "backfill-preview")
    page.get_by_role("button", name="Ask for 6 jobs").click()
    expect(page.get_by_role("status")).to_have_text("6 queued.")
    assert len(waiting_ids(deps.broker, "T0")) == 6
    expect(page.get_by_text("0 of 6")).to_be_visible()
    with deps.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE backfill_jobs SET status = 'done'")
    expect(page.get_by_text("6 of 6")).to_be_visible()  # by itself


def test_a_request_shows_its_dead_and_what_waits_is_cancelled(console: Console, deps: Deps) -> None:
    request_id = asked(console.client)["request"]
    dies(deps, waiting_ids(deps.broker)[0])
    page = console.page()
    page.goto(LIST)
    expect(page.get_by_role("row", name="BTC-USD, 1m")).to_contain_text("of 3")
    console.looked_at(LIST, "backfills")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{LIST}/{request_id}")
    console.looked_at(page.url, "backfill")
    page.get_by_role("button", name="Cancel").click()
    assert page.url.endswith(request_id)  # the browser wants the box ticked
    page.get_by_label("Cancel what has not started: 2 jobs now").check()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("2 jobs were cancelled.")
    page.get_by_role("link", name="failed").click()
    expect(page.locator("table tbody tr")).to_have_count(1)
    page.get_by_role("link", name="dead letter", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("BTC-USD 1m: bad_payload")


def test_it_all_works_without_scripts(console: Console, deps: Deps) -> None:
    page = console.page(java_script_enabled=False)
    page.goto(f"{LIST}/new?symbols=BTC-USD&start=2025-01-02&end=2025-01-03")
    page.get_by_role("button", name="Ask for 1 job").click()
    assert page.get_by_role("status").inner_text() == "1 queued."
    page.get_by_label("Cancel what has not started").check()
    page.get_by_role("button", name="Cancel").click()
    assert page.get_by_role("status").inner_text() == "1 job was cancelled."


def test_what_is_wrong_is_said_beside_the_form(console: Console) -> None:
    console.expected = ("422",)
    page = console.page()
    page.goto(f"{LIST}/new")
    console.looked_at(page.url, "backfill-form")
    page.get_by_label("Symbols").fill("BTC-USDX")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("did you mean BTC-USD")
    expect(page.get_by_label("Symbols")).to_have_value("BTC-USDX")
    console.picture(page, "backfill-wrong")
