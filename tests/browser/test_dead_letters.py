"""Dead letters in a real browser: from the list to one letter, and back onto its queue."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from mdtasks.flows.deps import Deps
from tests.browser.looking import Console
from tests.integration.web_server import asked, dies, waiting_ids

LIST = "/console/dead-letters"


@pytest.fixture
def dead(console: Console, deps: Deps) -> list[str]:
    """Three dead backfills of BTC-USD, the last one died last; two of one cause."""
    asked(console.client)
    ids = waiting_ids(deps.broker)
    dies(deps, ids[0])
    dies(deps, ids[1])
    dies(deps, ids[2], error_class="auth", provider="files")
    return ids


def test_letters_are_grouped_filtered_and_shown_whole(console: Console, dead: list[str]) -> None:
    page = console.page()
    page.goto(LIST)
    expect(page.get_by_text("3 open")).to_be_visible()
    page.get_by_role("link", name="auth").first.click()
    expect(page.locator("table[data-rows] tbody tr")).to_have_count(1)
    page.locator("[data-row]").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("BTC-USD 1m: auth")
    expect(page.get_by_text("Traceback: it was like this")).to_be_visible()
    assert dead[2] in page.locator("pre").first.inner_text()
    console.looked_at(LIST, "letters")
    console.looked_at(f"{LIST}/{dead[2]}", "letter")


def test_a_group_is_requeued_after_a_look_at_what_that_does(console: Console, deps: Deps, dead: list[str]) -> None:
    page = console.page()
    page.goto(LIST)
    page.get_by_role("button", name="Requeue all of bad_payload by simulator").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Requeue 2 letters?")
    expect(page.get_by_role("row", name="T1 2 20,000 0")).to_be_visible()
    console.looked_at(page.url, "requeue-preview")
    page.get_by_role("button", name="Requeue 2").click()
    expect(page.get_by_role("status")).to_have_text("2 requeued.")
    expect(page.get_by_text("0 of 2")).to_be_visible()
    assert set(waiting_ids(deps.broker)) == set(dead[:2])
    console.looked_at(page.url, "requeue-progress")
    with deps.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE backfill_jobs SET status = 'done' WHERE status = 'queued'")
    expect(page.get_by_text("2 of 2")).to_be_visible()  # by itself


def test_one_letter_is_requeued_by_keyboard_alone(console: Console, deps: Deps, dead: list[str]) -> None:
    page = console.page()
    page.goto(LIST)
    page.keyboard.press("/")
    page.keyboard.type("BTC-USD")
    page.keyboard.press("Enter")
    page.wait_for_url("**symbol=BTC-USD**")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{LIST}/**")
    page.get_by_role("button", name="Requeue").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("1 requeued.")
    assert waiting_ids(deps.broker) == [dead[2]]


def test_old_letters_are_purged_only_when_that_is_confirmed(console: Console, deps: Deps, dead: list[str]) -> None:
    with deps.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE dead_letters SET died_at = now() - interval '40 days'")
    page = console.page()
    page.goto(f"{LIST}/purge")
    console.looked_at(f"{LIST}/purge", "purge")
    page.get_by_role("button", name="Delete").click()
    assert page.url.endswith("/purge")  # the browser wants the box ticked
    page.get_by_label("Delete 3 letters for good and give up 3 jobs").check()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_have_text("3 letters were deleted.")
    expect(page.get_by_text("None is open")).to_be_visible()


def test_everything_works_without_scripts(console: Console, deps: Deps, dead: list[str]) -> None:
    page = console.page(java_script_enabled=False)
    page.goto("/")
    page.get_by_role("link", name="3 dead letters are open").click()
    page.get_by_role("button", name="Requeue all letters").click()
    page.get_by_role("button", name="Requeue 3").click()
    assert page.get_by_role("status").inner_text() == "3 requeued."
    assert sorted(waiting_ids(deps.broker)) == sorted(dead)
