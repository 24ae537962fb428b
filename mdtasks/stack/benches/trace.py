"""What recording slow calls costs: the same fetch without the recorder's hook, with it switched off, and armed.

A fetch is what an adapter does: one HTTP request over a kept connection to a server of another process, which answers
JSON with 10,000 bars after a wait as a vendor's would take; then the bars out of the JSON, and checked. Beside it stand
that parsing alone, and the worst case, which is nothing but Python: a CSV of as many bars, seven function calls each.
"""

from __future__ import annotations

import csv
import http.client
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final, cast

import numpy as np
import orjson

from mdtasks.domain.bars import Bars, validated
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.flows.deps import Deps, open_recorder
from mdtasks.flows.judging import Asked
from mdtasks.flows.traces import recorded_bars
from mdtasks.observe.traces import Asker
from mdtasks.providers.base import Provider
from mdtasks.settings import Settings
from mdtasks.stack.benches.measure import Result, Say

_NOW: Final = datetime(2025, 6, 18, 15, 0, tzinfo=UTC)
_COLUMNS: Final = ("open", "high", "low", "close", "volume")

#: Answers every request with the same bars after a wait; tells its port first.
_SERVER: Final = """
import http.server, json, sys, time
count, wait_s, start = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
fixed = {"h": 108.5, "l": 99.25}
bars = [{"t": start + 60 * n, "o": 100 + n % 7, "c": 101 + n % 5, "v": 1000 + n, **fixed} for n in range(count)]
body = json.dumps({"bars": bars}).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        time.sleep(wait_s)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""

Hook = Callable[[], AbstractContextManager[Any]]


def bench_trace(say: Say, *, bars: int = 10_000, wait_s: float = 0.05, rounds: int = 150) -> Result:
    """A real fetch, its parsing alone, and pure Python: each without the hook, with recording off, and armed."""
    hooks, window, text = _hooks(bars), _window(bars), _csv(bars)
    with _served(bars, wait_s) as connection:
        body = _asked(connection)
        works = {
            "fetch": lambda: _parsed(_asked(connection), window),
            "parse": lambda: _parsed(body, window),
            "python": lambda: _read_csv(text, window),
        }
        took = {what: _side_by_side(what, hooks, work, rounds, say) for what, work in works.items()}
    alone = {name: _alone_us(hook) for name, hook in hooks.items()}
    say(f"the hook alone: off {alone['off']:.2f} us, armed {alone['armed']:.2f} us a call")
    return Result(
        "trace",
        f"microseconds for {bars:,} bars",
        {f"{what}, {name}": median for what, found in took.items() for name, median in found.items()},
        {
            f"{what}: {one} / {other}": found[one] / found[other]
            for what, found in took.items()
            for one, other in (("off", "no hook"), ("armed", "off"))
        },
    )


def _hooks(bars: int) -> Mapping[str, Hook]:
    """What stands around a call: nothing, the hook of a fetch that is switched off, and the armed one."""
    asked = Asked(cast("Provider", _Named()), Interval.M1, _window(bars), _NOW)

    def hook(enabled: bool) -> Hook:
        settings = Settings(viztracer_enabled=enabled, viztracer_slow_s=3600, viztracer_slow_p95=0)
        deps = cast("Deps", _Recording(open_recorder(settings)))
        return lambda: recorded_bars(deps, asked, ["BENCH"], Asker("job", 1, 1, "bench"))

    return {"no hook": nullcontext, "off": hook(False), "armed": hook(True)}


class _Named:
    """As much of a provider as the hook looks at."""

    name = "bench"


class _Recording:
    """As much of the Deps as the hook looks at."""

    def __init__(self, recorder: object) -> None:
        self.recorder = recorder
        self.running = SimpleNamespace(version=0)


def _side_by_side(
    what: str, hooks: Mapping[str, Hook], call: Callable[[], Bars], rounds: int, say: Say
) -> dict[str, float]:
    """Median microseconds of a call under each hook; each round does all of them, beginning with another one."""
    took: dict[str, list[float]] = {name: [] for name in hooks}
    order = list(hooks)
    for number in range(rounds + 1):
        order = order[1:] + order[:1]
        for name in order:
            hook = hooks[name]
            began = time.perf_counter()
            if name == "no hook":
                call()
            else:
                with hook():
                    call()
            if number:  # the first round warms up
                took[name].append((time.perf_counter() - began) * 1e6)
    medians = {name: statistics.median(took[name]) for name in hooks}
    say(f"{what}: " + ", ".join(f"{name} {median:,.0f} us" for name, median in medians.items()))
    return medians


def _alone_us(hook: Hook, calls: int = 20_000) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        with hook():
            pass
    return (time.perf_counter() - began) / calls * 1e6


def _window(bars: int) -> TimeWindow:
    return TimeWindow(start=_NOW - timedelta(minutes=bars), end=_NOW)


@contextmanager
def _served(bars: int, wait_s: float) -> Iterator[http.client.HTTPConnection]:
    start = str(int(_window(bars).start.timestamp()))
    command = [sys.executable, "-c", _SERVER, str(bars), str(wait_s), start]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(server.stdout.readline()))
        try:
            yield connection
        finally:
            connection.close()
            server.kill()


def _asked(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/bars")
    return connection.getresponse().read()


def _parsed(body: bytes, window: TimeWindow) -> Bars:
    rows = orjson.loads(body)["bars"]
    ts_us = np.array([row["t"] for row in rows], np.int64) * 1_000_000
    columns = [np.array([row[key] for row in rows], np.float64) for key in "ohlcv"]
    return _checked(Bars(ts_us, *columns), window)


def _checked(bars: Bars, window: TimeWindow) -> Bars:
    good, rejected = validated(bars, window, Interval.M1)
    assert not rejected
    return good


def _csv(bars: int) -> str:
    start = int(_window(bars).start.timestamp())
    return "\n".join(f"{start + 60 * n},{100 + n % 7},108.5,99.25,{101 + n % 5},{1000 + n}" for n in range(bars))


def _read_csv(text: str, window: TimeWindow) -> Bars:
    rows = [_row(row) for row in csv.reader(io.StringIO(text))]
    ts_us = np.array([row[0] for row in rows], np.int64)
    return _checked(Bars(ts_us, *(np.array([row[1][k] for row in rows]) for k in range(len(_COLUMNS)))), window)


def _row(cells: list[str]) -> tuple[int, list[float]]:
    return _moment(cells[0]), [_number(cell) for cell in cells[1:]]


def _moment(cell: str) -> int:
    return int(cell) * 1_000_000


def _number(cell: str) -> float:
    return float(cell)
