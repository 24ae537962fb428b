"""Asking providers: each in its turn for what is still open. One failover for backfills and live fetches alike."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from mdtasks.domain.bars import Bars
from mdtasks.domain.errors import (
    HeldBackError,
    NoDataError,
    NotYetError,
    ProviderError,
    TimeSpentError,
    UnsupportedError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.judging import Asked, Fetched, Hole, Subject, judged
from mdtasks.flows.routing import Route, Turn, left_aside, of_an_outage, route
from mdtasks.flows.samples import tell_bars
from mdtasks.flows.traces import UNRECORDED, Recorded, recorded_bars
from mdtasks.observe import metrics
from mdtasks.observe.traces import NOBODY, Asker
from mdtasks.providers.base import BarsAnswer
from mdtasks.providers.planning import Declaration, Wanted, plan
from mdtasks.store import bars as store_bars
from mdtasks.store.partitions import ensure_partitions

#: Takes what one call brought; what it raises ends the fetch.
Keep = Callable[[Sequence[Fetched]], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of the providers, and when. ``hint``: of this one alone. ``until``: no call begins later, by
    ``time.monotonic()``; None: it is one call, or few.
    """

    interval: Interval
    window: TimeWindow
    now: datetime
    hint: str | None = None
    asker: Asker = NOBODY
    until: float | None = None


@dataclass(slots=True)
class Outcome:
    """How a fetch ended: the holes that are left, what those said who did not answer, what each subject got, and who
    was asked.
    """

    holes: Sequence[Hole] = ()
    heard: list[ProviderError] = field(default_factory=list)
    brought: dict[int, list[Fetched]] = field(default_factory=dict)
    route: Route = field(default_factory=lambda: Route(()))

    def failed(self, turn: Turn, error: ProviderError) -> None:
        """A call failed, or a symbol of it."""
        self.heard.append(error)
        self.route.failed(turn, error)

    @property
    def shortfall(self) -> ProviderError | None:
        """Why a part stays open: the gravest of the holes' errors, the soonest of those that say when; None: none."""
        errors = [hole.error for hole in self.holes if hole.error is not None]
        return min(errors, key=lambda error: (-_gravity(error), _wait_s(error)), default=None)

    @property
    def words(self) -> str | None:
        """What was heard, for the record of the attempt."""
        return "; ".join(dict.fromkeys(f"{error.code}: {error}" for error in self.heard)) or None


def fetch(deps: Deps, subjects: Sequence[Subject], ask: Ask, keep: Keep) -> Outcome:
    """Ask the providers in their turn, each only for what those before it left open; ``keep`` takes what each brings.

    Time that no account may have yet is no hole where anything was brought: it is asked for when it is due. Raises
    UnsupportedError when no configured provider serves the interval, CircuitOpenError when nobody may be asked now, and
    what ``keep`` raises.
    """
    found = route(deps, ask.interval, {subject.listing.mic for subject in subjects}, ask.hint)
    outcome = Outcome([Hole(subject, ask.window) for subject in subjects], route=found)
    for turn in found.turns:
        try:
            outcome.holes = _asked(turn, outcome, ask, keep, deps)
        finally:
            turn.gate.give_up_probe()  # of one that had nothing to be asked for
        if not outcome.holes:
            break
    hope = found.hope if outcome.holes else None
    aside = left_aside(deps, [turn.provider for turn in found.turns]) if outcome.holes and outcome.heard else {}
    outcome.holes = [replace(hole, error=_graver(of_an_outage(hole.error, aside), hope)) for hole in outcome.holes]
    if outcome.brought:
        outcome.holes = [hole for hole in outcome.holes if not isinstance(hole.error, NotYetError)]
    return outcome


def _asked(turn: Turn, outcome: Outcome, ask: Ask, keep: Keep, deps: Deps) -> list[Hole]:
    """Ask one provider for all that is open; returns what is open still."""
    left: list[Hole] = []
    held: HeldBackError | None = None
    for packet in _packets(turn, outcome, ask, left):
        if ask.until is not None and time.monotonic() > ask.until:
            held = held or TimeSpentError("was not asked for all: the job's time is over", provider=turn.provider.name)
        if held is not None:  # the others of its calls would be held back too, each after a wait
            left += [replace(hole, error=_graver(hole.error, held)) for hole in packet]
            continue
        asked = Asked(turn.provider, ask.interval, packet[0].window, ask.now, ill=turn.insist)
        symbols = [hole.subject.symbol for hole in packet]
        try:
            answer = fetch_bars(asked, packet, turn, recorded_bars(deps, asked, symbols, ask.asker))
        except ProviderError as error:
            held = error if isinstance(error, HeldBackError) else None
            outcome.failed(turn, error)
            left += [replace(hole, error=_graver(hole.error, error)) for hole in packet]
            continue
        outcome.route.answered(turn)
        for hole in packet:
            if failed := answer.errors.get(hole.subject.symbol):
                outcome.failed(turn, failed)
                left.append(replace(hole, error=_graver(hole.error, failed)))
        sound = [hole for hole in packet if hole.subject.symbol in answer.bars]
        found = judged(answer, asked, sound, outcome.brought, deps)
        keep(found)
        for hole, part in zip(sound, found, strict=True):
            outcome.brought.setdefault(hole.subject.instrument_id, []).append(part)
            left += [replace(each, error=_graver(hole.error, each.error)) for each in part.holes]
        tell_bars(deps, asked, sound, found)
    return left


