"""Wanted time: what a window adds, against sets of minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.wanted import Wanted

_START = datetime(2025, 1, 2, tzinfo=UTC)
windows = st.tuples(st.integers(0, 40), st.integers(1, 15)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def _at(minute: int) -> datetime:
    return _START + timedelta(minutes=minute)


def _minutes(start: datetime, end: datetime) -> set[int]:
    return set(range(*(int((at - _START).total_seconds()) // 60 for at in (start, end))))


@given(added=st.lists(windows, max_size=12), asked=windows)
def test_a_window_adds_exactly_the_minutes_that_were_not_there(
    added: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    wanted = Wanted()
    held: set[int] = set()
    for first, last in added:
        pieces = wanted.add(_at(first), _at(last))
        assert pieces == sorted(pieces)
        fresh = [minute for piece in pieces for minute in _minutes(*piece)]
        assert sorted(fresh) == sorted(set(range(first, last)) - held)
        held.update(range(first, last))
    assert wanted.meets(_at(asked[0]), _at(asked[1])) == bool(held & set(range(*asked)))


@given(order=st.permutations(range(30)))
def test_windows_that_tile_a_stretch_are_one_in_any_order(order: list[int]) -> None:
    wanted = Wanted()
    for number in order:
        assert wanted.add(_at(10 * number), _at(10 * number + 10)) == [(_at(10 * number), _at(10 * number + 10))]
    assert wanted.add(_at(-1), _at(301)) == [(_at(-1), _at(0)), (_at(300), _at(301))]
