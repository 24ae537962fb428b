"""Local mode: what beat asks for on a tier's cadence, and what it says of its ticks.

A tick makes live jobs for the tier's instruments whose exchange is open. They expire before the next tick comes. While
what a tick asked for still waits or runs, those after it ask for nothing: a slow provider is not asked all the more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from mdtasks.connections import translated_redis_errors
from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import BarsFetchJob, Interval, QuotesFetchJob, Tier, TimeWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.live import ended_window, look_back
from mdtasks.flows.routing import held_back
from mdtasks.observe import metrics
from mdtasks.providers.registry import Capability
from mdtasks.queue import backlog
from mdtasks.queue.app import live_queue
from mdtasks.settings import Settings
from mdtasks.store import reference

log = logging.getLogger(__name__)

#: Symbols in one live job: the schema's limit.
PACK: Final = 1000
#: Calls that one live job makes, one after another: a provider that takes a symbol a call shall not make it outlast its
#: time limit, and other processes shall help.
CALLS: Final = 20
#: Ticks come up to this share of their cadence early, so that tiers and systems do not ask all in the same second.
JITTER: Final = 0.1
#: A message that a worker holds for longer than this and than two ticks belongs to a worker that was lost, seconds.
_LOST_S: Final = 30.0


class Feed(StrEnum):
    """What has a cadence, as the settings name it."""

    BARS = "bars_1m"
    QUOTES = "quotes_l1"


@dataclass(frozen=True, slots=True)
class Series:
    """What one of beat's entries asks for, tick after tick."""

    tier: Tier
    feed: Feed

    @property
    def jobs(self) -> str:
        """What the ids of its jobs begin with; nobody else's do."""
        return f"live.{self.tier}.{self.feed}."

    @property
    def key(self) -> str:
        """The Redis hash of what is known of its ticks."""
        return f"mdtasks:live:{self.tier}:{self.feed}"

    def cadence_s(self, settings: Settings) -> float:
        """How often it is asked for, seconds; 0: never."""
        return settings.cadence_s(self.tier) if self.feed is Feed.BARS else settings.quotes_cadence_s(self.tier)


SERIES: Final = tuple(Series(tier, feed) for tier in Tier for feed in Feed)


def tick(series: Series, cadence_s: float, deps: Deps, now: datetime) -> int:
    """Ask for the latest bars or quotes of the tier's instruments whose exchange is open, and had by some provider;
    returns how many symbols.

    Asks nothing where no configured provider could answer, while all of them are held back, and while the tick before
    is not over: those are counted as skipped. Raises StoreUnavailableError, BrokerUnavailableError.
    """
    capability: Capability = Interval.M1 if series.feed is Feed.BARS else "quotes"
    provider = next(iter(deps.registry.order(capability)), None)
    if provider is None:
        return 0
    if overlaps(series, cadence_s, deps, now):
        return _skip(series, deps, now, "overlap")
    if held_back(deps, capability) is not None:
        return _skip(series, deps, now, "circuit_open")
    window = _window(series, cadence_s, deps, now)
    with deps.database.transaction() as connection:
        members = [each for each in reference.instruments(connection, series.tier) if each.trades_on(now.date())]
    mics = {member.mic for member in members}
    open_mics = {mic for mic in mics if deps.registry.told(capability, mic) and _trades_in(mic, window, deps)}
    symbols = [member.symbol for member in members if member.mic in open_mics]
    for number, part in enumerate(packets(symbols, provider.capabilities.max_symbols)):
        job = _job(series, f"{series.jobs}{to_us(now)}.{number}", part, window)
        deps.enqueuer.push_live(job, now, expires_s=cadence_s * (1 - JITTER))
    _keep(series, deps, {"last_tick": now.isoformat(), "symbols": str(len(symbols))}, "ticks")
    return len(symbols)


def _skip(series: Series, deps: Deps, now: datetime, why: str) -> int:
    metrics.LIVE_TICKS_SKIPPED.labels(tier=series.tier, capability=series.feed, reason=why).inc()
    _keep(series, deps, {"last_skipped": now.isoformat(), "skipped_for": why}, "skipped")
    return 0


