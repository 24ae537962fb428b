"""The gap scan: what every series of a tier should have and has not, kept in the ledger, and asked for.

One round a tier and interval, repeated by beat and after a live fetch that left holes. Safe at any time: what is asked
for already is not asked for again, and a job that has failed waits for people instead of being asked for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from sqlalchemy import Connection

from mdtasks.domain import gaps
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.ledger import OpenGap, Run, Settled, may_ask, runs_of, settle
from mdtasks.domain.retention import kept_part
from mdtasks.domain.schedules import Times
from mdtasks.domain.silence import slots
from mdtasks.flows.backfill import Answer, enqueue
from mdtasks.flows.deps import Deps
from mdtasks.flows.derive import is_derived, note_missing
from mdtasks.observe import metrics
from mdtasks.providers.base import Capabilities
from mdtasks.store import gaps as store_gaps
from mdtasks.store import letters, reference, requests
from mdtasks.store.gaps import Closed, Lacking, Scope

log = logging.getLogger(__name__)

#: Who asks, for the record of requests and of letters that are resolved.
ACTOR: Final = "gap scan"
NO_STARTS: Final = np.empty(0, dtype=np.int64)
#: Error classes that say nothing of the job: whoever was away may be back.
OUTAGES: Final = ("vendor_error", "timeout", "rate_limited", "store_unavailable", "broker_unavailable", "worker_lost")
#: An interval is missed when live fetching has had its chances, and this, seconds.
_MARGIN_S: Final = 60.0
#: Intervals that a run must have grown by, at least, before it is asked for beside a job of it that died.
_LEAST: Final = {interval: 1 if interval is Interval.D1 else 30 for interval in Interval}


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a round did: series that lack something, gaps found and closed, letters resolved, and jobs asked for."""

    lacking: int = 0
    found: int = 0
    closed: int = 0
    resolved: int = 0
    queued: int = 0
    deferred: int = 0

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


def scan_tier(tier: Tier, deps: Deps, now: datetime) -> dict[str, dict[str, int]]:
    """One round over all that the tier keeps complete: interval -> counts. Jobs that died of an outage which is over
    are given another life first, twice at most.
    """
    kept = deps.settings.kept(tier)
    with deps.database.transaction() as connection:
        store_gaps.withdraw_unkept(connection, tier, kept)
        over = store_gaps.revivable(connection, tier, OUTAGES)
        if over:
            revived = letters.requeue_jobs(connection, over, ACTOR, deps.settings.max_attempts)
            log.info("%s: %d jobs that an outage had ended run again", tier, len(revived))
    return {str(interval): scan(Scope(tier, interval), deps, now).as_dict() for interval in kept}


def scan(scope: Scope, deps: Deps, now: datetime, found_by: str = "scan") -> Scanned:
    """One round: look, keep the ledger, ask for what nobody asks for yet, newest first.

    An exchange of which no configured provider serves the interval, nor the minutes that its bars could be made of, is
    not looked at: nobody could fill it. What is made of minutes is noted to be made. Raises StoreUnavailableError.
    """
    if not deps.registry.order(scope.interval) and not deps.registry.order(Interval.M1):
        return Scanned()
    with deps.database.transaction() as connection:
        mics = reference.exchanges(connection, tier=scope.tier)
        look = _Look(deps, scope, mics, reference.mics_of(connection, deps.calendars.overrides.halted), now)
        store_gaps.lock(connection)
        found = store_gaps.lacking(connection, scope, look.spans, look.halted)
        settled = _settled(found, store_gaps.standing(connection, scope), look)
        new, closed = store_gaps.record(connection, scope.interval, settled, found_by)
        resolved = _resolve(connection, scope, closed, deps)
    _count(scope, new, closed)
    made_here = {mic for mic in look.expected if is_derived(deps, scope.interval, mic)}
    note_missing(deps, scope.interval, [each for each in found if each.listing.mic in made_here], now)
    answer = _ask([each for each in found if each.listing.mic not in made_here], scope, look, deps)
    return Scanned(len(found), new, len(closed), resolved, answer.queued, answer.deferred)


