"""Queries of rules and dashboards ask only for what is declared; what is shown can be told apart by its labels."""

from __future__ import annotations

import re

import pytest

from mdtasks.observe.dashboards import DASHBOARDS, panel_url
from tests.queries import Used, all_queries, known, rule_documents, used


def test_a_query_is_read_to_its_metrics_and_labels() -> None:
    expr = 'sum by (tier) (rate(a_total{result="done"}[5m])) / on (tier) max by (tier) (b) or 0 * (c offset 1h)'
    assert set(used(expr)) == {
        Used("a_total", frozenset({"tier", "result"})),
        Used("b", frozenset({"tier"})),
        Used("c", frozenset()),
    }


@pytest.mark.parametrize("place", all_queries())
def test_every_query_asks_for_declared_metrics_and_labels(place: str) -> None:
    metrics = known()
    found = list(used(all_queries()[place]))
    assert found
    for each in found:
        assert each.metric in metrics, f"{place}: {each.metric} is declared nowhere"
        assert each.labels <= metrics[each.metric], f"{place}: {each.metric} has no such label"


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_series_of_a_panel_are_named_by_labels_they_have(uid: str) -> None:
    metrics = known()
    for panel in DASHBOARDS[uid].panels:
        for query in panel.queries:
            named = set(re.findall(r"{{(\w+)}}", query.legend))
            outer = re.match(r"\w+ by \(([^)]*)\)", query.expr)
            by = set(outer[1].split(", ")) if outer else set().union(*(metrics[e.metric] for e in used(query.expr)))
            assert named <= by, f"{panel.title}: {query.expr}"


def test_ids_are_told_apart() -> None:
    for dashboard in DASHBOARDS.values():
        assert len({panel.id for panel in dashboard.panels}) == len(dashboard.panels)
        assert len({panel.title for panel in dashboard.panels}) == len(dashboard.panels)
        assert len(dashboard.uid) <= 40  # what Grafana takes


def test_a_link_leads_to_the_very_panel() -> None:
    for rule in rule_documents():
        if "alert" in rule:
            found = re.match(
                r"http://127.0.0.1:3000/d/([a-z-]+)\?viewPanel=(\d+)", rule["annotations"]["dashboard_url"]
            )
            assert found
            panel = next(each for each in DASHBOARDS[found[1]].panels if each.id == int(found[2]))
            shown = {each.metric for query in panel.queries for each in used(query.expr)}
            asked = {each.metric for each in used(rule["expr"])}
            assert {_kin(each) for each in shown} & {_kin(each) for each in asked}, rule["alert"]
    with pytest.raises(KeyError):
        panel_url("", "mdtasks-slo", "no such panel")


def _kin(metric: str) -> str:
    """Recorded shares of all windows are the same matter."""
    return re.sub(r"ratio_\w+$", "", metric)
