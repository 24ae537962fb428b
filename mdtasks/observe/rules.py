"""Prometheus' files out of the one SLO spec: recording rules, alert rules, scrape configuration. Pure.

`mdtasks slo rules` writes them to ``config/prometheus``, where a test says when they drift, and `mdtasks up` writes its
own for the Prometheus that it runs. They work with Prometheus 2.42, which Debian 12 has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import yaml

from mdtasks.domain.jobs import Tier
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.slo import TARGETS, Objective, burn_factor, objectives, window_hours
from mdtasks.observe.alerts import Spec, alerts
from mdtasks.observe.dashboards import panel_url
from mdtasks.observe.promql import JOB, WINDOWS, recorded, series_of, violation_ratio
from mdtasks.observe.standing_alerts import Alert

WEB_URL: Final = "http://127.0.0.1:8642"
GRAFANA_URL: Final = "http://127.0.0.1:3000"
#: The exchange whose sessions the factors are computed from, where nobody says otherwise.
CALENDAR: Final = "XNYS"
#: Stands in a description for the web app's address.
_WEB: Final = "__WEB__"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the links of the alerts lead, and which target is scraped."""

    web_url: str = WEB_URL
    grafana_url: str = GRAFANA_URL

    @property
    def target(self) -> str:
        """host:port of the web app."""
        host = self.web_url.partition("://")[2].partition("/")[0]
        return host if ":" in host else f"{host}:{443 if self.web_url.startswith('https:') else 80}"


def documents(
    calendar: Calendar, targets: Mapping[Tier, float] = TARGETS, places: Places | None = None
) -> dict[str, str]:
    """Every file's text by its path: ``prometheus.yml``, ``rules/recording.yml``, ``rules/alerts.yml``."""
    places = places or Places()
    kept = objectives(targets)
    spec = Spec(kept, partial(burn_factor, calendar), window_hours(calendar, WINDOWS["1d"]) * 3600)
    head = f"# Made by `mdtasks slo rules` for sessions of {calendar.mic}; change the spec, not this file.\n"
    return {
        "prometheus.yml": head + _dumped(scrape_config(places)),
        "rules/recording.yml": head + _dumped(_groups("mdtasks-slo-recording", recording_rules(kept))),
        "rules/alerts.yml": head
        + _dumped(_groups("mdtasks-alerts", [alert_rule(each, places) for each in alerts(spec)])),
    }


def scrape_config(places: Places) -> dict[str, Any]:
    """Prometheus' own configuration: scrape the web app, evaluate the rules."""
    scheme = places.web_url.partition("://")[0]
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "30s"},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": [
            {
                "job_name": JOB,
                "scheme": scheme,
                "metrics_path": "/metrics",
                "static_configs": [{"targets": [places.target]}],
            }
        ],
    }


def recording_rules(kept: tuple[Objective, ...]) -> list[dict[str, Any]]:
    """The share of late series in every window, and what is left of each objective's budget."""
    shares = [{"record": recorded(window), "expr": violation_ratio(window)} for window in WINDOWS]
    budgets = [
        {
            "record": "tier_interval:slo_gap_budget:left_30d",
            "expr": f"1 - {recorded('30d', series_of(each.tier, each.interval))} / {each.target}",
            "labels": {"tier": str(each.tier)},  # one name, three rules: what tells them apart
        }
        for each in kept
        if each.name == "gap"
    ]
    return shares + budgets


def alert_rule(alert: Alert, places: Places) -> dict[str, Any]:
    """One alert as Prometheus reads it, with its links."""
    uid, title = alert.panel
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": f"{alert.for_s}s" if alert.for_s % 60 else f"{alert.for_s // 60}m",
        "labels": {"severity": alert.severity, **alert.labels},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description.replace(_WEB, places.web_url),
            "dashboard_url": panel_url(places.grafana_url, uid, title, alert.variables),
            "runbook_url": f"{places.web_url}/runbooks/{alert.name}",
        },
    }


def _groups(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"groups": [{"name": name, "rules": rules}]}


class _Dumper(yaml.SafeDumper):
    """Lays a query of several lines out as it was written."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _dumped(document: dict[str, Any]) -> str:
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True))
