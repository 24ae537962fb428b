"""The alerts that no setting changes: when each fires, how urgent it is, what it says, which panel shows it. Pure.

``page`` wakes somebody: bars are late or about to be, or nobody would notice if they were. ``ticket`` waits for the
morning. Each has a runbook of its name under docs/runbooks, which `mdtasks runbook NAME` carries out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mdtasks.domain.slo import Severity
from mdtasks.observe.promql import (
    a_market_is_open,
    drain_s,
    growth,
    provider_error_share,
    publish_latency_s,
    scraped,
    silent_for,
)


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule. ``panel``: uid and title; ``variables``: what is chosen on that dashboard, by labels of the alert."""

    name: str
    severity: Severity
    expr: str
    for_s: int
    summary: str
    description: str
    panel: tuple[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Beside the severity and the labels of the query.
    labels: Mapping[str, str] = field(default_factory=dict)


_TIER: Final = {"tier": "{{ $labels.tier }}"}
_PROVIDER: Final = {"provider": "{{ $labels.provider }}"}


def _missing(name: str, what: str) -> str:
    """A description of something silent, or never seen: ``absent`` has no labels and the value 1."""
    return f"{{{{ if eq $value 1.0 }}}}{what} has never been seen.{{{{ else }}}}{name}{{{{ end }}}}"


_OF_COMPLETENESS: Final = (
    Alert(
        "SLOMonitorDead",
        "page",
        f"(\n  {silent_for('slo_monitor_last_run_timestamp_seconds', 120)}\n"
        f"  or absent(slo_monitor_last_run_timestamp_seconds)\n)\nand on () {a_market_is_open()}",
        60,
        "Nobody looks whether bars are late, and an exchange trades",
        _missing("The SLO monitor last looked {{ $value | humanizeDuration }} ago.", "A look of the SLO monitor")
        + " Until it looks again, no SLO alert can fire. It runs on beat, on the queue control.",
        ("mdtasks-slo", "Since the monitor's last look"),
    ),
    Alert(
        "GapsOpenTooLong",
        "ticket",
        "min by (tier, interval) (min_over_time(gaps_open[1h]))\n> (\n"
        "  sum by (tier, interval) (increase(gap_repair_seconds_count[1h]))\n"
        "  or 0 * max by (tier, interval) (gaps_open)\n)",
        1800,
        "{{ $labels.tier }}: gaps close more slowly than in an hour",
        "{{ $value }} gaps of {{ $labels.interval }} series of {{ $labels.tier }} or more were open all the last hour, "
        "and fewer were closed in it. __WEB__/slo and `mdtasks gaps SYMBOL --explain` say which job has them.",
        ("mdtasks-tier", "Gaps open"),
        _TIER,
    ),
    Alert(
        "QuarantineGrowing",
        "ticket",
        f"{growth('bars_quarantined_total', ('provider', 'reason'), '1h')} > 50",
        60,
        "{{ $labels.provider }} sends bars that break a rule",
        "{{ $value }} bars of {{ $labels.provider }} were refused within an hour: {{ $labels.reason }}. Their time "
        "stays open and is asked for again. __WEB__/slo shows which symbols lack bars.",
        ("mdtasks-provider", "Bars refused"),
        _PROVIDER,
    ),
    Alert(
        "CalendarHorizonNear",
        "ticket",
        "min by (mic) (calendar_horizon_days) < 45",
        3600,
        "The calendar of {{ $labels.mic }} ends soon",
        "Sessions of {{ $labels.mic }} are known for {{ $value }} more days. Past them nothing of it is expected, "
        "fetched or missed. __WEB__/slo shows its symbols.",
        ("mdtasks-overview", "Calendars end in"),
    ),
)

_OF_BACKFILLS: Final = (
    Alert(
        "BackfillQueueTooDeep",
        "ticket",
        "max by (tier) (backfill_queue_depth) > 10000",
        600,
        "{{ $labels.tier }}: more than 10,000 backfills wait",
        "{{ $value }} backfills wait in the queue {{ $labels.tier }}. __WEB__/slo shows whose bars are late for it.",
        ("mdtasks-backfill", "In the queues"),
    ),
    Alert(
        "BackfillOldestTooOld",
        "ticket",
        "max by (tier) (backfill_oldest_age_seconds) > 900",
        600,
        "{{ $labels.tier }}: a backfill has waited for more than 15 minutes",
        "The oldest backfill of {{ $labels.tier }} has waited for {{ $value | humanizeDuration }}, queued or deferred. "
        "__WEB__/slo shows whose bars are late for it.",
        ("mdtasks-backfill", "Oldest waits"),
    ),
    Alert(
        "BackfillDrainsTooSlowly",
        "ticket",
        f"(\n{drain_s()}\n)\n> 10 * (max by (tier) (backfill_oldest_age_seconds) > 60)",
        900,
        "{{ $labels.tier }}: its backlog takes more than ten times as long as it took to grow",
        "At the pace of the last 15 minutes the backlog of {{ $labels.tier }} "
        "{{ if gt $value 1e12 }}never drains{{ else }}takes {{ $value | humanizeDuration }}{{ end }}. "
        "__WEB__/slo shows whose bars are late for it.",
        ("mdtasks-backfill", "Time until drained"),
    ),
    Alert(
        "WriteLatencyHigh",
        "ticket",
        "histogram_quantile(0.99, sum by (le) (rate(write_batch_seconds_bucket[10m]))) > 5\n"
        "and on () (sum(increase(write_batch_seconds_count[10m])) > 20)",
        600,
        "Storing bars takes long",
        "One write in a hundred takes {{ $value | humanizeDuration }} or more. __WEB__/slo shows whose bars are late.",
        ("mdtasks-backfill", "Time to store a job's bars"),
    ),
)

_OF_LETTERS: Final = (
    Alert(
        "DLQGrowing",
        "ticket",
        f"{growth('dead_letters_total', ('kind', 'error_class'), '30m')} > 10",
        60,
        "Jobs fail for good: {{ $labels.error_class }}",
        "{{ $value }} messages ({{ $labels.kind }}) died of {{ $labels.error_class }} within half an hour. "
        "`mdtasks dlq groups` shows them by cause, __WEB__/slo the symbols that lack bars.",
        ("mdtasks-backfill", "New dead letters"),
    ),
    Alert(
        "DLQStuck",
        "ticket",
        "max(dlq_depth) > 100",
        600,
        "Dead letters do not reach the record",
        "{{ $value }} letters wait in the queue dlq: nobody consumes it, or PostgreSQL does not take them. Nothing is "
        "lost. __WEB__/slo shows the symbols that lack bars.",
        ("mdtasks-backfill", "Letters on their way to the record"),
    ),
)

_OF_PROVIDERS: Final = (
    Alert(
        "ProviderDown",
        "page",
        # One that the breaker leaves aside is hardly called any more; that matters where nobody serves in its place.
        f"({provider_error_share('5m', least_calls=5)} > 0.9)\n"
        "or (max by (provider) (circuit_state) < 1 and on () (max(circuit_state) < 1))",
        180,
        "{{ $labels.provider }} answers hardly any call",
        "{{ if lt $value 0.9 }}{{ $labels.provider }} is left aside, and no other provider is well{{ else }}"
        "{{ $value | humanizePercentage }} of the calls to {{ $labels.provider }} failed in the last 5 minutes"
        "{{ end }}. `mdtasks providers {{ $labels.provider }}` shows the case, __WEB__/slo the symbols that are late.",
        ("mdtasks-provider", "Calls that failed"),
        _PROVIDER,
    ),
    Alert(
        "ProviderDemoted",
        "ticket",
        "min by (provider) (circuit_state) < 1",
        300,
        "{{ $labels.provider }} is demoted or paused",
        "The breaker of {{ $labels.provider }} is {{ if eq $value 0.0 }}open, or somebody paused it{{ else }}half-open"
        "{{ end }}: others serve in its place. `mdtasks providers {{ $labels.provider }}` shows the case, __WEB__/slo "
        "the symbols that are late.",
        ("mdtasks-provider", "Breaker"),
        _PROVIDER,
    ),
)

_OF_PROCESSES: Final = (
    Alert(
        "PartDown",
        "page",
        "min by (part) (mdtasks_up) == 0",
        120,
        "{{ $labels.part }} cannot be used",
        "{{ $labels.part }} is away, full, or not in the shape this version needs. Work waits and nothing is lost. "
        "__WEB__/ready says why, __WEB__/slo which symbols are late.",
        ("mdtasks-overview", "Parts"),
    ),
    Alert(
        "MetricsAbsent",
        "page",
        'absent(up{job="mdtasks"} == 1)',
        180,
        "The metrics of mdtasks cannot be read",
        "The web app does not answer Prometheus: no other alert of mdtasks can fire. __WEB__/slo would show how bars "
        "stand.",
        ("mdtasks-overview", "Scrapes"),
    ),
    Alert(
        "WorkerMissing",
        "page",
        # Not heard for a day: it was taken away.
        f"{silent_for('workers_last_seen_timestamp_seconds', 120, by='node')} < 86400\n"
        f"or absent(workers_last_seen_timestamp_seconds) and on () {scraped()}",
        60,
        "{{ with $labels.node }}Worker {{ . }}{{ else }}Every worker{{ end }} is silent",
        _missing("{{ $labels.node }} was last heard {{ $value | humanizeDuration }} ago.", "A worker")
        + " What it held is given back. __WEB__/slo shows whose bars are late.",
        ("mdtasks-overview", "Workers: since last heard"),
    ),
    Alert(
        "BeatMissing",
        "page",
        f"{silent_for('beat_last_tick_timestamp_seconds', 60)}\n"
        f"or absent(beat_last_tick_timestamp_seconds) and on () {scraped()}",
        60,
        "Beat is silent: nothing is asked for by itself",
        _missing("Beat last ticked {{ $value | humanizeDuration }} ago.", "A tick of beat")
        + " No live fetch, gap scan or dispatch begins. __WEB__/slo shows whose bars are late.",
        ("mdtasks-overview", "Beat and reconciler: since last seen"),
    ),
    Alert(
        "ReconcilerProofTooOld",
        "page",
        "max(reconciler_proof_age_seconds) > 120\n"
        'or absent(reconciler_proof_age_seconds) and on () (max(mdtasks_up{part="redis"}) == 1)',
        120,
        "Nobody has proved lately that no job is lost",
        _missing("The reconciler's last proof is {{ $value | humanizeDuration }} old.", "A proof of the reconciler")
        + " Lost messages are not sent again until it runs. __WEB__/slo shows whose bars are late.",
        ("mdtasks-backfill", "Reconciler's proof"),
    ),
    Alert(
        "PolicyNotFollowed",
        "ticket",
        "min(policy_reload_success) == 0",
        120,
        "A process does not follow the newest policy",
        "A process has looked and still runs another version of the policy than the newest, or refuses that: work is "
        "done by two policies at once. `mdtasks policy status` says which process and why, __WEB__/slo whose bars are "
        "late.",
        ("mdtasks-overview", "Policy versions"),
    ),
)

_OF_THE_STREAM: Final = (
    Alert(
        "StreamSlow",
        "ticket",
        f"{publish_latency_s(0.99)} > 0.25\nand on () (sum(increase(ws_publish_latency_seconds_count[5m])) > 20)",
        600,
        "Clients of the live stream get bars late",
        "One bar in a hundred takes {{ $value | humanizeDuration }} or more from its commit to a client's socket. "
        "Nothing is lost. __WEB__/slo shows whether bars are late before that.",
        ("mdtasks-stream", "From commit to socket"),
    ),
)

#: All of them, in the order of the rule file.
STANDING: Final = (
    *_OF_COMPLETENESS,
    *_OF_BACKFILLS,
    *_OF_LETTERS,
    *_OF_PROVIDERS,
    *_OF_PROCESSES,
    *_OF_THE_STREAM,
)
