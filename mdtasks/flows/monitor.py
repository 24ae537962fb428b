"""The SLO monitor: how late every series is, in trading time, and whether the last session is whole.

``run_once`` looks at all exchanges that trade and keeps what it found; beat repeats it. While no exchange of a tier
trades, nothing of it is looked at and nothing is kept: absent is not zero.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import translated_redis_errors
from mdtasks.domain.bars import to_us
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.lateness import Allowance, Whole, lags_s, last_whole, mark, traded_s
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.slo import WATCHED
from mdtasks.flows.deps import Deps
from mdtasks.observe import metrics
from mdtasks.settings import Settings
from mdtasks.store import snapshots
from mdtasks.store.snapshots import Found, Sample, Series, Snapshot

log = logging.getLogger(__name__)

#: Redis key of the last run: when it was.
LAST_RUN_KEY: Final = "mdtasks:monitor:last_run"
#: Late series that a snapshot names.
WORST: Final = 20
#: A snapshot speaks for the time since the one before it, for so many periods at most: what nobody watched is unknown.
STALE_PERIODS: Final = 5
#: Whether sessions are whole changes slowly: it is looked at this often at most, seconds.
COVERAGE_EVERY_S: Final = 60.0


def run_once(deps: Deps, now: datetime) -> dict[str, int]:
    """Look at every watched tier and keep what was found; returns how many series were looked at and were late.

    ``busy`` 1: another run was at it, nothing was done. Looking twice at the same moment keeps one look.
    Raises StoreUnavailableError, BrokerUnavailableError (after all was kept).
    """
    counts = {"expected": 0, "violations": 0, "snapshots": 0, "busy": 0}
    with deps.database.transaction() as connection:
        if not snapshots.take_turn(connection):
            return {**counts, "busy": 1}
        watches = list(_watches(snapshots.population(connection, now), deps, now))
        looks = [look(connection, watch) for watch in watches for look in (_lateness, _wholeness)]
        found = [snapshot for snapshot in looks if snapshot is not None]
        for snapshot in found:
            snapshots.add(connection, snapshot, deps.running.version)
    for snapshot in found:
        counts["snapshots"] += 1
        if snapshot.series.objective == "gap":
            counts["expected"] += snapshot.expected
            counts["violations"] += snapshot.violations
            _count(snapshot)
    with translated_redis_errors():
        deps.state.set(LAST_RUN_KEY, json.dumps({"at": now.timestamp()}))
    return counts


def _count(snapshot: Snapshot) -> None:
    labels = {"tier": snapshot.series.tier.value, "interval": snapshot.series.interval.value}
    metrics.SLO_GAP_EXPECTED.labels(**labels).inc(snapshot.expected)
    metrics.SLO_GAP_VIOLATIONS.labels(**labels).inc(snapshot.violations)


def last_run(deps: Deps) -> float | None:
    """When the monitor last looked, seconds since 1970; None: never. Raises BrokerUnavailableError."""
    with translated_redis_errors():
        raw = deps.state.get(LAST_RUN_KEY)
    return None if raw is None else float(json.loads(raw)["at"])


def watched(settings: Settings) -> dict[Series, timedelta]:
    """What the monitor looks at, and how often; nothing when it is switched off."""
    periods = {"gap": settings.slo_every_s, "coverage": _coverage_every_s(settings)}
    return {
        Series(objective, tier, interval): timedelta(seconds=periods[objective])
        for objective in snapshots.OBJECTIVES
        for tier, interval in (WATCHED.items() if settings.slo_every_s else ())
    }


def newest(connection: Connection, settings: Settings, now: datetime) -> list[Snapshot]:
    """The newest look at each objective; one older than STALE_PERIODS of its period is left out: it tells nothing."""
    periods = watched(settings)
    found = snapshots.newest(
        connection, list(periods), now - STALE_PERIODS * max(periods.values(), default=timedelta(0))
    )
    return [each for each in found if each.at >= now - STALE_PERIODS * periods[each.series]]


def _coverage_every_s(settings: Settings) -> float:
    return max(COVERAGE_EVERY_S, settings.slo_every_s)


def forget_once(deps: Deps, now: datetime) -> dict[str, int]:
    """Drop looks that are too old to be asked for and thin out old ones; how many went."""
    with deps.database.transaction() as connection:
        retention = deps.running.policy.retention
        kept, whole = timedelta(days=retention.slo_days), timedelta(days=retention.slo_whole_days)
        return snapshots.forget(connection, now, kept, whole)


def allowance(tier: Tier, interval: Interval, mic: str, deps: Deps) -> Allowance:
    """What a series of the tier may lag, by these settings and the fastest of the providers that have its exchange."""
    told = deps.registry.told(interval, mic) or deps.registry.told(Interval.M1, mic)  # what is made of minutes
    delays_s = [each.delay_s for each in told]
    cadence_s = deps.settings.cadence_s(tier) if interval is Interval.M1 else 0.0
    settings = deps.settings
    return Allowance(interval, min(delays_s, default=0.0), settings.settle_s, settings.slo_grace_s, cadence_s)


@dataclass(frozen=True, slots=True)
class _Watch:
    """What one run looks at: the series of a tier and interval at one moment.

    ``members``: how many of the tier's series there are per exchange; ``calendars``: those exchanges that still know
    when they trade.
    """

    tier: Tier
    interval: Interval
    now: datetime
    members: Mapping[str, int]
    calendars: Mapping[str, Calendar]
    allowed: Mapping[str, Allowance]
    settings: Settings

    def session_s(self, last: datetime | None, every_s: float) -> float:
        """Trading time that a look now stands for, averaged over all series: the shut ones count 0."""
        since = self.now - timedelta(seconds=every_s * (1 if last is None else STALE_PERIODS))
        since = since if last is None else max(last, since)
        traded = sum(n * traded_s(self.calendars[mic], since, self.now) for mic, n in self._known())
        return traded / max(sum(self.members.values()), 1)

    def _known(self) -> Iterator[tuple[str, int]]:
        return ((mic, n) for mic, n in self.members.items() if mic in self.calendars)


def _watches(population: Mapping[Tier, Mapping[str, int]], deps: Deps, now: datetime) -> Iterator[_Watch]:
    for tier, interval in WATCHED.items():
        calendars = {mic: deps.calendars.get(mic) for mic in population[tier]}
        for mic in [mic for mic, calendar in calendars.items() if calendar.horizon <= now]:
            log.warning("%s is not watched: its calendar ends on %s", mic, calendars.pop(mic).horizon)
        allowed = {mic: allowance(tier, interval, mic, deps) for mic in calendars}
        yield _Watch(tier, interval, now, population[tier], calendars, allowed, deps.settings)


def _lateness(connection: Connection, watch: _Watch) -> Snapshot | None:
    """The census of lateness; None when no exchange of the tier trades."""
    series = Series("gap", watch.tier, watch.interval)
    marks = {mic: mark(calendar, watch.allowed[mic], watch.now) for mic, calendar in watch.calendars.items()}
    open_ = {mic: each for mic, each in marks.items() if each is not None}
    sample = Sample(watch.settings.slo_sample(watch.tier), seed=to_us(watch.now) % 2**31)
    found = snapshots.lateness(connection, series, open_, watch.now, sample=sample, worst=WORST) if open_ else {}
    if not found:
        return None
    lags = {mic: _lags(watch, mic, [each.oldest])[0] for mic, each in found.items()}
    every_s = watch.settings.slo_every_s
    return Snapshot(
        series,
        at=watch.now,
        expected=sum(each.expected for each in found.values()),
        violations=sum(each.violations for each in found.values()),
        lag_s=max(lags.values()),
        session_s=watch.session_s(snapshots.last_at(connection, series), every_s),
        worst=_named(connection, watch, _latest(watch, found)),
    )


def _lags(watch: _Watch, mic: str, since: Sequence[datetime]) -> list[float]:
    return lags_s(watch.calendars[mic], watch.interval, since, watch.now)


def _latest(watch: _Watch, found: Mapping[str, Found]) -> dict[int, float]:
    """The late series of all exchanges that lag most: instrument -> lag in trading seconds."""
    lags: dict[int, float] = {}
    for mic, each in found.items():
        lags |= zip(each.worst, _lags(watch, mic, list(each.worst.values())), strict=True)
    return dict(sorted(lags.items(), key=lambda item: (-item[1], item[0]))[:WORST])


def _wholeness(connection: Connection, watch: _Watch) -> Snapshot | None:
    """The census of the last sessions, also while the exchanges are shut; None when it is not its turn yet."""
    series = Series("coverage", watch.tier, watch.interval)
    every_s = _coverage_every_s(watch.settings)
    last = snapshots.last_at(connection, series)
    # Half a tick of tolerance: beat is not exact, and it shall not become every third tick.
    if last is not None and watch.now - last < timedelta(seconds=every_s - watch.settings.slo_every_s / 2):
        return None
    sessions = {mic: last_whole(calendar, watch.allowed[mic], watch.now) for mic, calendar in watch.calendars.items()}
    over = {mic: each for mic, each in sessions.items() if each is not None}
    found = snapshots.wholeness(connection, series, over, worst=WORST)
    if not found.expected:
        return None
    return Snapshot(
        series,
        at=watch.now,
        expected=found.expected,
        violations=found.violations,
        session_s=watch.session_s(last, every_s),
        worst=_named(connection, watch, dict.fromkeys(found.ids), over),
    )


def _named(
    connection: Connection,
    watch: _Watch,
    lags: Mapping[int, float | None],
    over: Mapping[str, Whole] | None = None,
) -> list[dict[str, Any]]:
    """Series by name, with what is known of why: of their lateness, or of holes in the sessions that are over."""
    known = snapshots.evidence(connection, watch.interval, list(lags), over)
    return [_evidence(row, lags[row["instrument_id"]]) for row in known]


def _evidence(row: Mapping[str, Any], lag_s: float | None) -> dict[str, Any]:
    def part(prefix: str, *names: str) -> dict[str, Any] | None:
        found = {name: row[f"{prefix}_{name}"] for name in names}
        shown = {name: _iso(value) if isinstance(value, datetime) else value for name, value in found.items()}
        return shown if found["id"] is not None else None

    return {
        "symbol": row["symbol"],
        "mic": row["mic"],
        "fresh_until": _iso(row["fresh_until"]),
        "lag_s": lag_s,
        "newest_bar": _iso(row["newest_bar"]),
        "provider": row["provider"],
        "attempt_id": row["attempt_id"],
        "job": part("job", "id", "status", "attempts", "max_attempts", "error"),
        "letter": part("letter", "id", "job_id", "provider", "error_class", "message", "died_at"),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
