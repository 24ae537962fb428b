"""The page of all metrics, made from their declarations: ``python -m mdtasks.observe.catalogue > docs/metrics.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from mdtasks.observe.metrics import DECLARED, LABELS, Counter, Declared, Gauge, Histogram

_HEAD: Final = """\
# Metrics

Made by `make docs` from `mdtasks/observe/metrics.py`, where each metric is declared once. `GET /metrics` of the web app
answers them all, in Prometheus' text format 0.0.4. Times are seconds, timestamps seconds since 1970.
"""
_GAUGES: Final = """\
## States
Gauges, read from Redis and PostgreSQL when they are scraped. What a part that is away would have said is left out, and
so is what is no longer true: a series that nobody looked at lately is absent, never 0.
"""
_COUNTERS: Final = """\
## Events
Counters, counted by the process in which a thing happens and summed over all processes of the machine's stack, those
that have ended too. They start at 0 when the home is new.
"""
_HISTOGRAMS: Final = """\
## Durations
Histograms: `_bucket{le}`, `_sum` and `_count`, counted as the events are.
"""
_LABELS: Final = """\
## Labels
| label | values |
| --- | --- |
"""


def page() -> str:
    """docs/metrics.md, whole."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    yield _HEAD
    for kind, intro in ((Gauge, _GAUGES), (Counter, _COUNTERS), (Histogram, _HISTOGRAMS)):
        declared = [each for each in DECLARED if isinstance(each, kind)]
        yield intro + "\n| metric | labels | meaning |\n| --- | --- | --- |\n" + "".join(map(_row, declared))
    used = {name for each in DECLARED for name in each.label_names}
    yield _LABELS + "".join(f"| `{name}` | {text} |\n" for name, text in LABELS.items() if name in used)


def _row(declared: Declared) -> str:
    labels = " ".join(f"`{name}`" for name in declared.label_names)
    buckets = ", ".join(f"{each:g}" for each in declared.buckets) if isinstance(declared, Histogram) else ""
    return f"| `{declared.name}` | {labels} | {declared.help}{f'; buckets {buckets}' if buckets else ''} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
