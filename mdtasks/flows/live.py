"""Live fetching: what a worker does with what a tick (``flows.ticks``) or an outside coordinator asked for.

Live fetches are not durable: they expire when their tick is over. What they miss is a gap, which the gap scan finds and
asks for. Each tick asks again for what the one before it found too young to be settled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from mdtasks.domain.bars import Quote, from_us, to_us
from mdtasks.domain.errors import HeldBackError, ProviderError, TimeSpentError, error_class
from mdtasks.domain.jobs import BarsFetchJob, Interval, QuotesFetchJob, Tier, TimeWindow
from mdtasks.domain.retention import day_before, kept_part
from mdtasks.flows import replay
from mdtasks.flows.deps import Deps, patiently, work_until
from mdtasks.flows.fetch import Ask, called, count_written, fetch, make_partitions
from mdtasks.flows.judging import Fetched, Subject
from mdtasks.flows.routing import Route, Turn, left_aside, of_an_outage, route
from mdtasks.flows.samples import tell_quotes
from mdtasks.flows.scan import scan
from mdtasks.flows.traces import recorded_quotes
from mdtasks.observe import metrics
from mdtasks.observe.traces import Asker
from mdtasks.store import bars as store_bars
from mdtasks.store import jobs, quotes, reference
from mdtasks.store.gaps import Scope
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument

#: Intervals that a live fetch without a window of its own asks for.
LOOK_BACK: Final = 5


def look_back(cadence_s: float, deps: Deps) -> int:
    """How many minutes a tick asks for: back to what was too young at the last tick for the fastest provider, and one
    to spare for its drift. What a slower one has later is a gap by then, which the scan asks for.
    """
    settle_s = deps.settings.settle_s
    told = [provider.capabilities for provider in deps.registry.order(Interval.M1)]
    # The silence of one that may leave bars out counts only when it has settled twice.
    young_s = min((each.delay_s + settle_s * (1 if each.complete else 2) for each in told), default=settle_s)
    return math.ceil((cadence_s + young_s) / Interval.M1.seconds) + 2


def ended_window(interval: Interval, now: datetime, intervals: int) -> TimeWindow:
    """The last ``intervals`` ended intervals of the clock's grid at ``now``."""
    step_us = interval.seconds * 1_000_000
    end_us = to_us(now) // step_us * step_us
    return TimeWindow(start=from_us(end_us - intervals * step_us), end=from_us(end_us))


def run_bars_fetch(job: BarsFetchJob, deps: Deps, worker: str, now: datetime) -> dict[str, object]:
    """Fetch and store recent bars of many symbols. Idempotent: the same bars change nothing.

    A symbol that fails alone is counted and stays a gap; so does everything while nobody may be asked. Raises
    ProviderError when no symbol was answered, UnknownSymbolError, InvalidRequestError for time that is not kept,
    StoreUnavailableError.
    """
    asked = job.time_window or ended_window(job.interval, now, LOOK_BACK)
    window = kept_part(asked, job.interval, deps.running.policy, now)
    ask = Ask(job.interval, window, now, job.provider_hint, until=work_until(deps.settings))

    holes: dict[Tier, set[int]] = {}

    def work(members: Sequence[Instrument], attempt_id: int) -> jobs.Ending:
        mine = replace(ask, asker=Asker(job.job_id, attempt_id, 1, worker))
        ending, lacking = _fetch_and_store(members, mine, attempt_id, deps)
        for member in members:
            if member.id in lacking:
                holes.setdefault(member.tier, set()).add(member.id)
        return ending

    ending = _attempt(job, deps, worker, work)
    found = _look_at(holes, job.interval, deps, now) if holes else 0
    return {"symbols": len(job.symbols), "inserted": ending.bars, "failed": ending.message, "gaps": found}


