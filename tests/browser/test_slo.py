"""Objectives in a real browser: what is missed, by whom and why, and how it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from mdtasks.domain.jobs import Interval, Tier
from mdtasks.flows import monitor
from mdtasks.flows.deps import Deps
from mdtasks.store import snapshots
from mdtasks.store.reference import Instrument, add_instruments
from mdtasks.store.snapshots import Series, Snapshot
from tests.browser.looking import Console
from tests.integration.web_server import asked, dies, waiting_ids

PAGE = "/console/slo"


def _late(console: Console, deps: Deps) -> None:
    """The two of T1 have no data, one of them a dead letter; T0 is well, and was not always."""
    now = datetime.now(UTC)
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("SOL-USD", "24/7", "crypto", Tier.T0)])
        connection.exec_driver_sql("UPDATE instruments SET created_at = '2026-01-01'")
        connection.exec_driver_sql(
            "INSERT INTO coverage (instrument_id, interval, covered, fresh_until)"
            " SELECT id, '1m', '{[2020-01-01,2100-01-01)}', '2100-01-01' FROM instruments WHERE tier = 'T0'"
        )
        for number in range(480):
            at, late = now - timedelta(minutes=3 * (480 - number)), 3 if number % 97 < 6 else number % 2
            if not 200 < number < 240:
                snapshots.add(connection, Snapshot(Series("gap", Tier.T0, Interval.M1), at, 400, late, 20.0, 180.0))
    asked(console.client)
    dies(deps, waiting_ids(deps.broker)[0])
    monitor.run_once(deps, now)


def test_what_is_missed_leads_to_the_symbol_and_to_the_runbook(console: Console, deps: Deps) -> None:
    _late(console, deps)
    page = console.page()
    page.goto("/")
    page.locator("#tiers").get_by_role("link", name="T1").click()
    page.wait_for_url(f"**{PAGE}#T1")
    expect(page.locator("[data-chart] .scatterlayer").first).to_be_visible()
    expect(page.get_by_role("link", name="BTC-USD").first).to_have_attribute("href", "/console/symbols/BTC-USD")
    console.looked_at(PAGE, "slo")
    page.get_by_role("link", name="SLOGapViolationHighT1").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("SLOGapViolationHighT1")


def test_nobody_watching_is_told(console: Console) -> None:
    page = console.page()
    page.goto(PAGE)
    expect(page.get_by_text("The monitor has never run.")).to_be_visible()
    console.looked_at(PAGE, "slo-unwatched")
