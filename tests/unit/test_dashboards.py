"""The dashboards: what is checked in is what the table says, and is complete JSON that Grafana can be given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.grafana.build import FOLDER, documents
from mdtasks.observe.dashboards import DASHBOARDS
from mdtasks.observe.standing_alerts import STANDING


def test_what_is_checked_in_is_what_the_table_says() -> None:
    made = documents()
    assert {path.name for path in FOLDER.iterdir()} == set(made)
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text, "run `python -m config.grafana.build`"


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_has_its_panels_queries_and_places(uid: str) -> None:
    found: dict[str, Any] = json.loads((FOLDER / f"{uid}.json").read_text())
    table = DASHBOARDS[uid]
    assert (found["uid"], found["title"]) == (uid, table.title)
    assert {panel["id"]: panel["title"] for panel in found["panels"]} == {each.id: each.title for each in table.panels}
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in found["panels"]}
    assert len(places) == len(table.panels)
    for panel in found["panels"]:
        assert panel["options"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    chosen = {variable["name"] for variable in found["templating"]["list"]}
    assert chosen == {"datasource", *([table.variable[0]] if table.variable else [])}


def test_grafana_is_told_where_they_are() -> None:
    folder = Path(FOLDER).parent / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "mdtasks.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "mdtasks.yaml").read_text())["providers"]
    assert (source["type"], source["url"]) == ("prometheus", "${PROMETHEUS_URL}")
    assert (provider["type"], provider["options"]["path"]) == ("file", "${MDTASKS_DASHBOARDS}")


@pytest.mark.parametrize("uid", [uid for uid, table in DASHBOARDS.items() if table.variable])
def test_what_is_chosen_at_the_head_filters_every_panel(uid: str) -> None:
    table = DASHBOARDS[uid]
    assert table.variable
    for panel in table.panels:
        assert all(f"${table.variable[0]}" in query.expr for query in panel.queries), panel.title


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_rate_is_shown_as_a_rate(uid: str) -> None:
    for panel in DASHBOARDS[uid].panels:
        rates = [re.match(r"sum by \(.*?\) \(rate\([^/]*$", query.expr) for query in panel.queries]
        assert not any(rates) or panel.unit == "ops", panel.title


def test_new_letters_are_counted_as_their_alert_counts_them() -> None:
    (letters,) = [each for each in STANDING if each.name == "DLQGrowing"]
    panel = DASHBOARDS["mdtasks-backfill"].panel("New dead letters")
    assert letters.expr == f"{panel.queries[0].expr} > {panel.threshold:.0f}"
