"""A trace as a page: a flame chart that needs nothing but itself, so that it opens offline and as a saved file.

VizTracer's own page is not used: it asks a server of somebody else for what browsers no longer have in them, and shows
nothing without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import orjson

from mdtasks.observe.flames import Flame, named, tops
from mdtasks.web.console import assets
from mdtasks.web.console.render import digest, rendered

#: Functions in the table below the chart.
_TOPS: Final = 40


def flame_page(flame: Flame, title: str) -> str:
    """The page, whole. Its policy is in it too, for when no server says it."""
    style, script = assets.text_of("console.css"), assets.text_of("flame.js")
    inline = {"inline": True, "raw": "", "style": style, "script": script, "policy": policy()}
    return rendered("trace.html", **inline, **chart(flame, title))


def chart(flame: Flame, title: str) -> dict[str, Any]:
    """What the template of a flame chart shows."""
    told = flame.context
    return {
        "title": title,
        "summary": _summary(told) + (" The oldest functions are missing." if flame.overflow else ""),
        "facts": _facts(told),
        "tops": tops(flame, _TOPS),
        # Within a script element only its end and comments mean something.
        "data": chart_data(flame).replace("<", "\\u003c"),
    }


@cache
def policy() -> str:
    """The Content-Security-Policy of the page: its own script and style work, nothing else does, and nothing loads."""
    style, script = (digest(assets.text_of(name)) for name in ("console.css", "flame.js"))
    own = f"script-src {script}; style-src {style}; img-src data:"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


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
