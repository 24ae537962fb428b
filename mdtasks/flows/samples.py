"""What the judgement of an answer says of its provider's health: how much came of what was due, how new, how true."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from mdtasks.domain.bars import Quote, to_us
from mdtasks.domain.errors import BrokerUnavailableError, InvalidRequestError, SilenceDoubtedError
from mdtasks.domain.gaps import spans_of
from mdtasks.domain.health import JUDGED, Sample
from mdtasks.domain.jobs import Interval
from mdtasks.domain.silence import inside
from mdtasks.domain.universe import Listing
from mdtasks.flows.deps import Deps
from mdtasks.flows.judging import Asked, Fetched, Hole

log = logging.getLogger(__name__)

#: A window that ends within this of now is live: how far the newest bar is behind says how stale the source is.
_LIVE: Final = timedelta(minutes=10)
#: The newest quote of a whole call may be this old in trading time, seconds; an older one counts the less, the older.
_FRESH_S: Final = 60.0


def tell_bars(deps: Deps, asked: Asked, holes: Sequence[Hole], found: Sequence[Fetched]) -> None:
    """Tell what the judgement of bars found, of the one who answered and of those whose silence it shows to be wrong.

    Completeness is the share of settled trading time asked for that was answered for, over all symbols.
    """
    expected = sum(part.judgement.expected for part in found)
    if expected:
        failed = sum(part.judgement.failed for part in found)
        behind = [part.judgement.behind for part in found if part.judgement.expected]
        live = asked.window.end > asked.now - _LIVE
        _tell(
            deps,
            asked.provider.name,
            Sample(
                at=asked.now,
                endpoint="bars",
                code=JUDGED,
                completeness=1 - failed / expected,
                stale_s=float(min(behind) * asked.interval.seconds) if live else None,
            ),
        )
    for name, share in _disagreements(holes, found):
        _tell(deps, name, Sample(at=asked.now, endpoint="bars", code=JUDGED, disagreement=share))


def _disagreements(holes: Sequence[Hole], found: Sequence[Fetched]) -> list[tuple[str, float]]:
    """Who called the time of a hole silent, with the share of it in which this answer, a second source, has bars."""
    said = []
    for hole, part in zip(holes, found, strict=True):
        if hole.called_silent and isinstance(hole.error, SilenceDoubtedError) and part.judgement.expected:
            there = int(inside(part.bars.ts_us, spans_of([hole.window])).sum())
            said.append((hole.error.provider, min(1.0, there / part.judgement.expected)))
    return said


def tell_quotes(deps: Deps, name: str, listings: Sequence[Listing], found: Mapping[str, Quote], now: datetime) -> None:
    """Tell how many symbols had a quote and how old the newest is; old news make the answer the less complete."""
    stale_s = _age_s(deps, listings, found, now)
    fresh = 1.0 if stale_s is None else min(1.0, _FRESH_S / max(stale_s, _FRESH_S))
    share = len(found) / len(listings) if listings else 1.0
    _tell(deps, name, Sample(at=now, endpoint="quotes", code=JUDGED, completeness=share * fresh, stale_s=stale_s))


def tell_disagreement(deps: Deps, name: str, share: float) -> None:
    """Tell that two others contradict a share of the compared bars: as grave as a request without an answer."""
    try:
        deps.health.tell_disagreement(name, "bars", share)
    except BrokerUnavailableError as away:
        log.warning("what %s has wrong is not on record in its health: %s", name, away)


def tell_undecided(deps: Deps, name: str, share: float, now: datetime) -> None:
    """Tell that another has a share of the compared bars otherwise, and nobody knows who is wrong: no weight."""
    _tell(deps, name, Sample(at=now, endpoint="bars", code=JUDGED, disagreement=share))


def tell_self_contradiction(deps: Deps, name: str, share: float, now: datetime) -> None:
    """Tell what share of a provider's daily bars its own minutes contradict, as if so much had not been answered."""
    _tell(deps, name, Sample(at=now, endpoint="bars", code=JUDGED, completeness=1 - share, disagreement=share))


def _age_s(deps: Deps, listings: Sequence[Listing], found: Mapping[str, Quote], now: datetime) -> float | None:
    """Trading time since the newest quote; None without one, and where the calendar does not reach."""
    by_symbol = {listing.symbol: listing for listing in listings}
    newest = max(found.items(), key=lambda item: item[1].ts, default=None)
    if newest is None or newest[0] not in by_symbol:
        return None
    symbol, quote = newest
    try:
        calendar = deps.calendars.get(by_symbol[symbol].mic)
        return calendar.elapsed(min(to_us(quote.ts), to_us(now)), to_us(now), Interval.M1)
    except InvalidRequestError:
        return None


def _tell(deps: Deps, name: str, sample: Sample) -> None:
    try:
        deps.health.tell_answer(name, sample)
    except BrokerUnavailableError as away:
        log.warning("what %s answered is not on record: %s", name, away)
