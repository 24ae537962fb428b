"""Lines over time: a picture at once, and the same as data for ``static/charts.js``, which draws it with Plotly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any, Final, Literal

import orjson
from markupsafe import Markup

from mdtasks.web.console.sparkline import sparkline

#: How far back a page's charts reach, by the word in its address.
OVER: Final[Mapping[str, timedelta]] = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
#: The names of ``OVER``.
Over = Literal["1h", "6h", "1d", "7d", "30d"]

#: Two points further apart than so many steps, or so many times what is usual, are not joined: nobody looked meanwhile.
_APART: Final = 2.5


@dataclass(frozen=True, slots=True)
class Chart:
    """A line over time. ``data``: JSON that may stand in a script element; ``picture``: where no script runs."""

    title: str
    data: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class Frame:
    """What is around a line: its title, between which times it is drawn, and how far two points are apart, seconds."""

    title: str
    start: datetime
    end: datetime
    step_s: float


def line(
    frame: Frame,
    points: Sequence[tuple[datetime, float | None]],
    *,
    bound: float | None = None,
    bands: Iterable[tuple[datetime, datetime, str]] = (),
    share: bool = False,
) -> Chart:
    """A chart of points, the oldest first. ``bound``: a value that is drawn as a line of its own. ``bands``: stretches
    of time that are shaded, each with its word. ``share``: values are shares of 1, else scores from 0 to 1.
    """
    times, values = _joined(points, frame.step_s)
    data = {
        "title": frame.title,
        "start": _text(frame.start),
        "end": _text(frame.end),
        "x": [_text(at) for at in times],
        "y": values,
        "bound": bound,
        "bands": [[_text(start), _text(end), word] for start, end, word in bands],
        "share": share,
    }
    return Chart(frame.title, _in_script(data), _picture(frame.title, [y for _, y in points if y is not None], share))


def _picture(title: str, values: Sequence[float], share: bool) -> Markup:
    if not values:
        return Markup("")
    highest = max(*values, 0.01) if share else 1.0
    words = f"{title}: the last {values[-1]:.3g}, the lowest {min(values):.3g}, the highest {max(values):.3g}"
    return sparkline(values, words, highest=highest)


def _joined(
    points: Sequence[tuple[datetime, float | None]], step_s: float
) -> tuple[Sequence[datetime], Sequence[float | None]]:
    """The points, with nothing between two that are too far apart to be joined."""
    times: list[datetime] = []
    values: list[float | None] = []
    steps = [(after - before).total_seconds() for (before, _), (after, _) in pairwise(points)]
    apart_s = _APART * max([step_s, *([median(steps)] if len(steps) > 1 else [])])
    for at, value in points:
        if times and (at - times[-1]).total_seconds() > apart_s:
            times.append(times[-1] + timedelta(seconds=step_s))
            values.append(None)
        times.append(at)
        values.append(None if value is None else round(value, 5))
    return times, values


def _text(at: datetime) -> str:
    """A time as Plotly reads it: without a zone, which it would turn into the browser's."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _in_script(data: Mapping[str, Any]) -> str:
    # Within a script element only its end and comments mean something.
    return orjson.dumps(data).decode().replace("<", "\\u003c")
