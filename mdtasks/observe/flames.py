"""Reading a trace: which function called which, for how long, and where the time went."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import orjson

from mdtasks.observe.traces import CATEGORY

#: VizTracer's names of Python functions: ``Class.method (/path/file.py:12)``.
_NAME: Final = re.compile(r"(?P<function>.*) \((?P<file>.*):(?P<line>\d+)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Slice:
    """One run of a function: when it began after the call did, and how long it and what it called took, microseconds.

    ``depth``: functions of its thread around it; ``own_us``: without those that it called and that are in the trace.
    """

    name: str
    thread: int
    depth: int
    start_us: float
    duration_us: float
    own_us: float


@dataclass(frozen=True, slots=True)
class Flame:
    """A trace as it is looked at: its slices by thread and begin, the names of its threads, what its call was.

    ``overflow``: older functions are missing, since the ring was full.
    """

    slices: Sequence[Slice]
    threads: dict[int, str]
    context: dict[str, Any]
    overflow: bool


@dataclass(frozen=True, slots=True)
class Top:
    """A function over all its runs: how often it is in the trace, its own time and its time with callees, seconds."""

    function: str
    where: str
    calls: int
    own_s: float
    total_s: float


def read_flame(content: bytes) -> Flame:
    """The trace in VizTracer's JSON. Raises ValueError, KeyError when it is none of the recorder's."""
    document = orjson.loads(content)
    events = document["traceEvents"]
    whole = next(event for event in events if event.get("cat") == CATEGORY)
    finished = [event for event in events if event["ph"] == "X"]
    finished.sort(key=lambda event: (event["tid"] != whole["tid"], event["tid"], event["ts"], -event["dur"]))
    slices = [
        each
        for _, group in groupby(finished, key=lambda event: event["tid"])
        for each in _nested(list(group), whole["ts"])
    ]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    threads = {thread: names.get(thread, str(thread)) for thread in dict.fromkeys(each.thread for each in slices)}
    return Flame(slices, threads, document[CATEGORY], document["viztracer_metadata"]["overflow"])


def _nested(events: Sequence[dict[str, Any]], origin_us: float) -> Iterator[Slice]:
    """The slices of one thread, whose events stand in the order in which they began, callers first."""
    own_us = [event["dur"] for event in events]
    depths: list[int] = []
    around: list[int] = []
    for number, event in enumerate(events):
        while around and events[around[-1]]["ts"] + events[around[-1]]["dur"] <= event["ts"]:
            around.pop()
        if around:
            own_us[around[-1]] -= event["dur"]
        depths.append(len(around))
        around.append(number)
    for event, depth, own in zip(events, depths, own_us, strict=True):
        start_us = event["ts"] - origin_us
        yield Slice(event["name"], event["tid"], depth, start_us, event["dur"], max(own, 0.0))


def tops(flame: Flame, most: int) -> list[Top]:
    """The functions in which most time was spent themselves, the heaviest first.

    A function that calls itself counts its time with callees once, from the outermost.
    """
    calls: defaultdict[str, int] = defaultdict(int)
    own_us: defaultdict[str, float] = defaultdict(float)
    total_us: defaultdict[str, float] = defaultdict(float)
    around: list[str] = []
    for each in flame.slices:
        del around[each.depth :]
        calls[each.name] += 1
        own_us[each.name] += each.own_us
        if each.name not in around:
            total_us[each.name] += each.duration_us
        around.append(each.name)
    heaviest = sorted(own_us, key=lambda name: own_us[name], reverse=True)[:most]
    return [Top(*named(name), calls[name], own_us[name] / 1e6, total_us[name] / 1e6) for name in heaviest]


def named(name: str) -> tuple[str, str]:
    """A function's name apart from where it stands: ``path/file.py:12``; "" for what is no Python function."""
    found = _NAME.fullmatch(name)
    return (found["function"], f"{_short(found['file'])}:{found['line']}") if found else (name, "")


def _short(path: str) -> str:
    """A path from the package on: ``site-packages`` and what stands before it are the same for all."""
    return path.rpartition("/site-packages/")[2]
