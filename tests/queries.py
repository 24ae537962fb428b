"""Reads PromQL: which metrics a query asks for, and by which labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from mdtasks.observe.dashboards import DASHBOARDS
from mdtasks.observe.metrics import DECLARED, Histogram

_CONFIG = Path(__file__).resolve().parents[1] / "config" / "prometheus" / "rules"
#: What Prometheus itself has.
BUILT_IN = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity", "tier"}}


@dataclass(frozen=True)
class Used:
    """A metric in a query, with the labels that it is selected or summed by."""

    metric: str
    labels: frozenset[str]


def used(expr: str) -> Iterator[Used]:
    """Every metric of a query."""
    yield from _used(promql_parser.parse(expr), frozenset())


def _used(node: Any, by: frozenset[str]) -> Iterator[Used]:
    match node:
        case promql_parser.VectorSelector():
            yield Used(str(node.name), by | {matcher.name for matcher in node.matchers.matchers})
        case promql_parser.MatrixSelector():
            yield from _used(node.vector_selector, by)
        case promql_parser.AggregateExpr():
            labels = frozenset(node.modifier.labels) if node.modifier is not None else frozenset()
            yield from _used(node.expr, by | labels)
        case promql_parser.BinaryExpr():
            yield from _used(node.lhs, by)
            yield from _used(node.rhs, by)
        case promql_parser.Call():
            for argument in node.args:
                yield from _used(argument, by)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            yield from _used(node.expr, by)


@cache
def rule_documents() -> list[dict[str, Any]]:
    """Every rule that is checked in."""
    paths = (_CONFIG / "recording.yml", _CONFIG / "alerts.yml")
    return [rule for path in paths for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


@cache
def all_queries() -> dict[str, str]:
    """Every query of rules and dashboards by where it stands."""
    rules = {
        f"{rule.get('alert') or rule['record']} {rule.get('labels', {}).get('tier', '')}": rule["expr"]
        for rule in rule_documents()
    }
    panels = {
        f"{dashboard.uid}: {panel.title}: {query.legend}": query.expr
        for dashboard in DASHBOARDS.values()
        for panel in dashboard.panels
        for query in panel.queries
    }
    return rules | panels


@cache
def known() -> dict[str, set[str]]:
    """Every metric that a query may ask for, by its name as scraped, with its labels."""
    found: dict[str, set[str]] = dict(BUILT_IN)
    for declared in DECLARED:
        labels = set(declared.label_names)
        if isinstance(declared, Histogram):
            found |= {f"{declared.name}_bucket": labels | {"le"}}
            found |= {f"{declared.name}_{part}": labels for part in ("sum", "count")}
        else:
            found[declared.name] = labels
    recorded = {rule["record"] for rule in rule_documents() if "record" in rule}
    return found | {name: {"tier", "interval"} for name in recorded}
