"""Objectives as a page: how each stands and stood, what is left of the month, which series are to blame and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.budgets import OLDEST_WAIT_S
from mdtasks.domain.jobs import Tier
from mdtasks.flows import objectives
from mdtasks.flows.deps import Deps
from mdtasks.flows.objectives import Drain, History, Standing
from mdtasks.web.console.charts import OVER, Chart, Frame, Over, line
from mdtasks.web.console.deadletters import letter_path
from mdtasks.web.console.forms import filled
from mdtasks.web.console.render import page
from mdtasks.web.console.symbol_paths import symbol_path
from mdtasks.web.parsing import Query

#: States in words, and what their colour is.
STATES: Final[Mapping[objectives.State, tuple[str, str]]] = {
    "ok": ("met", "good"),
    "late": ("missed", "warn"),
    "new": ("new, not judged yet", "quiet"),
    "no_session": ("market closed", "quiet"),
    "no_series": ("no series", "quiet"),
    "not_watched": ("not watched", "warn"),
}
_NAMES: Final = {"gap": "On time", "coverage": "Last session whole"}
#: Which alerts are about an objective; those of ``gap`` have a rule for each tier (observe.alerts).
_ALERTS: Final = {
    "gap": ("SLOGapViolationHigh{tier}", "SLOBudgetBurnFast", "SLOBudgetBurnSlow", "IngestionLagHigh"),
    "coverage": ("CoverageIncomplete",),
    "drain": ("BackfillOldestTooOld", "BackfillDrainsTooSlowly"),
}


class Shown(Query):
    """How far back the charts reach."""

    over: Over = "1d"


@dataclass(frozen=True, slots=True)
class ObjectiveView:
    """An objective of a tier with how it stood."""

    name: str
    standing: Standing
    history: History
    chart: Chart
    alerts: Sequence[str]


@dataclass(frozen=True, slots=True)
class TierView:
    """A tier's objectives, how its backlog drains, and the series that are late or not whole, the worst first."""

    tier: Tier
    objectives: Sequence[ObjectiveView]
    drain: Drain
    drain_alerts: Sequence[str]

    @property
    def worst(self) -> list[tuple[ObjectiveView, Mapping[str, Any]]]:
        """What is to blame: the objective, and the evidence on a series."""
        return [(each, one) for each in self.objectives for one in (each.standing.snapshot or _NOTHING).worst]

    @property
    def more(self) -> int:
        """How many more series are late or not whole than are named."""
        return sum((each.standing.snapshot or _NOTHING).violations for each in self.objectives) - len(self.worst)


class _Nothing:
    """Of an objective that was not looked at."""

    worst: Sequence[Mapping[str, Any]] = ()
    violations = 0


_NOTHING: Final = _Nothing()


def show(request: Request) -> Response:
    """Objectives: now, target, the month's budget, history, the worst series and why, their alerts; a page."""
    asked = filled(request, Shown)
    deps, now = request.state.deps, datetime.now(UTC)
    report = objectives.report(deps, now)
    tiers = [_tier(tier, report, deps, now, asked.over) for tier in Tier]
    states = [*(each.state for each in report.standings), *(each.state for each in report.drains)]
    values: dict[str, Any] = {
        "tiers": tiers,
        "report": report,
        "missed": states.count("late"),
        "unwatched": "not_watched" in states,
        "over": asked.over,
        "spans": list(OVER),
        "oldest_may": OLDEST_WAIT_S,
    }
    words: dict[str, Any] = {
        "states": STATES,
        "cause": objectives.cause_of,
        "symbol_path": symbol_path,
        "letter_path": letter_path,
    }
    return page(request, "slo.html", charts=True, **values, **words)


def alerts_of(objective: str, tier: Tier) -> list[str]:
    """The alerts that are about an objective of a tier; each has a runbook."""
    return [name.format(tier=tier) for name in _ALERTS[objective]]


def _tier(tier: Tier, report: objectives.Report, deps: Deps, now: datetime, over: Over) -> TierView:
    return TierView(
        tier,
        [_objective(each, deps, now, over) for each in report.standings if each.series.tier is tier],
        next(each for each in report.drains if each.tier is tier),
        alerts_of("drain", tier),
    )


def _objective(each: Standing, deps: Deps, now: datetime, over: Over) -> ObjectiveView:
    series, since = each.series, now - OVER[over]
    history = objectives.history(deps, series.tier, series.objective, since=since, now=now)
    name = _NAMES[series.objective]
    share = "share of series late" if series.objective == "gap" else "share of series not whole"
    frame = Frame(share, since, now, history.step_s)
    return ObjectiveView(
        name, each, history, line(frame, list(_points(history)), bound=each.target, share=True), _alerts(each)
    )


def _points(history: History) -> Iterator[tuple[datetime, float | None]]:
    """The rate of each stretch, the oldest first."""
    for row in reversed(history.rows):
        yield row["from"], row["rate"]


def _alerts(each: Standing) -> list[str]:
    return alerts_of(each.series.objective, each.series.tier)
