"""Grafana's dashboards out of the table in ``mdtasks.observe.dashboards``: ``python -m config.grafana.build``.

A tool for the checkout, not a part of the library: Grafana's SDK is among the tools for development only. The JSON is
checked in, and a test says when it is not what the table says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from mdtasks.observe.dashboards import DASHBOARDS
from mdtasks.observe.panels import Dashboard, Panel, Query

FOLDER: Final = Path(__file__).parent / "dashboards"
#: The variable at the head of each dashboard that chooses the data source: the JSON fits any Grafana.
_SOURCE: Final = "datasource"
_WIDTH: Final = 12
_HEIGHT: Final = 8


def documents() -> dict[str, str]:
    """The text of each dashboard's file by its name."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {f"{uid}.json": encoder.encode(build(each)) + "\n" for uid, each in DASHBOARDS.items()}


def build(dashboard: Dashboard) -> Any:
    """One dashboard of the table as Grafana has it."""
    built = (
        board.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.about)
        .tags(["mdtasks"])
        .time("now-6h", "now")
        .timezone("utc")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(board.DatasourceVariable(_SOURCE).label("Data source").type("prometheus"))
    )
    if dashboard.variable is not None:
        built = built.with_variable(_variable(*dashboard.variable))
    left = top = 0
    for panel in dashboard.panels:
        built = built.with_panel(_panel(panel, left, top))
        left, top = (0, top + _HEIGHT) if left else (_WIDTH, top)
    return built.build()


def _variable(label: str, metric: str) -> board.QueryVariable:
    return (
        board.QueryVariable(label)
        .label(label)
        .datasource(_source())
        .query(f"label_values({metric}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .include_all(True)
        .multi(True)
    )


def _panel(panel: Panel, left: int, top: int) -> Any:
    kinds: dict[str, Any] = {"timeseries": _timeseries, "stat": _stat, "table": _table}
    built = (
        kinds[panel.kind]()
        .id(panel.id)
        .title(panel.title)
        .description(panel.about)
        .datasource(_source())
        .unit(panel.unit)
        .grid_pos(GridPos(x=left, y=top, w=_WIDTH, h=_HEIGHT))
    )
    if panel.threshold is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=panel.threshold, color="red")]
        built = built.thresholds(board.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        built = built.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED))
    for number, query in enumerate(panel.queries):
        built = built.with_target(_target(query, chr(ord("A") + number), instant=panel.kind == "table"))
    return built


def _timeseries() -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True)
    legend = legend.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    built = timeseries.Panel().line_width(1).fill_opacity(8).show_points(VisibilityMode.NEVER).legend(legend)
    # Nights without a value stay empty: a line across them would show what nobody measured.
    return built.span_nulls(False).tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))


def _stat() -> stat.Panel:
    return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _table() -> table.Panel:
    return table.Panel().show_header(True)


def _target(query: Query, ref: str, *, instant: bool) -> prometheus.Dataquery:
    built = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref).datasource(_source())
    return built.instant().format(PromQueryFormat.TABLE) if instant else built.range()


def _source() -> DataSourceRef:
    return DataSourceRef(type_val="prometheus", uid=f"${{{_SOURCE}}}")


def main() -> None:
    """Write every file."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
