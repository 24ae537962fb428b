"""Asking providers: each in its turn for what is still open, answers validated and judged before anything is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mdtasks.domain import gaps
from mdtasks.domain.answers import Answered, judge
from mdtasks.domain.bars import Bars, RejectedBar, from_us, to_us, validated
from mdtasks.domain.errors import BadBarsError, ProviderError, UnsupportedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.flows.deps import Deps
from mdtasks.observe import metrics
from mdtasks.providers.base import BarsAnswer, Provider
from mdtasks.store import bars as store_bars
from mdtasks.store.partitions import ensure_partitions


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of a provider, and when."""

    interval: Interval
    window: TimeWindow
    now: datetime


@dataclass(frozen=True, slots=True)
class Hole:
    """Settled trading time that nobody has answered for yet, and why."""

    window: TimeWindow
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one provider answered for one listing, judged: bars to store, bars to quarantine, windows covered."""

    provider: str
    bars: Bars
    rejected: Sequence[RejectedBar]
    covered: Sequence[TimeWindow]
    #: Bars that start before this are final.
    settled_before: datetime
    holes: Sequence[Hole] = ()


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the providers answered together. ``shortfall``: why a part stays open; None when nothing does."""

    parts: Sequence[Fetched]
    shortfall: ProviderError | None
    #: What those said who did not answer: kept with the attempt.
    heard: str | None


def fetch(deps: Deps, listing: Listing, ask: Ask, hint: str | None) -> Gathered:
    """Ask the providers in their order, each only for what those before it left open.

    Raises ProviderError when none answered anything: of the first that may answer later, else of the first.
    """
    parts: list[Fetched] = []
    heard: list[ProviderError] = []
    open_ = [Hole(ask.window)]
    for provider in deps.registry.order(ask.interval, hint):
        left: list[Hole] = []
        for hole in open_:
            try:
                part = _ask_for(provider, listing, replace(ask, window=hole.window), deps)
            except ProviderError as error:
                heard.append(error)
                left.append(Hole(hole.window, _graver(hole.error, error)))
            else:
                parts.append(part)
                left += [Hole(each.window, _graver(hole.error, each.error)) for each in part.holes]
        open_ = left
        if not open_:
            break
    errors = [hole.error for hole in open_ if hole.error is not None]
    shortfall = next((error for error in errors if error.retryable), errors[0] if errors else None)
    if not parts:
        nobody = UnsupportedError(f"no configured provider serves {ask.interval} bars", provider=hint or "registry")
        raise shortfall or nobody
    return Gathered(parts, shortfall, "; ".join(f"{error.code}: {error}" for error in heard) or None)


def _graver(earlier: ProviderError | None, later: ProviderError | None) -> ProviderError | None:
    """Which error speaks for a hole: the first, unless only the later one leaves hope for another attempt."""
    hope = later is not None and later.retryable and earlier is not None and not earlier.retryable
    return later if earlier is None or hope else earlier


def _ask_for(provider: Provider, listing: Listing, ask: Ask, deps: Deps) -> Fetched:
    answer = fetch_bars(provider, [listing], ask)
    if listing.symbol in answer.errors:
        raise answer.errors[listing.symbol]
    return judged(provider, answer, listing, ask, deps)


def fetch_bars(provider: Provider, listings: Sequence[Listing], ask: Ask) -> BarsAnswer:
    """One provider call, timed and counted. Never for time that the provider says it cannot have."""
    history = provider.capabilities.history
    if history is not None and ask.window.start < ask.now - history:
        raise UnsupportedError(f"reaches back {history.days} days only", provider=provider.name)
    capability = f"bars_{ask.interval}"
    metrics.PROVIDER_SELECTED.labels(capability=capability, provider=provider.name).inc()
    try:
        with metrics.PROVIDER_LATENCY.labels(provider=provider.name, capability=capability).time():
            return provider.fetch_bars(listings, ask.interval, ask.window, ask.now)
    except ProviderError as error:
        metrics.PROVIDER_ERRORS.labels(provider=provider.name, endpoint="bars", code=error.code).inc()
        raise


def judged(provider: Provider, answer: BarsAnswer, listing: Listing, ask: Ask, deps: Deps) -> Fetched:
    """Validate a listing's bars and say what they cover and what they leave open."""
    good, rejected = validated(answer.bars[listing.symbol], ask.window, ask.interval)
    calendar = deps.calendars.get(listing.mic)
    settled_at = ask.now - timedelta(seconds=provider.capabilities.delay_s + deps.settings.settle_s)
    settled = gaps.settled_before(calendar, ask.interval, settled_at)
    cuts = answer.unanswered.get(listing.symbol, ())
    windows = [cut.window for cut in cuts]
    complete = provider.capabilities.complete
    said = judge(Answered(ask.window, ask.interval, good, rejected, windows, complete), calendar, settled)
    holes = [Hole(window, cut.error) for cut, window in zip(cuts, said.cut, strict=True) if window is not None]
    holes += [Hole(window, _bad_bars(provider.name, window, rejected)) for window in said.doubted]
    return Fetched(provider.name, good, rejected, said.covered, settled, holes)


def _bad_bars(provider: str, window: TimeWindow, rejected: Sequence[RejectedBar]) -> BadBarsError:
    reasons = ", ".join(sorted({bar.reason for bar in rejected}))
    first = next((bar for bar in rejected if bar.ts_us >= to_us(window.start)), rejected[0])
    return BadBarsError(
        f"{len(rejected)} bars quarantined ({reasons}), one at {from_us(first.ts_us).isoformat()}", provider=provider
    )


def batch(fetched: Fetched, instrument_id: int) -> store_bars.BarBatch:
    """What of an answer goes to the store."""
    return store_bars.BarBatch(
        instrument_id=instrument_id,
        bars=fetched.bars,
        final_before_us=to_us(fetched.settled_before),
        covered=fetched.covered,
        rejected=fetched.rejected,
    )


def make_partitions(deps: Deps, parts: Sequence[Bars]) -> None:
    """Make the partitions that these bars need, outside the transaction that writes them."""
    filled = [part for part in parts if len(part)]
    if filled:
        first = min(int(part.ts_us[0]) for part in filled)
        last = max(int(part.ts_us[-1]) for part in filled)
        ensure_partitions(deps.database, "bars", first, last)


def count_written(interval: Interval, fetched: Fetched, counts: store_bars.WriteCounts) -> None:
    """Count what a commit wrote."""
    metrics.BARS_WRITTEN.labels(interval=interval, kind="inserted").inc(counts.inserted)
    metrics.BARS_WRITTEN.labels(interval=interval, kind="revised").inc(counts.revised)
    for bar in fetched.rejected:
        metrics.BARS_QUARANTINED.labels(provider=fetched.provider, reason=bar.reason).inc()