def _packets(turn: Turn, outcome: Outcome, ask: Ask, left: list[Hole]) -> Iterator[Sequence[Hole]]:
    """The holes of each call, as the provider is best asked; what it cannot have goes to ``left``, with the reason."""
    provider = turn.provider
    open_: defaultdict[str, list[Hole]] = defaultdict(list)
    for hole in outcome.holes:
        open_[hole.subject.symbol].append(hole)
    wanted = [Wanted(hole.subject.listing, hole.window) for hole in outcome.holes]
    planned = plan(Declaration(provider.name, provider.capabilities), ask.interval, wanted, ask.now)
    for each in planned.not_asked:
        outcome.failed(turn, each.error)
        hole = _around(open_[each.listing.symbol], each.window)
        left.append(replace(hole, window=each.window, error=_graver(hole.error, each.error)))
    for call in planned.calls:
        around = [_around(open_[listing.symbol], call.window) for listing in call.listings]
        yield [replace(hole, window=call.window) for hole in around]


def _around(holes: Sequence[Hole], window: TimeWindow) -> Hole:
    """The hole that a part of it was planned for."""
    return next(hole for hole in holes if hole.window.start <= window.start and window.end <= hole.window.end)


def _graver(earlier: ProviderError | None, later: ProviderError | None) -> ProviderError | None:
    """Which of two errors speaks for a hole: the graver, else the first."""
    if earlier is None or later is None:
        return earlier or later
    return later if _gravity(later) > _gravity(earlier) else earlier


def _gravity(error: ProviderError) -> int:
    """What an error says of the next attempt, the most telling first: one that was asked may do better; somebody must
    do something (a key, a plan); one that was not asked may be soon; an account may have it later; nobody has it.
    """
    if isinstance(error, NotYetError):
        return 1
    if isinstance(error, HeldBackError):
        return 2
    if error.retryable:
        return 4
    return 0 if isinstance(error, NoDataError | UnsupportedError) else 3


def _wait_s(error: ProviderError) -> float:
    if not isinstance(error, HeldBackError):
        return 0.0
    return math.inf if error.retry_after_s is None else error.retry_after_s


def fetch_bars(asked: Asked, holes: Sequence[Hole], turn: Turn, recorded: Recorded = UNRECORDED) -> BarsAnswer:
    """One provider call, timed and counted."""
    listings = [hole.subject.listing for hole in holes]
    with called(turn, f"bars_{asked.interval}", "bars", recorded):
        return asked.provider.fetch_bars(listings, asked.interval, asked.window, asked.now)


@contextmanager
def called(turn: Turn, capability: str, endpoint: str, recorded: Recorded = UNRECORDED) -> Iterator[None]:
    """One call of a provider inside, timed and counted, through its gate. ``recorded``: what records it when it is
    slow. Neither storing the record nor waiting for the account's rate is the provider's time.
    """
    name = turn.provider.name
    metrics.PROVIDER_SELECTED.labels(capability=capability, provider=name).inc()
    try:
        with recorded as record, turn.gate.call(insist=turn.insist) as waits:
            began = time.monotonic()
            try:
                yield
            finally:
                took_s = max(time.monotonic() - began - waits.waited_s, 0.0)
                metrics.PROVIDER_LATENCY.labels(provider=name, capability=capability).observe(took_s)
                if record is not None:
                    record.waited_s = waits.waited_s
    except ProviderError as error:
        metrics.PROVIDER_ERRORS.labels(provider=name, endpoint=endpoint, code=error.code).inc()
        raise


def make_partitions(deps: Deps, parts: Sequence[Bars]) -> None:
    """Make the partitions that these bars need, outside the transaction that writes them."""
    filled = [part for part in parts if len(part)]
    if filled:
        first = min(int(part.ts_us[0]) for part in filled)
        last = max(int(part.ts_us[-1]) for part in filled)
        ensure_partitions(deps.database, "bars", first, last)


def count_written(interval: Interval, parts: Sequence[Fetched], counts: store_bars.WriteCounts) -> None:
    """Count what a commit wrote."""
    metrics.BARS_WRITTEN.labels(interval=interval, kind="inserted").inc(counts.inserted)
    metrics.BARS_WRITTEN.labels(interval=interval, kind="revised").inc(counts.revised)
    for part in parts:
        for bar in part.batch.rejected:
            metrics.BARS_QUARANTINED.labels(provider=part.provider, reason=bar.reason).inc()
