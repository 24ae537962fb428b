"""Which symbols instruments have borne when, by what listings and people said and by the renamings among the actions.

A *saying* holds from its day until the next one. What listings and people said (the base) is never taken away here:
renamings are laid over it, each until the base says something later, and leave no trace once they are withdrawn.
Pure: what is known is an argument, who bears what is the answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import combinations
from typing import Final

#: The source of names and lives that follow corporate actions.
ACTIONS: Final = "actions"
#: Since ever, and until further notice.
EVER: Final = date.min
STILL: Final = date.max


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A symbol borne in ``[since, until)``. ``source``: who told that it was, from then on; "": it was added so."""

    since: date
    until: date
    symbol: str
    source: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Saying:
    """From a day on an instrument bears a symbol; None: none."""

    since: date
    symbol: str | None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Bearer:
    """An instrument. ``spans``: as they are on record; ``renames``: (day, symbol) of the actions that are in force."""

    id: int
    spans: Sequence[Span]
    renames: Sequence[tuple[date, str]] = ()
    listed_from: date | None = None
    delisted_on: date | None = None

    @property
    def dead_from(self) -> date:
        return self.delisted_on or STILL


@dataclass(frozen=True, slots=True)
class Refused:
    """A renaming that is not followed: instrument, its day and symbol, and who stands in its way."""

    instrument: int
    since: date
    symbol: str
    by: int


@dataclass(slots=True)
class Plan:
    """Who shall bear what: by instrument, where that is not what is on record; and what is not followed."""

    changed: dict[int, list[Span]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)


def base_of(spans: Iterable[Span]) -> list[Saying]:
    """What was said but for the renamings among the actions."""
    found: list[Saying] = []
    last = EVER
    for span in sorted(spans):
        if found and span.since > last:
            found.append(Saying(last, None))
        found.append(Saying(span.since, span.symbol, span.source))
        last = span.until
    if found and last != STILL:
        found.append(Saying(last, None))
    return [each for each in found if each.source != ACTIONS]


def spans_of(sayings: Iterable[Saying]) -> list[Span]:
    """What is borne when. A renaming to what is borne already says nothing."""
    kept: list[Saying] = []
    for each in sorted(sayings, key=lambda one: one.since):
        if each.source != ACTIONS or not kept or kept[-1].symbol != each.symbol:
            kept.append(each)
    ends = [*(each.since for each in kept[1:]), STILL]
    return [
        Span(each.since, until, each.symbol, each.source)
        for each, until in zip(kept, ends, strict=True)
        if each.symbol is not None and each.since < until
    ]


def laid_over(bearer: Bearer, left_out: Iterable[date] = ()) -> list[Span]:
    """What it bears with its renamings, but for those of days ``left_out``. The base has the last word on its own day,
    and outside of its life an instrument has no name to change.
    """
    base = base_of(bearer.spans)
    said, without = {each.since for each in base}, set(left_out)
    over = [
        Saying(day, symbol, ACTIONS)
        for day, symbol in bearer.renames
        if day not in without | said
        and day < bearer.dead_from
        and (bearer.listed_from is None or day > bearer.listed_from)
    ]
    return spans_of([*base, *over])


def borne_on(spans: Iterable[Span], day: date) -> Span | None:
    """What is borne on a day; STILL: what is borne now."""
    return next((each for each in spans if each.since <= day and (day < each.until or each.until == STILL)), None)


def planned(bearers: Mapping[int, Bearer]) -> Plan:
    """Who shall bear what, so that no symbol is borne by two at a time.

    ``bearers``: those whose renamings are followed, and all who ever bore a symbol that they shall bear. All together,
    so two may swap theirs. A symbol of one who died passes to whoever is renamed to it later. Of two that live and
    claim one, whose claim is a renaming goes without, the later one where both are; what cannot be had back after a
    withdrawal stays as it is.
    """
    return _Planning(bearers).plan()


class _Planning:
    def __init__(self, bearers: Mapping[int, Bearer]) -> None:
        self._bearers = bearers
        self._out: defaultdict[int, set[date]] = defaultdict(set)
        self._frozen: set[int] = set()
        self._plan = Plan()

    def plan(self) -> Plan:
        while True:
            wanted = {one: self._wanted(each) for one, each in self._bearers.items()}
            if not self._settled(wanted):
                break
        claims = self._claims(wanted)
        for one, spans in wanted.items():
            held = sorted(self._bearers[one].spans)
            cut = self._passed_on(one, spans, claims)
            if cut != held:
                self._plan.changed[one] = cut
        return self._plan

    def _wanted(self, bearer: Bearer) -> list[Span]:
        if bearer.id in self._frozen:
            return sorted(bearer.spans)
        return laid_over(bearer, self._out[bearer.id])

    def _claims(self, wanted: Mapping[int, Sequence[Span]]) -> dict[str, list[tuple[Span, int]]]:
        found: defaultdict[str, list[tuple[Span, int]]] = defaultdict(list)
        for one, spans in wanted.items():
            for span in spans:
                found[span.symbol].append((span, one))
        return found

    def _settled(self, wanted: Mapping[int, Sequence[Span]]) -> bool:
        """Give up one claim of two that collide; False when none do."""
        for claims in self._claims(wanted).values():
            for (this, one), (other, another) in combinations(sorted(claims, key=_turn), 2):
                if (
                    one != another
                    and self._collide((this, one), (other, another))
                    and self._give_up((this, one), (other, another))
                ):
                    return True
        return False

    def _collide(self, earlier: tuple[Span, int], later: tuple[Span, int]) -> bool:
        """Whether both bear it at a time; one who died by then does not."""
        (this, one), (other, another) = earlier, later
        ends = self._end(this, one), self._end(other, another)
        return max(this.since, other.since) < min(ends)

    def _end(self, span: Span, one: int) -> date:
        return min(span.until, self._bearers[one].dead_from)

    def _give_up(self, earlier: tuple[Span, int], later: tuple[Span, int]) -> bool:
        """Let one of the two go without; False where neither is ours to decide: that was so before."""
        for (span, one), (_, by) in ((later, earlier), (earlier, later)):
            if span.source == ACTIONS and one not in self._frozen:
                self._out[one].add(span.since)
                self._plan.refused.append(Refused(one, span.since, span.symbol, by))
                return True
        for (span, one), (_, by) in ((later, earlier), (earlier, later)):
            if one not in self._frozen and span not in self._bearers[one].spans:
                self._frozen.add(one)
                self._plan.refused.append(Refused(one, span.since, span.symbol, by))
                return True
        return False

    def _passed_on(
        self, one: int, spans: Sequence[Span], claims: Mapping[str, Sequence[tuple[Span, int]]]
    ) -> list[Span]:
        """The spans, cut at its death where another bears the symbol since."""
        dead_from = self._bearers[one].dead_from
        cut: list[Span] = []
        for span in spans:
            others = (other for other, another in claims[span.symbol] if another != one)
            passed = any(dead_from <= other.since < span.until for other in others)
            until = max(dead_from, span.since) if passed else span.until
            if span.since < until:
                cut.append(Span(span.since, until, span.symbol, span.source))
        return cut


def _turn(claim: tuple[Span, int]) -> tuple[date, int]:
    """Whose claim comes first: not by its end, which a second look finds cut at a death."""
    return claim[0].since, claim[1]
