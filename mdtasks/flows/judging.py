"""Judging answers: bars are validated, silence is weighed against what the store knows, before anything is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from mdtasks.domain import answers, gaps
from mdtasks.domain.answers import UNWEIGHED, Answered
from mdtasks.domain.bars import Bars, RejectedBar, from_us, to_us, validated
from mdtasks.domain.errors import BadBarsError, ProviderError, SilenceDoubtedError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.schedules import DAY_US, Times
from mdtasks.domain.sessions import Calendar
from mdtasks.domain.silence import Around, Weighed, slots, weigh
from mdtasks.domain.universe import Listing
from mdtasks.flows.deps import Deps
from mdtasks.providers.base import BarsAnswer, Provider
from mdtasks.store import silences
from mdtasks.store.bars import BarBatch

#: Sessions on either side of an answer by which its silence is weighed.
_SESSIONS_AROUND: Final = {True: 20, False: 2}  # daily, intraday
#: So many days hold so many sessions, holidays included.
_DAYS_AROUND: Final = {True: 45, False: 14}


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose bars are asked for: an instrument, and how providers know it."""

    instrument_id: int
    listing: Listing

    @property
    def symbol(self) -> str:
        return self.listing.symbol


@dataclass(frozen=True, slots=True)
class Hole:
    """Settled trading time of a subject that nobody has answered for yet, and why.

    ``called_silent``: a provider that was asked had no bars there and was not believed; another one is.
    """

    subject: Subject
    window: TimeWindow
    error: ProviderError | None = None
    called_silent: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What one provider was asked, and when. ``ill``: it was demoted and asked all the same, for nobody else is well:
    its bars are provisional, and its silence counts for nothing.
    """

    provider: Provider
    interval: Interval
    window: TimeWindow
    now: datetime
    ill: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one provider answered for one subject, judged: what of it is to be stored, and the holes it leaves."""

    subject: Subject
    provider: str
    batch: BarBatch
    judgement: answers.Judgement
    holes: Sequence[Hole] = ()

    @property
    def bars(self) -> Bars:
        return self.batch.bars


def judged(
    answer: BarsAnswer, asked: Asked, holes: Sequence[Hole], earlier: Mapping[int, Sequence[Fetched]], deps: Deps
) -> list[Fetched]:
    """Validate what came for each hole's subject, say what it covers and what it leaves open.

    ``earlier``: what this fetch has brought already, by instrument, perhaps not stored yet. Reads the store, once for
    all, when an answer is silent on settled trading time.
    """
    found = [_Answer(hole, answer, asked, deps) for hole in holes]
    weighed = _weighed([each for each in found if len(each.silent_us)], asked, earlier, deps)
    return [each.judged(weighed.get(each.hole.subject.instrument_id, UNWEIGHED)) for each in found]


class _Answer:
    """One subject's part of an answer on its way to judgement."""

    def __init__(self, hole: Hole, answer: BarsAnswer, asked: Asked, deps: Deps) -> None:
        self.hole = hole
        self._asked = asked
        self._cuts = answer.unanswered.get(hole.subject.symbol, ())
        mic, instrument_id = hole.subject.listing.mic, hole.subject.instrument_id
        self.calendar = deps.calendars.get_of(mic, instrument_id)
        good, rejected = validated(answer.bars[hole.subject.symbol], asked.window, asked.interval)
        told, settle_s = asked.provider.capabilities, deps.settings.settle_s
        self.answered = Answered(
            window=asked.window,
            interval=asked.interval,
            good=good,
            rejected=rejected,
            cuts=[cut.window for cut in self._cuts],
            complete=told.complete and not asked.ill,
            settled=self._before(told.delay_s + settle_s),
            settled_twice=self._before(told.delay_s + 2 * settle_s),
            untraded=self._untraded(deps.calendars.plain(mic)),
        )
        self.silent_us: Times = answers.silent(self.answered, self.calendar)

    def _untraded(self, plain: Calendar) -> gaps.Spans:
        """The intervals of the window that people took out of the calendar."""
        window, interval = self._asked.window, self._asked.interval
        return slots(gaps.untraded(plain, self.calendar, window, interval), interval)

    def _before(self, age_s: float) -> datetime:
        """Intervals that start before this had ended ``age_s`` seconds ago."""
        return gaps.settled_before(self.calendar, self._asked.interval, self._asked.now - timedelta(seconds=age_s))

    def judged(self, weighed: Weighed) -> Fetched:
        said, provider = answers.judge(self.answered, self.calendar, self.silent_us, weighed), self._asked.provider.name
        subject, rejected = self.hole.subject, self.answered.rejected
        batch = BarBatch(
            instrument_id=subject.instrument_id,
            bars=self.answered.good,
            final_before_us=0 if self._asked.ill else to_us(self.answered.settled),
            covered=said.covered,
            rejected=rejected,
            retracted=said.retracted,
            silences=said.silences,
        )
        holes = [
            *(
                Hole(subject, window, cut.error)
                for cut, window in zip(self._cuts, said.cut, strict=True)
                if window is not None
            ),
            *(Hole(subject, window, _bad_bars(provider, window, rejected)) for window in said.quarantined),
            *(Hole(subject, run, _doubt(provider, run), called_silent=True) for run in said.doubted),
        ]
        return Fetched(subject, provider, batch, said, holes)


