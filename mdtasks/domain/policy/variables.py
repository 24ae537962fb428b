"""Environment variables that override the stored policy in the processes that they are given to.

These are the names that the system has always had. One that is set wins over what was applied, for as long as the
process lives; ``mdtasks policy show`` says so.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy.model import Policy
from mdtasks.domain.policy.wrongs import Wrong, wrongs_of

_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FLAGS: Final = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable, the setting that it has been, and the fields of the policy that it sets. ``read``: from its text."""

    name: str
    setting: str
    paths: tuple[str, ...]
    read: Callable[[str], Any]


def _number(text: str) -> Any:
    """The number that a text is; else the text, which its field refuses by name."""
    plain = text.strip()
    if not _NUMBER.fullmatch(plain):
        return text
    return int(plain) if plain.lstrip("+-").isdigit() else float(plain)


def _or_never(text: str) -> Any:
    """A cadence: 0 has always meant never."""
    return _number(text) or None


def _flag(text: str) -> Any:
    return _FLAGS.get(text.strip().lower(), text)


def _names(text: str) -> Any:
    return [part.strip() for part in text.split(",") if part.strip()]


def _order(text: str) -> Any:
    return _names(text) or None


def _limits(text: str) -> Any:
    """``name=rate,name=rate``; what is not so is refused as a whole."""
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    return {name.strip(): rate.strip() for name, _, rate in parts} if all(sign for _, sign, _ in parts) else text


def _of_tiers(name: str, setting: str, path: str, read: Callable[[str], Any], tiers: str = "012") -> list[Variable]:
    return [Variable(name.format(n), setting.format(n), (path.format(n),), read) for n in tiers]


def _shared(name: str, setting: str, field: str) -> Variable:
    return Variable(name, setting, tuple(f"tiers.{tier}.{field}" for tier in Tier), _number)


def _one(name: str, setting: str, path: str, read: Callable[[str], Any] = _number) -> Variable:
    return Variable(name, setting, (path,), read)


#: Every variable that sets something of the policy. Those whose setting is "" have never been one.
VARIABLES: Final[Mapping[str, Variable]] = {
    variable.name: variable
    for variable in (
        *_of_tiers("BACKFILL_MAX_QUEUE_T{}", "cap_t{}", "tiers.T{}.max_queue", _number),
        *_of_tiers("CADENCE_T{}__bars_1m", "cadence_t{}", "tiers.T{}.cadence.bars_1m", _or_never, "01"),
        *_of_tiers("CADENCE_T{}__quotes_l1", "quotes_cadence_t{}", "tiers.T{}.cadence.quotes_l1", _or_never, "01"),
        *_of_tiers("CADENCE_T{}__bars_1m", "", "tiers.T{}.cadence.bars_1m", _or_never, "2"),
        *_of_tiers("CADENCE_T{}__quotes_l1", "", "tiers.T{}.cadence.quotes_l1", _or_never, "2"),
        *_of_tiers("CADENCE_T{}__eod", "", "tiers.T{}.cadence.eod", _or_never),
        *_of_tiers("TIER_MAXS__T{}", "", "tiers.T{}.size", _number, "01"),
        *_of_tiers("MDTASKS_KEEP_T{}", "keep_t{}", "tiers.T{}.keep", _names),
        _shared("BACKFILL_CHUNK_MINUTES", "chunk_minutes", "chunk_minutes"),
        _shared("MDTASKS_CONCURRENCY", "concurrency", "concurrency"),
        _one("POLICY_BARS_1M", "policy_bars", "orders.bars_1m", _order),
        _one("POLICY_EOD", "policy_eod", "orders.eod", _order),
        _one("POLICY_QUOTES_L1", "policy_quotes", "orders.quotes_l1", _order),
        _one("ALLOW_SOURCE_OVERRIDE", "allow_source_override", "orders.source_override", _flag),
        _one("MDTASKS_VENDOR_RATES", "vendor_rates", "limits", _limits),
        _one("MDTASKS_VENDOR_TIMEOUT_S", "vendor_timeout_s", "vendor_timeout_s"),
        _one("BREAKER_DEMOTE_THRESHOLD", "demote_threshold", "breaker.demote"),
        _one("BREAKER_PROMOTE_THRESHOLD", "promote_threshold", "breaker.promote"),
        _one("BREAKER_PROMOTE_MIN_SAMPLES", "promote_min_samples", "breaker.min_samples"),
        _one("BREAKER_COOLDOWN_SEC", "breaker_cooldown_s", "breaker.cooldown_s"),
        *_of_tiers("SLO_TARGET_T{}", "slo_target_t{}", "slo.targets.T{}", _number),
        *_of_tiers("SLO_SAMPLE_T{}", "slo_sample_t{}", "slo.samples.T{}", _number),
        _one("SLO_EVERY_S", "slo_every_s", "slo.every_s", _or_never),
        _one("SLO_GRACE_S", "slo_grace_s", "slo.grace_s"),
        _one("MDTASKS_MAX_ATTEMPTS", "max_attempts", "retry.attempts"),
        _one("MDTASKS_RETRY_BASE_S", "retry_base_s", "retry.base_s"),
        _one("MDTASKS_RETRY_MAX_S", "retry_max_s", "retry.max_s"),
        _one("WS_REPLAY_MAX_BARS", "replay_max_bars", "replay.max_bars"),
        _one("WS_REPLAY_TTL_SEC", "replay_ttl_s", "replay.ttl_s"),
        _one("MDTASKS_GAP_SCAN_S", "gap_scan_s", "gaps.scan_s", _or_never),
        _one("MDTASKS_SETTLE_S", "settle_s", "gaps.settle_s"),
        _one("MDTASKS_LOOK_BACK_SESSIONS", "look_back_sessions", "gaps.back_sessions"),
        _one("MDTASKS_LOOK_BACK_DAYS", "look_back_days", "gaps.back_days"),
        _one("MDTASKS_SILENCE_ODDS", "silence_odds", "gaps.silence_odds"),
        _one("MDTASKS_DERIVE_S", "derive_every_s", "derived.every_s"),
        _one("MDTASKS_CROSS_CHECK_S", "cross_check_s", "cross_checks.every_s", _or_never),
        _one("MDTASKS_CALENDAR_BACK_DAYS", "calendar_back_days", "calendar.back_days"),
        _one("MDTASKS_CALENDAR_FORWARD_DAYS", "calendar_forward_days", "calendar.forward_days"),
        _one("VIZTRACER_ENABLED", "viztracer_enabled", "tracing.enabled", _flag),
        _one("VIZTRACER_SLOW_S", "viztracer_slow_s", "tracing.slow_s"),
        _one("VIZTRACER_SLOW_P95", "viztracer_slow_p95", "tracing.slow_p95"),
        _one("VIZTRACER_SAMPLE", "viztracer_sample", "tracing.sample"),
        _one("VIZTRACER_KEEP", "viztracer_keep", "tracing.keep"),
        _one("VIZTRACER_KEEP_MB", "viztracer_keep_mb", "tracing.keep_mb"),
    )
}


