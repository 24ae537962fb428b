"""What is kept for how long, how far that was carried out, what would go now, and what each table holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from mdtasks.domain.jobs import Interval
from mdtasks.domain.policy import Policy
from mdtasks.domain.retention import SNAPSHOTS, day_before, month_before, rule, rules, subject_of
from mdtasks.flows.deps import Deps
from mdtasks.store import retention, retention_reports
from mdtasks.store.retention_reports import Holding


@dataclass(frozen=True, slots=True)
class Kept:
    """One rule. ``kept_from``: its horizon, ``deletes_before`` what goes; ``done_before``: up to where nothing older is
    left; ``lost_before``: up to where something may have gone, by whatever rule held. ``rows`` and ``months``: what
    would go now; None: not counted, or not counted in these.
    """

    subject: str
    field: str
    days: int | None
    kept_from: datetime | None
    deletes_before: datetime | None
    done_before: datetime | None
    lost_before: datetime | None
    rows: int | None = None
    months: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """All rules, and what each table holds."""

    at: datetime
    policy_version: int
    rules: tuple[Kept, ...]
    tables: tuple[Holding, ...]

    def as_dict(self) -> dict[str, object]:
        """As JSON shows it; times are datetimes."""
        about = {"at": self.at, "policy_version": self.policy_version}
        return {**about, "rules": [asdict(r) for r in self.rules], "tables": [asdict(t) for t in self.tables]}


def survey(deps: Deps, now: datetime, *, count: bool = False) -> Survey:
    """Look, and with ``count`` count what would go now, which may take a minute. Reads only.

    Raises StoreUnavailableError.
    """
    policy = deps.running.policy
    with deps.database.transaction() as connection:
        marks = retention.marks(connection)
        kept = [_kept(name, policy, marks.get(name), now) for name in (*rules(policy), *SNAPSHOTS)]
        shown = [_counted(connection, each) if count else each for each in kept]
        return Survey(now, deps.running.version, tuple(shown), tuple(retention_reports.holdings(connection)))


def _kept(name: str, policy: Policy, mark: retention.Mark | None, now: datetime) -> Kept:
    held = rule(policy, name)
    kept_from = day_before(held.days, now)
    if name in SNAPSHOTS and held.days is not None:
        kept_from = now - timedelta(days=held.days)  # to the moment: a task of their own, each hour
    monthly = name.startswith("bars_") or name == "quotes"
    return Kept(
        name,
        held.field,
        held.days,
        kept_from,
        month_before(kept_from) if monthly else kept_from,
        None if mark is None else mark.done_before,
        None if mark is None else mark.lost_before,
    )


def _counted(connection: Connection, kept: Kept) -> Kept:
    before = kept.deletes_before
    if before is None:
        return kept
    rows: int | None
    months: list[str] = []
    match kept.subject:
        case "jobs":
            rows = retention_reports.count_jobs(connection, before)
        case "quotes":
            rows, months = None, retention_reports.months_before(connection, "quotes", before)
        case "slo_whole":
            return kept  # thinned out: what goes depends on what is beside it
        case "revisions" | "letters" | "quarantine" | "reconciliation" | "slo":
            rows = retention_reports.count(connection, kept.subject, before)
        case _:
            interval = next(each for each in Interval if subject_of(each) == kept.subject)
            months = retention_reports.months_before(connection, "bars", before)
            rows = retention_reports.count_bars(connection, months, interval)
    return Kept(**{**{name: getattr(kept, name) for name in kept.__slots__}, "rows": rows, "months": tuple(months)})