def _job(series: Series, job_id: str, symbols: tuple[str, ...], window: TimeWindow) -> BarsFetchJob | QuotesFetchJob:
    if series.feed is Feed.QUOTES:
        return QuotesFetchJob(job_id=job_id, symbols=symbols, priority=series.tier)
    return BarsFetchJob(job_id=job_id, symbols=symbols, priority=series.tier, time_window=window)


def overlaps(series: Series, cadence_s: float, deps: Deps, now: datetime) -> bool:
    """Whether what an earlier tick asked for still waits or runs. Read where it is: nobody has to tell of its end.

    A worker that was lost holds its messages on until they are delivered again, which takes minutes: fetching must not
    stand still for so long.
    """
    lost_before = now.timestamp() - max(_LOST_S, 2 * cadence_s)
    found = backlog.in_flight(deps.broker, live_queue(series.tier))
    mine = [held_at for job_id, held_at in found.items() if job_id.startswith(series.jobs)]
    return any(not held_at or held_at > lost_before for held_at in mine)


def _window(series: Series, cadence_s: float, deps: Deps, now: datetime) -> TimeWindow:
    """The time in which an exchange must trade to be asked for: a tick's minutes; for quotes, the minute of now."""
    if series.feed is Feed.BARS:
        return ended_window(Interval.M1, now, look_back(cadence_s, deps))
    start_us = to_us(now) // 60_000_000 * 60_000_000
    return TimeWindow(start=from_us(start_us), end=from_us(start_us + 60_000_000))


def _trades_in(mic: str, window: TimeWindow, deps: Deps) -> bool:
    """Whether the exchange trades in the window; not where its calendar ends: one exchange must not stop the others."""
    try:
        return len(deps.calendars.get(mic).expected(window, Interval.M1)) > 0
    except InvalidRequestError as error:
        log.warning("%s is not fetched: %s", mic, error)
        return False


def packets(symbols: Sequence[str], max_symbols: int) -> Iterator[tuple[str, ...]]:
    """The symbols of each job: as many whole calls of the provider, which takes ``max_symbols``, as a job may hold, and
    CALLS at most.
    """
    in_call = min(max_symbols, PACK)
    size = min(PACK // in_call, CALLS) * in_call
    return (tuple(symbols[start : start + size]) for start in range(0, len(symbols), size))


def _keep(series: Series, deps: Deps, said: Mapping[str, str], counted: str) -> None:
    with translated_redis_errors():
        pipe = deps.state.pipeline(transaction=False)
        pipe.hset(series.key, mapping=dict[Any, Any](said))
        pipe.hincrby(series.key, counted, 1)
        pipe.execute()


def report(deps: Deps) -> dict[str, Any]:
    """What each tier's cadences are, when each last ticked, how often it did and how often it was skipped.

    ``mode``: ``local``, or ``rlc`` when an outside coordinator says what is fetched: there are no ticks then.
    ``eod``: daily bars are no ticks; the gap scan asks for them after their session's close. Raises
    BrokerUnavailableError.
    """
    settings = deps.settings
    with translated_redis_errors():
        pipe = deps.state.pipeline(transaction=False)
        for series in SERIES:
            pipe.hgetall(series.key)
        kept = dict(zip(SERIES, pipe.execute(), strict=True))
    tiers: dict[str, dict[str, Any]] = {str(tier): {} for tier in Tier}
    for series, said in kept.items():
        if (cadence_s := series.cadence_s(settings)) and not settings.use_rlc:
            tiers[series.tier][str(series.feed)] = {"cadence_s": cadence_s, **_told(said)}
    for tier in (tier for tier in Tier if Interval.D1 in settings.kept(tier)):
        tiers[tier]["eod"] = {"cadence_s": settings.gap_scan_s, "by": "gap scan, after the session's close"}
    return {"mode": "rlc" if settings.use_rlc else "local", "tiers": tiers}


def _told(said: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What is kept of a series' ticks, as an answer."""
    times = {name: said.get(name.encode()) for name in ("last_tick", "last_skipped")}
    return {
        **{name: datetime.fromisoformat(raw.decode()) if raw is not None else None for name, raw in times.items()},
        **{name: int(said.get(name.encode(), 0)) for name in ("symbols", "ticks", "skipped")},
    }
