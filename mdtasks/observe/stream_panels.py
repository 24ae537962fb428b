"""What the dashboard of the live stream shows. Pure; ids are for ever, as in ``dashboards``."""

from __future__ import annotations

from typing import Final

from mdtasks.observe.panels import Dashboard, Panel, Query
from mdtasks.observe.promql import publish_latency_s

STREAM: Final = Dashboard(
    "mdtasks-stream",
    "mdtasks / live stream",
    "Whether clients get bars as they are committed",
    (
        Panel(
            1,
            "From commit to socket",
            tuple(Query(publish_latency_s(share), f"p{round(share * 100)}") for share in (0.5, 0.95, 0.99)),
            "s",
            threshold=0.25,
        ),
        Panel(2, "Clients", (Query("sum(ws_clients)", "of all web processes"),)),
        Panel(
            3,
            "Frames that slow clients got later",
            (Query("sum(rate(ws_dropped_messages_total[5m]))", "a second"),),
            "ops",
        ),
        Panel(
            4,
            "Streams that began",
            (Query("sum by (outcome) (rate(ws_resumes_total[5m]))", "{{outcome}}"),),
            "ops",
            about="resync: a position that could not be served any more",
        ),
    ),
)