@dataclass(frozen=True, slots=True)
class Effective:
    """A policy as a process follows it. ``overridden``: path -> the variable that set it. ``wrongs``: why it cannot be
    followed; ``policy`` is then the one without the variables.
    """

    policy: Policy
    overridden: Mapping[str, str]
    wrongs: tuple[Wrong, ...] = ()

    def variable_of(self, path: str) -> str:
        """The variable that sets a field, alone or with its section; "" where none does."""
        return self.overridden.get(path) or self.overridden.get(path.partition(".")[0], "")


def effective(policy: Policy, environ: Mapping[str, str]) -> Effective:
    """The policy with what the environment sets in its place; of an empty environment, the policy itself.

    A variable that is empty sets nothing, as everywhere.
    """
    given = {name: environ[name] for name in VARIABLES if environ.get(name)}
    if not given:
        return Effective(policy, {})
    document: dict[str, Any] = copy.deepcopy(policy.model_dump(mode="json"))
    overridden: dict[str, str] = {}
    for name, text in given.items():
        variable = VARIABLES[name]
        for path in variable.paths:
            _put(document, path, variable.read(text))
            overridden[path] = name
            if path.startswith("tiers.") and path.endswith(".keep"):  # daily bars are asked for where they are kept
                _put(document, path.replace(".keep", ".cadence.eod"), 1 if "1d" in variable.read(text) else None)
    try:
        return Effective(Policy.model_validate(document), overridden)
    except ValidationError as exc:
        wrongs = wrongs_of(exc, document, Policy, {})
        return Effective(policy, overridden, tuple(_named(wrong, overridden) for wrong in wrongs))


def _named(wrong: Wrong, overridden: Mapping[str, str]) -> Wrong:
    """The error with the variable that brought it."""
    name = next((name for path, name in overridden.items() if wrong.path.startswith(path)), "")
    return Wrong(wrong.path, wrong.value, f"{wrong.rule}; {name} sets it" if name else wrong.rule, None, wrong.about)


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for part in above:
        document = document[part]
    document[name] = value
