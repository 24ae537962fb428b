"""Reading: a million bars over HTTP as Arrow, and in the other formats, beside a raw COPY of the same rows.

The web app runs as `mdtasks up` starts it, in a process of its own; what comes is read to its end and thrown away.
"""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import psutil

from mdtasks.connections import raw_psycopg
from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import UnavailableError
from mdtasks.flows.deps import Deps
from mdtasks.settings import CONNECTION_FILE
from mdtasks.stack.benches.measure import Result, Say, alternate, scratch
from mdtasks.stack.embedded import stop
from mdtasks.stack.home import write_private
from mdtasks.stack.ports import any_free_port
from mdtasks.stack.processes import Plan, process_table
from mdtasks.stack.spawn import spawn
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, current

_SYMBOL: Final = "BENCH"
_START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_FILL: Final = """
INSERT INTO bars (instrument_id, interval, ts, open, high, low, close, volume, provider, status, attempt_id, known_at)
SELECT %(who)s, '1m', %(start)s::timestamptz + n * interval '1 minute', 100 + random(), 102 + random(), 98 + random(),
       100 + random(), floor(random() * 1000), 'simulator', 'final', 1, now()
FROM generate_series(0, %(bars)s - 1) n
"""
_COPY: Final = """
COPY (SELECT ts, open, high, low, close, volume, provider, status, known_at FROM bars
      WHERE instrument_id = {who} AND interval = '1m' AND ts >= '{start}' AND ts < '{end}' ORDER BY ts)
TO STDOUT (FORMAT {format})
"""
#: The answers that are measured beside Arrow, and how much of the bars they get: they take longer.
_OTHERS: Final = {"csv": 5, "parquet": 5}


@dataclass(frozen=True, slots=True)
class _Scene:
    """A store with one symbol's minutes without a break, and the web app on it."""

    deps: Deps
    who: int
    bars: int
    port: int
    web: psutil.Process

    def copied(self, form: str) -> int:
        """All bars by a COPY, read to its end."""
        end = _START + timedelta(minutes=self.bars)
        statement = _COPY.format(who=self.who, start=_START, end=end, format=form)
        with (
            self.deps.database.transaction() as connection,
            raw_psycopg(connection).cursor() as cursor,
            cursor.copy(statement) as copy,
        ):
            for _ in copy:
                pass
        return self.bars

    def downloaded(self, form: str, part: int = 1) -> int:
        """Bars by a download, read to its end; one in ``part``."""
        count = self.bars // part
        window = f"start={_START:%Y-%m-%dT%H:%MZ}&end={_START + timedelta(minutes=count):%Y-%m-%dT%H:%MZ}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", f"/bars/{_SYMBOL}?{window}&format={form}")
            answer = connection.getresponse()
            if answer.status != 200:
                raise UnavailableError(f"the web app answered {answer.status}", hint=answer.read().decode())
            while answer.read(1 << 20):
                pass
        finally:
            connection.close()
        return count

    def memory(self) -> float:
        """What the web app's process holds, MB."""
        return float(self.web.memory_info().rss) / 1e6


def bench_read(say: Say, *, bars: int = 1_000_000, rounds: int = 5) -> Result:
    """Downloads as Arrow, csv and Parquet (a fifth of the bars, extrapolated), and a COPY in binary and as text."""
    with scratch() as deps, _scene(deps, bars) as scene:
        scene.downloaded("arrow", 10)
        idle = scene.memory()
        peak = idle

        def arrow() -> int:
            nonlocal peak
            count = scene.downloaded("arrow")
            peak = max(peak, scene.memory())
            return count

        rates = alternate({"arrow_http": arrow, **_cases(scene)}, rounds, say, before=lambda: None)
        say(f"the web app holds {idle:.0f} MB after a tenth of the bars, {peak:.0f} MB at most after all of them")
    return Result(
        "read",
        "bars per second",
        rates,
        {
            "arrow_http / copy_binary": rates["arrow_http"] / rates["copy_binary"],
            "arrow_http / copy_text": rates["arrow_http"] / rates["copy_text"],
            "memory after all bars / after a tenth": peak / idle,
        },
    )


def _cases(scene: _Scene) -> dict[str, Callable[[], int]]:
    return {
        "copy_binary": lambda: scene.copied("binary"),
        "copy_text": lambda: scene.copied("text"),
        **{f"{form}_http": lambda form=form, part=part: scene.downloaded(form, part) for form, part in _OTHERS.items()},  # type: ignore[misc]
    }


@contextmanager
def _scene(deps: Deps, bars: int) -> Iterator[_Scene]:
    ensure_partitions(deps.database, "bars", to_us(_START), to_us(_START + timedelta(minutes=bars)))
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument(_SYMBOL, "24/7", "crypto")])
        who = current(connection, [_SYMBOL])[_SYMBOL].id
        connection.exec_driver_sql(_FILL, {"who": who, "start": _START, "bars": bars})
    with deps.database.autocommit() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE bars")
    settings = deps.settings
    urls = {"database_url": settings.require_database_url(), "redis_url": settings.require_redis_url()}
    write_private(settings.home / CONNECTION_FILE, json.dumps(urls))
    port = any_free_port()
    spec = next(spec for spec in process_table(Plan(settings, port, 0)) if spec.name == "web")
    process = spawn(spec.command, settings.home / "logs" / "web.log")
    try:
        scene = _Scene(deps, who, bars, port, psutil.Process(process.pid))
        while not _answers(port):
            if process.poll() is not None:
                raise UnavailableError(f"the web app ended with {process.returncode}", hint="run it by hand to see why")
            time.sleep(0.05)
        yield scene
    finally:
        stop(process, (signal.SIGTERM, signal.SIGKILL))


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
