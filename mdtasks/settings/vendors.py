"""What a process knows of vendors: which are configured, with which keys, how often they may be called, and when one
that is ill is left aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, SecretStr, field_validator, model_validator

from mdtasks.domain.rates import Rate, parse_age, parse_rates
from mdtasks.settings.declared import declared

T = TypeVar("T")

#: Every provider there is: made here of files or numbers, or asked over the network.
LOCAL: Final = ("lean", "files", "simulator", *(f"simulator_{number}" for number in range(2, 10)))
VENDORS: Final = ("alpaca", "massive", "databento", "finnhub", "yfinance")


class VendorSettings(BaseModel):
    """Settings of the providers. Secrets mask themselves when printed."""

    # An input may hold a password, and a traceback would show it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    files_map: Path | None = declared("MDTASKS_FILES_MAP", None, "Mapping file (YAML) of the `files` provider")
    lean_dir: Path | None = declared("MDTASKS_LEAN_DIR", None, "LEAN data folder of the `lean` provider")
    simulator: bool = declared(
        "MDTASKS_SIMULATOR", False, "Offer the `simulator` provider (made-up data; off by default)"
    )
    simulator_faults: str = declared(
        "MDTASKS_SIMULATOR_FAULTS", "", "Faults of the simulator, e.g. error=0.05,latency_s=0.2"
    )
    simulators: int = declared(
        "MDTASKS_SIMULATORS",
        1,
        "So many simulators of the same data, `simulator`, `simulator_2` …; faults are the first one's",
        ge=1,
        le=9,
    )
    simulator_schedule: str = declared(
        "MDTASKS_SIMULATOR_SCHEDULE",
        "",
        "Its faults at times, seconds since the epoch: `60-120 latency_s=3; 120-180 error=1`",
    )
    simulator_epoch: AwareDatetime | None = declared(
        "MDTASKS_SIMULATOR_EPOCH", None, "When that schedule begins, e.g. 2026-11-24T14:30:00Z; `mdtasks up`: its start"
    )
    alpaca_key: SecretStr | None = declared("MDTASKS_ALPACA_KEY", None, "Key id of the Alpaca account")
    alpaca_secret: SecretStr | None = declared("MDTASKS_ALPACA_SECRET", None, "Its secret; both switch `alpaca` on")
    alpaca_feed: str = declared(
        "MDTASKS_ALPACA_FEED",
        "iex",
        "Alpaca's feed: `iex` (one exchange, real time) or `sip` (all)",
        pattern="^(iex|sip)$",
    )
    massive_key: SecretStr | None = declared("MDTASKS_MASSIVE_KEY", None, "Key of Massive (the former Polygon)")
    databento_key: SecretStr | None = declared("MDTASKS_DATABENTO_KEY", None, "Key of Databento, which bills by use")
    databento_dataset: str = declared(
        "MDTASKS_DATABENTO_DATASET", "EQUS.MINI", "Databento's dataset that is asked", min_length=1
    )
    databento_max_cost: float = declared(
        "MDTASKS_DATABENTO_MAX_COST",
        1.0,
        "Most that one call to Databento may cost, US dollars; it is asked before",
        ge=0,
    )
    finnhub_key: SecretStr | None = declared("MDTASKS_FINNHUB_KEY", None, "Key of Finnhub")
    finnhub_candles: bool = declared(
        "MDTASKS_FINNHUB_CANDLES", False, "The Finnhub plan includes candles: ask it for bars too, not for quotes only"
    )
    yfinance: bool = declared(
        "MDTASKS_YFINANCE", False, "Ask Yahoo through yfinance; for personal use only, as its own notice says"
    )
    vendor_rates: Mapping[str, tuple[Rate, ...]] = declared(
        "MDTASKS_VENDOR_RATES",
        {},
        "What the accounts allow, where it is not the free plan: `alpaca=10000/min,massive=100/s`",
    )
    vendor_delays: Mapping[str, float] = declared(
        "MDTASKS_VENDOR_DELAYS",
        {},
        "How old bars must be, where the accounts differ from the free plan: `alpaca=0,massive=15min`",
    )
    vendor_history: Mapping[str, float | None] = declared(
        "MDTASKS_VENDOR_HISTORY",
        {},
        "How far back the accounts reach, where that differs from the free plan: `massive=10y`, or `none` for no limit",
    )
    vendor_urls: Mapping[str, str] = declared(
        "MDTASKS_VENDOR_URLS",
        {},
        "Where vendors are asked instead, through a proxy say: `alpaca=http://127.0.0.1:9000`",
    )
    vendor_timeout_s: float = declared(
        "MDTASKS_VENDOR_TIMEOUT_S", 10.0, "One request to a vendor takes at most this, seconds", gt=0, le=600
    )
    policy_bars: tuple[str, ...] = declared("POLICY_BARS_1M", (), "Provider order for intraday bars, comma separated")
    policy_eod: tuple[str, ...] = declared("POLICY_EOD", (), "Provider order for daily bars")
    policy_quotes: tuple[str, ...] = declared("POLICY_QUOTES_L1", (), "Provider order for quotes")
    allow_source_override: bool = declared(
        "ALLOW_SOURCE_OVERRIDE", True, "A job's `provider_hint` is honoured; off: it is read and the order is kept"
    )
    demote_threshold: float = declared(
        "BREAKER_DEMOTE_THRESHOLD", 0.55, "A provider whose evidence falls below this is demoted", ge=0, le=1
    )
    promote_threshold: float = declared(
        "BREAKER_PROMOTE_THRESHOLD", 0.70, "A demoted one whose evidence reaches this is promoted", ge=0, le=1
    )
    promote_min_samples: int = declared(
        "BREAKER_PROMOTE_MIN_SAMPLES", 3, "Probes in a row that must go well before that", ge=1, le=1000
    )
    breaker_cooldown_s: float = declared(
        "BREAKER_COOLDOWN_SEC", 60.0, "A demoted one is left alone for this long, seconds; doubles", gt=0, le=3600
    )

    @field_validator("policy_bars", "policy_eod", "policy_quotes", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return comma_separated(value)

    @field_validator("vendor_rates", mode="before")
    @classmethod
    def _rates(cls, value: object) -> object:
        return {
            name: parse_rates(said) if isinstance(said, str) else said for name, said in _by_vendor(value, str).items()
        }

    @field_validator("vendor_delays", mode="before")
    @classmethod
    def _delays(cls, value: object) -> object:
        return _by_vendor(value, lambda said: parse_age(said) or 0.0)

    @field_validator("vendor_history", mode="before")
    @classmethod
    def _histories(cls, value: object) -> object:
        return _by_vendor(value, parse_age)

    @field_validator("vendor_urls", mode="before")
    @classmethod
    def _urls(cls, value: object) -> object:
        return _by_vendor(value, _url, shown=False)

    @model_validator(mode="after")
    def _promotes_above_where_it_demotes(self) -> VendorSettings:
        if self.demote_threshold >= self.promote_threshold:
            raise ValueError("BREAKER_DEMOTE_THRESHOLD must be below BREAKER_PROMOTE_THRESHOLD")
        if (self.alpaca_key is None) != (self.alpaca_secret is None):
            raise ValueError("MDTASKS_ALPACA_KEY and MDTASKS_ALPACA_SECRET go together: one of them is missing")
        return self


def comma_separated(value: object) -> object:
    """The parts of a text between its commas; what is no text stays as it is."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _by_vendor(value: object, read: Callable[[str], T], *, shown: bool = True) -> dict[str, Any]:
    """``name=value,name=value`` by name. Raises ValueError for a name that no provider bears; ``shown``: with the part
    that is wrong, for it holds no secret.
    """
    if not isinstance(value, str):
        return dict(value)  # type: ignore[call-overload, no-any-return]
    found: dict[str, Any] = {}
    for number, part in enumerate(filter(None, (p.strip() for p in value.split(","))), 1):
        name, separator, said = (p.strip() for p in part.partition("="))
        if name not in (*LOCAL, *VENDORS) or not separator:
            which = repr(part) if shown else f"part {number}"
            raise ValueError(f"{which} is not name=value with one of {', '.join((*VENDORS, *LOCAL[:3]))}")
        found[name] = read(said)
    return found


def _url(text: str) -> str:
    """An address. Raises ValueError that does not repeat it: it may hold a password."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not match; its words repeat the text
        fits = False
    if not fits:
        raise ValueError("an address in it is not one such as http://127.0.0.1:9000")
    return text.rstrip("/")
