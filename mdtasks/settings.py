"""What a process is started with: URLs, secrets, paths and limits, read once from the environment.

Order of truth for the URLs: the environment, then the file that ``mdtasks up`` leaves in its home
(``connection.json``), so that ``celery -A mdtasks worker`` typed by hand in the same folder finds the running stack.
Unknown ``MDTASKS_*`` names are refused with the nearest known one: a typo never passes in silence.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from mdtasks.domain.errors import ConfigurationError, StackNotRunningError
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.slo import TARGETS

#: The file in a home that tells where its running servers are (mode 0600: it holds their passwords).
CONNECTION_FILE: Final = "connection.json"

_ENV = "env"  # key of json_schema_extra: the variable that sets the field


def _field(env: str, default: Any, description: str, **rules: Any) -> Any:
    return Field(default, description=description, json_schema_extra={_ENV: env}, **rules)


#: Of a key that must differ from those before it, also where it is the default.
_KEY: Final[dict[str, Any]] = {"min_length": 1, "validate_default": True}

Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Frozen settings of one process. Secrets mask themselves when printed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = _field("MDTASKS_HOME", Path(".mdtasks"), "Folder of the local stack: data, logs, connection file")
    database_url: SecretStr | None = _field(
        "MDTASKS_DATABASE_URL", None, "PostgreSQL, e.g. postgresql://user:pw@host/db"
    )
    redis_url: SecretStr | None = _field(
        "MDTASKS_REDIS_URL", None, "Redis for shared state, e.g. redis://:pw@host:6379/0"
    )
    broker_url: SecretStr | None = _field(
        "MDTASKS_BROKER_URL", None, "Redis for the queues; default: MDTASKS_REDIS_URL"
    )
    api_token: SecretStr | None = _field("MDTASKS_API_TOKEN", None, "Bearer token of everything under /ops")

    flower_url: str = _field("MDTASKS_FLOWER_URL", "", "Where Flower is, for links to it")
    prometheus_url: str = _field("MDTASKS_PROMETHEUS_URL", "", "Where Prometheus is, for links to it")
    grafana_url: str = _field("MDTASKS_GRAFANA_URL", "", "Where Grafana is, for links of alerts into its dashboards")

    files_map: Path | None = _field("MDTASKS_FILES_MAP", None, "Mapping file (YAML) of the `files` provider")
    lean_dir: Path | None = _field("MDTASKS_LEAN_DIR", None, "LEAN data folder of the `lean` provider")
    simulator: bool = _field(
        "MDTASKS_SIMULATOR", False, "Offer the `simulator` provider (made-up data; off by default)"
    )
    simulator_faults: str = _field(
        "MDTASKS_SIMULATOR_FAULTS", "", "Faults of the simulator, e.g. error=0.05,latency_s=0.2"
    )
    policy_bars: tuple[str, ...] = _field("POLICY_BARS_1M", (), "Provider order for intraday bars, comma separated")
    policy_eod: tuple[str, ...] = _field("POLICY_EOD", (), "Provider order for daily bars")
    policy_quotes: tuple[str, ...] = _field("POLICY_QUOTES_L1", (), "Provider order for quotes")

    cap_t0: int = _field("BACKFILL_MAX_QUEUE_T0", 20_000, "Most backfills waiting in queue T0", ge=1)
    cap_t1: int = _field("BACKFILL_MAX_QUEUE_T1", 20_000, "Most backfills waiting in queue T1", ge=1)
    cap_t2: int = _field("BACKFILL_MAX_QUEUE_T2", 40_000, "Most backfills waiting in queue T2", ge=1)
    chunk_minutes: int = _field("BACKFILL_CHUNK_MINUTES", 1440, "Session minutes (daily: sessions) in one job", ge=1)
    max_attempts: int = _field("MDTASKS_MAX_ATTEMPTS", 5, "Attempts before a job is a dead letter", ge=1, le=100)
    retry_base_s: float = _field(
        "MDTASKS_RETRY_BASE_S", 2.0, "Pause after the first failed attempt, seconds; doubles", ge=0
    )
    retry_max_s: float = _field("MDTASKS_RETRY_MAX_S", 300.0, "Longest pause between attempts, seconds", ge=0)
    time_limit_s: int = _field("MDTASKS_TIME_LIMIT_S", 120, "Hard limit of one attempt, seconds", ge=2)
    lease_margin_s: float = _field(
        "MDTASKS_LEASE_MARGIN_S", 15.0, "A claim outlives the hard limit by this, seconds", ge=1
    )
    settle_s: float = _field(
        "MDTASKS_SETTLE_S", 60.0, "A bar is final when asked for this long after its end, seconds", ge=0
    )
    concurrency: int = _field(
        "MDTASKS_CONCURRENCY", 2, "Processes of each tier's worker under `mdtasks up`", ge=1, le=64
    )
    calendar_back_days: int = _field(
        "MDTASKS_CALENDAR_BACK_DAYS", 14, "Days of calendars before today that are loaded at start", ge=0, le=4000
    )
    calendar_forward_days: int = _field(
        "MDTASKS_CALENDAR_FORWARD_DAYS", 7, "Days of calendars after today that are loaded at start", ge=0, le=400
    )

    cadence_t0: float = _field(
        "CADENCE_T0__bars_1m", 60.0, "Live 1m bars of T0 are fetched this often, seconds; 0: never", ge=0
    )
    cadence_t1: float = _field(
        "CADENCE_T1__bars_1m", 300.0, "Live 1m bars of T1 are fetched this often, seconds; 0: never", ge=0
    )
    quotes_cadence_t0: float = _field(
        "CADENCE_T0__quotes_l1", 5.0, "Live quotes of T0 are fetched this often, seconds; 0: never", ge=0
    )
    quotes_cadence_t1: float = _field(
        "CADENCE_T1__quotes_l1", 15.0, "Live quotes of T1 are fetched this often, seconds; 0: never", ge=0
    )
    use_rlc: bool = _field(
        "USE_RLC", False, "Take jobs from an outside coordinator's Redis lists; beat asks for nothing live then"
    )
    rlc_redis_url: SecretStr | None = _field(
        "RLC_REDIS_URL", None, "Redis of the coordinator's lists; default: MDTASKS_REDIS_URL"
    )
    rlc_jobs_key: str = _field("RLC_REDIS_JOBS_KEY", "market:jobs", "List of the coordinator's jobs", min_length=1)
    rlc_backfills_t0: str = _field(
        "RLC_REDIS_BACKFILL_KEYS__T0", "market:backfills:T0", "List of the coordinator's backfills of T0", **_KEY
    )
    rlc_backfills_t1: str = _field(
        "RLC_REDIS_BACKFILL_KEYS__T1", "market:backfills:T1", "List of the coordinator's backfills of T1", **_KEY
    )
    rlc_backfills_t2: str = _field(
        "RLC_REDIS_BACKFILL_KEYS__T2", "market:backfills:T2", "List of the coordinator's backfills of T2", **_KEY
    )
    rlc_live_expires_s: float = _field(
        "RLC_LIVE_EXPIRES_S", 60.0, "A coordinator's live job that still waits is dropped after this, seconds", ge=1
    )
    keep_t0: tuple[Interval, ...] = _field(
        "MDTASKS_KEEP_T0", (Interval.M1, Interval.D1), "Intervals kept complete in T0"
    )
    keep_t1: tuple[Interval, ...] = _field(
        "MDTASKS_KEEP_T1", (Interval.M1, Interval.D1), "Intervals kept complete in T1"
    )
    keep_t2: tuple[Interval, ...] = _field("MDTASKS_KEEP_T2", (Interval.D1,), "Intervals kept complete in T2")
    gap_scan_s: float = _field("MDTASKS_GAP_SCAN_S", 60.0, "Gaps are looked for this often, seconds; 0: never", ge=0)
    look_back_sessions: int = _field(
        "MDTASKS_LOOK_BACK_SESSIONS", 5, "Gaps of intraday bars are looked for in so many last sessions", ge=1, le=1000
    )
    look_back_days: int = _field(
        "MDTASKS_LOOK_BACK_DAYS", 365, "Gaps of daily bars are looked for in so many last days", ge=1, le=40_000
    )
    silence_odds: float = _field(
        "MDTASKS_SILENCE_ODDS", 1e-6, "Silence that is less likely than this by itself is not believed", ge=0, lt=1
    )
    slo_every_s: float = _field("SLO_EVERY_S", 30.0, "Lateness is looked at this often, seconds; 0: never", ge=0)
    slo_grace_s: float = _field(
        "SLO_GRACE_S", 30.0, "Lateness forgiven beside cadence, settle and provider delay, seconds", ge=0
    )
    slo_sample_t0: int = _field("SLO_SAMPLE_T0", 0, "Series of T0 in one look at lateness; 0: all", ge=0)
    slo_sample_t1: int = _field("SLO_SAMPLE_T1", 0, "Series of T1 in one look at lateness; 0: all", ge=0)
    slo_sample_t2: int = _field("SLO_SAMPLE_T2", 0, "Series of T2 in one look at lateness; 0: all", ge=0)
    slo_target_t0: float = _field("SLO_TARGET_T0", TARGETS[Tier.T0], "Share of T0 that may be late", gt=0, lt=1)
    slo_target_t1: float = _field("SLO_TARGET_T1", TARGETS[Tier.T1], "Share of T1 that may be late", gt=0, lt=1)
    slo_target_t2: float = _field("SLO_TARGET_T2", TARGETS[Tier.T2], "Share of T2 that may be late", gt=0, lt=1)

    @field_validator("policy_bars", "policy_eod", "policy_quotes", "keep_t0", "keep_t1", "keep_t2", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

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


#: Environment variable -> field, e.g. ``MDTASKS_HOME`` -> ``home``.
ENVIRONMENT: Final[dict[str, str]] = {
    str(field.json_schema_extra[_ENV]): name  # type: ignore[index]
    for name, field in Settings.model_fields.items()
}


def load_settings(environ: Mapping[str, str] | None = None, *, home: Path | None = None) -> Settings:
    """Settings from the environment (default: this process's), validated whole.

    ``home`` wins over ``MDTASKS_HOME``. URLs that the environment does not give come from the home's connection file,
    if a stack runs there. Raises ConfigurationError naming the variable that is unknown or wrong.
    """
    environ = os.environ if environ is None else environ
    refuse_unknown(environ)
    values: dict[str, Any] = {field: environ[name] for name, field in ENVIRONMENT.items() if environ.get(name)}
    if home is not None:
        values["home"] = home
    values["home"] = Path(values.get("home", ".mdtasks")).absolute()
    for field, value in _connection(values["home"]).items():
        values.setdefault(field, value)
    try:
        return Settings.model_validate(values)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        field = str(first["loc"][0])
        name = next((env for env, known in ENVIRONMENT.items() if known == field), field)
        shown = "***" if "url" in field or "token" in field else repr(first["input"])
        raise ConfigurationError(f"{name}={shown}: {first['msg']}", name=name, hint="see docs/settings.md") from exc


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a variable that looks like a setting and is none, with the nearest that is one."""
    for name in environ:
        if name in ENVIRONMENT or not name.startswith(("MDTASKS_", "BACKFILL_", "CADENCE_", "POLICY_", "SLO_", "RLC_")):
            continue
        # The names without our prefix may be somebody else's, unless they are nearly ours.
        near = difflib.get_close_matches(name, ENVIRONMENT, n=1, cutoff=0.6 if name.startswith("MDTASKS_") else 0.9)
        if near or name.startswith("MDTASKS_"):
            raise ConfigurationError(
                f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else ""),
                name=name,
                hint="see docs/settings.md",
            )