def run_quotes_fetch(job: QuotesFetchJob, deps: Deps, worker: str, now: datetime) -> dict[str, object]:
    """Fetch and store the latest quotes, each provider in its turn asked for those that had none before it.

    Idempotent by (instrument, time of the quote). Raises ProviderError when nobody answered, UnknownSymbolError,
    StoreUnavailableError.
    """

    def work(members: Sequence[Instrument], attempt_id: int) -> jobs.Ending:
        found = route(deps, "quotes", {member.mic for member in members}, job.provider_hint)
        asked = _Quotes(deps, now, Asker(job.job_id, attempt_id, 1, worker), found, work_until(deps.settings))
        for turn in found.turns:
            try:
                members = asked.ask(turn, members)
            finally:
                turn.gate.give_up_probe()  # of one that had nothing to be asked for
            if not members:
                break
        if asked.failure is not None and not asked.stored:
            aside = left_aside(deps, [turn.provider for turn in found.turns])
            raise _Unanswered(of_an_outage(asked.failure, aside) or asked.failure, found)
        message = str(asked.failure) if asked.failure and members else None
        quotes_stored = sum(asked.stored.values())
        return jobs.Ending("done", ",".join(asked.stored), None, message, quotes_stored, asked.route.record)

    ending = _attempt(job, deps, worker, work)
    return {"symbols": len(job.symbols), "quotes": ending.bars}


class _Unanswered(Exception):  # noqa: N818 - it ends the work, and is nobody's error but the one it carries
    """Nobody answered: why, and who was asked."""

    def __init__(self, error: ProviderError, route: Route) -> None:
        super().__init__(str(error))
        self.error = error
        self.route = route


def _attempt(
    job: BarsFetchJob | QuotesFetchJob,
    deps: Deps,
    worker: str,
    work: Callable[[Sequence[Instrument], int], jobs.Ending],
) -> jobs.Ending:
    """Do a live job's work under an attempt of its own, which tells how it ended."""
    with deps.database.transaction() as connection:
        today = datetime.now(UTC).date()
        # Two of its symbols may be one instrument: it was renamed after the tick.
        members = list({m.id: m for m in reference.resolve_lately(connection, job.symbols, today).values()}.values())
        attempt_id = jobs.open_live_attempt(connection, job.job_id, job.type, worker, deps.running.version)
    asked: Sequence[Mapping[str, Any]] = ()
    try:
        try:
            ending = work(members, attempt_id)
        except _Unanswered as unanswered:
            asked = unanswered.route.record
            raise unanswered.error from unanswered
    except HeldBackError as error:
        # Nobody was asked, or only one whose outage it is. What it would have brought is a gap, which the scan finds; a
        # letter would tell nobody more.
        ending = jobs.Ending("held", error.provider, error.code, str(error), route=asked)
    except Exception as error:
        provider = error.provider if isinstance(error, ProviderError) else None
        _close(deps, attempt_id, jobs.Ending("failed", provider, error_class(error), str(error), route=asked))
        metrics.JOBS_PROCESSED.labels(type=job.type, provider=provider or "none", outcome="failed").inc()
        raise
    _close(deps, attempt_id, ending)
    metrics.JOBS_PROCESSED.labels(type=job.type, provider=ending.provider or "none", outcome=ending.outcome).inc()
    return ending


