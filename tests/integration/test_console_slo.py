"""The page of objectives over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.slo import TARGETS, burn_factor, objectives
from mdtasks.flows import monitor
from mdtasks.flows.deps import Deps
from mdtasks.flows.runbooks import books
from mdtasks.observe.alerts import Spec, alerts
from mdtasks.settings import Settings
from mdtasks.store import snapshots
from mdtasks.store.snapshots import Series, Snapshot
from mdtasks.web.console.slo import alerts_of
from tests.integration.console_forms import words_of
from tests.integration.web_server import asked, dies, served, waiting_ids

PAGE = "/console/slo"


def test_what_is_missed_is_shown_with_budget_and_cause(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE instruments SET created_at = '2026-01-01'")
    asked(client)
    job = waiting_ids(deps.broker)[0]
    dies(deps, job)
    monitor.run_once(deps, datetime.now(UTC))
    page = client.get(PAGE)
    shown = words_of(page)
    assert "2 are missed. Last look" in shown
    assert "100 % late, 2.0 % may be" in shown
    assert f"budget used in {datetime.now(UTC):%Y-%m}" in shown
    assert "it never had any data, and no job works on it" in shown
    for path in ("/console/symbols/BTC-USD", f"/console/dead-letters/{job}", "/runbooks/SLOGapViolationHighT1"):
        assert f'href="{path}' in page.text, path


def test_history_is_drawn_for_the_time_that_was_asked_for(client: httpx.Client, deps: Deps) -> None:
    now = datetime.now(UTC)
    with deps.database.transaction() as connection:
        for hours in (1, 100):
            at = now - timedelta(hours=hours)
            snapshots.add(connection, Snapshot(Series("gap", Tier.T0, Interval.M1), at, 200, 1, 14.0, 30.0))
    assert client.get(f"{PAGE}?over=1d").text.count("data-chart") == 1
    assert '"y":[0.005]' in client.get(f"{PAGE}?over=1d").text
    assert '"y":[0.005,null,0.005]' in client.get(f"{PAGE}?over=7d").text  # nobody looked in between


def test_nobody_watching_is_told_with_what_to_do(client: httpx.Client) -> None:
    page = client.get(PAGE)
    assert "The monitor has never run." in words_of(page)
    assert 'href="/runbooks/SLOMonitorDead"' in page.text


def test_every_alert_about_an_objective_is_named_and_has_a_runbook() -> None:
    calendar = Calendars().get("XNYS")
    spec = Spec(objectives(TARGETS), lambda window: burn_factor(calendar, window), 23_400.0)
    made = {(each.name, each.labels.get("tier")) for each in alerts(spec)}
    for tier in Tier:
        of_tier = {name for name, its in made if its == tier}
        assert set(alerts_of("gap", tier)) == of_tier
        for name in [*alerts_of("coverage", tier), *alerts_of("drain", tier)]:
            assert (name, None) in made
            assert name in books.names()
        assert of_tier <= set(books.names())


@pytest.mark.parametrize("query", ["over=2y", "teir=T1"])
def test_wrong_questions_are_refused(client: httpx.Client, query: str) -> None:
    assert client.get(f"{PAGE}?{query}").status_code == 422


def test_without_postgresql_the_page_says_so(settings: Settings) -> None:
    away = Settings.model_validate({"database_url": "postgresql://nobody@127.0.0.1:1/none"}).database_url
    with served(settings.model_copy(update={"database_url": away})) as client:
        answer = client.get(PAGE)
    assert (answer.status_code, "<h1>" in answer.text) == (503, True)
