"""Everything that the overview shows, of one moment, and how it is read: all parts at once, none waited for long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.jobs import Tier
from mdtasks.flows import objectives, policy_status, policy_watch, provider_reports
from mdtasks.flows.deps import Deps
from mdtasks.queue.app import backfill_queue
from mdtasks.queue.letters import DLQ
from mdtasks.store import bar_reports, canaries, gaps, letters, policies
from mdtasks.web.gauges import Word, read_following, read_word
from mdtasks.web.looks import Look, Waiting, look, read_depths, read_waiting

#: Of its cap: from here on a queue is nearly full.
NEARLY_FULL: Final = 0.8
_SERIES: Final = 12


@dataclass(frozen=True, slots=True)
class Stored:
    """What PostgreSQL tells."""

    waiting: Mapping[Tier, Waiting]
    letters: Mapping[str, Any]
    gaps: Mapping[Tier, int]
    newest: Sequence[bar_reports.NewestBar]
    policy: policies.Version
    canary: canaries.Canary | None


@dataclass(frozen=True, slots=True)
class TierView:
    """A tier as the page shows it; None: not known while its part is away."""

    name: str
    cap: int
    depth: int | None
    waiting: Waiting | None
    gaps: int | None
    gap: objectives.Standing | None
    coverage: objectives.Standing | None
    drain: objectives.Drain | None

    @property
    def fill(self) -> float:
        """The part of the cap that is used."""
        return min((self.depth or 0) / self.cap, 1.0)

    @property
    def nearly_full(self) -> bool:
        return self.fill >= NEARLY_FULL

    @property
    def level(self) -> str:
        """What the state's colour is."""
        if "late" in {each.state for each in (self.gap, self.coverage, self.drain) if each is not None}:
            return "warn"
        return "good" if self.gap is not None and self.gap.state == "ok" else "quiet"

    @property
    def words(self) -> str:
        """The state of its live bars in words."""
        return _STATES[self.gap.state] if self.gap is not None else "not known"


_STATES: Final[Mapping[objectives.State, str]] = {
    "ok": "on time",
    "late": "late",
    "new": "new",
    "no_session": "market closed",
    "no_series": "no series",
    "not_watched": "not watched",
}


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the page shows, of one moment. What a part that is away would have told is None."""

    now: datetime
    errors: Mapping[str, MdtasksError]
    tiers: Sequence[TierView]
    stored: Stored | None
    word: Word | None
    on_their_way: int | None
    providers: Sequence[provider_reports.Report] | None
    report: objectives.Report | None
    following: Sequence[policy_status.Standing] | None

    @property
    def proved_at(self) -> datetime | None:
        """When the reconciler last proved that nothing is lost."""
        proof = self.word.proof if self.word else None
        return None if proof is None else datetime.fromisoformat(proof.at)

    @property
    def behind(self) -> Sequence[policy_status.Standing]:
        """The processes that do not follow the policy."""
        return [each for each in self.following or () if each.is_behind]


async def read(deps: Deps) -> View:
    """Look at everything now. Never fails, and takes no longer than the parts' patience."""
    now = datetime.now(UTC)
    found = await look(
        deps,
        broker=read_depths,
        redis=partial(read_word, now=now),
        postgresql=_read_stored,
        providers=provider_reports.report,
        following=partial(read_following, now=now),
        objectives=partial(_read_objectives, now=now),
    )
    return view_of(found, deps, now)


def _read_objectives(deps: Deps, now: datetime) -> objectives.Report:
    deps.watch.refresh(now)
    return objectives.report(deps, now)


def _read_stored(deps: Deps) -> Stored:
    waiting = read_waiting(deps)
    with deps.database.transaction() as connection:
        open_gaps = dict.fromkeys(Tier, 0)
        for (tier, _interval), number in gaps.open_count(connection).items():
            open_gaps[tier] += number
        return Stored(
            waiting,
            letters.stats(connection),
            open_gaps,
            bar_reports.newest_bars(connection, _SERIES),
            policies.newest(connection),
            canaries.being_tried(connection),
        )


def view_of(found: Look, deps: Deps, now: datetime) -> View:
    """The view of a look."""
    stored: Stored | None = found.of("postgresql")
    depths: Mapping[str, int] | None = found.of("broker")
    report: objectives.Report | None = found.of("objectives")
    words: Sequence[policy_watch.Word] | None = found.of("following")
    following = None
    if words is not None and stored is not None:
        following = [policy_status.standing(each, stored.policy, stored.canary) for each in words]
    return View(
        now=now,
        errors=found.errors,
        tiers=[_tier(tier, deps, depths, stored, report) for tier in Tier],
        stored=stored,
        word=found.of("redis"),
        on_their_way=None if depths is None else depths[DLQ],
        providers=found.of("providers"),
        report=report,
        following=following,
    )


def _tier(
    tier: Tier, deps: Deps, depths: Mapping[str, int] | None, stored: Stored | None, report: objectives.Report | None
) -> TierView:
    mine = {each.series.objective: each for each in (report.standings if report else ()) if each.series.tier is tier}
    return TierView(
        name=tier.value,
        cap=deps.settings.cap(tier),
        depth=None if depths is None else depths[backfill_queue(tier)],
        waiting=stored.waiting[tier] if stored else None,
        gaps=stored.gaps[tier] if stored else None,
        gap=mine.get("gap"),
        coverage=mine.get("coverage"),
        drain=next((each for each in (report.drains if report else ()) if each.tier is tier), None),
    )
