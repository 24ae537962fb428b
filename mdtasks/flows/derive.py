"""Making longer bars of minutes where no vendor has them: what the written minutes touch, and nothing else.

Beside the writers, not in them: they note where minutes changed and go on. One round follows some dozen notes in one
transaction; beat asks for rounds, and the gap scan notes what was missed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.derived import slots_of
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.schedules import Times
from mdtasks.domain.spans import Spans
from mdtasks.flows import replay
from mdtasks.flows.deps import Deps
from mdtasks.observe import metrics
from mdtasks.store import derived
from mdtasks.store.derived import Change, Wanted
from mdtasks.store.gaps import Lacking
from mdtasks.store.partitions import ensure_partitions

#: Changes followed in one transaction.
_MOST: Final = 50
#: One run begins no further round after this, seconds: others wait for the process.
_LONG_S: Final = 2.0
_DAY: Final = timedelta(days=1)
#: Clocks of machines differ by less.
_AHEAD: Final = timedelta(minutes=1)
#: Those that minutes are made into.
LONGER: Final = tuple(interval for interval in Interval if interval is not Interval.M1)


@dataclass(frozen=True, slots=True)
class Derived:
    """What a run did: changes of minutes followed, and what became of the bars that are made of them."""

    changes: int = 0
    inserted: int = 0
    revised: int = 0
    promoted: int = 0

    def __add__(self, other: Derived) -> Derived:
        return Derived(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


def is_derived(deps: Deps, interval: Interval, mic: str) -> bool:
    """Whether bars of the interval are made of minutes on that exchange: nobody who is asked for bars has them."""
    return interval is not Interval.M1 and not deps.registry.told(interval, mic)


def derive_once(deps: Deps, now: datetime) -> dict[str, int]:
    """Make what changed minutes ask for, for a few seconds; what is left is the next run's. Idempotent."""
    done, began = Derived(), time.monotonic()
    while time.monotonic() - began < _LONG_S:
        found = _round(deps, now)
        if found is None:
            break
        done += found
    return done.as_dict()


def note_missing(deps: Deps, interval: Interval, lacking: Sequence[Lacking], now: datetime) -> None:
    """Note what the series lack of derived bars as still to be made, where their minutes are there."""
    by_mic: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for each in lacking:
        by_mic[each.listing.mic] += [(each.instrument_id, start, end) for start, end in each.missing.tolist()]
    for mic, spans in by_mic.items():
        pairs = np.array(spans, dtype=np.int64)
        wanted = _wanted(deps, (interval, mic), pairs[:, 0], pairs[:, 1:], now)
        with deps.database.transaction() as connection:
            derived.note(connection, wanted)


def _round(deps: Deps, now: datetime) -> Derived | None:
    """Follow some changes; None when there are none, or somebody else is at it."""
    with deps.database.transaction() as connection:
        changes = derived.next_changes(connection, _MOST)
    if not changes:
        with deps.database.transaction() as connection:
            derived.forget_unowned(connection)
        return None
    first, last = min(each.starts_at for each in changes), max(each.ends_at for each in changes)
    # A session's label may lie a day and more off its minutes.
    ensure_partitions(deps.database, "bars", to_us(first - 2 * _DAY), to_us(last + 2 * _DAY))
    done = Derived(len(changes))
    made: defaultdict[Interval, set[int]] = defaultdict(set)
    with metrics.DERIVE_SECONDS.time(), deps.database.transaction() as connection:
        taken = derived.take(connection, changes)
        if taken is None:
            return None
        for interval in LONGER:
            for wanted in _of_interval(deps, interval, taken, now):
                counts = derived.make(connection, wanted, replay.note(deps, [], interval, now))
                metrics.BARS_WRITTEN.labels(interval=interval, kind="inserted").inc(counts.inserted)
                metrics.BARS_WRITTEN.labels(interval=interval, kind="revised").inc(counts.revised)
                done += Derived(0, counts.inserted, counts.revised, counts.promoted)
                if counts.inserted or counts.revised or counts.promoted:
                    made[interval].update(wanted.instruments.tolist())
    for each, instruments in made.items():
        replay.publish_pending(deps, sorted(instruments), each)
    return done


def _of_interval(deps: Deps, interval: Interval, changes: Sequence[Change], now: datetime) -> Iterable[Wanted]:
    """The bars of the interval that the changes touch, exchange by exchange."""
    by_mic: defaultdict[str, list[Change]] = defaultdict(list)
    kept = {tier for tier in Tier if interval in deps.settings.kept(tier)}
    for change in changes:
        if change.tier in kept:
            by_mic[change.mic].append(change)
    for mic, some in by_mic.items():
        if is_derived(deps, interval, mic):
            who = np.array([change.instrument_id for change in some], dtype=np.int64)
            spans = np.array([(to_us(change.starts_at), to_us(change.ends_at)) for change in some], dtype=np.int64)
            yield _wanted(deps, (interval, mic), who, spans, now)


def _wanted(deps: Deps, what: tuple[Interval, str], who: Times, spans: Spans, now: datetime) -> Wanted:
    """The ended intervals that hold minutes of the instruments' spans, each once."""
    interval, mic = what
    # Coverage may reach ahead of minutes; those of another machine's clock may be ahead of this one's, a little.
    spans = np.minimum(spans, to_us(now + _AHEAD))
    spans[:, 0] = np.minimum(spans[:, 0], spans[:, 1] - 1)
    window = TimeWindow(start=from_us(int(spans[:, 0].min())), end=from_us(int(spans[:, 1].max())))
    slots = slots_of(deps.calendars.get(mic), interval, window)
    changes, positions = slots.touched(spans, to_us(now))
    pairs = np.unique(np.column_stack([who[changes], positions]), axis=0).reshape(-1, 2)
    return Wanted(interval, slots, pairs[:, 0], pairs[:, 1], _halted(deps, pairs[:, 0]))


def _halted(deps: Deps, who: Times) -> Mapping[int, Spans]:
    """The halts of those instruments that had any."""
    halted = deps.calendars.overrides.halted
    return {each: halted[each] for each in set(halted).intersection(who.tolist())} if halted else {}
