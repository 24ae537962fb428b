"""Corporate actions as statements: what is refused, what is news, and what stands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.action_news import News, combined, news
from mdtasks.domain.actions import PERSON, Action, Days, Kind, Told, in_force, standing, value_of
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jumps import Overnight, suspicion

DAY = date(2014, 6, 9)
BEFORE = date(2014, 6, 6)
NOW = datetime(2024, 1, 2, tzinfo=UTC)
SPLIT = Action(Kind.SPLIT, DAY, 7.0)
DIVIDEND = Action(Kind.DIVIDEND, DAY, 0.47)
ASKED = Days(date(2014, 1, 1), date(2014, 12, 31))


def told(*statements: tuple[str, Action] | tuple[str, Action, bool]) -> list[Told]:
    """Statements in the order told; a third part: withdrawn."""
    return [
        Told(i, each[1], each[0], NOW + timedelta(minutes=i), withdrawn=len(each) == 3)
        for i, each in enumerate(statements, start=1)
    ]


def stands(*statements: tuple[str, Action] | tuple[str, Action, bool]) -> list[tuple[str, float | None]]:
    return [(each.source, each.action.value) for each in standing(told(*statements))]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("value", {"kind": Kind.SPLIT, "value": 0.0}),
        ("value", {"kind": Kind.SPLIT}),
        ("value", {"kind": Kind.SPLIT, "value": float("nan")}),
        ("value", {"kind": Kind.DIVIDEND, "value": -0.1}),
        ("value", {"kind": Kind.SPIN_OFF, "value": 1.2}),
        ("value", {"kind": Kind.DELISTING, "value": 1.0}),
        ("currency", {"kind": Kind.DIVIDEND, "value": 1.0, "currency": "dollars"}),
        ("symbol", {"kind": Kind.RENAME}),
        ("symbol", {"kind": Kind.SPLIT, "value": 2.0, "symbol": "META"}),
        ("reference", {"kind": Kind.DIVIDEND, "value": 1.0, "reference": 0.0}),
    ],
)
def test_an_action_that_makes_no_sense_is_refused_by_its_field(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        Action(ex_date=DAY, **values)
    assert refused.value.field == field
    assert refused.value.hint


def test_values_are_read_as_people_write_them() -> None:
    assert [value_of(text) for text in ("7", "7:1", "1:10", "3/2", " 0.24 ", "")] == [7.0, 7.0, 0.1, 1.5, 0.24, None]
    for text in ("seven", "1:0", "1:2:3", "inf"):
        with pytest.raises(InvalidRequestError):
            value_of(text)


def test_actions_of_one_day_are_one_whatever_their_order() -> None:
    special = Action(Kind.DIVIDEND, DAY, 3.0)
    twice = Action(Kind.SPLIT, DAY, 2.0)
    for order in ([DIVIDEND, SPLIT, special, twice], [twice, special, SPLIT, DIVIDEND]):
        assert {each.kind: each.value for each in combined(order)} == {Kind.DIVIDEND: 3.47, Kind.SPLIT: 14.0}
    assert combined([Action(Kind.SPLIT, DAY, 1.0)]) == []
    with pytest.raises(InvalidRequestError):
        combined([DIVIDEND, Action(Kind.DIVIDEND, DAY, 1.0, currency="CAD")])


def test_the_first_source_is_believed_until_it_takes_it_back_and_a_person_before_all() -> None:
    other = Action(Kind.DIVIDEND, DAY, 0.5)
    assert stands(("a", DIVIDEND), ("b", other)) == [("a", 0.47)]
    assert stands(("a", DIVIDEND), ("b", other), ("a", DIVIDEND, True)) == [("b", 0.5)]
    assert stands(("a", DIVIDEND), ("a", other)) == [("a", 0.5)]
    assert stands(("a", DIVIDEND), ("b", other), ("a", DIVIDEND, True), ("a", DIVIDEND)) == [("b", 0.5)]
    assert stands(("a", DIVIDEND), (PERSON, other)) == [(PERSON, 0.5)]
    assert stands(("a", DIVIDEND), (PERSON, DIVIDEND, True), ("b", other)) == []


def test_what_two_sources_date_or_name_differently_counts_once() -> None:
    friday = Action(Kind.SPLIT, BEFORE, 7.0)
    as_stock = Action(Kind.STOCK_DIVIDEND, DAY, 6.0)
    assert stands(("a", SPLIT), ("b", friday)) == [("a", 7.0)]
    assert stands(("a", SPLIT), ("b", as_stock)) == [("a", 7.0)]
    assert stands(("a", SPLIT), ("a", friday)) == [("a", 7.0), ("a", 7.0)]  # one source means two by two
    assert stands(("a", SPLIT), ("b", Action(Kind.SPLIT, BEFORE, 2.0))) == [("b", 2.0), ("a", 7.0)]
    week_before = Action(Kind.DIVIDEND, DAY - timedelta(days=7), 0.47)
    assert len(stands(("a", DIVIDEND), ("b", week_before))) == 2


def test_what_is_known_already_is_no_news_and_a_correction_is() -> None:
    held = told(("a", DIVIDEND), ("a", SPLIT))
    assert news(held, [SPLIT, DIVIDEND], ASKED, DAY) == []
    rounded = Action(Kind.DIVIDEND, DAY, 0.470001)
    assert news(held, [SPLIT, rounded], ASKED, DAY) == []
    right = Action(Kind.DIVIDEND, DAY, 0.48)
    assert news(held, [SPLIT, right], ASKED, DAY) == [News(right, corrects=True)]
    fuller = Action(Kind.DIVIDEND, DAY, 0.47, pay_on=date(2014, 8, 14))
    assert news(held, [SPLIT, fuller], ASKED, DAY) == [News(fuller, corrects=True)]
    assert news(told(("a", fuller), ("a", SPLIT)), [SPLIT, DIVIDEND], ASKED, DAY) == []  # it tells less, not otherwise


def test_silence_withdraws_what_is_still_to_come_and_nothing_that_happened() -> None:
    held = told(("a", DIVIDEND))
    assert news(held, [], ASKED, DAY) == []
    gone = news(held, [], ASKED, BEFORE)
    assert [(each.withdrawn, each.reason) for each in gone] == [(True, "no longer announced")]
    assert news(held, [], Days(date(2015, 1, 1), date(2015, 2, 1)), BEFORE) == []
    assert news(held, []) == []  # a file speaks for nothing but what it holds


def test_a_moved_ex_date_takes_the_old_one_back() -> None:
    later = Action(Kind.DIVIDEND, DAY + timedelta(days=2), 0.47)
    found = news(told(("a", DIVIDEND)), [later], ASKED, DAY + timedelta(days=30))
    assert [(each.action, each.withdrawn) for each in found] == [(later, False), (DIVIDEND, True)]
    assert found[1].reason == "moved to 2014-06-11"
    again = news(told(("a", DIVIDEND), ("a", later), ("a", DIVIDEND, True)), [later], ASKED, DAY)
    assert again == []


def test_an_action_counts_from_its_day_on() -> None:
    assert in_force([SPLIT], BEFORE) == []
    assert in_force([SPLIT], DAY) == [SPLIT]


STATEMENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", PERSON]),
        st.sampled_from([Kind.SPLIT, Kind.DIVIDEND]),
        st.integers(0, 12),
        st.sampled_from([0.5, 2.0]),
        st.booleans(),
    ),
    max_size=20,
)


def digest(found: Sequence[Told]) -> str:
    return hashlib.sha256(repr(found).encode()).hexdigest()


@given(STATEMENTS, st.integers(0, 20))
def test_what_stood_at_a_time_never_changes_whatever_is_told_later(rows: list[Any], cut: int) -> None:
    made = [
        Told(i, Action(kind, DAY + timedelta(days=day), value), source, NOW + timedelta(minutes=i), withdrawn)
        for i, (source, kind, day, value, withdrawn) in enumerate(rows)
    ]
    as_of = NOW + timedelta(minutes=cut)
    then = digest(standing(made[: cut + 1]))
    assert digest(standing([each for each in reversed(made) if each.known_at <= as_of])) == then


@given(STATEMENTS)
def test_at_most_one_stands_on_a_day_of_a_kind(rows: list[Any]) -> None:
    made = [
        Told(i, Action(kind, DAY + timedelta(days=day), value), source, NOW, withdrawn)
        for i, (source, kind, day, value, withdrawn) in enumerate(rows)
    ]
    keys = [each.action.key for each in standing(made)]
    assert len(set(keys)) == len(keys)
    assert not any(each.withdrawn for each in standing(made))


def found_in(close: float, open_: float, *actions: Action) -> str | None:
    found = suspicion("AAPL", Overnight(BEFORE, close, DAY, open_), actions)
    assert found is None or (found.error.message and found.error.hint)
    return None if found is None else found.error.code


def test_a_price_that_jumps_as_it_must_is_sound_and_one_that_does_not_is_suspect() -> None:
    assert found_in(645.57, 92.7, SPLIT) is None
    assert found_in(645.57, 80.0, SPLIT) is None  # a split and a bad night
    assert found_in(92.22, 92.7, SPLIT) == "action_without_jump"
    assert found_in(645.57, 92.7) == "jump_without_action"
    assert found_in(1.02, 10.1) == "jump_without_action"
    assert found_in(645.57, 92.7, Action(Kind.SPLIT, BEFORE, 7.0)) == "jump_without_action"  # of another day
    assert found_in(645.57, 645.57, Action(Kind.SPLIT, DAY, 1.05)) is None  # too small to be seen
    assert found_in(100.0, 62.0) is None  # no usual ratio
    assert found_in(100.0, 50.5, Action(Kind.DIVIDEND, DAY, 50.0)) is None
    assert found_in(100.0, 50.5, Action(Kind.SPIN_OFF, DAY, 0.5)) is None
    assert found_in(0.0, 10.0, SPLIT) is None


def test_the_commands_of_a_suspicion_can_be_typed_as_they_stand() -> None:
    night = Overnight(date(2014, 6, 5), 92.22, DAY, 92.7, "massive")
    spun = Action(Kind.SPIN_OFF, BEFORE, 0.5, symbol="PEAR")  # the bar of its day lacks
    found = suspicion("AAPL", night, [Action(Kind.DIVIDEND, DAY, 0.47), spun])
    assert found is not None
    assert found.kind is Kind.SPIN_OFF
    commands = found.error.hint.split("`")[1::2]
    assert commands == [
        "mdtasks actions withdraw AAPL 2014-06-06 spin_off --new-symbol PEAR --reason …",
        "mdtasks backfill AAPL --interval 1d --start 2014-06-05 --end 2014-06-10 --refetch --provider massive",
    ]
