"""Every metric of mdtasks, declared once: what happened is counted here, what is the case is read at scrape time.

Counters and histograms are counted by the process in which a thing happens: a worker's children, the web app, a
command. prometheus_client's multiprocess mode lets them meet in files that a scrape sums up (``scrape``). It chooses
that mode from the environment when it is first imported, so it is imported here only when something is first counted,
and whoever starts a process calls ``use_multiprocess_dir`` before that. Without it, a process counts for itself
(tests, notebooks). Gauges have no life in a process: a reader asks Redis and PostgreSQL when they are scraped.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import prometheus_client

_ENVIRONMENT: Final = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class Declared:
    """A metric's name as scraped, its one line of help and its label names."""

    name: str
    help: str
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counter(Declared):
    """Only grows. Count with ``.labels(tier="T0").inc()``, without labels with ``.inc()``."""

    def labels(self, **labels: str) -> prometheus_client.Counter:
        child: prometheus_client.Counter = _built(self).labels(**labels)
        return child

    def inc(self, amount: float = 1) -> None:
        _built(self).inc(amount)


@dataclass(frozen=True)
class Histogram(Declared):
    """A distribution. Measure with ``.labels(provider="files").observe(0.2)`` or ``with ….time():``."""

    buckets: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

    def labels(self, **labels: str) -> prometheus_client.Histogram:
        child: prometheus_client.Histogram = _built(self).labels(**labels)
        return child

    def observe(self, amount: float) -> None:
        _built(self).observe(amount)

    def time(self) -> AbstractContextManager[Any]:
        timer: AbstractContextManager[Any] = _built(self).time()
        return timer


@dataclass(frozen=True)
class Gauge(Declared):
    """A state, read at scrape time: see Reading."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a gauge reads now, for one set of labels."""

    gauge: Gauge
    value: float
    labels: Mapping[str, str]


