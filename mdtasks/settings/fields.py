"""The settings of one process: one frozen value, validated whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from mdtasks.domain.errors import StackNotRunningError
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.slo import TARGETS
from mdtasks.settings.declared import declared
from mdtasks.settings.streaming import StreamSettings
from mdtasks.settings.vendors import comma_separated

#: Of a key that must differ from those before it, also where it is the default.
_KEY: Final[dict[str, Any]] = {"min_length": 1, "validate_default": True}

Seconds = Annotated[float, Field(gt=0)]


class Settings(StreamSettings):
    """Frozen settings of one process. Secrets mask themselves when printed."""

    home: Path = declared("MDTASKS_HOME", Path(".mdtasks"), "Folder of the local stack: data, logs, connection file")
    database_url: SecretStr | None = declared(
        "MDTASKS_DATABASE_URL", None, "PostgreSQL, e.g. postgresql://user:pw@host/db"
    )
    redis_url: SecretStr | None = declared(
        "MDTASKS_REDIS_URL", None, "Redis for shared state, e.g. redis://:pw@host:6379/0"
    )
    broker_url: SecretStr | None = declared(
        "MDTASKS_BROKER_URL", None, "Redis for the queues; default: MDTASKS_REDIS_URL"
    )
    api_token: SecretStr | None = declared(
        "MDTASKS_API_TOKEN", None, "Token of everything under /ops, and of the console"
    )

    policy_file: Path | None = declared(
        "MDTASKS_POLICY_FILE",
        None,
        "Policy (YAML) that a reload without one reads; default: policy.yaml in the home, else the shipped defaults",
    )

    url: str = declared("MDTASKS_URL", "", "Web app of the stack that `mdtasks.bars` reads, where that is another")
    flower_url: str = declared("MDTASKS_FLOWER_URL", "", "Where Flower is, for links to it")
    prometheus_url: str = declared("MDTASKS_PROMETHEUS_URL", "", "Where Prometheus is, for links to it")
    grafana_url: str = declared("MDTASKS_GRAFANA_URL", "", "Where Grafana is, for links of alerts into its dashboards")

    cap_t0: int = declared("BACKFILL_MAX_QUEUE_T0", 20_000, "Most backfills waiting in queue T0", ge=1)
    cap_t1: int = declared("BACKFILL_MAX_QUEUE_T1", 20_000, "Most backfills waiting in queue T1", ge=1)
    cap_t2: int = declared("BACKFILL_MAX_QUEUE_T2", 40_000, "Most backfills waiting in queue T2", ge=1)
    chunk_minutes: int = declared("BACKFILL_CHUNK_MINUTES", 1440, "Session minutes (daily: sessions) in one job", ge=1)
    max_attempts: int = declared("MDTASKS_MAX_ATTEMPTS", 5, "Attempts before a job is a dead letter", ge=1, le=100)
    retry_base_s: float = declared(
        "MDTASKS_RETRY_BASE_S", 2.0, "Pause after the first failed attempt, seconds; doubles", ge=0
    )
    retry_max_s: float = declared("MDTASKS_RETRY_MAX_S", 300.0, "Longest pause between attempts, seconds", ge=0)
    time_limit_s: int = declared("MDTASKS_TIME_LIMIT_S", 120, "Hard limit of one attempt, seconds", ge=2)
    lease_margin_s: float = declared(
        "MDTASKS_LEASE_MARGIN_S", 15.0, "A claim outlives the hard limit by this, seconds", ge=1
    )
    settle_s: float = declared(
        "MDTASKS_SETTLE_S", 60.0, "A bar is final when asked for this long after its end, seconds", ge=0
    )
    concurrency: int = declared(
        "MDTASKS_CONCURRENCY", 2, "Processes of each tier's worker under `mdtasks up`", ge=1, le=64
    )
    calendar_back_days: int = declared(
        "MDTASKS_CALENDAR_BACK_DAYS", 14, "Days of calendars before today that are loaded at start", ge=0, le=4000
    )
    calendar_forward_days: int = declared(
        "MDTASKS_CALENDAR_FORWARD_DAYS", 7, "Days of calendars after today that are loaded at start", ge=0, le=400
    )

    cadence_t0: float = declared(
        "CADENCE_T0__bars_1m", 60.0, "Live 1m bars of T0 are fetched this often, seconds; 0: never", ge=0
    )
    cadence_t1: float = declared(
        "CADENCE_T1__bars_1m", 300.0, "Live 1m bars of T1 are fetched this often, seconds; 0: never", ge=0
    )
    quotes_cadence_t0: float = declared(
        "CADENCE_T0__quotes_l1", 5.0, "Live quotes of T0 are fetched this often, seconds; 0: never", ge=0
    )
    quotes_cadence_t1: float = declared(
        "CADENCE_T1__quotes_l1", 15.0, "Live quotes of T1 are fetched this often, seconds; 0: never", ge=0
    )
    use_rlc: bool = declared(
        "USE_RLC", False, "Take jobs from an outside coordinator's Redis lists; beat asks for nothing live then"
    )
    rlc_redis_url: SecretStr | None = declared(
        "RLC_REDIS_URL", None, "Redis of the coordinator's lists; default: MDTASKS_REDIS_URL"
    )
    rlc_jobs_key: str = declared("RLC_REDIS_JOBS_KEY", "market:jobs", "List of the coordinator's jobs", min_length=1)
    rlc_backfills_t0: str = declared(
        "RLC_REDIS_BACKFILL_KEYS__T0", "market:backfills:T0", "List of the coordinator's backfills of T0", **_KEY
    )
    rlc_backfills_t1: str = declared(
        "RLC_REDIS_BACKFILL_KEYS__T1", "market:backfills:T1", "List of the coordinator's backfills of T1", **_KEY
    )
    rlc_backfills_t2: str = declared(
        "RLC_REDIS_BACKFILL_KEYS__T2", "market:backfills:T2", "List of the coordinator's backfills of T2", **_KEY
    )
    rlc_live_expires_s: float = declared(
        "RLC_LIVE_EXPIRES_S", 60.0, "A coordinator's live job that still waits is dropped after this, seconds", ge=1
    )
    keep_t0: tuple[Interval, ...] = declared(
        "MDTASKS_KEEP_T0", (Interval.M1, Interval.D1), "Intervals kept complete in T0"
    )
    keep_t1: tuple[Interval, ...] = declared(
        "MDTASKS_KEEP_T1", (Interval.M1, Interval.D1), "Intervals kept complete in T1"
    )
    keep_t2: tuple[Interval, ...] = declared("MDTASKS_KEEP_T2", (Interval.D1,), "Intervals kept complete in T2")
    gap_scan_s: float = declared("MDTASKS_GAP_SCAN_S", 60.0, "Gaps are looked for this often, seconds; 0: never", ge=0)
    actions_every_s: float = declared(
        "MDTASKS_ACTIONS_EVERY_S",
        60.0,
        "Corporate actions of some symbols that are due, each once a day, are asked for this often, seconds; 0: never",
        ge=0,
    )
    look_back_sessions: int = declared(
        "MDTASKS_LOOK_BACK_SESSIONS", 5, "Gaps of intraday bars are looked for in so many last sessions", ge=1, le=1000
    )
    look_back_days: int = declared(
        "MDTASKS_LOOK_BACK_DAYS", 365, "Gaps of daily bars are looked for in so many last days", ge=1, le=40_000
    )
    silence_odds: float = declared(
        "MDTASKS_SILENCE_ODDS", 1e-6, "Silence that is less likely than this by itself is not believed", ge=0, lt=1
    )
    replay_max_bars: int = declared("WS_REPLAY_MAX_BARS", 120, "Bars that the replay buffer keeps of a series", ge=1)
    replay_ttl_s: int = declared(
        "WS_REPLAY_TTL_SEC", 14_400, "What it keeps of a series that gets no bar is dropped after this, seconds", ge=1
    )
    derive_every_s: float = declared(
        "MDTASKS_DERIVE_S", 5.0, "Longer bars are made of the minutes that changed this often, seconds", gt=0
    )
    cross_check_s: float = declared(
        "MDTASKS_CROSS_CHECK_S", 180.0, "Bars are held against another source this often, seconds; 0: never", ge=0
    )
    slo_every_s: float = declared("SLO_EVERY_S", 30.0, "Lateness is looked at this often, seconds; 0: never", ge=0)
    slo_grace_s: float = declared(
        "SLO_GRACE_S", 30.0, "Lateness forgiven beside cadence, settle and provider delay, seconds", ge=0
    )
    slo_sample_t0: int = declared("SLO_SAMPLE_T0", 0, "Series of T0 in one look at lateness; 0: all", ge=0)
    slo_sample_t1: int = declared("SLO_SAMPLE_T1", 0, "Series of T1 in one look at lateness; 0: all", ge=0)
    slo_sample_t2: int = declared("SLO_SAMPLE_T2", 0, "Series of T2 in one look at lateness; 0: all", ge=0)
    slo_target_t0: float = declared("SLO_TARGET_T0", TARGETS[Tier.T0], "Share of T0 that may be late", gt=0, lt=1)
    slo_target_t1: float = declared("SLO_TARGET_T1", TARGETS[Tier.T1], "Share of T1 that may be late", gt=0, lt=1)
    slo_target_t2: float = declared("SLO_TARGET_T2", TARGETS[Tier.T2], "Share of T2 that may be late", gt=0, lt=1)

    @field_validator("keep_t0", "keep_t1", "keep_t2", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return comma_separated(value)

    @field_validator("rlc_jobs_key", "rlc_backfills_t0", "rlc_backfills_t1", "rlc_backfills_t2")
    @classmethod
    def _is_a_list_of_its_own(cls, key: str, info: ValidationInfo) -> str:
        if key in {name for tier in Tier for name in (tier.value, f"{tier}.live")} | {"control", "dlq"}:
            raise ValueError("is the name of one of mdtasks' own queues")
        if key in [other for name, other in info.data.items() if name.startswith(("rlc_jobs", "rlc_backfills"))]:
            raise ValueError("is the key of another of the coordinator's lists too")
        return key

    @property
    def rlc_keys(self) -> dict[str, str]:
        """The coordinator's lists: ``jobs`` and the tiers of backfills -> Redis key."""
        backfills = (self.rlc_backfills_t0, self.rlc_backfills_t1, self.rlc_backfills_t2)
        return {"jobs": self.rlc_jobs_key, **{str(tier): key for tier, key in zip(Tier, backfills, strict=True)}}

    def cap(self, tier: Tier) -> int:
        """Most backfills that may wait in the tier's queue."""
        return {Tier.T0: self.cap_t0, Tier.T1: self.cap_t1, Tier.T2: self.cap_t2}[tier]

    def cadence_s(self, tier: Tier) -> float:
        """How often the tier's 1m bars are fetched live, seconds; 0: not at all."""
        return {Tier.T0: self.cadence_t0, Tier.T1: self.cadence_t1}.get(tier, 0.0)

    def quotes_cadence_s(self, tier: Tier) -> float:
        """How often the tier's quotes are fetched live, seconds; 0: not at all."""
        return {Tier.T0: self.quotes_cadence_t0, Tier.T1: self.quotes_cadence_t1}.get(tier, 0.0)

    def kept(self, tier: Tier) -> tuple[Interval, ...]:
        """The intervals that are kept complete for the tier's instruments."""
        return {Tier.T0: self.keep_t0, Tier.T1: self.keep_t1, Tier.T2: self.keep_t2}[tier]

    def slo_sample(self, tier: Tier) -> int:
        """Series of the tier that one look at lateness takes; 0: all."""
        return {Tier.T0: self.slo_sample_t0, Tier.T1: self.slo_sample_t1, Tier.T2: self.slo_sample_t2}[tier]

    def slo_target(self, tier: Tier) -> float:
        """Share of the tier's series that may be late."""
        return {Tier.T0: self.slo_target_t0, Tier.T1: self.slo_target_t1, Tier.T2: self.slo_target_t2}[tier]

    @property
    def lease_s(self) -> float:
        """How long a claim holds a job, seconds: past the hard limit, so that a live worker never loses its claim."""
        return self.time_limit_s + self.lease_margin_s

    @property
    def metrics_dir(self) -> Path:
        """Where the processes of a stack keep their counts, for the web app's /metrics to sum up."""
        return self.home / "metrics"

    @property
    def calendars_dir(self) -> Path:
        """Where processes keep the years of calendars for each other."""
        return self.home / "calendars"

    def require_database_url(self) -> str:
        """The PostgreSQL URL. Raises StackNotRunningError when there is none."""
        return self._required(self.database_url)

    def require_redis_url(self) -> str:
        """The URL of Redis for shared state. Raises StackNotRunningError when there is none."""
        return self._required(self.redis_url)

    def require_rlc_url(self) -> str:
        """The URL of the coordinator's Redis. Raises StackNotRunningError when there is none."""
        return self._required(self.rlc_redis_url or self.redis_url)

    def require_broker_url(self) -> str:
        """The URL of Redis for the queues. Raises StackNotRunningError when there is none."""
        return self._required(self.broker_url or self.redis_url)

    def _required(self, url: SecretStr | None) -> str:
        if url is None:
            raise StackNotRunningError(str(self.home))
        return url.get_secret_value()
