"""What else there is to look at: signing in, runbooks, the API, errors, a flame chart, a stack at work and failing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from pydantic import SecretStr

from mdtasks.domain.jobs import BackfillJob
from mdtasks.flows import ingest, monitor, presence, providers
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import reconcile_once
from mdtasks.settings import Settings
from mdtasks.stack.embedded import ValkeyServer, running
from tests.browser.looking import Console
from tests.integration.web_server import asked, served, waiting_ids

TOKEN = "a-token-of-some-length"


@pytest.fixture
def guarded(settings: Settings, deps: Deps, in_browser: Callable[[httpx.Client], Console]) -> Iterator[Console]:
    """The console of an app with a token."""
    with served(settings.model_copy(update={"api_token": SecretStr(TOKEN)})) as client:
        found = in_browser(client)
        yield found
        found.close()


def test_signing_in_and_out(guarded: Console) -> None:
    guarded.expected = ("401",)
    guarded.looked_at("/", "login")
    page = guarded.page()
    page.goto("/console/dead-letters")
    expect(page.get_by_label("API token")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This is not the API token")).to_be_visible()
    guarded.picture(page, "login-wrong")
    page.get_by_label("API token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/dead-letters")
    assert page.evaluate("document.cookie") == ""  # out of reach of scripts
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/console/login")
    page.goto("/")
    page.wait_for_url("**/console/login?next=**")


def test_a_phone_shows_the_tab_of_the_page(console: Console) -> None:
    page = console.page("phone")
    page.goto("/runbooks")
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name="Runbooks")).to_be_in_viewport(ratio=1)


def test_a_keyboard_goes_straight_to_the_page(console: Console) -> None:
    page = console.page()
    page.goto("/runbooks")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runbooks/*")


def test_pages_that_are_only_read(console: Console) -> None:
    for path, name in (("/runbooks", "runbooks"), ("/runbooks/PartDown", "runbook"), ("/console/api", "api")):
        console.looked_at(path, name)


def test_an_error_is_a_page(console: Console) -> None:
    console.expected = ("404",)
    console.looked_at("/console/dead-letters/none", "error")


def test_a_slow_call_is_a_flame_chart(console: Console, deps: Deps, settings: Settings) -> None:
    asked(console.client)
    opened = open_deps(settings.model_copy(update={"viztracer_slow_s": 1e-9, "viztracer_sample": 1.0}))
    ingest.run_backfill(
        BackfillJob.model_construct(job_id=waiting_ids(deps.broker)[0]), opened, "t1@here/1", datetime.now(UTC)
    )
    opened.close()
    (call,) = console.client.get("/ops/traces").json()["traces"]
    console.looked_at(f"/console/traces/{call['id']}", "trace")
    page = console.page()
    page.goto(f"/console/traces/{call['id']}")
    page.locator("#flame").click(position={"x": 300, "y": 30})
    expect(page.locator("#told")).to_contain_text("simulator bars_1m")


def test_a_stack_that_works_shows_bars_and_health(console: Console, deps: Deps) -> None:
    asked(console.client)
    now = datetime.now(UTC)
    for job_id in waiting_ids(deps.broker):
        ingest.run_backfill(BackfillJob.model_construct(job_id=job_id), deps, "t1@here/1", now)
    for seconds in range(60, 0, -10):
        providers.snapshot_once(deps, now - timedelta(seconds=seconds))
    providers.pause("simulator", "its splits are wrong since Friday", "ann", deps, now)
    presence.tick_arrived(deps, now)
    presence.worker_seen(deps.state, "t0@here", now)
    reconcile_once(deps, now)
    monitor.run_once(deps, now)
    page = console.page()
    page.goto("/")
    expect(page.locator("#providers svg.spark")).to_be_visible()
    expect(page.locator("#newest tbody tr")).to_have_count(1)
    expect(page.get_by_text("simulator is not asked in its turn", exact=False).first).to_be_visible()
    console.looked_at("/", "overview-busy")


def test_while_redis_fails_the_console_tells_what_postgresql_knows_and_comes_back_by_itself(
    settings: Settings, deps: Deps, in_browser: Callable[[httpx.Client], Console], tmp_path: Path
) -> None:
    server, stopping = ValkeyServer(tmp_path), ExitStack()
    stopping.enter_context(running(server))
    own = Settings.model_validate({"redis_url": server.url}).redis_url
    with stopping, served(settings.model_copy(update={"redis_url": own, "broker_url": None})) as client:
        console = in_browser(client)
        page = console.page()
        page.goto("/")
        page.get_by_text("Live.").wait_for()
        stopping.close()
        asked(client)
        heading = page.get_by_role("heading", level=1)
        expect(heading).to_have_text("Something is down", timeout=30_000)
        expect(page.locator("#tiers")).to_contain_text(re.compile(r"deferred\s*3"))  # PostgreSQL has them
        console.looked_at("/", "overview-redis-away")
        console.looked_at("/console/dead-letters", "letters-redis-away")
        with running(server):
            expect(heading).not_to_have_text("Something is down", timeout=30_000)
            console.close()