JOBS_PROCESSED = Counter(
    "jobs_processed_total", "Jobs that a worker ended, by what became of them", ("type", "provider", "outcome")
)
BACKFILL_ENQUEUED = Counter(
    "backfill_jobs_enqueued_total",
    "Backfill jobs asked for: queued, deferred over the cap, merged with one that waits, refused",
    ("tier", "result"),
)
BACKFILL_COMPLETED = Counter(
    "backfill_jobs_completed_total", "Backfill jobs that came to their end: done, or failed", ("tier", "status")
)
BARS_WRITTEN = Counter(
    "bars_written_total",
    "Bars committed to the store: inserted, or revised (an older version kept)",
    ("interval", "kind"),
)
BARS_QUARANTINED = Counter(
    "bars_quarantined_total",
    "Bars of a provider that broke a rule and were not stored, or do not fit the corporate actions and were",
    ("provider", "reason"),
)
ACTIONS_TOLD = Counter(
    "corporate_actions_told_total",
    "Statements about corporate actions put on record: added, corrected, withdrawn",
    ("provider", "kind", "result"),
)
PROVIDER_SELECTED = Counter(
    "provider_selected_total", "Times a provider was chosen to answer", ("capability", "provider")
)
PROVIDER_ERRORS = Counter(
    "provider_errors_total", "Answers that a provider failed to give, by error", ("provider", "endpoint", "code")
)
PROVIDER_LATENCY = Histogram(
    "provider_latency_seconds", "Time a provider took to answer, failures included", ("provider", "capability")
)
PROVIDER_REQUESTS = Counter(
    "provider_requests_total",
    "Requests to a provider, of which one call may make many, by outcome; those held back were not made",
    ("provider", "endpoint", "code"),
)
PROVIDER_RATE_WAIT = Histogram(
    "provider_rate_wait_seconds", "Time a request waited for its provider's rate, 0 included", ("provider",)
)
PROVIDER_SLOW_CALLS = Counter(
    "provider_slow_calls_total",
    "Calls that a provider was slow to answer; /ops/traces?provider= lists them, with traces of where their time went",
    ("provider", "capability"),
)
WRITE_BATCH = Histogram("write_batch_seconds", "Time of the transaction that stores a job's bars, coverage and status")
DERIVE_SECONDS = Histogram(
    "derive_seconds",
    "Time of a transaction that makes longer bars of minutes that changed, where no vendor has them",
)
BARS_DISAGREEMENTS = Counter(
    "bars_disagreements_total",
    "Bars that another source has otherwise, beyond the tolerances: of the one that is wrong, or, where nobody knows,"
    " of both",
    ("provider", "kind"),
)
LIVE_TICKS_SKIPPED = Counter(
    "live_ticks_skipped_total",
    "Ticks of a tier's live fetching that asked for nothing: what the tick before asked for still waits or runs"
    " (overlap), or every provider is left aside (circuit_open)",
    ("tier", "capability", "reason"),
)
UNIVERSE_REFRESHES = Counter(
    "universe_refreshes_total",
    "Listings that were taken, by what came of them: a version (made), one that was there (same), or nothing (failed)",
    ("source", "outcome"),
)
INTAKE_JOBS = Counter(
    "intake_jobs_total",
    "Jobs taken from the outside coordinator's lists, by what became of them; merged: known or wanted already",
    ("type", "result"),
)
GAPS_FOUND = Counter("gaps_found_total", "Gaps that a look found new", ("tier", "interval"))
GAP_REPAIR = Histogram(
    "gap_repair_seconds",
    "Time from when a gap was found until a provider had answered for all of it",
    ("tier", "interval"),
    buckets=(10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 28_800, 86_400),
)
REPLAY_PUBLISHED = Counter(
    "replay_published_total",
    "Entries that the replay buffer was given: bars that are new, revised or final, and intervals without a trade",
    ("interval",),
)
REPLAY_FAILURES = Counter(
    "replay_publish_failures_total",
    "Times that the replay buffer could not be told of what was committed, for a server was away; it is told later",
    ("interval",),
)
STALE_MESSAGES = Counter(
    "stale_messages_total", "Messages dropped because another attempt owns or ended their job", ("reason",)
)
DEAD_LETTERS = Counter("dead_letters_total", "Dead letters put on record", ("kind", "error_class"))
RETENTION_ROWS = Counter(
    "retention_rows_deleted_total", "Rows deleted because the policy keeps them no longer", ("table",)
)
RETENTION_PARTITIONS = Counter(
    "retention_partitions_dropped_total", "Months dropped whole because nothing in them is kept any longer", ("table",)
)
RETENTION_BUSY = Counter(
    "retention_busy_total", "Times housekeeping gave way to somebody who worked with what was to go", ("subject",)
)
SLO_GAP_EXPECTED = Counter(
    "slo_gap_expected_total",
    "Series looked at for lateness, each time anew: those whose exchange traded",
    ("tier", "interval"),
)
SLO_GAP_VIOLATIONS = Counter(
    "slo_gap_violations_total", "Series found too late, each time anew, of those looked at", ("tier", "interval")
)
JOBS_LOST_RESENT = Counter(
    "jobs_lost_resent_total", "Jobs whose message the broker had lost, found by the reconciler and sent again"
)
WS_PUBLISH_LATENCY = Histogram(
    "ws_publish_latency_seconds",
    "Time from a bar's commit until it was handed to a client's socket, the oldest of what was handed over at a time",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WS_DROPPED = Counter(
    "ws_dropped_messages_total",
    "Frames of the live stream that a slow client did not get when they came; it is told, and gets them later",
)
WS_RESUMES = Counter(
    "ws_resumes_total",
    "Streams that clients began to follow: without a position (snapshot), from theirs (resumed), from one that could"
    " not be served any more (resync)",
    ("outcome",),
)

BACKFILL_QUEUE_DEPTH = Gauge("backfill_queue_depth", "Backfill messages that wait in the tier's queue", ("tier",))
BACKFILL_OLDEST_AGE = Gauge(
    "backfill_oldest_age_seconds", "Age of the oldest backfill job of the tier that waits, deferred ones too", ("tier",)
)
BACKFILL_DEFERRED = Gauge(
    "backfill_deferred", "Backfill jobs over the tier's cap, which wait in PostgreSQL for room", ("tier",)
)
INTAKE_DEPTH = Gauge(
    "intake_depth", "Jobs that wait in an outside coordinator's list, or are held by intakes; absent without", ("list",)
)
WS_CLIENTS = Gauge("ws_clients", "Clients of the live stream that the scraped web process serves")
DLQ_DEPTH = Gauge("dlq_depth", "Dead letters on their way to the record")
SLO_GAP_RATE = Gauge(
    "slo_gap_violation_rate",
    "Share of the tier's series that lag more than they may, of those whose exchange trades; absent while all are shut",
    ("tier", "interval"),
)
SLO_COVERAGE = Gauge(
    "slo_coverage_ratio", "Share of the tier's series whose last session is wholly covered", ("tier", "interval")
)
INGESTION_LAG = Gauge(
    "ingestion_lag_seconds",
    "Trading time by which the latest series of the tier lags; absent while all exchanges are shut",
    ("tier", "interval"),
)
SLO_MONITOR_LAST_RUN = Gauge(
    "slo_monitor_last_run_timestamp_seconds", "When the monitor last looked, also while all exchanges were shut"
)
GAPS_OPEN = Gauge("gaps_open", "Gaps in the ledger that are not closed", ("tier", "interval"))
MARKET_OPEN = Gauge("market_open", "Whether an exchange of the universe trades now (1) or not (0)", ("mic",))
WORKERS_LAST_SEEN = Gauge(
    "workers_last_seen_timestamp_seconds",
    "When a worker last left word, every 10 s while it lives; one that vanished stays for a day, one that was stopped"
    " does not",
    ("node",),
)
BEAT_LAST_TICK = Gauge(
    "beat_last_tick_timestamp_seconds",
    "When a task of beat last began in a worker, which happens every second: beat and a worker on `control` live",
)
RECONCILER_PROOF_AGE = Gauge(
    "reconciler_proof_age_seconds", "Time since the reconciler last proved that no job is lost or doubled"
)
CALENDAR_HORIZON = Gauge(
    "calendar_horizon_days", "Days until the sessions of an exchange of the universe are no longer known", ("mic",)
)
PROVIDER_HEALTH = Gauge(
    "provider_health_score",
    "Health of a provider, 0 to 1: 0.45 breaker + 0.25 latency + 0.20 errors + 0.10 completeness",
    ("provider",),
)
CIRCUIT_STATE = Gauge("circuit_state", "A provider's breaker: 1 closed, 0.5 half-open, 0 open or paused", ("provider",))
PROVIDER_BUDGET = Gauge(
    "provider_budget_remaining",
    "Requests that a provider's rate allows at once now; absent without a rate",
    ("provider",),
)
POLICY_VERSION = Gauge(
    "policy_version",
    "Version of the policy that a process runs, by the word that it left last; 0: the defaults. One that has gone is"
    " absent: at once where it stopped in good order or ran on this machine, else after a day",
    ("process",),
)
POLICY_NEWEST_VERSION = Gauge("policy_newest_version", "Newest version of the policy; 0: the defaults")
POLICY_CANARY = Gauge(
    "policy_canary_version", "Version of the policy that a tier's workers try; absent while none is tried", ("tier",)
)
POLICY_CANARIES = Counter("policy_canaries_total", "Canaries that ended: promoted to all, or withdrawn", ("decision",))
POLICY_LAST_RELOAD = Gauge(
    "policy_last_reload_timestamp_seconds", "When the newest version of the policy was made; absent before the first"
)
POLICY_RELOAD_SUCCESS = Gauge(
    "policy_reload_success",
    "Whether every process that has looked since the newest version was made runs it (1), or one lags or refuses (0)",
)
REPLAY_PENDING = Gauge("replay_pending", "Commits of a series that the replay buffer has not heard of yet")
REPLAY_OLDEST_AGE = Gauge(
    "replay_oldest_age_seconds", "Age of the oldest commit that the replay buffer has not heard of; 0: it knows all"
)
UP = Gauge(
    "mdtasks_up",
    "Whether a part can be used (1) or not (0): broker, redis, postgresql with its schema",
    ("part",),
)

#: What each label may be.
LABELS: Final[Mapping[str, str]] = {
    "tier": "`T0` `T1` `T2`; empty for what was refused before it had one",
    "interval": "`1m` `5m` `15m` `1h` `1d`",
    "type": "of a job: `backfill` `bars_fetch` `quotes_fetch`; empty for what was refused before it had one",
    "list": "`jobs`, `T0` `T1` `T2`: the coordinator's lists; `held`: taken from them and not done with",
    "provider": "its name; of several that one job asked, joined by commas; `none` where nobody was asked; of a told "
    "action also `file`, `person`",
    "outcome": "of a job: `done` `failed` `retry` ...; of a listing: `made` `same` `failed`; "
    "of a stream that is followed: `snapshot` `resumed` `resync`",
    "source": "of a listing: `csv` `lean`, or a provider's name",
    "capability": "what was asked for: `bars_1m` ... `bars_1d`, `quotes`, `actions`; of a tick its cadence: "
    "`bars_1m` `quotes_l1`",
    "endpoint": "which call failed: `bars`, `quotes`, `actions`, `listing`",
    "code": "class of an error, as docs/errors.md names it; of a request also `ok`",
    "error_class": "class of an error, as docs/errors.md names it",
    "reason": "of a rejected bar: the rule it broke; of a stale message: why it was dropped; of a tick: why none",
    "result": "of a request's job: `queued` `deferred` `merged` `refused`; of a told action: "
    "`added` `corrected` `withdrawn`",
    "status": "of a job that ended: `done` `failed`",
    "kind": "of a written bar: `inserted` `revised`; of a disagreement what was compared: `minutes` `provider`; of a "
    "dead letter: `backfill` `bars_fetch` `quotes_fetch` `poison` `action`; of a told action: `split` `dividend` ...",
    "mic": "an exchange as its instruments name it: `XNYS`, `24/7`",
    "node": "a worker's node name: `t0@host`",
    "decision": "what became of a canary: `promoted` `withdrawn`",
    "process": "what follows the policy, with its machine and process id: `beat@host/1234`, `web@…`, `worker@…`",
    "part": "`broker` `redis` `postgresql`",
    "table": "of the store: `bars` `bar_revisions` `quotes` `backfill_jobs` ...",
    "subject": "of housekeeping: `bars` `quotes` `revisions` `jobs` `letters` `quarantine`",
}

#: All of them, in the order of this page: the scrape's reader, docs and dashboards go by it.
DECLARED: Final[tuple[Declared, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Declared)
)


def use_multiprocess_dir(path: Path | None) -> None:
    """Let this process, and those it starts, count into files in ``path`` (made when missing). Idempotent.

    Call it before anything is counted: what was counted before stays out of the files. None: count for itself again.
    """
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
    wanted = None if path is None else str(path)
    if os.environ.get(_ENVIRONMENT) == wanted:
        return  # prometheus_client, imported or not, has seen it
    if wanted is None:
        del os.environ[_ENVIRONMENT]
    else:
        os.environ[_ENVIRONMENT] = wanted
    with _building:
        _close_files()
        _metrics.clear()
        if "prometheus_client" in sys.modules:
            from prometheus_client import values

            # Some library imported it first (Flower does), and it chose by the environment of that moment.
            values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def _close_files() -> None:
    """Close the files that were counted into so far: prometheus_client leaves that to the end of the process."""
    for metric in [_metrics[name] for name in _metrics if name]:
        for child in (metric, *getattr(metric, "_metrics", {}).values()):
            values = [getattr(child, "_value", None), getattr(child, "_sum", None), *getattr(child, "_buckets", ())]
            for file in (getattr(value, "_file", None) for value in values):
                if file is not None:
                    file.close()  # many values share one; closing it again does nothing


_metrics: dict[str, Any] = {}
_building = threading.RLock()


def _built(declared: Declared) -> Any:
    """prometheus_client's object for a counter or histogram, made at the first count."""
    built = _metrics.get(declared.name)
    if built is None:
        with _building:
            built = _metrics.get(declared.name) or _build(declared)
            _metrics[declared.name] = built
    return built


def _build(declared: Declared) -> Any:
    import prometheus_client

    if isinstance(declared, Histogram):
        return prometheus_client.Histogram(
            declared.name, declared.help, declared.label_names, registry=registry(), buckets=declared.buckets
        )
    return prometheus_client.Counter(declared.name, declared.help, declared.label_names, registry=registry())


def registry() -> prometheus_client.CollectorRegistry:
    """This process's own registry: not prometheus_client's, which others write to (Flower)."""
    from prometheus_client import CollectorRegistry

    with _building:
        own: CollectorRegistry = _metrics.setdefault("", CollectorRegistry())
    return own
