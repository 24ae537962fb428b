"""Lines over time as pages get them: broken where nobody looked, and safe within a script element."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from mdtasks.web.console.charts import Frame, line

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FRAME = Frame("score", NOON, NOON + timedelta(hours=1), 60.0)


def minutes(*points: tuple[float, float]) -> list[tuple[datetime, float | None]]:
    return [(NOON + timedelta(minutes=at), value) for at, value in points]


def drawn(data: str) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(data)
    return told


@pytest.mark.parametrize(
    ("points", "values"),
    [
        ([], []),
        ([(0, 1.0)], [1.0]),
        ([(0, 1.0), (1, 0.5), (3, 0.25)], [1.0, 0.5, 0.25]),
        ([(0, 1.0), (1, 0.5), (2, 0.5), (9, 0.25)], [1.0, 0.5, 0.5, None, 0.25]),
        ([(0, 1.0), (30, 0.5)], [1.0, None, 0.5]),
        ([(0, 1.0), (10, 0.5), (20, 0.25), (30, 0.1)], [1.0, 0.5, 0.25, 0.1]),  # looked at every ten minutes
    ],
)
def test_a_line_breaks_where_nobody_looked(points: list[tuple[float, float]], values: list[float | None]) -> None:
    assert drawn(line(FRAME, minutes(*points)).data)["y"] == values


def test_times_bear_no_zone_that_a_browser_would_turn_into_its_own() -> None:
    told = drawn(line(FRAME, minutes((0.5, 1.0)), bands=[(NOON, NOON + timedelta(minutes=1), "paused")]).data)
    assert told["x"] == ["2026-11-24 12:00:30"]
    assert told["bands"] == [["2026-11-24 12:00:00", "2026-11-24 12:01:00", "paused"]]


def test_nothing_ends_the_script_element() -> None:
    made = line(Frame("</script><b>", NOON, NOON + timedelta(hours=1), 60.0), minutes((0, 1.0)))
    assert "<" not in made.data
    assert drawn(made.data)["title"] == "</script><b>"
    assert "<b>" not in made.picture


def test_without_points_there_is_no_picture() -> None:
    assert line(FRAME, []).picture == ""
    assert "the lowest 0.25" in line(FRAME, minutes((0, 0.25), (1, 1.0))).picture
