"""What a dashboard is made of: panels with their queries, under ids that stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "table"]
#: Grafana's names of units.
Unit = Literal["short", "percentunit", "s", "d", "ops", "none"]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel and how its series are named."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``threshold`` is drawn as a line."""

    id: int
    title: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    kind: Kind = "timeseries"
    about: str = ""
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard. ``variable``: a label that is chosen at its head, with the metric that knows its values."""

    uid: str
    title: str
    about: str
    panels: tuple[Panel, ...]
    variable: tuple[str, str] | None = None

    def panel(self, title: str) -> Panel:
        """The panel of this title. Raises KeyError."""
        found = next((panel for panel in self.panels if panel.title == title), None)
        if found is None:
            raise KeyError(f"{self.uid} has no panel {title!r}")
        return found