class _Look:
    """What is expected of each exchange in a round: intervals that are due, within the look-back, by start and end.

    ``halted``: the exchanges of the instruments that were halted at some time.
    """

    def __init__(self, deps: Deps, scope: Scope, mics: Sequence[str], halted: Mapping[int, str], now: datetime) -> None:
        self._deps = deps
        self._scope = scope
        self.expected: dict[str, tuple[Times, Times]] = {}
        for mic in mics:
            if not _fillable(scope, mic, deps):
                continue
            try:
                self.expected[mic] = self._due(mic, now)
            except InvalidRequestError as error:  # one exchange whose calendar ends must not stop the others
                log.warning("%s is not looked at: %s", mic, error)
        self.spans = {mic: slots(starts, scope.interval) for mic, (starts, _) in self.expected.items()}
        starts = {mic: each for mic, (each, _) in self.expected.items()}
        self.halted = _halted(starts, halted, scope, deps)
        self._runs: dict[tuple[str, bytes], list[Run]] = {}
        self._pieces: dict[tuple[str, bytes], list[TimeWindow]] = {}

    def _due(self, mic: str, now: datetime) -> tuple[Times, Times]:
        calendar, interval = self._deps.calendars.get(mic), self._scope.interval
        settings = self._deps.settings
        if interval is Interval.D1 and not is_derived(self._deps, interval, mic):
            window = TimeWindow(start=now - timedelta(days=settings.look_back_days), end=now)
        else:
            window = calendar.last_sessions(settings.look_back_sessions, now, interval)
        window = kept_part(window, interval, self._deps.running.policy, now)
        starts = calendar.expected(window, interval)
        ends = calendar.interval_end(starts, interval)
        due = ends <= to_us(now - timedelta(seconds=due_after_s(self._scope.tier, interval, mic, self._deps)))
        # A job asks for whole intervals of the grid, also for one that the close cuts short.
        return starts[due], starts[due] + interval.seconds * 1_000_000

    def runs(self, mic: str, missing: gaps.Spans) -> list[Run]:
        """Missing time as runs across nights; the same for all that lack the same."""
        key = (mic, missing.tobytes())
        if key not in self._runs:
            self._runs[key] = runs_of(missing, *self.expected[mic])
        return self._runs[key]

    def pieces(self, lacking: Lacking) -> list[TimeWindow]:
        """Job-sized windows of the time that nobody works on, of runs that may be asked for now: while a job of a run
        waits, and after one has died, a run that grows minute by minute must not become a job, or a letter, a minute.
        """
        mic, unasked = lacking.listing.mic, lacking.unasked
        key = (mic, unasked.tobytes() + b"/" + lacking.asked.tobytes() + b"/" + lacking.missing.tobytes())
        if key not in self._pieces:
            calendar, tier = self._deps.calendars.get(mic), self._deps.running.policy.tiers[self._scope.tier]
            dead = gaps.subtract(gaps.subtract(lacking.missing, lacking.asked), unasked)
            whole, busy, failed = (self.runs(mic, each) for each in (lacking.missing, lacking.asked, dead))
            self._pieces[key] = [
                piece
                for run in may_ask(whole, self.runs(mic, unasked), (busy, failed), _LEAST[self._scope.interval])
                for piece in gaps.chunks(run.window, calendar, self._scope.interval, tier.chunk_minutes)
            ]
        return self._pieces[key]


def due_after_s(tier: Tier, interval: Interval, mic: str, deps: Deps) -> float:
    """Seconds after its end from which on an interval that is not covered is a gap: settling, the delay of the fastest
    provider that has the exchange and, where the tier is fetched live, two ticks come first. What is made of minutes
    waits for them, and for its own making.
    """
    told, settle_s = _told(interval, mic, deps), deps.settings.settle_s
    settled_s = min((each.delay_s + settle_s * (1 if each.complete else 2) for each in told), default=settle_s)
    made_here = is_derived(deps, interval, mic)
    live_s = deps.settings.cadence_s(tier) if interval is Interval.M1 or made_here else 0.0
    making_s = 2 * deps.settings.derive_every_s if made_here else 0.0
    return settled_s + 2 * live_s + making_s + _MARGIN_S