@dataclass(slots=True)
class _Quotes:
    """One job's quotes on their way: who was asked, how many each brought, and what went wrong first."""

    deps: Deps
    now: datetime
    asker: Asker
    route: Route
    until: float
    stored: dict[str, int] = field(default_factory=dict)
    failure: ProviderError | None = None

    def ask(self, turn: Turn, members: Sequence[Instrument]) -> list[Instrument]:
        """Ask one provider for all of them; returns those that had no quote."""
        told = turn.provider.capabilities
        left = [member for member in members if not told.has(member.mic)]
        members = [member for member in members if told.has(member.mic)]
        size = told.max_symbols
        for start in range(0, len(members), size):
            packet = members[start : start + size]
            if time.monotonic() > self.until:  # what is left comes with the next tick
                late = TimeSpentError("was not asked for all: the job's time is over", provider=turn.provider.name)
                self.route.failed(turn, late)
                self.failure = self.failure or late
                return [*left, *members[start:]]
            try:
                there = self._store(turn, packet)
            except ProviderError as error:
                self.route.failed(turn, error)
                self.failure = self.failure or error
                if isinstance(error, HeldBackError):  # its other calls would be held back too, each after a wait
                    return [*left, *members[start:]]
                left += packet
                continue
            self.route.answered(turn)
            self.stored[turn.provider.name] = self.stored.get(turn.provider.name, 0) + len(there)
            left += [member for member in packet if member.symbol not in there]
        return left

    def _store(self, turn: Turn, packet: Sequence[Instrument]) -> Mapping[str, Quote]:
        """One call and one commit; returns the quotes found, by symbol."""
        deps, name, listings = self.deps, turn.provider.name, [member.listing for member in packet]
        with called(turn, "quotes", "quotes", recorded_quotes(deps, name, [m.symbol for m in packet], self.asker)):
            found = turn.provider.fetch_quotes(listings, self.now)
        tell_quotes(deps, name, listings, found, self.now)
        # The last quote of what has not traded for long may be older than quotes are kept.
        since = day_before(deps.running.policy.retention.quotes_days, self.now)
        kept = {symbol: quote for symbol, quote in found.items() if since is None or quote.ts >= since}
        if kept:
            times_us = [to_us(quote.ts) for quote in kept.values()]
            ensure_partitions(deps.database, "quotes", min(times_us), max(times_us))
            by_id = {member.id: kept[member.symbol] for member in packet if member.symbol in kept}
            with deps.database.transaction() as connection:
                quotes.write_quotes(connection, by_id, name)
            replay.publish_quotes(deps, by_id, name, datetime.now(UTC))
        return found


def _look_at(holes: Mapping[Tier, Collection[int]], interval: Interval, deps: Deps, now: datetime) -> int:
    """Look for gaps of the series that a fetch left holes in, at once; returns how many are new."""
    kept = {tier: ids for tier, ids in holes.items() if interval in deps.settings.kept(tier)}
    return sum(scan(Scope(tier, interval, sorted(ids)), deps, now, "live").found for tier, ids in kept.items())


def _fetch_and_store(
    members: Sequence[Instrument], ask: Ask, attempt_id: int, deps: Deps
) -> tuple[jobs.Ending, set[int]]:
    """Ask the providers in their turn and commit what each call brings; returns the instruments with holes left, too.

    Raises ProviderError when nobody was answered for.
    """
    inserted = 0
    providers: dict[str, None] = {}

    def keep(parts: Sequence[Fetched]) -> None:
        nonlocal inserted
        if parts:
            providers[parts[0].provider] = None
            inserted += _stored(parts, ask, attempt_id, deps)

    outcome = fetch(deps, [Subject(member.id, member.listing) for member in members], ask, keep)
    failed = len(members) - len(outcome.brought)
    if failed == len(members) and outcome.shortfall is not None:
        raise _Unanswered(outcome.shortfall, outcome.route)
    heard = f"{failed} of {len(members)} symbols failed: {outcome.shortfall or outcome.words}" if failed else None
    ending = jobs.Ending("done", ",".join(providers) or None, None, heard, inserted, outcome.route.record)
    return ending, {hole.subject.instrument_id for hole in outcome.holes}


def _stored(parts: Sequence[Fetched], ask: Ask, attempt_id: int, deps: Deps) -> int:
    """Commit what one call brought, and tell the replay buffer; returns how many bars were new."""
    interval, note = ask.interval, replay.note(deps, parts, ask.interval, ask.now)
    make_partitions(deps, [part.bars for part in parts])
    batches = [part.batch for part in parts]
    with metrics.WRITE_BATCH.time(), deps.database.transaction() as connection:
        counts = store_bars.write_bars(connection, interval, batches, parts[0].provider, attempt_id, note=note)
    count_written(interval, parts, counts)
    if note.concerns(batch.bars for batch in batches):
        replay.publish_pending(deps, [batch.instrument_id for batch in batches], interval)
    return counts.inserted


def _close(deps: Deps, attempt_id: int, ending: jobs.Ending) -> None:
    def close() -> None:
        with deps.database.transaction() as connection:
            jobs.close_attempt(connection, attempt_id, ending)

    patiently(close)
