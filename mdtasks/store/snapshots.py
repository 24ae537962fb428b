"""How the objectives stand and stood: each census is one statement, and what it found is kept as a snapshot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.lateness import Mark, Whole

_SQL: Final = load_statements("mdtasks.store.sql", "snapshots.sql")

#: gap: the series of a tier that are too late; coverage: those whose last session is not whole.
Objective = Literal["gap", "coverage"]
OBJECTIVES: Final[tuple[Objective, ...]] = ("gap", "coverage")
#: Snapshots are kept so long; those older than the second, one in ten minutes.
KEPT: Final = timedelta(days=400)
KEPT_WHOLE: Final = timedelta(days=40)
#: Looks that the last hour of trading is found in at most, and attempts that are looked through for what goes on.
_MOST_LOOKS: Final = 10_000
_MOST_ATTEMPTS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Series:
    """What an objective is about: the series of one tier and interval."""

    objective: Objective
    tier: Tier
    interval: Interval

    @property
    def key(self) -> dict[str, str]:
        return {"objective": self.objective, "tier": self.tier.value, "interval": self.interval.value}


@dataclass(frozen=True, slots=True)
class Sample:
    """Look at ``size`` series only, drawn by ``seed`` (0 to 2**31 - 1); size 0: at all."""

    size: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a census found on one exchange. ``oldest``: since when the latest of its series lags.

    ``worst``: instrument -> since when it lags, of those that are late, the latest first.
    """

    expected: int
    violations: int
    oldest: datetime
    worst: Mapping[int, datetime]


@dataclass(frozen=True, slots=True)
class Unwhole:
    """How many series were listed on the last sessions, how many of them lack some of it, and the first of those."""

    expected: int
    violations: int
    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at an objective.

    ``lag_s``: the greatest lag in trading time, late or not; None where no lag is measured. ``session_s``: trading
    time since the look before it, averaged over all series of the tier. ``worst``: evidence, JSON objects.
    """

    series: Series
    at: datetime
    expected: int
    violations: int
    lag_s: float | None = None
    session_s: float = 0.0
    worst: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def rate(self) -> float:
        """The share of the series looked at that are late."""
        return self.violations / self.expected if self.expected else 0.0


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of the whole tier late, of so many seconds of trading looked at."""

    late_s: float
    watched_s: float


def population(connection: Connection, now: datetime) -> dict[Tier, dict[str, int]]:
    """How many instruments of each tier trade on each exchange, those aside that are delisted."""
    found: dict[Tier, dict[str, int]] = {tier: {} for tier in Tier}
    for row in connection.execute(_SQL["population"], {"today": now.date()}):
        found[Tier(row.tier)][row.mic] = row.series
    return found


def first_added(connection: Connection, tier: Tier) -> datetime | None:
    """When the first of a tier's instruments was added; None: it has none."""
    at: datetime | None = connection.execute(_SQL["first_added"], {"tier": tier.value}).scalar_one()
    return at


def take_turn(connection: Connection) -> bool:
    """Whether this transaction may take the census; False while another one does."""
    return bool(connection.execute(_SQL["lock"]).scalar_one())


def lateness(
    connection: Connection, series: Series, marks: Mapping[str, Mark], now: datetime, *, sample: Sample, worst: int
) -> dict[str, Found]:
    """The census of the series on the exchanges that trade now, by MIC; one without series is absent.

    ``worst``: so many of the late ones are named per exchange.
    """
    values = {
        **series.key,
        "mics": list(marks),
        "sessions": [each.session for each in marks.values()],
        "due_from": [each.due_from for each in marks.values()],
        "late_before": [each.late_before for each in marks.values()],
        "now": now,
        "sample": sample.size or None,
        "seed": sample.seed,
        "worst": worst,
    }
    return {
        row.mic: Found(row.expected, row.violations, row.oldest, dict(zip(row.ids, row.sinces, strict=True)))
        for row in connection.execute(_SQL["lateness"], values)
    }


def wholeness(connection: Connection, series: Series, sessions: Mapping[str, Whole], *, worst: int) -> Unwhole:
    """How many series lack some of the last session of their exchange."""
    values = {
        **series.key,
        "mics": list(sessions),
        "sessions": [each.session for each in sessions.values()],
        "parts": [_multirange(each) for each in sessions.values()],
        "worst": worst,
    }
    row = connection.execute(_SQL["wholeness"], values).one()
    return Unwhole(row.expected, row.violations, row.ids)


