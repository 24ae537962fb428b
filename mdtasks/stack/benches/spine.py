"""The spine: jobs into queues, and through a worker into bars, beside plain Celery and a raw COPY."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from mdtasks.connections import raw_psycopg
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps
from mdtasks.queue.app import make_app
from mdtasks.stack.benches.measure import Result, Say, alternate, crew, scratch
from mdtasks.store.bars import BarBatch, write_bars
from mdtasks.store.binary_copy import PG_EPOCH_US, RowFormat
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, current

_START: Final = datetime(2025, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)


def bench_enqueue(say: Say, *, jobs: int = 20_000, rounds: int = 5) -> Result:
    """Bulk, capped, durable enqueue; plain ``apply_async`` (no cap's worth, no row); the bulk push alone (no row)."""
    with scratch() as deps:
        app = make_app(deps.settings)
        app.loader.import_default_modules()
        task = app.tasks["mdtasks.backfill"]
        made = _jobs(deps, jobs)
        document = made[0].model_dump(mode="json")

        def plain() -> int:
            for _ in range(jobs // 10):
                task.apply_async((document,), queue="T0")
            return jobs // 10

        def push() -> int:
            return deps.enqueuer.push_backfills(Tier.T0, made)

        def durable() -> int:
            return enqueue_jobs(made, "bench", deps).queued

        def clear() -> None:
            deps.broker.flushall()
            with deps.database.transaction() as connection:
                connection.exec_driver_sql("TRUNCATE backfill_jobs, requests, request_jobs")

        cases = {"apply_async": plain, "bulk_push": push, "durable_enqueue": durable}
        rates = alternate(cases, rounds, say, before=clear)
    return Result(
        "enqueue",
        "jobs per second",
        rates,
        {
            "durable_enqueue / apply_async": rates["durable_enqueue"] / rates["apply_async"],
            "durable_enqueue / bulk_push": rates["durable_enqueue"] / rates["bulk_push"],
        },
    )


def bench_ingest(say: Say, *, jobs: int = 150, rounds: int = 3) -> Result:
    """Queued jobs to committed bars through one worker process; the staged upsert alone; a raw COPY of the same rows.

    A job is a day of minute bars of the simulator: 1,440 rows.
    """
    with scratch() as deps, crew(deps, ["t0"], concurrency=1) as (worker,):
        made = _jobs(deps, jobs)
        with deps.database.transaction() as connection:
            members = current(connection, {job.symbol for job in made})
        ids = [members[job.symbol].id for job in made]
        days = [_day(deps, job) for job in made]
        ensure_partitions(deps.database, "bars", to_us(_START), to_us(_START + jobs * _DAY))

        def copy() -> int:
            return sum(_raw_copy(deps, who, bars) for who, bars in zip(ids, days, strict=True))

        def upsert() -> int:
            return sum(_upsert(deps, who, bars) for who, bars in zip(ids, days, strict=True))

        def whole() -> int:
            enqueue_jobs(made, "bench", deps)
            _await_done(deps, worker)
            return sum(map(len, days))

        def clear() -> None:
            with deps.database.transaction() as connection:
                connection.exec_driver_sql(
                    "TRUNCATE bars, bar_revisions, coverage, backfill_jobs, requests, request_jobs;"
                    "DROP TABLE IF EXISTS bench_bars; CREATE TABLE bench_bars (instrument_id integer, ts timestamptz,"
                    " open float8, high float8, low float8, close float8, volume float8)"
                )

        rates = alternate({"raw_copy": copy, "staged_upsert": upsert, "whole_way": whole}, rounds, say, before=clear)
    return Result(
        "ingest",
        "bars per second",
        rates,
        {
            "whole_way / staged_upsert": rates["whole_way"] / rates["staged_upsert"],
            "whole_way / raw_copy": rates["whole_way"] / rates["raw_copy"],
        },
    )


def _jobs(deps: Deps, count: int) -> list[BackfillJob]:
    """Days of made-up instruments, 100 at most, all wanted."""
    symbols = [f"BENCH{number}" for number in range(min(count, 100))]
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument(symbol, "24/7", "crypto", Tier.T0) for symbol in symbols])
    return [
        BackfillJob(
            symbol=symbols[number % len(symbols)],
            priority=Tier.T0,
            time_window=TimeWindow(start=_START + day * _DAY, end=_START + (day + 1) * _DAY),
        )
        for number in range(count)
        for day in (number // len(symbols),)
    ]


def _day(deps: Deps, job: BackfillJob) -> Bars:
    (provider,) = deps.registry.order(Interval.M1, "simulator")
    listing = Listing(job.symbol, "24/7", "crypto")
    return provider.fetch_bars([listing], Interval.M1, job.time_window, datetime.now(UTC)).bars[job.symbol]


def _raw_copy(deps: Deps, instrument_id: int, bars: Bars) -> int:
    names = ("open", "high", "low", "close", "volume")
    layout = RowFormat(instrument_id="i4", ts="i8", **dict.fromkeys(names, "f8"))
    with deps.database.transaction() as connection:
        rows = layout.rows(len(bars))
        rows["instrument_id"] = instrument_id
        rows["ts"] = bars.ts_us - PG_EPOCH_US
        for name, column in zip(names, bars.columns, strict=True):
            rows[name] = column
        statement = "COPY bench_bars FROM STDIN (FORMAT binary)"
        with raw_psycopg(connection).cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(layout.encode(rows))
    return len(bars)


def _upsert(deps: Deps, instrument_id: int, bars: Bars) -> int:
    window = TimeWindow(start=_START, end=_START + _DAY)
    batch = BarBatch(instrument_id, bars, final_before_us=to_us(datetime.now(UTC)), covered=[window])
    with deps.database.transaction() as connection:
        write_bars(connection, Interval.M1, [batch], "simulator", 1)
    return len(bars)


def _await_done(deps: Deps, worker: subprocess.Popen[bytes]) -> None:
    while True:
        with deps.database.transaction() as connection:
            left = connection.exec_driver_sql("SELECT count(*) FROM backfill_jobs WHERE status <> 'done'").scalar_one()
        if not left:
            return
        if worker.poll() is not None:
            raise UnavailableError(f"the worker ended with {worker.returncode}", hint="see its log above")
        time.sleep(0.01)
