"""A trace as a page: a flame chart that needs nothing but itself, so that it opens offline and as a saved file.

VizTracer's own page is not used: it asks a server of somebody else for what browsers no longer have in them, and shows
nothing without it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

import orjson

from mdtasks.observe.flames import Flame, named, tops

#: Functions in the table below the chart.
_TOPS: Final = 40


def flame_page(flame: Flame, title: str) -> str:
    """The page, whole. ``policy`` is in it too, for when no server says it."""
    told = flame.context
    values = {
        "policy": policy(),
        "title": escape(title),
        "summary": escape(_summary(told)) + (" The oldest functions are missing." if flame.overflow else ""),
        "facts": "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in _facts(told).items()),
        "tops": "".join(_row(top) for top in tops(flame, _TOPS)),
        # Within a script element only its end and comments mean something.
        "data": chart_data(flame).replace("<", "\\u003c"),
        "style": _file("flame.css"),
        "script": _file("flame.js"),
    }
    return Template(_file("flame.html")).substitute(values)


@cache
def policy() -> str:
    """The Content-Security-Policy of the page: its own script and style work, nothing else does, and nothing loads."""
    return (
        f"default-src 'none'; script-src '{_digest('flame.js')}'; style-src '{_digest('flame.css')}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(name: str) -> str:
    return f"sha256-{base64.b64encode(sha256(_file(name).encode()).digest()).decode()}"


@cache
def _file(name: str) -> str:
    return files("mdtasks.web").joinpath(name).read_text()


def _summary(told: Mapping[str, Any]) -> str:
    ended = f", and ended in {told['error_class']}" if told["error_class"] else ""
    return f"{told['latency_s']:.3f} s, slow from {told['threshold_s']:g} s on{ended}."


def _facts(told: Mapping[str, Any]) -> dict[str, str]:
    symbols = ", ".join(told["symbols"])
    more = told["symbol_count"] - len(told["symbols"])
    facts = {
        "provider": told["provider"],
        "capability": told["capability"],
        "symbols": f"{symbols} and {more:,} more" if more else symbols,
        "window": " to ".join(told["window"] or ()),
        "began": told["started_at"],
        "job": told["job_id"],
        "attempt": told["attempt"],
        "worker": told["worker"],
        "policy version": told["policy_version"],
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _row(top: Any) -> str:
    numbers = "".join(
        f'<td class="number">{each}</td>' for each in (f"{top.own_s:.3f}", f"{top.total_s:.3f}", top.calls)
    )
    return f"<tr>{numbers}<td>{escape(top.function)}</td><td>{escape(top.where)}</td></tr>"


def chart_data(flame: Flame) -> str:
    """The slices for the script, names and threads by number, times rounded to a tenth of a microsecond."""
    lanes = {thread: number for number, thread in enumerate(flame.threads)}
    numbers: dict[str, int] = {}
    slices = [
        [
            lanes[each.thread],
            each.depth,
            round(each.start_us, 1),
            round(each.duration_us, 1),
            round(each.own_us, 1),
            numbers.setdefault(each.name, len(numbers)),
        ]
        for each in flame.slices
    ]
    names = [" ".join(filter(None, (name, f"({where})" if where else ""))) for name, where in map(named, numbers)]
    whole = max((each.start_us + each.duration_us for each in flame.slices), default=1.0)
    document = {"names": names, "threads": list(flame.threads.values()), "slices": slices, "whole": whole}
    return orjson.dumps(document).decode()
