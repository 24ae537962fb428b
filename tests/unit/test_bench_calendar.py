"""The calendars' benchmark holds our answers against the library's own before it measures anything."""

from __future__ import annotations

import pytest

from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.sessions import Calendar
from mdtasks.stack.benches.calendar import bench_calendar


def test_both_sides_say_the_same_and_have_a_figure_and_a_ratio() -> None:
    said: list[str] = []
    result = bench_calendar(said.append, moments=50, rounds=1).as_dict()
    assert said[0] == "7 questions about XHKG: both say the same"
    assert len(result["figures"]) == 14
    assert next(iter(result["ratios"])) == "align_minute / previous_minute"
    assert all(value > 0 for value in (*result["figures"].values(), *result["ratios"].values()))


def test_an_answer_that_differs_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Calendar, "is_open", lambda _self, _at: True)
    with pytest.raises(MdtasksError, match="is_open and is_open_on_minute do not say the same"):
        bench_calendar(lambda _: None, moments=50, rounds=1)
