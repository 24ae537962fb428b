"""Is all well? The first thing that the overview says: what is wrong of what others watch, each with where to go on.

What counts as wrong is decided where it is watched (objectives, health, reconciler, policy); here it is gathered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from mdtasks.domain.health import Standing as Health
from mdtasks.flows import objectives, presence
from mdtasks.flows.dispatch import PROOF_LATE_S
from mdtasks.web.console.view import NEARLY_FULL, TierView, View
from mdtasks.web.console.words import count, percent, span
from mdtasks.web.gauges import Word
from mdtasks.web.looks import proof_age_s

Level = Literal["good", "warn", "bad"]

_NAMES: Final = {"broker": "Redis", "redis": "Redis", "postgresql": "PostgreSQL"}


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing that is not as it should be. ``path``: where more of it is told."""

    level: Level
    what: str
    path: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All concerns, the worst first, and what they come to."""

    concerns: Sequence[Concern]

    @property
    def level(self) -> Level:
        return self.concerns[0].level if self.concerns else "good"

    @property
    def words(self) -> str:
        """The verdict in a line."""
        number = len(self.concerns)
        if not number:
            return "All is well"
        if self.level == "bad":
            return "Something is down"
        return "1 thing needs attention" if number == 1 else f"{number} things need attention"

    @property
    def title(self) -> str:
        """What a browser's tab says."""
        mark = {"good": "\N{CHECK MARK}", "warn": "!", "bad": "\N{BALLOT X}"}[self.level]
        return f"{mark} mdtasks" if not self.concerns else f"{mark} {len(self.concerns)} \N{MIDDLE DOT} mdtasks"


def judge(view: View) -> Verdict:
    """The verdict of a look at everything."""
    found = [
        *_away(view),
        *(each for tier in view.tiers for each in _tier(tier)),
        *_unwatched(view),
        *_silent(view.word, view.now),
        *_proof(view.word, view.now),
        *_letters(view),
        *(each for report in view.providers or () for each in _provider(report.standing)),
        *_policy(view),
    ]
    return Verdict(sorted(found, key=lambda each: each.level != "bad"))


def _away(view: View) -> Iterator[Concern]:
    told = set()
    # A server first: others that need it may have failed before it, with the same words and without its name.
    for part, error in sorted(view.errors.items(), key=lambda each: each[0] not in _NAMES):
        name = _NAMES.get(part)
        what = f"{name} cannot be used: {error.message}" if name else error.message
        if error.message not in told:
            told.add(error.message)
            yield Concern("bad", what, "/runbooks/PartDown", error.hint)


def _tier(tier: TierView) -> Iterator[Concern]:
    for each in (tier.gap, tier.coverage):
        if each is not None and each.state == "late":
            yield _late(tier, each)
    if tier.drain is not None and tier.drain.state == "late":
        waits = span(tier.drain.oldest_age_s)
        yield Concern("warn", f"{tier.name}: the oldest backfill waits for {waits}", "/runbooks/BackfillOldestTooOld")
    if tier.depth is not None and tier.fill >= NEARLY_FULL:
        held = f"{count(tier.depth)} of {count(tier.cap)}"
        yield Concern("warn", f"{tier.name}: the queue is nearly full, {held}", "/runbooks/BackfillQueueTooDeep")


def _late(tier: TierView, each: objectives.Standing) -> Concern:
    rate, target = percent(each.snapshot.rate if each.snapshot else None), percent(each.target)
    if each.series.objective == "gap":
        what = f"{tier.name}: {rate} of the {each.series.interval} series are late, {target} may be"
        return Concern("warn", what, f"/runbooks/SLOGapViolationHigh{tier.name}")
    what = f"{tier.name}: {rate} of the {each.series.interval} series lack some of their last session, {target} may"
    return Concern("warn", what, "/runbooks/CoverageIncomplete")


def _unwatched(view: View) -> Iterator[Concern]:
    report = view.report
    if report is None or not report.every_s or all(each.state != "not_watched" for each in report.standings):
        return
    last = "never looked" if report.last_run is None else f"last looked {_ago(report.last_run, view.now)}"
    yield Concern("warn", f"Nobody watches the objectives: the monitor {last}", "/runbooks/SLOMonitorDead")


def _silent(word: Word | None, now: datetime) -> Iterator[Concern]:
    if word is None:
        return
    late = [node for node, at in word.workers.items() if now.timestamp() - at > presence.WORKER_SILENT_S]
    for node in sorted(late):
        yield Concern("warn", f"Worker {node} is silent", "/runbooks/WorkerMissing")
    if not word.workers:
        yield Concern("warn", "No worker was heard of today", "/runbooks/WorkerMissing")
    if word.ticked_at is None or now.timestamp() - word.ticked_at > presence.BEAT_SILENT_S:
        yield Concern("warn", "Beat is silent: nothing is asked for by itself", "/runbooks/BeatMissing")


def _proof(word: Word | None, now: datetime) -> Iterator[Concern]:
    if word is None:
        return
    if word.proof is None:
        yield Concern("warn", "The reconciler has never run", "/runbooks/ReconcilerProofTooOld")
    elif (age_s := proof_age_s(word.proof, now)) > PROOF_LATE_S:
        yield Concern("warn", f"The reconciler's last proof is {span(age_s)} old", "/runbooks/ReconcilerProofTooOld")


def _letters(view: View) -> Iterator[Concern]:
    still_open = view.stored.letters["open"] if view.stored else 0
    if still_open:
        what = "1 dead letter is open" if still_open == 1 else f"{count(still_open)} dead letters are open"
        yield Concern("warn", what, "/console/dead-letters")


def _provider(each: Health) -> Iterator[Concern]:
    if each.why_aside:
        yield Concern("warn", f"{each.name} is not asked in its turn: {each.why_aside}", "/runbooks/ProviderDemoted")


def _policy(view: View) -> Iterator[Concern]:
    for each in view.behind:
        what = f"{each.word.process} {each.state} policy {view.stored.policy.version if view.stored else ''}"
        yield Concern("warn", what, "/runbooks/PolicyNotFollowed", each.why)


def _ago(at: datetime, now: datetime) -> str:
    return f"{span((now - at).total_seconds())} ago"
