"""The rules that put instruments into tiers: sizes, pins, bans, no dependence on order, no wavering."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.jobs import Tier
from mdtasks.domain.universe import Candidate, Member, Terms, assigned


def crowd(*scores: int) -> list[Candidate]:
    return [Candidate(number, f"S{number}", score) for number, score in enumerate(scores, 1)]


def terms(t0: int | None = 2, t1: int | None = 3, t2: int | None = None, **changes: object) -> Terms:
    return Terms({Tier.T0: t0, Tier.T1: t1, Tier.T2: t2}, 20, **changes)  # type: ignore[arg-type]


def tiers(members: list[Member]) -> dict[int, Tier]:
    return {each.instrument: each.tier for each in members}


sizes = st.one_of(st.none(), st.integers(0, 12))
many = st.lists(st.integers(0, 20), min_size=0, max_size=40).map(lambda scores: crowd(*scores))


@st.composite
def any_terms(draw: st.DrawFn) -> Terms:
    numbers = draw(st.lists(st.integers(1, 40), unique=True, max_size=8))
    pins = {f"S{number}": draw(st.sampled_from(list(Tier))) for number in numbers[:4]}
    bans = tuple(f"S{number}" for number in numbers[4:])
    margin = draw(st.sampled_from([0.0, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9]))
    return terms(draw(sizes), draw(sizes), draw(sizes), margin=margin, pins=pins, bans=bans)


parents = st.one_of(st.none(), st.dictionaries(st.integers(1, 45), st.sampled_from(list(Tier))))


def test_the_most_traded_come_first_and_ties_go_by_instrument() -> None:
    members = assigned(crowd(5, 9, 9, 0, 7, 1), terms())
    assert [(m.instrument, m.tier.value, m.rank, m.score) for m in members] == [
        (2, "T0", 1, 9),
        (3, "T0", 2, 9),
        (5, "T1", 3, 7),
        (1, "T1", 4, 5),
        (6, "T1", 5, 1),
        (4, "T2", 6, 0),
    ]


@given(many, any_terms(), parents)
def test_no_tier_is_larger_than_its_size_but_for_pins(
    candidates: list[Candidate], asked: Terms, parent: dict[int, Tier] | None
) -> None:
    members = assigned(candidates, asked, parent)
    for tier in Tier:
        size = asked.sizes[tier]
        inside = [each for each in members if each.tier is tier]
        pinned = [each for each in inside if asked.pins.get(each.symbol) is tier]
        assert size is None or len(inside) <= max(size, len(pinned))


@given(many, any_terms(), parents)
def test_a_tier_is_full_up_to_its_margin_where_there_are_enough(
    candidates: list[Candidate], asked: Terms, parent: dict[int, Tier] | None
) -> None:
    members = assigned(candidates, asked, parent)
    left = len([each for each in candidates if each.symbol not in asked.bans and each.symbol not in asked.pins])
    for tier in Tier:
        inside = [each for each in members if each.tier is tier]
        pinned = sum(each.symbol in asked.pins for each in inside)
        size = asked.sizes[tier]
        if size is not None:
            room = max(size - pinned, 0)
            margin = 0 if parent is None else int(room * asked.margin + 1e-9)
            assert len(inside) - pinned >= min(room - margin, left)
        left -= len(inside) - pinned


@given(many, any_terms(), parents)
def test_pins_and_bans_always_hold(candidates: list[Candidate], asked: Terms, parent: dict[int, Tier] | None) -> None:
    members = assigned(candidates, asked, parent)
    found = {each.symbol: each.tier for each in members}
    for one in candidates:
        if one.symbol in asked.bans:
            assert one.symbol not in found
        elif one.symbol in asked.pins:
            assert found[one.symbol] is asked.pins[one.symbol]


@given(many, any_terms(), parents, st.randoms(use_true_random=False))
def test_the_order_in_which_they_come_does_not_matter(
    candidates: list[Candidate], asked: Terms, parent: dict[int, Tier] | None, chance: random.Random
) -> None:
    shuffled = list(candidates)
    chance.shuffle(shuffled)
    assert assigned(shuffled, asked, parent) == assigned(candidates, asked, parent)


@given(many, any_terms(), parents)
def test_what_was_decided_stays_while_nothing_changes(
    candidates: list[Candidate], asked: Terms, parent: dict[int, Tier] | None
) -> None:
    once = assigned(candidates, asked, parent)
    assert assigned(candidates, asked, tiers(once)) == once


@given(many, any_terms(), parents)
def test_ranks_are_whole_and_follow_the_scores(
    candidates: list[Candidate], asked: Terms, parent: dict[int, Tier] | None
) -> None:
    members = assigned(candidates, asked, parent)
    assert [each.rank for each in members] == list(range(1, len(members) + 1))
    assert members == sorted(members, key=lambda each: (-each.score, each.instrument))
    assert len({each.instrument for each in members}) == len(members)


@given(st.lists(st.integers(0, 1000), min_size=30, max_size=60, unique=True), st.data())
def test_a_symbol_that_stays_within_the_margin_does_not_move(scores: list[int], data: st.DataObject) -> None:
    asked = terms(10, 10, margin=0.3)
    candidates = crowd(*scores)
    first = assigned(candidates, asked)
    ranks = {each.instrument: each.rank for each in first}
    # Swap two neighbours of the border's margin: ranks 8 to 10 of T0.
    one, other = data.draw(st.lists(st.integers(8, 10), min_size=2, max_size=2, unique=True))
    by_rank = {rank: instrument for instrument, rank in ranks.items()}
    score = {each.instrument: each.score for each in candidates}
    score[by_rank[one]], score[by_rank[other]] = score[by_rank[other]], score[by_rank[one]]
    again = assigned([Candidate(i, f"S{i}", s) for i, s in score.items()], asked, tiers(first))
    assert tiers(again) == tiers(first)


def test_who_comes_from_below_must_be_a_margin_better() -> None:
    asked = terms(10, 10, margin=0.2)
    first = assigned(crowd(*range(100, 70, -1)), asked)
    assert tiers(first)[11] is Tier.T1
    scores = list(range(100, 70, -1))
    scores[10] = 92  # 11th becomes 9th, by the lower number of 9: within the margin of 2
    wavering = assigned(crowd(*scores), asked, tiers(first))
    assert (tiers(wavering)[11], tiers(wavering)[10]) == (Tier.T1, Tier.T1)
    scores[10] = 94  # 8th: better than that
    risen = assigned(crowd(*scores), asked, tiers(wavering))
    assert tiers(risen)[11] is Tier.T0


@pytest.mark.parametrize("margin", [0.05, 0.1, 0.29, 1e-5])
def test_a_margin_is_the_decimal_that_was_written(margin: float) -> None:
    size = 100_000
    asked = terms(size, 0, margin=margin)
    members = assigned(crowd(*range(size + 10, 0, -1)), asked, {})
    assert sum(each.tier is Tier.T0 for each in members) == size - round(size * margin)


def test_terms_are_written_and_read_back() -> None:
    asked = terms(margin=0.1, pins={"BRK.B": Tier.T0}, bans=("GME",))
    assert Terms.of(asked.as_dict()) == asked