def _multirange(whole: Whole) -> str:
    return "{" + ",".join(f'["{part.start.isoformat()}","{part.end.isoformat()}")' for part in whole.parts) + "}"


def evidence(
    connection: Connection, interval: Interval, ids: Sequence[int], over: Mapping[str, Whole] | None = None
) -> list[dict[str, Any]]:
    """What is known of why series are as they are, in the order of ``ids``; times are datetimes.

    ``over``: of each exchange the session that is not whole; without it, why they are not fresher.
    """
    if not ids:
        return []
    sessions = over or {}
    about = {"mics": list(sessions), "parts": [_multirange(each) for each in sessions.values()]}
    rows = connection.execute(_SQL["evidence"], {"ids": list(ids), "interval": interval.value, **about})
    return [dict(row._mapping) for row in rows]


def last_at(connection: Connection, series: Series) -> datetime | None:
    """When the objective was last looked at; None: never."""
    at: datetime | None = connection.execute(_SQL["last_at"], series.key).scalar_one()
    return at


def add(connection: Connection, snapshot: Snapshot, policy_version: int | None = None) -> None:
    """Keep a look, made under a version of the policy; one of the same moment is kept as it was."""
    about = {name: getattr(snapshot, name) for name in ("at", "expected", "violations", "lag_s", "session_s")}
    worst = json.dumps(list(snapshot.worst), default=str)
    connection.execute(_SQL["add"], {**snapshot.series.key, **about, "policy_version": policy_version, "worst": worst})


def newest(connection: Connection, series: Sequence[Series], since: datetime) -> list[Snapshot]:
    """The newest snapshot of each objective that is not older than ``since``."""
    columns = {
        "objectives": [each.objective for each in series],
        "tiers": [each.tier.value for each in series],
        "intervals": [each.interval.value for each in series],
    }
    return [
        Snapshot(
            Series(row.objective, Tier(row.tier), Interval(row.interval)),
            at=row.at,
            expected=row.expected,
            violations=row.violations,
            lag_s=row.lag_s,
            worst=row.worst,
        )
        for row in connection.execute(_SQL["newest"], {**columns, "since": since})
    ]


def used(connection: Connection, series: Series, since: datetime) -> Used:
    """What of the objective's budget was used since then."""
    return Used(*map(float, connection.execute(_SQL["used"], {**series.key, "since": since}).one()))


def used_lately(connection: Connection, series: Series, session_s: float) -> Used:
    """What was used over the last ``session_s`` seconds of trading that were looked at, and not less than one look."""
    values = {**series.key, "session_s": session_s, "most": _MOST_LOOKS}
    return Used(*map(float, connection.execute(_SQL["lately"], values).one()))


def history(connection: Connection, series: Series, since: datetime, step_s: float) -> list[dict[str, Any]]:
    """How the objective stood in stretches of ``step_s`` seconds that hold a look, the newest first."""
    rows = connection.execute(_SQL["history"], {**series.key, "since": since, "step_s": step_s})
    return [dict(row._mapping) for row in rows]


def forget(
    connection: Connection, now: datetime, kept: timedelta = KEPT, kept_whole: timedelta = KEPT_WHOLE
) -> dict[str, int]:
    """Drop snapshots that are too old and thin out old ones; how many went. A second time changes nothing."""
    pruned = connection.execute(_SQL["prune"], {"before": now - kept}).rowcount
    thinned = connection.execute(_SQL["thin"], {"before": now - kept_whole}).rowcount
    return {"pruned": pruned, "thinned": thinned}


def jobs_per_minute(connection: Connection, within_s: float) -> dict[Tier, float]:
    """Backfills per minute that ended well in the last ``within_s`` seconds; a tier without any is absent."""
    rows = connection.execute(_SQL["pace"], {"within_s": within_s, "most": _MOST_ATTEMPTS})
    return {Tier(row.tier): row.done / max(float(row.seconds), 1.0) * 60 for row in rows}


def last_trouble(connection: Connection, within_s: float) -> dict[str, Any] | None:
    """The newest live fetch of the last ``within_s`` seconds that did not get all it asked for; None: none."""
    row = connection.execute(_SQL["last_trouble"], {"within_s": within_s, "most": _MOST_ATTEMPTS}).one_or_none()
    return None if row is None else dict(row._mapping)