def _fillable(scope: Scope, mic: str, deps: Deps) -> bool:
    """Whether anybody could fill what is missing of the interval: who serves it, or minutes that are kept complete."""
    made_here = is_derived(deps, scope.interval, mic)
    has_minutes = Interval.M1 in deps.settings.kept(scope.tier)
    return bool(_told(scope.interval, mic, deps)) and (has_minutes or not made_here)


def _told(interval: Interval, mic: str, deps: Deps) -> list[Capabilities]:
    """What those declare who serve the interval on an exchange, or the minutes that it is made of."""
    return deps.registry.told(interval, mic) or deps.registry.told(Interval.M1, mic)


def _settled(
    found: Sequence[Lacking], standing: Mapping[tuple[int, str], Sequence[OpenGap]], look: _Look
) -> dict[int, Settled]:
    """What the ledger is to learn, by instrument."""
    settled: dict[int, Settled] = {}
    for each in found:
        mic = each.listing.mic
        open_ = standing.get((each.instrument_id, mic), ())
        settled[each.instrument_id] = settle(open_, look.runs(mic, each.missing))
    for (instrument, mic), open_ in standing.items():
        if instrument not in settled and mic in look.expected:
            settled[instrument] = settle(open_, ())
    return settled


def _resolve(connection: Connection, scope: Scope, closed: Sequence[Closed], deps: Deps) -> int:
    """Resolve the letters of failed jobs of which nothing is missing any more, however long ago their time is."""
    expected: dict[str, Times] = {}
    for mic, (start, end) in store_gaps.failed_reach(connection, scope).items():
        calendar = deps.calendars.get(mic)
        if start < (until := min(end, calendar.horizon)):
            expected[mic] = calendar.expected(TimeWindow(start=start, end=until), scope.interval)
    if not expected:
        return 0
    halted = _halted(expected, reference.mics_of(connection, deps.calendars.overrides.halted), scope, deps)
    spans = {mic: slots(starts, scope.interval) for mic, starts in expected.items()}
    over = store_gaps.answered_failed(connection, scope, (spans, halted), {each.instrument_id for each in closed})
    return store_gaps.resolve(connection, over, ACTOR) if over else 0


def _halted(expected: Mapping[str, Times], mics: Mapping[int, str], scope: Scope, deps: Deps) -> dict[int, gaps.Spans]:
    """By instrument (``mics``: those that were halted at some time), what its exchange makes us expect and its halts
    do not.
    """
    found = {}
    for instrument, mic in mics.items():
        starts = expected.get(mic, NO_STARTS)
        if len(starts):
            window = TimeWindow(start=from_us(starts[0]), end=from_us(starts[-1] + 1))
            whole, kept = deps.calendars.get(mic), deps.calendars.get_of(mic, instrument)
            found[instrument] = slots(gaps.untraded(whole, kept, window, scope.interval), scope.interval)
    return found


def _count(scope: Scope, new: int, closed: Sequence[Closed]) -> None:
    labels = {"tier": scope.tier, "interval": scope.interval}
    metrics.GAPS_FOUND.labels(**labels).inc(new)
    for each in closed:
        if each.outcome == "repaired":
            metrics.GAP_REPAIR.labels(**labels).observe(each.took_s)


def _ask(found: Sequence[Lacking], scope: Scope, look: _Look, deps: Deps) -> Answer:
    """Ask for what nobody works on. A round that has nothing to ask for leaves no request."""
    lacking = [each for each in found if len(each.unasked) and look.pieces(each)]
    if not lacking:
        return Answer("")
    spec = {"scan": scope.tier.value, "interval": scope.interval.value, "series": len(lacking)}
    with deps.database.transaction() as connection:
        answer = Answer(requests.create_request(connection, ACTOR, spec))
    enqueue(_wanted(lacking, scope, look), deps, answer)
    log.info("%s %s: %d queued, %d deferred", scope.tier, scope.interval, answer.queued, answer.deferred)
    return answer


def _wanted(lacking: Sequence[Lacking], scope: Scope, look: _Look) -> Iterator[requests.NewJob]:
    for each in lacking:
        for piece in look.pieces(each):
            job = BackfillJob(
                symbol=each.listing.symbol, interval=scope.interval, time_window=piece, priority=scope.tier
            )
            yield requests.NewJob(job, each.instrument_id)
