"""The policy: all that an operator may change while the system runs, as one frozen value. No secret is ever part of it.

Each field bears its meaning, its unit, its bounds and whether a process must be started anew to follow it. Field names
are paths, as errors, differences and docs/policy.md write them: ``tiers.T0.cadence.bars_1m``. What a candidate leaves
out has its default, except what every tier must say itself: its cadences and its cap.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, PlainSerializer, Strict, model_validator

from mdtasks.domain.health import Rules
from mdtasks.domain.jobs import Interval, ProviderName, Symbol, Tier
from mdtasks.domain.policy.cross_checks import CrossChecks, Derived
from mdtasks.domain.policy.sections import RESTART, UNIT, Flag, Number, Seconds, Share, Whole, said
from mdtasks.domain.policy.sections import Section as _Section
from mdtasks.domain.rates import Rate, parse_rates
from mdtasks.domain.slo import TARGETS


def _written(text: str) -> str:
    try:
        return "+".join(map(str, parse_rates(text))) or "none"
    except ValueError:
        raise ValueError("must be a rate such as 200/min, 30/s or 10000/min+30/s, or none") from None


def _once(names: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    seen: set[Any] = set()
    for name in names or ():
        if name in seen:
            raise ValueError(f"names {name} twice")
        seen.add(name)
    return names


def _sealed(named: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(sorted(named.items())))


Order = Annotated[tuple[ProviderName, ...], Field(min_length=1, max_length=50), AfterValidator(_once)] | None
Limit = Annotated[str, Strict(), AfterValidator(_written)]
Limits = Annotated[Mapping[ProviderName, Limit], Field(max_length=50), AfterValidator(_sealed), PlainSerializer(dict)]
Pins = Annotated[Mapping[Symbol, Tier], Field(max_length=10_000), AfterValidator(_sealed), PlainSerializer(dict)]
Bans = Annotated[tuple[Symbol, ...], Field(max_length=10_000), AfterValidator(_once)]


class Cadence(_Section):
    """How often what is new is asked for. What is left out is never asked for."""

    bars_1m: Seconds | None = said(None, "Live 1m bars are fetched this often; null: never", unit="s")
    quotes_l1: Seconds | None = said(None, "Live quotes are fetched this often; null: never", unit="s")
    eod: Annotated[Whole, Field(ge=1, le=1)] | None = said(
        None, "Daily bars are asked for once, after their session's close; null: never", unit="a session"
    )


class TierPolicy(_Section):
    """What a tier gets. Its cadences and its cap must be said."""

    cadence: Cadence
    max_queue: Whole = said(..., "Most backfills waiting in the tier's queue", unit="jobs", ge=1, le=10_000_000)
    size: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = said(
        None, "Most symbols in the tier, which the plan reckons with; null: as many as there are", unit="symbols"
    )
    keep: Annotated[tuple[Interval, ...], Field(max_length=len(Interval)), AfterValidator(_once)] = said(
        (), "Intervals that are kept complete"
    )
    chunk_minutes: Whole = said(
        1440, "Session minutes (daily: sessions) in one backfill", unit="min", ge=1, le=1_000_000
    )
    concurrency: Whole = said(
        2, "Processes of the tier's worker under `mdtasks up`", unit="processes", restart=True, ge=1, le=64
    )


#: What a tier has that does not say it.
_TIERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "T0": {"size": 1200, "keep": ("1m", "1d")},
    "T1": {"size": 3000, "keep": ("1m", "1d")},
    "T2": {"size": None, "keep": ("1d",)},
}


def _tier(name: str, cadence: Cadence, max_queue: int) -> TierPolicy:
    return TierPolicy(cadence=cadence, max_queue=max_queue, **_TIERS[name])


class Tiers(_Section):
    """The tiers; whoever says one says all of them."""

    T0: TierPolicy
    T1: TierPolicy
    T2: TierPolicy

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {n: {**_TIERS[n], **one} if n in _TIERS and isinstance(one, dict) else one for n, one in given.items()}

    def __getitem__(self, tier: Tier) -> TierPolicy:
        found: TierPolicy = getattr(self, tier.value)
        return found


def _tiers() -> Tiers:
    return Tiers(
        T0=_tier("T0", Cadence(bars_1m=60.0, quotes_l1=5.0, eod=1), 20_000),
        T1=_tier("T1", Cadence(bars_1m=300.0, quotes_l1=15.0, eod=1), 20_000),
        T2=_tier("T2", Cadence(eod=1), 40_000),
    )


class Orders(_Section):
    """Who is asked first, and who next. Without an order: every configured provider, as docs/providers.md has it."""

    bars_1m: Order = said(None, "Provider order for intraday bars; null: the default order")
    eod: Order = said(None, "Provider order for daily bars; null: the default order")
    quotes_l1: Order = said(None, "Provider order for quotes; null: the default order")
    source_override: Flag = said(True, "A job's `provider_hint` is honoured; false: it is read and the order is kept")


class Breaker(_Section):
    """When a provider is demoted and promoted."""

    demote: Number = said(0.55, "A provider whose evidence falls below this is demoted", ge=0, le=1)
    promote: Number = said(0.70, "A demoted one whose evidence reaches this is promoted", ge=0, le=1)
    min_samples: Whole = said(
        3, "Probes in a row that must go well before that; requests before a demotion", unit="requests", ge=1, le=1000
    )
    cooldown_s: Number = said(60.0, "A demoted one is left alone for this long; doubles", unit="s", gt=0, le=3600)

    @property
    def rules(self) -> Rules:
        """As the shared health works by them."""
        return Rules(self.demote, self.promote, self.min_samples, self.cooldown_s)


class Targets(_Section):
    """Of each tier the share of its series that may be late."""

    T0: Share = said(TARGETS[Tier.T0], "Share of T0 that may be late")
    T1: Share = said(TARGETS[Tier.T1], "Share of T1 that may be late")
    T2: Share = said(TARGETS[Tier.T2], "Share of T2 that may be late")

    def __getitem__(self, tier: Tier) -> float:
        return float(getattr(self, tier.value))


class Samples(_Section):
    """Of each tier how many series one look takes."""

    T0: Whole = said(0, "Series of T0 in one look at lateness; 0: all", unit="series", ge=0, le=1_000_000)
    T1: Whole = said(0, "Series of T1 in one look at lateness; 0: all", unit="series", ge=0, le=1_000_000)
    T2: Whole = said(0, "Series of T2 in one look at lateness; 0: all", unit="series", ge=0, le=1_000_000)

    def __getitem__(self, tier: Tier) -> int:
        return int(getattr(self, tier.value))


class Slo(_Section):
    """The objectives, and how they are watched."""

    targets: Targets = Field(default_factory=Targets)
    samples: Samples = Field(default_factory=Samples)
    every_s: Seconds | None = said(30.0, "Lateness is looked at this often; null: never", unit="s")
    grace_s: Number = said(
        30.0, "Lateness forgiven beside cadence, settle and provider delay", unit="s", ge=0, le=86_400
    )


class Retry(_Section):
    """How often a job that failed is tried again, and when."""

    attempts: Whole = said(5, "Attempts before a job is a dead letter", unit="attempts", ge=1, le=100)
    base_s: Number = said(2.0, "Pause after the first failed attempt; doubles", unit="s", ge=0, le=86_400)
    max_s: Number = said(300.0, "Longest pause between attempts", unit="s", ge=0, le=86_400)


class Replay(_Section):
    """What a client that returns may still get without a loss: how much the replay buffer keeps of each series."""

    max_bars: Whole = said(
        120, "Bars that the replay buffer keeps of a symbol and interval", unit="bars", ge=1, le=100_000
    )
    ttl_s: Whole = said(
        14_400, "What it keeps of a symbol that gets no bar is dropped after this", unit="s", ge=1, le=2_592_000
    )


class Gaps(_Section):
    """Where what is missing is looked for, and when a bar counts as final."""

    scan_s: Seconds | None = said(60.0, "Gaps are looked for this often; null: never", unit="s")
    settle_s: Number = said(60.0, "A bar is final when asked for this long after its end", unit="s", ge=0, le=86_400)
    back_sessions: Whole = said(
        5, "Gaps of intraday bars are looked for in so many last sessions", unit="sessions", ge=1, le=1000
    )
    back_days: Whole = said(365, "Gaps of daily bars are looked for in so many last days", unit="d", ge=1, le=40_000)
    silence_odds: Number = said(1e-6, "Silence that is less likely than this by itself is not believed", ge=0, lt=1)


class Calendar(_Section):
    """The days around now whose sessions are held ready."""

    back_days: Whole = said(14, "Days of calendars before today that are loaded", unit="d", restart=True, ge=0, le=4000)
    forward_days: Whole = said(7, "Days of calendars after today that are loaded", unit="d", restart=True, ge=0, le=400)


class Tracing(_Section):
    """Which slow provider calls are recorded."""

    enabled: Flag = said(True, "Record slow provider calls, with a trace of where their time went")
    slow_s: Number = said(2.0, "A provider call is slow when it takes longer than this", unit="s", gt=0, le=3600)
    slow_p95: Number = said(
        3.0, "Or longer than so many times the provider's p95; 0: only the seconds count", ge=0, le=1000
    )
    sample: Number = said(1.0, "Share of the slow calls that get a trace; all get a record", ge=0, le=1)
    keep: Whole = said(200, "Traces that are kept, the newest; 0: records alone", unit="traces", ge=0, le=100_000)
    keep_mb: Whole = said(100, "Megabytes that they may take in all, compressed", unit="MB", ge=1, le=100_000)


Days = Annotated[Whole, Field(ge=7, le=40_000)] | None


class Retention(_Section):
    """How long what was found is kept. Bars and quotes go by whole months, so up to a month later."""

    bars_1m_days: Days = said(None, "1m bars are kept for so long; null: for ever", unit="d")
    bars_5m_days: Days = said(None, "5m bars are kept for so long; null: for ever", unit="d")
    bars_15m_days: Days = said(None, "15m bars are kept for so long; null: for ever", unit="d")
    bars_1h_days: Days = said(None, "1h bars are kept for so long; null: for ever", unit="d")
    bars_1d_days: Days = said(None, "Daily bars are kept for so long; null: for ever", unit="d")
    revisions_days: Days = said(
        None,
        "What bars were before a revision is kept for so long, and reads as of then; null: for ever",
        unit="d",
    )
    quotes_days: Days = said(None, "Quotes are kept for so long; null: for ever", unit="d")
    jobs_days: Days = said(90, "Jobs that are over, and requests, are kept for so long; null: for ever", unit="d")
    letters_days: Days = said(
        90, "Letters that were requeued or resolved are kept for so long; null: for ever", unit="d"
    )
    quarantine_days: Days = said(365, "Bars that broke a rule are kept for so long; null: for ever", unit="d")
    slo_days: Whole = said(400, "Snapshots of the objectives are kept for so long", unit="d", ge=31, le=4000)
    reconciliation_days: Whole = said(400, "Comparisons of sources are kept for so long", unit="d", ge=1, le=4000)
    slo_whole_days: Whole = said(40, "Older ones are thinned out to one in ten minutes", unit="d", ge=31, le=4000)

    def bars_days(self, interval: Interval) -> int | None:
        """Days that bars of an interval are kept; None: for ever."""
        found: int | None = getattr(self, f"bars_{interval.value}_days")
        return found


class Universe(_Section):
    """How a listing becomes tiers, and whose listing is taken before each open."""

    source: ProviderName | None = said(None, "Provider whose listing is taken before each open; null: nobody's")
    mic: Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9/_.-]{1,32}$")] = said(
        "XNYS", "The exchange before whose open it is taken"
    )
    before_open_s: Whole = said(7200, "So long before the open", unit="s", ge=600, le=43_200)
    activate: Flag = said(True, "What is made of it holds at once; false: `mdtasks universe activate` lets it")
    most_leave: Number = said(
        0.1,
        "More than this share of the members leaves, or of a tier's goes down, only when a person says --force",
        ge=0,
        le=1,
    )
    days: Whole = said(20, "Days' listings of which a symbol's dollar volume is the average", unit="d", ge=1, le=250)
    margin: Number = said(
        0.05, "Share of a tier's size at its lower border into which nobody comes up, so that few waver", ge=0, lt=1
    )
    pins: Pins = Field(
        default_factory=lambda: _sealed({}),
        description="The tier of a symbol, whatever it trades",
        json_schema_extra={UNIT: "", RESTART: False},
    )
    bans: Bans = said((), "Symbols that are in no tier, whatever they trade")


class Policy(_Section):
    """All of it. ``Policy()`` is what the system does when nobody said anything."""

    tiers: Tiers = Field(default_factory=_tiers)
    orders: Orders = Field(default_factory=Orders)
    limits: Limits = Field(
        default_factory=lambda: _sealed({}),
        description="What a provider's account allows where it is not the free plan: `10000/min+30/s`, `none`",
        json_schema_extra={UNIT: "", RESTART: False},
    )
    vendor_timeout_s: Number = said(10.0, "One request to a vendor takes at most this", unit="s", gt=0, le=600)
    breaker: Breaker = Field(default_factory=Breaker)
    slo: Slo = Field(default_factory=Slo)
    retry: Retry = Field(default_factory=Retry)
    replay: Replay = Field(default_factory=Replay)
    gaps: Gaps = Field(default_factory=Gaps)
    universe: Universe = Field(default_factory=Universe)
    derived: Derived = Field(default_factory=Derived)
    cross_checks: CrossChecks = Field(default_factory=CrossChecks)
    calendar: Calendar = Field(default_factory=Calendar)
    tracing: Tracing = Field(default_factory=Tracing)
    retention: Retention = Field(default_factory=Retention)

    def rates(self, provider: str) -> tuple[Rate, ...] | None:
        """What the provider's account allows; None: as the provider itself has it."""
        text = self.limits.get(provider)
        return None if text is None else parse_rates(text)