def _weighed(
    silent: Sequence[_Answer], asked: Asked, earlier: Mapping[int, Sequence[Fetched]], deps: Deps
) -> Mapping[int, Weighed]:
    """What is to be thought of the silence of these answers, by instrument."""
    if not silent:
        return {}
    stretches = {each.hole.subject.instrument_id: _around(each, asked.interval) for each in silent}
    with deps.database.transaction() as connection:
        known = silences.known_around(connection, asked.interval, stretches, asked.provider.name)
    found: dict[int, Weighed] = {}
    for each in silent:
        subject = each.hole.subject.instrument_id
        held = known[subject]
        vouched = gaps.spans_of([each.hole.window]) if each.hole.called_silent else held.seconded[:0]
        brought = [part.batch for part in earlier.get(subject, ())]
        covered = [gaps.spans_of(batch.covered) for batch in brought]
        around = Around(
            expected=each.calendar.expected(stretches[subject], asked.interval),
            covered=gaps.merge(np.concatenate([held.covered, *covered])),
            doubted=held.doubted,
            bars_us=np.concatenate([held.bars_us, *(batch.bars.ts_us for batch in brought)]),
            seconded=gaps.merge(np.concatenate([held.seconded, vouched])),
        )
        found[subject] = weigh(each.silent_us, each.answered.good.ts_us, around, deps.settings.silence_odds)
    return found


def _around(each: _Answer, interval: Interval) -> TimeWindow:
    """The settled part of an answer's window with some sessions on either side of it."""
    asked = each.answered.asked
    assert asked is not None, "an answer without settled time is silent on nothing"
    daily = interval is Interval.D1
    count, pad_us = _SESSIONS_AROUND[daily], _DAYS_AROUND[daily] * DAY_US
    start, end = to_us(asked.start), to_us(asked.end)
    horizon = to_us(each.calendar.horizon)
    held = each.calendar.schedule(start - pad_us, min(end + pad_us, horizon))
    starts = held.labels if daily else held.opens
    before = max(int(np.searchsorted(starts, start)) - count, 0)
    after = min(int(np.searchsorted(starts, end)) + count, len(starts) - 1)
    since = min(int(starts[before]), start) if len(starts) else start
    until = max(int(starts[after]), end) if len(starts) else end
    settled = to_us(each.answered.settled)
    return TimeWindow(start=from_us(since), end=from_us(max(min(until, settled), end)))


def _bad_bars(provider: str, window: TimeWindow, rejected: Sequence[RejectedBar]) -> BadBarsError:
    reasons = ", ".join(sorted({bar.reason for bar in rejected}))
    first = next((bar for bar in rejected if bar.ts_us >= to_us(window.start)), rejected[0])
    return BadBarsError(
        f"{len(rejected)} bars quarantined ({reasons}), one at {from_us(first.ts_us).isoformat()}", provider=provider
    )


def _doubt(provider: str, run: TimeWindow) -> SilenceDoubtedError:
    return SilenceDoubtedError(
        f"no bars from {run.start:%Y-%m-%d %H:%M} to {run.end:%Y-%m-%d %H:%M}Z, where this symbol trades all the time",
        provider=provider,
        hint="a second provider, or `mdtasks gaps accept`, makes it silence; else it stays missing",
    )
