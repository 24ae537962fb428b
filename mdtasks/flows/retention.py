"""Housekeeping: what the policy keeps no longer goes, a bounded piece a round, oldest first.

Bars go by whole months: a month that is over for every interval is dropped with its partition; where some are kept
longer, the others' rows are deleted. What follows from a bar goes before it does: first the record says that it may be
gone, then its coverage, the jobs that still ask for it, its silences and revisions; so no time is ever counted as
answered for whose bars were deleted. Rounds may be killed anywhere, run beside one another and beside everybody else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from mdtasks.domain.errors import BusyError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.policy import Policy
from mdtasks.domain.retention import day_before, horizon, month_before, subject_of
from mdtasks.flows.deps import Deps
from mdtasks.observe import metrics
from mdtasks.store import policies, retention
from mdtasks.store.retention import Round, SpentError

log = logging.getLogger(__name__)

#: Chunks of one round of beat: about a second, for other housekeeping waits behind it.
CHUNKS: Final = 10


@dataclass(frozen=True, slots=True)
class _Work:
    round: Round
    policy: Policy
    version: int
    now: datetime
    #: Subjects that a round has brought to their end already, by the horizon that it went by.
    done: dict[str, datetime | None]


def run_once(deps: Deps, now: datetime, chunks: int = CHUNKS) -> dict[str, Any]:
    """One round: ``rows`` and ``dropped`` partitions by table, ``more`` when something is left, ``busy`` what somebody
    worked with, or ``policy`` where this process does not follow the one that holds. A subject that is done is not
    looked at again before its horizon moves.

    Raises StoreUnavailableError; what went before stays gone.
    """
    with deps.database.transaction() as connection:
        done = {name: mark.done_before for name, mark in retention.marks(connection).items()}
        holds = policies.newest_version(connection)
    if holds != deps.running.version:  # what is deleted is gone for good: not by a policy that holds no longer
        log.warning("nothing is deleted: policy %d holds, this process follows %d", holds, deps.running.version)
        return {"rows": {}, "dropped": {}, "more": True, "busy": ["policy"]}
    current = Round(deps.database, chunks)
    work = _Work(current, deps.running.policy, deps.running.version, now, done)
    busy: list[str] = []
    more = False
    try:
        for name, step in _STEPS.items():
            try:
                step(work)
            except BusyError as error:
                log.info("%s wait for another round: %s", name, error)
                busy.append(name)
    except SpentError:
        more = True
    finally:
        _count(current, busy)
    return {"rows": dict(current.rows), "dropped": dict(current.dropped), "more": more or bool(busy), "busy": busy}


def cuts(policy: Policy, now: datetime) -> dict[Interval, datetime | None]:
    """Before when the bars of each interval are deleted: whole months, some time after their horizon."""
    return {interval: month_before(horizon(policy, interval, now)) for interval in Interval}


def _bars(work: _Work) -> None:
    until = cuts(work.policy, work.now)
    due = {each: cut for each, cut in until.items() if cut is not None and work.done.get(subject_of(each)) != cut}
    for interval, before in due.items():
        _what_hangs_on(interval, before, work)
    for name, (_, end) in work.round.partitions("bars").items() if due else ():
        over = [interval for interval, cut in until.items() if cut is not None and end <= cut]
        if len(over) == len(Interval):
            work.round.drop("bars", name)
        elif over:
            for interval in (each for each in over if each in due):
                for ids in work.round.series(interval):
                    work.round.clear("bars", "bars", {"instruments": ids, "interval": interval}, name)
            work.round.drop("bars", name, if_empty=True)
    for interval, before in due.items():
        work.round.done(subject_of(interval), before)


def _what_hangs_on(interval: Interval, before: datetime, work: _Work) -> None:
    """Let go of all that speaks of the interval's bars before an instant, but the bars."""
    work.round.begin(subject_of(interval), before, work.version)
    about = {"interval": interval, "before": before}
    work.round.clear("uncover", "coverage", about)
    work.round.clear("give_up", "backfill_jobs", about)
    for ids in work.round.series(interval):
        for table in ("silences", "silence_revisions", "coverage_changes", "gaps", "bar_revisions"):
            work.round.clear(table, table, {**about, "instruments": ids})


def _quotes(work: _Work) -> None:
    def clear(before: datetime) -> None:
        for name, (_, end) in work.round.partitions("quotes").items():
            if end <= before:
                work.round.drop("quotes", name)

    _subject("quotes", month_before(day_before(work.policy.retention.quotes_days, work.now)), clear, work)


def _revisions(work: _Work) -> None:
    def clear(before: datetime) -> None:
        for table in ("bar_revisions", "silence_revisions", "gap_revisions"):
            work.round.clear(f"old_{table}", table, {"before": before})
        work.round.clear("old_coverage_changes", "coverage_changes", {"before": before})

    _subject("revisions", day_before(work.policy.retention.revisions_days, work.now), clear, work)


def _jobs(work: _Work) -> None:
    def clear(before: datetime) -> None:
        about = {"before": before}
        work.round.clear("jobs", "backfill_jobs", {**about, "open": work.round.open_requests()})
        work.round.pages("live_attempts", "job_attempts", about)
        work.round.clear("requests", "requests", about)
        kept_from = [cut for cut in cuts(work.policy, work.now).values() if cut is not None]
        if len(kept_from) == len(Interval):  # bars that are kept for ever want to know for ever where they came from
            # A day: an attempt's bars may be a little younger than its beginning.
            oldest = min(*kept_from, before) - timedelta(days=1)
            work.round.clear("spent_attempts", "job_attempts", {"before": oldest})

    _subject("jobs", day_before(work.policy.retention.jobs_days, work.now), clear, work)


def _letters(work: _Work) -> None:
    def clear(before: datetime) -> None:
        work.round.clear("letters", "dead_letters", {"before": before})
        work.round.clear("plans", "requeue_plans", {"before": before})

    _subject("letters", day_before(work.policy.retention.letters_days, work.now), clear, work)


def _quarantine(work: _Work) -> None:
    def clear(before: datetime) -> None:
        work.round.clear("quarantine", "bar_quarantine", {"before": before})

    _subject("quarantine", day_before(work.policy.retention.quarantine_days, work.now), clear, work)


def _reconciliations(work: _Work) -> None:
    def clear(before: datetime) -> None:
        work.round.clear("reconciliations", "reconciliations", {"before": before})

    _subject("reconciliation", day_before(work.policy.retention.reconciliation_days, work.now), clear, work)


def _subject(name: str, before: datetime | None, clear: Callable[[datetime], None], work: _Work) -> None:
    """Clear a subject once a horizon: mark, delete, mark."""
    if before is None or work.done.get(name) == before:
        return
    work.round.begin(name, before, work.version)
    clear(before)
    work.round.done(name, before)


_STEPS: Final[dict[str, Callable[[_Work], None]]] = {
    "bars": _bars,
    "quotes": _quotes,
    "revisions": _revisions,
    "jobs": _jobs,
    "letters": _letters,
    "quarantine": _quarantine,
    "reconciliation": _reconciliations,
}


def _count(done: Round, busy: list[str]) -> None:
    for table, rows in done.rows.items():
        metrics.RETENTION_ROWS.labels(table=table).inc(rows)
    for table, dropped in done.dropped.items():
        metrics.RETENTION_PARTITIONS.labels(table=table).inc(dropped)
    for name in busy:
        metrics.RETENTION_BUSY.labels(subject=name).inc()
