"""The live stream: many clients on one web process, beside a bare broadcast of the same frames; and clients that stall.

A tick publishes a bar of every symbol at once, as the commit of a live fetch does, and waits for the next second. What
is measured is the time from just before the publishing until a client's process has the bar in hand.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import IO, Any, Final

import psutil

from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.replay import Draft, StreamKey
from mdtasks.flows import replay
from mdtasks.flows.deps import Deps
from mdtasks.settings import CONNECTION_FILE
from mdtasks.stack.benches.measure import Result, Say, scratch
from mdtasks.stack.benches.replay_load import Load
from mdtasks.stack.embedded import stop
from mdtasks.stack.home import write_private
from mdtasks.stack.ports import any_free_port
from mdtasks.stack.processes import Plan, process_table
from mdtasks.stack.spawn import spawn
from mdtasks.store.reference import Instrument, add_instruments, instruments

_MINUTE_US: Final = 60_000_000
#: Between two ticks, seconds.
_TICK_S: Final = 1.0
#: Processor time is told in steps of 10 ms: less than this over some ticks is nothing to divide by.
_LEAST_MS: Final = 1.0
#: What waits for a client that stalls is let go of sooner than by default: it is to happen within the benchmark.
_LIMITS: Final = {"WS_QUEUE_BYTES": "65536", "WS_MAX_CLIENTS": "100000", "WS_MAX_CLIENTS_PER_ADDRESS": "100000"}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it. ``each``: symbols of a client."""

    clients: int = 1000
    symbols: int = 100
    each: int = 20
    stalled: int = 50
    ticks: int = 10
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """What a round of clients saw, ms: from publishing to receipt, and from connecting to the last snapshot.

    ``work``: processor time of the server for one tick, ms: on a machine that others use too it says more.
    """

    wait_p50: float
    wait_p99: float
    snapshots_p99: float
    work: float


def bench_replay(say: Say, *, size: Size | None = None) -> Result:
    """Publish to receive, reconnect to snapshot, and what 50 clients that never read do to the others."""
    size = size or Size()
    with scratch() as deps, _web(deps) as web, _bare() as bare:
        stage = _Stage(deps, size)
        cases: dict[str, Callable[[], Seen]] = {
            "stream": lambda: stage.look(web, "", stage.publish),
            "stream, a frame a message": lambda: stage.look(web, "&batch=0", stage.publish),
            "bare broadcast": lambda: stage.look(bare, "", partial(bare.broadcast, stage), snapshots=False),
            "stream, some stalled": lambda: stage.look(web, "", stage.publish, size.stalled),
        }
        seen: dict[str, list[Seen]] = {name: [] for name in cases}
        before_mb = after_mb = web.memory_mb()
        for number in range(size.rounds + 1):  # the first warms up
            for name, case in cases.items():
                before_mb = web.memory_mb() if "stalled" in name else before_mb
                found = case()
                after_mb = web.memory_mb() if "stalled" in name else after_mb
                say(
                    f"{number or 'warm-up':<8} {name:<26} p50 {found.wait_p50:>7.1f} ms  p99 {found.wait_p99:>7.1f} ms"
                    f"  work {found.work:>6.1f} ms"
                )
                seen[name] += [found] if number else []
    return _result(size, seen, (before_mb, after_mb))


def _result(size: Size, seen: dict[str, list[Seen]], memory_mb: tuple[float, float]) -> Result:
    def median(name: str, of: str) -> float:
        return float(statistics.median(getattr(each, of) for each in seen[name]))

    figures = {f"{name}: p99": median(name, "wait_p99") for name in seen}
    figures |= {f"{name}: work of a tick": median(name, "work") for name in seen}
    figures["stream: p50"] = median("stream", "wait_p50")
    figures["reconnect to last snapshot: p99"] = median("stream", "snapshots_p99")
    figures["MB of the web process before the last stall"], figures["MB after it"] = memory_mb
    ratios = {
        f"{name} / {other}: {what}": figures[f"{name}: {what}"] / max(figures[f"{other}: {what}"], _LEAST_MS)
        for what in ("p99", "work of a tick")
        for name, other in (
            ("stream", "bare broadcast"),
            ("stream, a frame a message", "bare broadcast"),
            ("stream, some stalled", "stream"),
        )
    }
    unit = f"milliseconds, {size.clients:,} clients x {size.each} of {size.symbols} symbols"
    return Result("replay", unit, figures, ratios)


