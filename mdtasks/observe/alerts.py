"""Every alert of mdtasks: those that follow from the objectives, then the standing ones. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from mdtasks.domain.jobs import Interval
from mdtasks.domain.slo import BurnWindow, Objective, burn_windows
from mdtasks.observe.promql import (
    a_market_is_open,
    recorded,
    series_of,
    window_name,
)
from mdtasks.observe.standing_alerts import STANDING, Alert


@dataclass(frozen=True, slots=True)
class Spec:
    """What the alerts depend on. ``factor``: of a window's budget; ``session_s``: trading time of a usual session."""

    objectives: tuple[Objective, ...]
    factor: Callable[[BurnWindow], float]
    session_s: float


#: Greatest lateness in trading time that is no trouble yet, seconds; of daily bars: two sessions.
_LAG_S: Final = {"T0": 600, "T1": 1800, "T2": 1800}


def alerts(spec: Spec) -> Iterator[Alert]:
    """Every alert, in the order of the rule file."""
    for objective in (each for each in spec.objectives if each.name == "gap"):
        yield _violations(objective)
        yield from _burns(objective, spec)
        yield _lag(objective, spec)
    yield _incomplete(spec)
    yield from STANDING


def _violations(objective: Objective) -> Alert:
    return Alert(
        f"SLOGapViolationHigh{objective.tier}",
        "page" if objective.tier == "T0" else "ticket",
        f"{recorded('5m', series_of(objective.tier, objective.interval))} > {objective.target}",
        300,
        f"{objective.tier}: more than {_percent(objective)} of the {objective.interval} series are late",
        f"{{{{ $value | humanizePercentage }}}} of the {objective.interval} series of {objective.tier} were too late "
        f"over the last 5 minutes; {_percent(objective)} may be. __WEB__/slo names the worst symbols and why.",
        ("mdtasks-slo", "Late series"),
        labels=_tier(objective),
    )


def _tier(objective: Objective) -> dict[str, str]:
    """The label that tells rules of one name apart."""
    return {"tier": str(objective.tier)}


def _percent(objective: Objective) -> str:
    return f"{objective.target * 100:g}%"


def _burns(objective: Objective, spec: Spec) -> Iterator[Alert]:
    for name, severity in (("SLOBudgetBurnFast", "page"), ("SLOBudgetBurnSlow", "ticket")):
        windows = [each for each in burn_windows(objective.interval) if each.severity == severity]
        yield Alert(
            name,
            "page" if severity == "page" else "ticket",
            "\nor\n".join(_burning(objective, each, spec.factor(each)) for each in windows),
            120 if severity == "page" else 900,
            f"{objective.tier}: the month's budget for late {objective.interval} series burns too fast",
            f"{{{{ $value | humanizePercentage }}}} of the {objective.interval} series of {objective.tier} are late; "
            f"over a month of trading {_percent(objective)} may be. __WEB__/slo names the worst symbols and why.",
            ("mdtasks-slo", "Late series, by window"),
            labels=_tier(objective),
        )


def _burning(objective: Objective, window: BurnWindow, factor: float) -> str:
    most = f"{factor:g} * {objective.target}"
    long, short = (
        recorded(window_name(each), series_of(objective.tier, objective.interval))
        for each in (window.long_s, window.short_s)
    )
    return f"(\n  {long} > {most}\n  and\n  {short} > {most}\n)"


def _lag(objective: Objective, spec: Spec) -> Alert:
    daily = objective.interval is Interval.D1
    most_s = round(2 * spec.session_s) if daily else _LAG_S[objective.tier]
    return Alert(
        "IngestionLagHigh",
        "ticket",
        f"max by (tier, interval) (ingestion_lag_seconds{series_of(objective.tier, objective.interval)}) > {most_s}\n"
        f"and on () {a_market_is_open()}",
        300,
        f"{objective.tier}: a {objective.interval} series lags far behind",
        "The latest {{ $labels.interval }} series of {{ $labels.tier }} is {{ $value | humanizeDuration }} of trading "
        "time behind. __WEB__/slo names it, with its provider and job.",
        ("mdtasks-tier", "Greatest lateness"),
        {"tier": "{{ $labels.tier }}"},
        _tier(objective),
    )


def _incomplete(spec: Spec) -> Alert:
    ratio = "min by (tier, interval) (slo_coverage_ratio{series}) < {least:g}"
    kept = [each for each in spec.objectives if each.name == "coverage"]
    return Alert(
        "CoverageIncomplete",
        "ticket",
        "\nor\n".join(ratio.format(series=series_of(each.tier, each.interval), least=1 - each.target) for each in kept),
        1800,
        "{{ $labels.tier }}: too few series have a complete last session",
        "Only {{ $value | humanizePercentage }} of the {{ $labels.interval }} series of {{ $labels.tier }} have all "
        "bars of their last session. __WEB__/slo names those that do not.",
        ("mdtasks-slo", "Complete last session"),
    )
