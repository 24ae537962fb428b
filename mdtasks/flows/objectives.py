"""How the objectives stand: what /slo and `mdtasks slo` tell, out of the newest looks, the month's and the backlog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection

from mdtasks.domain.budgets import OLDEST_WAIT_S, Budget, budget, burn, month, month_of
from mdtasks.domain.errors import InvalidRequestError, UnavailableError
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.slo import WATCHED
from mdtasks.flows import monitor
from mdtasks.flows.deps import Deps
from mdtasks.store import job_reports, snapshots
from mdtasks.store.snapshots import Objective, Series, Snapshot

#: ok and late: by the rate against the target. no_session: all its exchanges are shut. no_series: the tier is empty.
#: not_watched: the monitor has not looked for a while. new: it would be late, and all of the tier was added just now.
State = Literal["ok", "late", "new", "no_session", "no_series", "not_watched"]

#: A gap scan had its chance to ask for what a tier lacks when its first instrument is this old.
_NEW: Final = timedelta(minutes=5)

_HOUR_S: Final = 3600.0
#: Jobs and troubles of so many last seconds tell how things go.
_LATELY_S: Final = 600.0
#: History comes in at most so many stretches of one of these lengths, seconds.
_MOST_ROWS: Final = 60
_STEPS_S: Final = (60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 86_400, 7 * 86_400, 28 * 86_400)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one objective of a tier stands. What was not looked at is None.

    ``allowed_s``: what a series may lag, trading seconds; None for coverage and for daily series, which count
    sessions. ``burn``: over the last hour of trading, 1 uses the month's budget up exactly.
    """

    series: Series
    state: State
    target: float
    budget: Budget
    burn: float | None
    allowed_s: float | None
    snapshot: Snapshot | None

    def as_dict(self) -> dict[str, Any]:
        seen = self.snapshot
        return {
            "objective": self.series.objective,
            "tier": self.series.tier.value,
            "interval": self.series.interval.value,
            "state": self.state,
            "rate": seen and seen.rate,
            "target": self.target,
            "expected": seen and seen.expected,
            "violations": seen and seen.violations,
            "lag_s": seen and seen.lag_s,
            "allowed_s": self.allowed_s,
            "looked_at": seen and seen.at,
            "burn_1h": None if self.burn is None else round(self.burn, 3),
            "budget": {**self.budget.as_dict(), "left_share": round(self.budget.left_share, 4)},
            "worst": list(seen.worst) if seen else [],
        }


@dataclass(frozen=True, slots=True)
class Drain:
    """How the backlog of a tier drains. ``drained_in_s``: at the pace of the last minutes; None: it does not."""

    tier: Tier
    waiting: int
    oldest_age_s: float
    jobs_per_minute: float

    @property
    def state(self) -> State:
        return "late" if self.oldest_age_s > OLDEST_WAIT_S else "ok"

    @property
    def drained_in_s(self) -> float | None:
        if not self.waiting:
            return 0.0
        return self.waiting / self.jobs_per_minute * 60 if self.jobs_per_minute else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "objective": "drain",
            "tier": self.tier.value,
            "state": self.state,
            "waiting": self.waiting,
            "oldest_age_s": round(self.oldest_age_s, 1),
            "target_s": OLDEST_WAIT_S,
            "jobs_per_minute": round(self.jobs_per_minute, 1),
            "drained_in_s": None if self.drained_in_s is None else round(self.drained_in_s),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All objectives at one moment. ``trouble``: the newest live fetch of late that did not get all it asked for."""

    at: datetime
    last_run: datetime | None
    every_s: float
    standings: Sequence[Standing]
    drains: Sequence[Drain]
    trouble: Mapping[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "last_run": self.last_run,
            "every_s": self.every_s,
            "objectives": [*(each.as_dict() for each in self.standings), *(each.as_dict() for each in self.drains)],
            "last_trouble": self.trouble,
        }


def report(deps: Deps, now: datetime, tier: Tier | None = None) -> Report:
    """How every objective stands, or those of one tier. Reads only.

    Raises StoreUnavailableError; without Redis the last run is that of the newest look that was kept.
    """
    tiers = [tier] if tier else list(Tier)
    with deps.database.transaction() as connection:
        newest = {each.series: each for each in monitor.newest(connection, deps.settings, now)}
        last_run = _last_run(deps, list(newest.values()))
        standing = _Standings(connection, deps, now, newest, last_run)
        return Report(
            at=now,
            last_run=last_run,
            every_s=deps.settings.slo_every_s,
            standings=[each for objective in snapshots.OBJECTIVES for each in standing.of(objective, tiers)],
            drains=list(_drains(connection, tiers)),
            trouble=snapshots.last_trouble(connection, _LATELY_S),
        )


def cause_of(one: Mapping[str, Any]) -> str:
    """Why a series of a look's ``worst`` is as it is, as far as that is known, the gravest first; for people."""
    letter, job = one["letter"], one["job"]
    if letter:
        return f"dead letter {letter['id']}: {letter['error_class']}: {letter['message']}"
    if job:
        error = f": {job['error']}" if job["error"] else ""
        return f"job {job['id']} is {job['status']}, attempt {job['attempts']} of {job['max_attempts']}{error}"
    return "no job works on it" if one["fresh_until"] else "it never had any data, and no job works on it"