class _Stage:
    """Symbols with a full buffer, and ticks of all of them."""

    def __init__(self, deps: Deps, size: Size) -> None:
        self._deps, self._size = deps, size
        self.symbols = [f"BENCH{number}" for number in range(size.symbols)]
        with deps.database.transaction() as connection:
            add_instruments(connection, [Instrument(name, "24/7", "crypto", Tier.T0) for name in self.symbols])
            ids = {each.symbol: each.id for each in instruments(connection)}
        self._keys = [StreamKey(ids[symbol], Interval.M1) for symbol in self.symbols]
        now = datetime.now(UTC)
        replay.windows(deps, dict.fromkeys(self._keys), now)  # they begin, empty
        self._next_us = to_us(now.replace(second=0, microsecond=0) - timedelta(days=7))
        for _ in range(deps.replay.max_bars):
            self.publish()

    def body(self) -> tuple[int, bytes]:
        """The next minute's bar: its start, and what is published of it."""
        self._next_us += _MINUTE_US
        ts = datetime.fromtimestamp(self._next_us / 1e6, UTC)
        bar = {"type": "bar", "ts": f"{ts:%Y-%m-%dT%H:%M:%SZ}", "open": 101.25, "high": 101.5, "low": 101.0}
        bar |= {"close": 101.375, "volume": 18250.0, "final": True, "provider": "simulator"}
        bar |= {"known_at": f"{ts:%Y-%m-%dT%H:%M:%S.%fZ}", "sent_us": time.time_ns() // 1000}
        return self._next_us, json.dumps(bar, separators=(",", ":")).encode()

    def publish(self) -> None:
        """One bar of every symbol, told to the buffer at once."""
        ts_us, body = self.body()
        draft = Draft(ts_us, 1, body)
        self._deps.replay.publish({key: [draft] for key in self._keys}, time.time_ns() // 1000)

    def look(
        self, server: _Server, query: str, tick: Callable[[], None], stalled: int = 0, *, snapshots: bool = True
    ) -> Seen:
        """Connect all clients at once, tick, and say what they saw."""
        load = Load(server.port, query, self.symbols, self._size.clients, self._size.each, stalled, snapshots)
        with _python("mdtasks.stack.benches.replay_load") as (process, told):
            _tell(process, asdict(load))
            took_s = _heard(process, told)["ready"]
            before_ms = server.work_ms()
            for _ in range(self._size.ticks):
                began = time.monotonic()
                tick()
                time.sleep(max(0.0, began + _TICK_S - time.monotonic()))
            work_ms = (server.work_ms() - before_ms) / self._size.ticks
            wanted = self._size.clients * self._size.each * self._size.ticks
            _tell(process, {"wanted": wanted})
            seen = _heard(process, told)
        if len(seen["waits_us"]) != wanted or seen["lost"]:
            raise UnavailableError(
                f"{len(seen['waits_us']):,} of {wanted:,} bars came in time, {seen['lost']} clients were lost",
                hint="fewer clients: `mdtasks bench replay --clients 200`",
            )
        waits, took = seen["waits_us"], took_s
        return Seen(_quantile(waits, 0.5) / 1e3, _quantile(waits, 0.99) / 1e3, _quantile(took, 0.99) * 1e3, work_ms)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@dataclass(frozen=True, slots=True)
class _Server:
    """A process that clients connect to."""

    port: int
    process: subprocess.Popen[bytes]

    def memory_mb(self) -> float:
        """What it holds."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)

    def work_ms(self) -> float:
        """Processor time that it has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system) * 1e3

    def broadcast(self, stage: _Stage) -> None:
        """A tick of the bare broadcaster: the same frames."""
        text = stage.body()[1].decode()[:-1]
        place = '"interval":"1m","position":"4f1c9a2b7d3e:12345"'
        _tell(self.process, {symbol: f'{text},"symbol":"{symbol}",{place}}}' for symbol in stage.symbols})


@contextmanager
def _web(deps: Deps) -> Iterator[_Server]:
    """A web process on the scratch servers, started as `mdtasks up` starts it."""
    settings = deps.settings
    urls = {"database_url": settings.require_database_url(), "redis_url": settings.require_redis_url()}
    write_private(settings.home / CONNECTION_FILE, json.dumps(urls))
    plan = Plan(settings, any_free_port(), 0, _LIMITS)
    spec = next(spec for spec in process_table(plan) if spec.name == "web")
    process = spawn(spec.command, settings.home / "logs" / "web.log")
    try:
        _await_answer(f"{plan.web_url}/health", process)
        yield _Server(plan.web_port, process)
    finally:
        stop(process, (signal.SIGTERM, signal.SIGKILL))


def _await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310  -- our own http://127.0.0.1
            return
        time.sleep(0.05)
    raise UnavailableError(f"the web process ended with {process.returncode}", hint="see its log")


@contextmanager
def _bare() -> Iterator[_Server]:
    with _python("mdtasks.stack.benches.bare_broadcast") as (process, told):
        yield _Server(int(told.readline()), process)


@contextmanager
def _python(module: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A process of ours that is spoken with in lines; ended at the end."""
    argv = [sys.executable, "-P", "-m", module]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def _tell(process: subprocess.Popen[bytes], document: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(document).encode() + b"\n")
    process.stdin.flush()


def _heard(process: subprocess.Popen[bytes], told: IO[bytes]) -> Any:
    line = told.readline()
    if not line:
        raise UnavailableError(f"the clients ended with {process.wait()}", hint="see what they said above")
    return json.loads(line)
