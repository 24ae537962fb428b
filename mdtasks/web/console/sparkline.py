"""Small charts as SVG: a line of values, without a script."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

#: A chart's own units; the page decides how large they are.
WIDTH, HEIGHT = 120, 28


def sparkline(values: Sequence[float], label: str, *, lowest: float = 0.0, highest: float = 1.0) -> Markup:
    """A line from the oldest value to the newest, between two bounds; its end is marked. ``label`` says it in words."""
    if not values:
        return Markup("")
    points = [(_x(at, len(values)), _y(value, lowest, highest)) for at, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">'
        '<polyline points="{}"/><circle cx="{:.1f}" cy="{:.1f}" r="2.2"/></svg>'
    ).format(WIDTH, HEIGHT, label, line, x, y)


def _x(at: int, number: int) -> float:
    return 2 + (WIDTH - 5) * (at / (number - 1) if number > 1 else 1.0)


def _y(value: float, lowest: float, highest: float) -> float:
    share = (min(max(value, lowest), highest) - lowest) / ((highest - lowest) or 1.0)
    return HEIGHT - 3 - (HEIGHT - 6) * share
