"""The replay buffer's use cases: what was committed is published, what waits is swept up, and readers get windows.

A commit leaves a note of what it changed (``store.outbox``). Right after it the note is taken out and told to Redis;
what a crash, or a Redis that was away, left there is told by the next commit of the series or by the sweep, in order.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import orjson
from sqlalchemy import Connection

from mdtasks.domain.bars import Quote, from_us, to_us
from mdtasks.domain.errors import BrokerUnavailableError, MdtasksError, UnavailableError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.replay import Draft, Position, StreamKey, Window, heard_since
from mdtasks.flows.deps import Deps
from mdtasks.flows.judging import Fetched
from mdtasks.observe import metrics
from mdtasks.store import outbox
from mdtasks.store.outbox import Note

log = logging.getLogger(__name__)

#: The sweep leaves what is younger to whoever committed it, seconds.
_YOUNG_S: Final = 3.0
#: Series of one sweep, and of one transaction; stale rows of one sweep.
_MOST_SERIES: Final = 2000
_AT_ONCE: Final = 200
_MOST_STALE: Final = 50_000
#: PostgreSQL's clock and Redis' may differ by so much, seconds.
_CLOCKS_S: Final = 60.0
#: Streams that were filled and are gone again, or were told something meanwhile, are filled so many times.
_ROUNDS: Final = 4


def note(deps: Deps, parts: Sequence[Fetched], interval: Interval, now: datetime) -> Note:
    """What the replay buffer is to hear of a write of these parts."""
    most = deps.replay.max_bars
    since = heard_since(interval, most, now)
    silent = {}
    for part in parts:
        believed = [each.window for each in part.batch.silences if each.believed and each.window.end > since]
        if believed:
            calendar = deps.calendars.get_of(part.subject.listing.mic, part.subject.instrument_id)
            windows = (TimeWindow(start=max(window.start, since), end=window.end) for window in believed)
            starts = sorted({int(start) for window in windows for start in calendar.expected(window, interval)})
            silent[part.subject.instrument_id] = [from_us(start) for start in starts[-most:]]
    return Note(since, most, silent)


def publish_pending(deps: Deps, instrument_ids: Sequence[int], interval: Interval) -> int:
    """Publish what was committed of these series and is not published yet; returns how many entries it made.

    Never fails: what could not be told is counted, waits in PostgreSQL and is told by the sweep. Telling twice does
    nothing.
    """
    told = 0
    for start in range(0, len(instrument_ids), _AT_ONCE):
        if deps.replay.is_away:
            metrics.REPLAY_FAILURES.labels(interval=interval).inc()
            continue
        told += _told(deps, instrument_ids[start : start + _AT_ONCE], interval) or 0
    return told


#: Clocks of vendors may be ahead of ours by so much.
_AHEAD: Final = timedelta(minutes=1)


def publish_quotes(deps: Deps, quotes: Mapping[int, Quote], provider: str, now: datetime) -> int:
    """Tell the newest quotes to who listens, by instrument; returns how many were newer than the last told.

    Never fails: the next quote comes soon.
    """
    drafts = {
        instrument: Draft(
            to_us(quote.ts),
            0,
            orjson.dumps({"type": "quote", **_sides(quote), "provider": provider}, option=orjson.OPT_UTC_Z),
        )
        for instrument, quote in quotes.items()
        if quote.ts <= now + _AHEAD  # else it would be the newest until then, and keep all others back
    }
    try:
        return deps.replay.tell_quotes(drafts, to_us(now))
    except MdtasksError as error:
        log.warning("quotes of %d symbols were not told to who listens: %s", len(quotes), error)
        return 0


def sweep(deps: Deps, now: datetime) -> int:
    """Publish what a crash, or a Redis that was away, left unpublished, oldest first; returns how many entries.

    What waited for longer than a stream lives is dropped, and its streams with it: no position in them is held any
    more, and they begin anew from PostgreSQL, which has all of it.
    """
    with deps.database.transaction() as connection:
        before = now - timedelta(seconds=deps.replay.ttl_s + _CLOCKS_S)
        deps.replay.forget(outbox.drop_stale(connection, before, _MOST_STALE))
    with deps.database.transaction() as connection:
        waiting = outbox.waiting(connection, now - timedelta(seconds=_YOUNG_S), _MOST_SERIES)
    told = 0
    for interval, ids in _by_interval(waiting).items():
        for start in range(0, len(ids), _AT_ONCE):
            entries = _told(deps, ids[start : start + _AT_ONCE], interval)
            if entries is None:  # the others would not be told either
                return told
            told += entries
    return told


def windows(deps: Deps, asked: Mapping[StreamKey, Position | None], now: datetime) -> dict[StreamKey, Window]:
    """What each series has had since its position, or all that the buffer holds of it (None, or where the position
    cannot be served: then ``resumed`` is False). A series without bars gives an empty window.

    Streams that are not there are filled from PostgreSQL. Raises BrokerUnavailableError, StoreUnavailableError.
    """
    found: dict[StreamKey, Window] = {}
    for _ in range(_ROUNDS):
        read = deps.replay.read({key: position for key, position in asked.items() if key not in found})
        found |= read.windows
        if not read.births:
            return found
        with deps.database.transaction() as connection:
            _fill(deps, connection, read.births, now)
    raise BrokerUnavailableError(
        "the replay buffer loses what it is filled with", hint="is somebody emptying Redis, or is it out of memory?"
    )


def _told(deps: Deps, instrument_ids: Sequence[int], interval: Interval) -> int | None:
    """Publish what waits of these series; how many entries it made, None: none, for a server is away."""
    try:
        return _publish(deps, instrument_ids, interval)
    except UnavailableError as error:
        log.warning("the replay buffer hears of %s bars of %d series later: %s", interval, len(instrument_ids), error)
        metrics.REPLAY_FAILURES.labels(interval=interval).inc()
        return None
    except Exception:  # the commits stand, whatever comes of telling of them
        log.exception("the replay buffer could not be told of %s bars of %d series", interval, len(instrument_ids))
        metrics.REPLAY_FAILURES.labels(interval=interval).inc()
        return 0


def _publish(deps: Deps, instrument_ids: Sequence[int], interval: Interval) -> int:
    """Tell what waits of some series. It is taken out for good only when Redis has it."""
    with deps.database.transaction() as connection:
        taken = outbox.take(connection, interval, instrument_ids)
        if taken is None:
            return 0
        drafts = {StreamKey(instrument, interval): each for instrument, each in taken.drafts.items()}
        told = deps.replay.publish(drafts, taken.written_us)
        entries = told.entries
        for _ in range(_ROUNDS):
            if not told.births:
                break
            # What is told now lies in the store already, so a stream that is filled from there has it. But another may
            # have filled it meanwhile, from before.
            _fill(deps, connection, told.births, from_us(taken.written_us))
            told = deps.replay.publish({key: drafts[key] for key in told.births}, taken.written_us)
            entries += told.entries
        if told.births:
            raise BrokerUnavailableError("the replay buffer loses what it is filled with")
    metrics.REPLAY_PUBLISHED.labels(interval=interval).inc(entries)
    return entries


def _fill(deps: Deps, connection: Connection, births: Mapping[StreamKey, str], now: datetime) -> None:
    """Begin streams with the newest bars that the store has."""
    most = deps.replay.max_bars
    for interval, ids in _by_interval(births).items():
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            bars = outbox.newest(connection, interval, part, most, heard_since(interval, most, now))
            deps.replay.refill({StreamKey(instrument, interval): each for instrument, each in bars.items()}, births)


def _by_interval(keys: Mapping[StreamKey, str] | Sequence[StreamKey]) -> dict[Interval, list[int]]:
    found: defaultdict[Interval, list[int]] = defaultdict(list)
    for key in keys:
        found[key.interval].append(key.instrument_id)
    return dict(found)


def _sides(quote: Quote) -> dict[str, object]:
    return {side: getattr(quote, side) for side in ("ts", "bid", "bid_size", "ask", "ask_size")}