def _connection(home: Path) -> dict[str, Any]:
    """The URLs and shared settings of the stack that runs in ``home``: {} when none does."""
    path = home / CONNECTION_FILE
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            f"cannot read {path}: {exc}", name="MDTASKS_HOME", hint="`mdtasks down`, then `mdtasks up`"
        ) from exc
    shared = {name: value for name, value in content.get("settings", {}).items() if name in Settings.model_fields}
    return {**shared, **{field: str(content[field]) for field in _ADDRESSES if content.get(field)}}


#: What the connection file holds by itself; the other settings of the stack are those of ``published``.
_ADDRESSES: Final = (
    "database_url",
    "redis_url",
    "broker_url",
    "rlc_redis_url",
    "api_token",
    "flower_url",
    "prometheus_url",
)


def published(settings: Settings) -> dict[str, Any]:
    """What a stack lets everybody know who finds it by its home: caps, providers, limits; no address, no secret.

    Without it a command typed in another terminal would push past the caps that the stack was started with, and not
    know its providers. Paths become absolute.
    """
    shared = settings.model_dump(mode="json", exclude={"home", *_ADDRESSES}, exclude_defaults=True)
    for name in ("files_map", "lean_dir"):
        if name in shared:
            shared[name] = str(Path(shared[name]).absolute())
    return shared
