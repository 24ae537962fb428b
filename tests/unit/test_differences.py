"""A difference of two answers, made to the first, is the second, to the last bit."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.bars import Bars
from mdtasks.domain.differences import apply, diff
from mdtasks.domain.stored import StoredBars

_price = st.sampled_from([0.0, -0.0, 1.0, 1.0000000000000002, float("nan"), float("inf")])
_row = st.tuples(
    _price, _price, st.sampled_from(["files", "simulator"]), st.booleans(), st.integers(0, 3), st.integers(1, 3)
)
answers = st.dictionaries(st.integers(0, 12), _row, max_size=12)


def stored(rows: dict[int, tuple[float, float, str, bool, int, int]]) -> StoredBars:
    minutes = sorted(rows)
    opens, closes = [rows[minute][0] for minute in minutes], [rows[minute][1] for minute in minutes]
    return StoredBars(
        Bars.of([minute * 60_000_000 for minute in minutes], opens, opens, closes, closes, opens),
        np.array([rows[minute][2] for minute in minutes], dtype=object),
        np.array([rows[minute][3] for minute in minutes], dtype=bool),
        np.array([rows[minute][4] for minute in minutes], dtype=np.int64),
        np.array([rows[minute][5] for minute in minutes], dtype=np.int64),
    )


def digest(bars: StoredBars) -> str:
    """A hash of every byte of an answer."""
    found = hashlib.sha256()
    for column in (bars.bars.ts_us, *bars.bars.columns, bars.final, bars.known_at_us, bars.attempt_id):
        found.update(np.ascontiguousarray(column).tobytes())
    found.update("\0".join(bars.provider.tolist()).encode())
    return found.hexdigest()


@given(first=answers, second=answers)
def test_a_difference_made_to_the_first_answer_is_the_second(
    first: dict[int, tuple[float, float, str, bool, int, int]],
    second: dict[int, tuple[float, float, str, bool, int, int]],
) -> None:
    a, b = stored(first), stored(second)
    change = diff(a, b)
    assert digest(apply(change, a)) == digest(b)
    assert digest(apply(diff(b, a), b)) == digest(a)
    assert len(change.inserted) == len(second.keys() - first.keys())
    assert len(change.removed) == len(first.keys() - second.keys())
    told = list(change.revisions())
    assert len(told) == len(change.after) - change.promoted.sum()
    assert all(each["fields"].keys() - {"final"} or each["fields"]["final"] == [True, False] for each in told)
    for was, now in zip(
        *(each.take(change.promoted).final.tolist() for each in (change.before, change.after)), strict=True
    ):
        assert (was, now) == (False, True)


@given(rows=answers)
def test_an_answer_does_not_differ_from_itself(rows: dict[int, tuple[float, float, str, bool, int, int]]) -> None:
    change = diff(stored(rows), stored(rows))
    assert (len(change), list(change.revisions())) == (0, [])


def test_a_bar_that_is_another_is_told_field_by_field() -> None:
    change = diff(stored({3: (1.0, 2.0, "files", True, 5, 1)}), stored({3: (1.0, 2.5, "simulator", True, 6, 2)}))
    (told,) = change.revisions()
    fields = told["fields"]
    assert list(fields) == ["low", "close", "provider", "known_at", "attempt_id"]
    assert (fields["close"], fields["provider"], fields["attempt_id"]) == ([2.0, 2.5], ["files", "simulator"], [1, 2])
