"""Who bears what when: renamings laid over what listings and people said, and never two bearers of one symbol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from itertools import combinations, pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from mdtasks.domain.names import ACTIONS, EVER, STILL, Bearer, Saying, Span, base_of, borne_on, planned, spans_of

FIRST = date(2020, 1, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def ever(symbol: str) -> list[Span]:
    return [Span(EVER, STILL, symbol)]


def after(bearers: Mapping[int, Bearer]) -> dict[int, Bearer]:
    """The same with what the plan says on record."""
    changed = planned(bearers).changed
    return {one: replace(each, spans=changed.get(one, each.spans)) for one, each in bearers.items()}


def told(bearers: Mapping[int, Bearer]) -> dict[int, list[tuple[str, str, str]]]:
    return {
        one: [
            (str(span.since) if span.since != EVER else "", str(span.until) if span.until != STILL else "", span.symbol)
            for span in each.spans
        ]
        for one, each in bearers.items()
    }


def test_a_company_that_went_back_to_its_old_symbol() -> None:
    """QQQ, QQQQ for some years, QQQ again: out of what a map file tells, whatever it bears now."""
    renames = [(date(2004, 12, 1), "QQQQ"), (date(2011, 3, 23), "QQQ")]
    found = after({1: Bearer(1, ever("QQQ"), renames)})
    assert told(found)[1] == [
        ("", "2004-12-01", "QQQ"),
        ("2004-12-01", "2011-03-23", "QQQQ"),
        ("2011-03-23", "", "QQQ"),
    ]
    assert told(after({1: replace(found[1], renames=())}))[1] == [("", "", "QQQ")]


def test_a_symbol_of_the_dead_passes_and_one_of_the_living_does_not() -> None:
    dead = Bearer(1, ever("WM"), delisted_on=day(10))
    found = after({1: dead, 2: Bearer(2, ever("WMX"), [(day(20), "WM")])})
    assert told(found) == {1: [("", str(day(10)), "WM")], 2: [("", str(day(20)), "WMX"), (str(day(20)), "", "WM")]}
    plan = planned({1: replace(dead, delisted_on=None), 2: Bearer(2, ever("WMX"), [(day(20), "WM")])})
    assert plan.changed == {}
    assert [(each.instrument, each.symbol, each.by) for each in plan.refused] == [(2, "WM", 1)]


def test_two_swap_theirs_and_a_class_takes_what_another_gives_up() -> None:
    found = after({1: Bearer(1, ever("A"), [(day(5), "B")]), 2: Bearer(2, ever("B"), [(day(5), "A")])})
    assert [each.spans[-1].symbol for each in found.values()] == ["B", "A"]
    found = after({1: Bearer(1, ever("GOOG"), [(day(5), "GOOGL")]), 2: Bearer(2, ever("GOOCV"), [(day(5), "GOOG")])})
    assert [each.spans[-1].symbol for each in found.values()] == ["GOOGL", "GOOG"]


def test_what_a_listing_or_a_person_said_has_the_last_word_from_its_day_on() -> None:
    said = spans_of([Saying(EVER, "OLD"), Saying(day(10), "THEIRS", "csv")])
    found = after({1: Bearer(1, said, [(day(5), "OURS"), (day(10), "OTHER")])})
    assert told(found)[1] == [
        ("", str(day(5)), "OLD"),
        (str(day(5)), str(day(10)), "OURS"),
        (str(day(10)), "", "THEIRS"),
    ]
    assert base_of(found[1].spans) == base_of(said)


def test_time_in_which_it_bore_nothing_stays_so() -> None:
    """Another took its symbol from it, and it came back under a new one."""
    spans = [Span(EVER, day(5), "A"), Span(day(8), STILL, "B", "csv")]
    found = after({1: Bearer(1, spans, [(day(3), "C")])})
    assert told(found)[1] == [("", str(day(3)), "A"), (str(day(3)), str(day(5)), "C"), (str(day(8)), "", "B")]
    assert after({1: replace(found[1], renames=())})[1].spans == spans


def test_a_symbol_that_another_has_taken_meanwhile_is_not_had_back() -> None:
    renamed = after({1: Bearer(1, ever("A"), [(day(5), "B")])})[1]
    another = Bearer(2, [Span(day(6), STILL, "A", "csv")])
    plan = planned({1: replace(renamed, renames=()), 2: another})
    assert plan.changed == {}
    assert [(each.instrument, each.symbol, each.by) for each in plan.refused] == [(1, "A", 2)]


def test_what_lies_outside_of_its_life_is_of_another() -> None:
    renames = [(day(5), "X"), (day(50), "Y")]
    assert after({1: Bearer(1, ever("A"), renames, listed_from=day(5), delisted_on=day(50))})[1].spans == ever("A")


NAMES = "ABCDEF"
RENAMES = st.lists(
    st.tuples(st.integers(0, 12).map(day), st.sampled_from(NAMES)), max_size=4, unique_by=lambda one: one[0]
)
LATER = st.lists(st.tuples(st.integers(0, 12).map(day), st.sampled_from("UVW")), max_size=2, unique_by=lambda one: one)
DEATHS = st.none() | st.integers(0, 14).map(day)


def collisions(bearers: Sequence[Bearer]) -> list[tuple[Bearer, Bearer]]:
    return [
        (one, other)
        for one, other in combinations(bearers, 2)
        for this in one.spans
        for that in other.spans
        if this.symbol == that.symbol
        and max(this.since, that.since) < min(this.until, that.until, one.dead_from, other.dead_from)
    ]


@example(  # two claims of one day, and a death that cuts one of them
    renames=[[(day(0), "C")], [(day(0), "C"), (day(1), "A")], [], []], deaths=[day(1), None, day(0), None]
)
@given(renames=st.lists(RENAMES, min_size=4, max_size=4), deaths=st.lists(DEATHS, min_size=4, max_size=4))
def test_nobody_bears_what_another_does_and_a_second_look_changes_nothing(
    renames: list[list[tuple[date, str]]], deaths: list[date | None]
) -> None:
    start = {i: Bearer(i, ever(NAMES[i]), renames[i], delisted_on=deaths[i]) for i in range(4)}
    found = after(start)
    assert collisions(list(found.values())) == []
    now = [span.symbol for each in found.values() for span in each.spans if span.until == STILL]
    assert len(now) == len(set(now))  # as the store holds them
    assert planned(found).changed == {}
    for each in found.values():
        ordered = sorted(each.spans)
        assert all(one.until <= other.since for one, other in pairwise(ordered))


@given(
    first=st.lists(RENAMES, min_size=4, max_size=4),
    second=st.lists(RENAMES, min_size=4, max_size=4),
    said=st.lists(LATER, min_size=4, max_size=4),
)
def test_it_matters_what_is_told_and_not_what_was_told_before(
    first: list[list[tuple[date, str]]], second: list[list[tuple[date, str]]], said: list[list[tuple[date, str]]]
) -> None:
    """Corrected and withdrawn, renamings leave no trace; what others said stays whatever is told."""
    spans = {
        i: spans_of([Saying(EVER, NAMES[i]), *(Saying(at, f"{name}{i}", "csv") for at, name in said[i])])
        for i in range(4)
    }
    start = {i: Bearer(i, spans[i], second[i]) for i in range(4)}
    by_way_of = after({i: replace(each, renames=first[i]) for i, each in start.items()})
    assert told(after({i: replace(each, renames=second[i]) for i, each in by_way_of.items()})) == told(after(start))
    assert told(after({i: replace(each, renames=()) for i, each in by_way_of.items()})) == told(
        {i: replace(each, spans=spans[i]) for i, each in start.items()}
    )
    for each in by_way_of.values():
        base = [one for one in base_of(each.spans) if one.symbol is not None]
        assert all(borne_on(each.spans, one.since) for one in base)
        assert not any(span.source == ACTIONS and span.symbol == "" for span in each.spans)