def _last_run(deps: Deps, newest: Sequence[Snapshot]) -> datetime | None:
    with suppress(UnavailableError):
        at = monitor.last_run(deps)
        return None if at is None else datetime.fromtimestamp(at, UTC)
    return max((each.at for each in newest), default=None)


@dataclass(frozen=True, slots=True)
class _Standings:
    """What standings are made of."""

    connection: Connection
    deps: Deps
    now: datetime
    newest: Mapping[Series, Snapshot]
    last_run: datetime | None

    def of(self, objective: Objective, tiers: Sequence[Tier]) -> Iterator[Standing]:
        population = snapshots.population(self.connection, self.now)
        for tier, interval in WATCHED.items():
            if tier in tiers:
                counts: Counter[Calendar] = Counter()
                for mic, count in population[tier].items():
                    counts[self.deps.calendars.get(mic)] += count
                yield self._standing(Series(objective, tier, interval), counts)

    def _standing(self, series: Series, counts: Mapping[Calendar, int]) -> Standing:
        connection, target = self.connection, self.deps.settings.slo_target(series.tier)
        used = snapshots.used(connection, series, month_of(self.now).start)
        lately = snapshots.used_lately(connection, series, _HOUR_S)
        state = self._state(series, list(counts))
        seen = state in ("ok", "late", "new")
        lags = series.objective == "gap" and series.interval is not Interval.D1
        return Standing(
            series=series,
            state=state,
            target=target,
            budget=budget(target, month(counts, self.now), late_s=used.late_s, watched_s=used.watched_s),
            burn=burn(target, lately.late_s, lately.watched_s),
            allowed_s=max(self._allowed_s(series, counts), default=None) if lags else None,
            snapshot=self.newest.get(series) if seen else None,
        )

    def _allowed_s(self, series: Series, calendars: Iterable[Calendar]) -> Iterator[float]:
        """What series of each exchange may lag, trading seconds."""
        for calendar in calendars:
            yield monitor.allowance(series.tier, series.interval, calendar.mic, self.deps).trading_s

    def _state(self, series: Series, calendars: Sequence[Calendar]) -> State:
        every_s = self.deps.settings.slo_every_s
        stale = timedelta(seconds=monitor.STALE_PERIODS * every_s)
        if not every_s or self.last_run is None or self.now - self.last_run > stale:
            return "not_watched"
        if not calendars:
            return "no_series"
        if series.objective == "gap" and not any(self._trades(calendar) for calendar in calendars):
            return "no_session"
        seen = self.newest.get(series)
        if seen is None:  # none of its series is listed today, or it was made since the last look
            return "no_series"
        if seen.rate <= self.deps.settings.slo_target(series.tier):
            return "ok"
        first = snapshots.first_added(self.connection, series.tier)
        return "new" if first is not None and timedelta(0) <= self.now - first < _NEW else "late"

    def _trades(self, calendar: Calendar) -> bool:
        return self.now < calendar.horizon and calendar.is_open(self.now)


def _drains(connection: Connection, tiers: Sequence[Tier]) -> Iterator[Drain]:
    rows = job_reports.backlog(connection)
    paces = snapshots.jobs_per_minute(connection, _LATELY_S)
    for tier in tiers:
        mine = [row for row in rows if row.tier is tier]
        ages = [row.oldest_age_s for row in mine if row.status != "running"]
        yield Drain(tier, sum(row.jobs for row in mine), max(ages, default=0.0), paces.get(tier, 0.0))


@dataclass(frozen=True, slots=True)
class History:
    """How an objective stood, the newest stretch first; each of ``step_s`` seconds, those without a look left out."""

    series: Series
    target: float
    step_s: int
    rows: Sequence[Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return {**self.series.key, "target": self.target, "step_s": self.step_s, "history": list(self.rows)}


def history(deps: Deps, tier: Tier, objective: Objective, *, since: datetime, now: datetime) -> History:
    """How the objective of a tier stood since then, in few enough stretches to be read.

    Raises InvalidRequestError when ``since`` is not before now, StoreUnavailableError.
    """
    if since >= now:
        raise InvalidRequestError(
            f"since {since:%Y-%m-%dT%H:%MZ} is not before now", field="since", hint="give a time in the past"
        )
    length_s = (now - max(since, now - snapshots.KEPT)).total_seconds()
    step_s = next((step for step in _STEPS_S if length_s / step <= _MOST_ROWS), _STEPS_S[-1])
    series = Series(objective, tier, WATCHED[tier])
    with deps.database.transaction() as connection:
        rows = snapshots.history(connection, series, since, step_s)
    return History(series, deps.settings.slo_target(tier), step_s, [_stretch(row) for row in rows])


def _stretch(row: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {
        name: None if row[name] is None else float(row[name]) for name in ("rate", "lag_s", "session_s", "late_s")
    }
    return {
        "from": row["from_at"],
        "looks": row["looks"],
        "expected": int(row["expected"]),
        "most_late": row["most_late"],
        "rate": numbers["rate"],
        "lag_s": numbers["lag_s"],
        "session_minutes": round((numbers["session_s"] or 0) / 60, 3),
        "consumed": round((numbers["late_s"] or 0) / 60, 3),
    }
