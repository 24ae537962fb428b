"""What the dashboards show: a table that the alerts link into and that the Grafana JSON is built from. Pure.

Ids are for ever: an alert's link names a dashboard's uid and a panel's id, and people keep such links. A panel that
goes takes its id with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mdtasks.observe.panels import Dashboard, Panel, Query
from mdtasks.observe.promql import drain_s, growth, provider_error_share, recorded
from mdtasks.observe.stream_panels import STREAM


def _one(expr: str, legend: str) -> tuple[Query, ...]:
    return (Query(expr, legend),)


def _quantiles(metric: str, by: str, selector: str, legend: str) -> tuple[Query, ...]:
    inner = f"sum by (le{by}) (rate({metric}_bucket{selector}[5m]))"
    return tuple(
        Query(f"histogram_quantile({quantile}, {inner})", f"p{round(quantile * 100)} {legend}".strip())
        for quantile in (0.5, 0.95, 0.99)
    )


_RATES: Final = _one(recorded("5m"), "{{tier}} {{interval}}")
_LAG: Final = "max by (tier, interval) (ingestion_lag_seconds)"
_AGE_BEAT: Final = "time() - max(beat_last_tick_timestamp_seconds)"
_AGE_MONITOR: Final = "time() - max(slo_monitor_last_run_timestamp_seconds)"

OVERVIEW: Final = Dashboard(
    "mdtasks-overview",
    "mdtasks / overview",
    "Whether anything is wrong, in one look",
    (
        Panel(1, "Parts", _one("min by (part) (mdtasks_up)", "{{part}}"), kind="stat", about="1: can be used"),
        Panel(
            2, "Alerts that fire", _one('ALERTS{alertstate="firing"}', "{{alertname}} {{severity}}"), "none", "table"
        ),
        Panel(3, "Late series", _RATES, "percentunit", about="Share of a tier's series that are too late, 5 min"),
        Panel(
            4,
            "Complete last session",
            _one("min by (tier, interval) (slo_coverage_ratio)", "{{tier}} {{interval}}"),
            "percentunit",
        ),
        Panel(5, "Backfills that wait", _one("max by (tier) (backfill_queue_depth)", "{{tier}}")),
        Panel(
            6,
            "Jobs",
            _one("sum by (type, outcome) (rate(jobs_processed_total[5m]))", "{{type}} {{outcome}}"),
            "ops",
        ),
        Panel(
            7,
            "Workers: since last heard",
            _one("time() - max by (node) (workers_last_seen_timestamp_seconds)", "{{node}}"),
            "s",
        ),
        Panel(
            8,
            "Beat and reconciler: since last seen",
            (Query(_AGE_BEAT, "beat"), Query("max(reconciler_proof_age_seconds)", "reconciler's proof")),
            "s",
        ),
        Panel(9, "Exchanges that trade", _one("max by (mic) (market_open)", "{{mic}}"), "none"),
        Panel(10, "Calendars end in", _one("min by (mic) (calendar_horizon_days)", "{{mic}}"), "d", threshold=45),
        Panel(11, "Scrapes", _one('max by (instance) (up{job="mdtasks"})', "{{instance}}"), "none"),
        Panel(
            12,
            "Bars stored",
            _one("sum by (interval, kind) (rate(bars_written_total[5m]))", "{{interval}} {{kind}}"),
            "ops",
            about="Bars a second",
        ),
        Panel(
            13,
            "Policy versions",
            (
                Query("max by (process) (policy_version)", "{{process}}"),
                Query("max(policy_newest_version)", "newest"),
                Query("min(policy_reload_success)", "all that have looked run it: 1"),
            ),
            "none",
            about="A process that has had no work since a change runs the older version until it does",
        ),
    ),
)

_THIS_TIER: Final = '{tier=~"$tier"}'


def _latest(metric: str) -> tuple[Query, ...]:
    return _one(f"max by (interval) ({metric}{_THIS_TIER})", "{{interval}}")


TIER: Final = Dashboard(
    "mdtasks-tier",
    "mdtasks / tier",
    "One tier: how late, what is missing, what is being done about it",
    (
        Panel(
            1,
            "Late series",
            (
                Query(recorded("5m", _THIS_TIER), "{{interval}} 5 min"),
                Query(recorded("1h", _THIS_TIER), "{{interval}} 1 h"),
            ),
            "percentunit",
        ),
        Panel(
            2, "Greatest lateness", _one(f"max by (interval) (ingestion_lag_seconds{_THIS_TIER})", "{{interval}}"), "s"
        ),
        Panel(3, "Gaps open", _one(f"max by (interval) (gaps_open{_THIS_TIER})", "{{interval}}")),
        Panel(
            4, "Time to repair a gap", _quantiles("gap_repair_seconds", ", interval", _THIS_TIER, "{{interval}}"), "s"
        ),
        Panel(
            5,
            "Backfills that wait",
            (
                Query(f"max by (tier) (backfill_queue_depth{_THIS_TIER})", "{{tier}} queued"),
                Query(f"max by (tier) (backfill_deferred{_THIS_TIER})", "{{tier}} deferred"),
            ),
        ),
        Panel(6, "Oldest waits", _one(f"max by (tier) (backfill_oldest_age_seconds{_THIS_TIER})", "{{tier}}"), "s"),
        Panel(
            7,
            "Jobs ended",
            _one(f"sum by (status) (rate(backfill_jobs_completed_total{_THIS_TIER}[5m]))", "{{status}}"),
            "ops",
        ),
        Panel(
            8, "Gaps found", _one(f"sum by (interval) (increase(gaps_found_total{_THIS_TIER}[15m]))", "{{interval}}")
        ),
    ),
    variable=("tier", "backfill_queue_depth"),
)

_THIS_PROVIDER: Final = 'provider=~"$provider"'
PROVIDER: Final = Dashboard(
    "mdtasks-provider",
    "mdtasks / provider",
    "Who answers, how fast, and what goes wrong",
    (
        Panel(
            1,
            "Calls",
            _one(f"sum by (provider) (rate(provider_selected_total{{{_THIS_PROVIDER}}}[5m]))", "{{provider}}"),
            "ops",
        ),
        Panel(
            2,
            "Calls that failed",
            _one(provider_error_share("5m", least_calls=0, selector=f", {_THIS_PROVIDER}"), "{{provider}}"),
            "percentunit",
            about="Without backpressure (429) and silence, which are no illness",
        ),
        Panel(
            3,
            "Errors",
            _one(
                f"sum by (provider, code) (rate(provider_errors_total{{{_THIS_PROVIDER}}}[5m]))",
                "{{provider}} {{code}}",
            ),
            "ops",
        ),
        Panel(
            4,
            "Time to answer",
            _quantiles("provider_latency_seconds", ", provider", f"{{{_THIS_PROVIDER}}}", "{{provider}}"),
            "s",
        ),
        Panel(
            5,
            "Bars refused",
            _one(
                f"sum by (provider, reason) (increase(bars_quarantined_total{{{_THIS_PROVIDER}}}[1h]))",
                "{{provider}} {{reason}}",
            ),
        ),
        Panel(
            6,
            "Breaker",
            _one(f"min by (provider) (circuit_state{{{_THIS_PROVIDER}}})", "{{provider}}"),
            "none",
            about="0 open or paused, 0.5 half-open, 1 closed",
        ),
        Panel(
            7,
            "Health",
            _one(f"min by (provider) (provider_health_score{{{_THIS_PROVIDER}}})", "{{provider}}"),
            "none",
            about="0.45 breaker + 0.25 latency + 0.20 errors + 0.10 completeness",
        ),
        Panel(
            8,
            "Requests that may go at once",
            _one(f"min by (provider) (provider_budget_remaining{{{_THIS_PROVIDER}}})", "{{provider}}"),
            about="Of providers whose account has a rate",
        ),
        Panel(
            9,
            "Slow calls",
            _one(
                f"sum by (provider, capability) (increase(provider_slow_calls_total{{{_THIS_PROVIDER}}}[1h]))",
                "{{provider}} {{capability}}",
            ),
            about="Each left a record: mdtasks traces --provider, /ops/traces?provider=",
        ),
    ),
    variable=("provider", "provider_selected_total"),
)

BACKFILL: Final = Dashboard(
    "mdtasks-backfill",
    "mdtasks / backfill and dead letters",
    "What waits, how fast it drains, what failed for good",
    (
        Panel(1, "In the queues", _one("max by (tier) (backfill_queue_depth)", "{{tier}}"), threshold=10_000),
        Panel(2, "Oldest waits", _one("max by (tier) (backfill_oldest_age_seconds)", "{{tier}}"), "s", threshold=900),
        Panel(3, "Deferred", _one("max by (tier) (backfill_deferred)", "{{tier}}"), about="Over the cap"),
        Panel(4, "Time until drained", _one(drain_s(), "{{tier}}"), "s", about="At the pace of the last 15 minutes"),
        Panel(
            5,
            "Asked for",
            _one("sum by (tier, result) (rate(backfill_jobs_enqueued_total[5m]))", "{{tier}} {{result}}"),
            "ops",
        ),
        Panel(
            6,
            "Jobs ended",
            _one("sum by (tier, status) (rate(backfill_jobs_completed_total[5m]))", "{{tier}} {{status}}"),
            "ops",
        ),
        Panel(
            7,
            "New dead letters",
            _one(growth("dead_letters_total", ("kind", "error_class"), "30m"), "{{kind}} {{error_class}}"),
            threshold=10,
            about="Within 30 min, as the alert counts them",
        ),
        Panel(8, "Letters on their way to the record", _one("max(dlq_depth)", "dlq")),
        Panel(
            9,
            "Lost and stale messages",
            (
                Query("sum(increase(jobs_lost_resent_total[15m]))", "lost, sent again"),
                Query("sum by (reason) (increase(stale_messages_total[15m]))", "stale: {{reason}}"),
            ),
        ),
        Panel(10, "Time to store a job's bars", _quantiles("write_batch_seconds", "", "", ""), "s"),
        Panel(11, "Reconciler's proof", _one("max(reconciler_proof_age_seconds)", "age"), "s"),
    ),
)

SLO: Final = Dashboard(
    "mdtasks-slo",
    "mdtasks / SLO",
    "The promises: how they stand, how fast their budgets burn",
    (
        Panel(1, "Late series", _RATES, "percentunit", about="Targets: T0 0.5 %, T1 2 %, T2 5 %"),
        Panel(
            2,
            "Late series, by window",
            tuple(Query(recorded(window), f"{{{{tier}}}} {window}") for window in ("1h", "6h", "1d", "3d")),
            "percentunit",
        ),
        Panel(
            3,
            "Budget left",
            _one("tier_interval:slo_gap_budget:left_30d", "{{tier}} {{interval}}"),
            "percentunit",
            about="Of 30 days of trading time; below 0: overspent",
        ),
        Panel(
            4,
            "Complete last session",
            _one("min by (tier, interval) (slo_coverage_ratio)", "{{tier}} {{interval}}"),
            "percentunit",
        ),
        Panel(5, "Greatest lateness", _one(_LAG, "{{tier}} {{interval}}"), "s", about="In trading time"),
        Panel(6, "Since the monitor's last look", _one(_AGE_MONITOR, "monitor"), "s", threshold=120),
        Panel(7, "Gaps open", _one("max by (tier, interval) (gaps_open)", "{{tier}} {{interval}}")),
        Panel(
            8,
            "Series looked at",
            _one("sum by (tier, interval) (rate(slo_gap_expected_total[5m]))", "{{tier}} {{interval}}"),
            "ops",
        ),
    ),
)

#: Every dashboard by its uid.
DASHBOARDS: Final[Mapping[str, Dashboard]] = {
    each.uid: each for each in (OVERVIEW, TIER, PROVIDER, BACKFILL, SLO, STREAM)
}


def panel_url(grafana_url: str, uid: str, title: str, variables: Mapping[str, str] | None = None) -> str:
    """The address of the very panel. ``variables``: values of the dashboard's, may be templates. Raises KeyError."""
    panel = DASHBOARDS[uid].panel(title)
    chosen = "".join(f"&var-{name}={value}" for name, value in (variables or {}).items())
    return f"{grafana_url}/d/{uid}?viewPanel={panel.id}{chosen}"
