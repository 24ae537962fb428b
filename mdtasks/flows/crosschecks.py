"""Holding stored bars against another source: daily bars against their minutes, a sample against a second provider.

Small and often, since the process that does it has other work: two or three calls a run, within the providers' limits.
Who is wrong when two disagree, only a third can tell: without one it is on record, and nobody's fault.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.crosschecks import MINUTES, PROVIDER, compared
from mdtasks.domain.derived import PROVIDER as DERIVED
from mdtasks.domain.derived import Slots, slots_of
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.samples import tell_disagreement, tell_self_contradiction, tell_undecided
from mdtasks.flows.scan import due_after_s
from mdtasks.flows.second_opinions import Question, opinions
from mdtasks.observe import metrics
from mdtasks.store import crosschecks
from mdtasks.store.bars import StoredBars, read_bars
from mdtasks.store.crosschecks import Finding, Member, Pair
from mdtasks.store.derived import Wanted


def check_once(deps: Deps, now: datetime) -> dict[str, int]:
    """Compare some bars with another source and put on record what was found; returns how many, and disagreed.

    Raises StoreUnavailableError.
    """
    findings = [*_days(deps, now), *_sampled(deps, now)]
    with deps.database.transaction() as connection:
        count = crosschecks.keep(connection, findings, deps.running.version)
    for finding in findings:
        _count(finding)
    _tell(deps, findings, now)
    return {"compared": count, "disagreed": sum(int(each.compared.disagreeing.sum()) for each in findings)}


def _days(deps: Deps, now: datetime) -> Iterator[Finding]:
    """Daily bars of the last sessions that were not compared yet with their minutes, or not as they stand now."""
    policy = deps.running.policy.cross_checks
    tiers = [tier for tier in Tier if {Interval.M1, Interval.D1} <= set(deps.settings.kept(tier))]
    left = policy.days
    by_mic: defaultdict[str, list[int]] = defaultdict(list)
    with deps.database.transaction() as connection:
        for member in crosschecks.members(connection, tiers):
            by_mic[member.listing.mic].append(member.id)
    for mic, ids in by_mic.items():
        slots, over = _last_days(deps, mic, now)
        if not left or not len(over):
            continue
        who, which = (each.ravel() for each in np.meshgrid(np.array(ids), over, indexing="ij"))
        halted = {each: deps.calendars.halts(each) for each in set(ids) & set(deps.calendars.overrides.halted)}
        with deps.database.transaction() as connection:
            pairs = crosschecks.days(connection, Wanted(Interval.D1, slots, who, which, halted), left)
        left -= len(pairs)
        yield from (_of_day(pair, deps) for pair in pairs)


def _last_days(deps: Deps, mic: str, now: datetime) -> tuple[Slots, Sequence[int]]:
    """Sessions of an exchange, and the positions of the last that are over and settled; none where none is known."""
    settled, most = now - timedelta(seconds=deps.settings.settle_s), deps.running.policy.cross_checks.back_sessions
    calendar = deps.calendars.get(mic)
    try:
        window = calendar.last_sessions(most + 1, settled)  # one of them may go on still
    except InvalidRequestError:
        window = TimeWindow(start=settled - timedelta(minutes=1), end=settled)
    slots = slots_of(calendar, Interval.D1, window)
    over = int(np.searchsorted(slots.ends, to_us(settled), side="right"))
    return slots, range(max(over - most, 0), over)


def _of_day(pair: Pair, deps: Deps) -> Finding:
    found = compared(pair.bar, pair.other, deps.running.policy.cross_checks.day.rules)
    if pair.provider == pair.other_provider and found.disagreeing.any():  # it contradicts itself
        found = replace(found, wrong=("held",))
    return Finding(
        MINUTES,
        pair.instrument_id,
        Interval.D1,
        pair.provider,
        pair.other_provider,
        found,
        [pair.known_at],
        [pair.other_known_at],
    )


def _sampled(deps: Deps, now: datetime) -> Iterator[Finding]:
    """A few series at random, as a second provider has them; and, where the two disagree, a third."""
    policy = deps.running.policy.cross_checks
    tiers = [tier for tier in Tier if deps.settings.kept(tier)]
    with deps.database.transaction() as connection:
        found = crosschecks.members(connection, tiers) if policy.series else []
    chance = random.Random(to_us(now))  # noqa: S311 - a sample, no secret
    for member in chance.sample(found, min(policy.series, len(found))):
        intervals = [each for each in deps.settings.kept(member.tier) if deps.registry.told(each, member.listing.mic)]
        if intervals and (finding := _of_series(member, chance.choice(intervals), chance, deps, now)):
            yield finding


def _of_series(member: Member, interval: Interval, chance: random.Random, deps: Deps, now: datetime) -> Finding | None:
    """One series in a stretch of its last sessions; None where nothing final is stored, or nobody else can tell."""
    window = _stretch(member, interval, chance, deps, now)
    stored = None if window is None else _stored(member, interval, window, deps)
    if window is None or stored is None:
        return None
    name = str(stored.provider[0])
    asked = opinions(deps, Question(member.id, member.listing, interval, window, now), beside=name)
    second = next(asked, None)
    if second is None:
        return None
    rules = deps.running.policy.cross_checks.provider.rules
    found = compared(stored.bars, second.bars, rules)
    if not len(found):
        return None
    if found.disagreeing.any() and (third := next(asked, None)) is not None:
        found = found.judged_by(third.bars, rules)
    known_us = stored.known_at_us[np.searchsorted(stored.bars.ts_us, found.held.ts_us)]
    known = [from_us(us) for us in known_us.tolist()]
    return Finding(PROVIDER, member.id, interval, name, second.provider, found, known, [now] * len(found))


def _stretch(member: Member, interval: Interval, chance: random.Random, deps: Deps, now: datetime) -> TimeWindow | None:
    """Some settled intervals in a row of the last sessions; None where there are none, or the calendar ends."""
    policy, mic = deps.running.policy.cross_checks, member.listing.mic
    settled = now - timedelta(seconds=due_after_s(member.tier, interval, mic, deps))
    calendar = deps.calendars.get(mic)
    try:
        starts = calendar.expected(calendar.last_sessions(policy.back_sessions, settled, interval), interval)
    except InvalidRequestError:
        return None
    starts = starts[calendar.interval_end(starts, interval) <= to_us(settled)]
    if not len(starts):
        return None
    first = chance.randrange(max(len(starts) - policy.bars, 0) + 1)
    last = min(first + policy.bars, len(starts)) - 1
    return TimeWindow(start=from_us(int(starts[first])), end=from_us(int(starts[last]) + interval.seconds * 1_000_000))


def _stored(member: Member, interval: Interval, window: TimeWindow, deps: Deps) -> StoredBars | None:
    """The final bars there of the vendor that brought the most of them; None: there are none."""
    with deps.database.transaction() as connection:
        found = read_bars(connection, member.id, interval, window)
    names = Counter(found.provider[found.final & (found.provider != DERIVED)].tolist())
    return found.take(found.final & (found.provider == names.most_common(1)[0][0])) if names else None


def _count(finding: Finding) -> None:
    """Count each bar that disagrees against the one that is wrong, or, where nobody knows, against both."""
    names = {"held": finding.provider, "other": finding.other_provider}
    for number in np.flatnonzero(finding.compared.disagreeing).tolist():
        wrong = finding.compared.wrong[number]
        for name in dict.fromkeys([names[wrong]] if wrong else names.values()):
            metrics.BARS_DISAGREEMENTS.labels(provider=name, kind=finding.kind).inc()


def _tell(deps: Deps, findings: Sequence[Finding], now: datetime) -> None:
    """Tell the providers' health: once of each how its days and its minutes agree, and of each comparison with another
    provider who was wrong, or that nobody knows.
    """
    own: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for finding in findings:
        found, disagreeing = finding.compared, int(finding.compared.disagreeing.sum())
        if finding.kind == MINUTES:
            if finding.provider == finding.other_provider:
                own[finding.provider] += len(found)
                bad[finding.provider] += disagreeing
            continue
        for side, name in (("held", finding.provider), ("other", finding.other_provider)):
            if wrong := found.wrong.count(side):
                tell_disagreement(deps, name, wrong / len(found))
            elif unknown := disagreeing - sum(each is not None for each in found.wrong):
                tell_undecided(deps, name, unknown / len(found), now)
    for name, count in own.items():
        tell_self_contradiction(deps, name, bad[name] / count, now)
