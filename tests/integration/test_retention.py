"""What is too old goes, whole months or rows; killed anywhere it goes on; nobody waits for it; nothing comes back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event
from typing import Any

import pytest
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import Bars, Quote
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows import intake
from mdtasks.flows.backfill import BackfillRequest, enqueue_jobs, request_backfill
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.gaps import Question, find_gaps
from mdtasks.flows.ingest import run_backfill
from mdtasks.flows.live import run_bars_fetch, run_quotes_fetch
from mdtasks.flows.retention import run_once
from mdtasks.flows.scan import Scanned, scan
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.settings import Settings
from mdtasks.store import retention
from mdtasks.store.bars import BarBatch, read_coverage, write_bars
from mdtasks.store.gaps import Scope
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, resolve
from mdtasks.testing import bars_fetch_job, quotes_fetch_job
from tests.integration.retention_worlds import MONTHS, NOW, fill, keeping, months, one, partitions, store

SHORT = {"bars_1m": 30, "jobs": None, "letters": None, "quarantine": None}
ALL = {**SHORT, **{f"bars_{interval}": 30 for interval in Interval}}


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings)
    with opened.database.transaction() as connection:
        add_instruments(connection, [Instrument("BTC-USD", "24/7", "crypto", Tier.T0)])
    yield opened
    opened.close()


@pytest.fixture
def coin(deps: Deps) -> int:
    """The instrument, with bars of six months."""
    with deps.database.transaction() as connection:
        coin = resolve(connection, ["BTC-USD"])["BTC-USD"].id
    fill(deps.database, coin)
    return coin


def all_of_it(deps: Deps, now: datetime = NOW, chunks: int = 1000) -> dict[str, Any]:
    """Rounds until nothing is left."""
    for _ in range(200):
        done = run_once(deps, now, chunks)
        if not done["more"]:
            return done
    pytest.fail("it never ends")


def test_by_default_no_bar_goes(deps: Deps, coin: int) -> None:
    before = one(deps.database, "SELECT count(*) FROM bars")
    assert run_once(deps, NOW + timedelta(days=20_000)) == {"rows": {}, "dropped": {}, "more": False, "busy": []}
    assert one(deps.database, "SELECT count(*) FROM bars") == before
    assert coin


def test_months_that_are_over_for_one_interval_lose_its_rows_and_keep_the_others(deps: Deps, coin: int) -> None:
    for month in (MONTHS[0], MONTHS[5]):  # an hour of silence, which no bar tells of
        silent = TimeWindow(start=month + timedelta(hours=1), end=month + timedelta(hours=2))
        with deps.database.transaction() as connection:
            write_bars(connection, Interval.M1, [BarBatch(coin, Bars.empty(), 0, [silent])], "simulator", 1)
    assert all_of_it(keeping(deps, **SHORT))["dropped"] == {}
    assert months(deps.database, Interval.M1) == [10, 11]
    assert months(deps.database, Interval.D1) == [6, 7, 8, 9, 10, 11]
    assert len(partitions(deps.database)) == 6
    # What hung on them went too: their revisions, and that anybody answered for them.
    assert one(deps.database, "SELECT count(*) FROM bar_revisions WHERE ts < :cut", cut=MONTHS[4]) == 0
    assert one(deps.database, "SELECT count(*) FROM bar_revisions") == 60
    assert one(deps.database, "SELECT array_agg(starts_at > :cut) FROM coverage_changes", cut=MONTHS[4]) == [True]
    with deps.database.transaction() as connection:
        covered = read_coverage(connection, [coin], Interval.M1)[coin]
        marks = retention.marks(connection)
    assert [window.start for window in covered] == MONTHS[4:]
    assert (marks["bars_1m"].lost_before, marks["bars_1m"].done_before) == (MONTHS[4], MONTHS[4])
    assert marks["bars_1m"].policy_version == deps.running.version
    assert run_once(keeping(deps, **SHORT), NOW)["rows"] == {}


def test_a_month_in_which_nothing_is_kept_goes_whole(deps: Deps, coin: int) -> None:
    assert run_once(keeping(deps, **ALL), NOW, 1000)["dropped"] == {"bars": 4}
    assert partitions(deps.database) == ["bars_2026_10", "bars_2026_11"]
    # Once the last rows of a month have gone one by one, it goes too.
    store(deps.database, coin, Interval.M1, MONTHS[0])
    assert "bars" in run_once(keeping(deps, **{**SHORT, "bars_1m": 31}), NOW - timedelta(days=40), 1000)["dropped"]
    assert partitions(deps.database) == ["bars_2026_10", "bars_2026_11"]


def test_a_round_does_its_share_and_the_next_ones_the_rest(deps: Deps, coin: int) -> None:
    before = one(deps.database, "SELECT count(*) FROM bars")
    first = run_once(keeping(deps, **SHORT), NOW, 2)
    assert first["more"]
    assert one(deps.database, "SELECT count(*) FROM bars") in (before, before - 60)
    all_of_it(keeping(deps, **SHORT), chunks=1)
    assert one(deps.database, "SELECT count(*) FROM bars") == before - 4 * 60
    assert coin


class Killed(BaseException):
    """What a kill does to a process, for tests that go on in it."""


@pytest.mark.parametrize("days", [SHORT, ALL], ids=["rows", "months"])
def test_killed_after_any_step_the_next_round_goes_on_and_nothing_is_missing_meanwhile(
    deps: Deps, coin: int, days: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keeping(deps, **days)
    real, left = retention.impatient, [0]

    def until_killed(database: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(database)

    monkeypatch.setattr(retention, "impatient", until_killed)
    for steps in range(100):
        left[0] = steps
        try:
            done = run_once(kept, NOW, 1000)
        except Killed:
            # No bar is gone whose time is still answered for.
            bare = one(
                deps.database,
                "SELECT count(*) FROM coverage c WHERE interval = '1m' AND lower(covered) < CAST(:cut AS timestamptz) "
                "AND NOT EXISTS (SELECT FROM bars WHERE interval = '1m' AND ts = lower(c.covered))",
                cut=MONTHS[4],
            )
            assert bare == 0
            continue
        break
    assert not done["more"]
    assert months(deps.database, Interval.M1) == [10, 11]
    assert coin


def test_nothing_is_fetched_again_after_it_was_deleted(deps: Deps, coin: int) -> None:
    kept = keeping(deps, **ALL)
    month = TimeWindow(start=datetime(2026, 9, 1, tzinfo=UTC), end=NOW)
    for interval in (Interval.M1, Interval.D1):
        request_backfill(
            BackfillRequest(symbol=("BTC-USD",), interval=interval, start=month.start, end=NOW), "me", deps, NOW
        )
    _work(deps)
    all_of_it(kept)
    for interval in (Interval.M1, Interval.D1):
        assert scan(Scope(Tier.T0, interval), kept, NOW) == Scanned()
    (found,) = find_gaps(Question(["BTC-USD"], Interval.M1, AskedWindow(month.start, NOW)), kept, NOW)
    assert (found.missing, found.no_trade) == (0, 0)
    assert found.expected == (NOW - datetime(2026, 10, 21, tzinfo=UTC)) / timedelta(minutes=1)
    # Even one that still works by yesterday's horizon finds nothing that went.
    (found,) = find_gaps(
        Question(["BTC-USD"], Interval.M1, AskedWindow(month.start, NOW)), kept, NOW - timedelta(days=1)
    )
    assert found.missing == 0
    assert coin


def _work(deps: Deps) -> None:
    with deps.database.transaction() as connection:
        waiting = list(connection.execute(text("SELECT id FROM backfill_jobs WHERE status = 'queued'")).scalars())
    for job_id in waiting:
        run_backfill(BackfillJob.model_construct(job_id=job_id), deps, "t0@here/1", NOW)


def test_who_asks_for_time_before_the_horizon_is_refused_and_a_window_over_it_is_cut(deps: Deps) -> None:
    kept = keeping(deps, **SHORT)
    ask = BackfillRequest(symbol=("BTC-USD",), start=datetime(2026, 9, 1, tzinfo=UTC), end=NOW)
    answer = request_backfill(ask, "me", kept, NOW)
    assert answer.as_dict()["kept_from"] == "2026-10-21T00:00:00Z"
    assert one(deps.database, 'SELECT min(lower("window")) FROM backfill_jobs') == datetime(2026, 10, 21, tzinfo=UTC)
    with pytest.raises(InvalidRequestError, match=r"retention\.bars_1m_days is 30"):
        request_backfill(ask.model_copy(update={"end": datetime(2026, 10, 1, tzinfo=UTC)}), "me", kept, NOW)
    assert "kept_from" not in request_backfill(ask, "me", deps, NOW).as_dict()


def test_jobs_for_time_that_went_are_given_up_with_their_letters(deps: Deps, coin: int) -> None:
    window = TimeWindow(start=MONTHS[1], end=MONTHS[2])
    jobs = [
        BackfillJob(symbol="BTC-USD", time_window=window, job_id=name, interval=Interval.M1) for name in ("failed",)
    ]
    enqueue_jobs(jobs, "me", deps)
    with deps.database.transaction() as connection:
        connection.execute(text("UPDATE backfill_jobs SET status = 'failed'"))
        connection.execute(
            text(
                "INSERT INTO dead_letters (id, kind, job_id, error_class, message, envelope) "
                "VALUES ('failed:0', 'backfill', 'failed', 'timeout', 'slow', '')"
            )
        )
    all_of_it(keeping(deps, **SHORT))
    assert one(deps.database, "SELECT status FROM backfill_jobs") == "cancelled"
    assert one(deps.database, "SELECT state || ' by ' || requeued_by FROM dead_letters") == "resolved by retention"
    assert coin


def test_it_gives_way_to_whoever_reads_and_takes_its_turn_afterwards(deps: Deps, coin: int) -> None:
    kept = keeping(deps, **ALL)
    with deps.database.transaction() as reader:
        reader.execute(text("SELECT count(*) FROM bars"))
        done = run_once(kept, NOW, 1000)
        assert (done["busy"], done["more"]) == (["bars"], True)
        # Nobody queues behind it: a writer writes on, also while the reader reads.
        store(deps.database, coin, Interval.M1, MONTHS[5] + timedelta(hours=3))
    assert len(partitions(deps.database)) == 6
    all_of_it(kept)
    assert len(partitions(deps.database)) == 2


def test_a_month_into_which_somebody_writes_what_is_kept_does_not_go(
    deps: Deps, coin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether it is empty and the lock."""
    with deps.database.transaction() as connection:
        connection.execute(text("DELETE FROM bars WHERE interval = '1d' AND ts < '2026-07-01'"))
    real = retention.Round._holds

    def and_then_somebody_writes(self: retention.Round, partition: str) -> bool:
        held = real(self, partition)
        if partition == "bars_2026_06":
            assert not held
            store(deps.database, coin, Interval.D1, MONTHS[0], 1)
        return held

    monkeypatch.setattr(retention.Round, "_holds", and_then_somebody_writes)
    run_once(keeping(deps, **SHORT), NOW, 1000)
    assert months(deps.database, Interval.D1) == [6, 7, 8, 9, 10, 11]


def test_a_longer_retention_lets_what_went_be_fetched_again(deps: Deps, coin: int) -> None:
    all_of_it(keeping(deps, **SHORT))
    longer = keeping(deps, **{**SHORT, "bars_1m": 90})
    window = AskedWindow(datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 9, 1, 1, tzinfo=UTC))
    (found,) = find_gaps(Question(["BTC-USD"], Interval.M1, window), longer, NOW)
    assert (found.missing, found.no_trade) == (60, 0)
    ask = BackfillRequest(symbol=("BTC-USD",), start=window.start, end=window.end)
    assert request_backfill(ask, "me", longer, NOW).queued == 1
    _work(deps)
    all_of_it(longer)
    (found,) = find_gaps(Question(["BTC-USD"], Interval.M1, window), longer, NOW)
    assert (found.missing, found.present) == (0, 60)
    all_of_it(keeping(deps, **SHORT))
    assert months(deps.database, Interval.M1) == [10, 11]
    assert coin


def test_quotes_go_by_whole_months(deps: Deps) -> None:
    for month in MONTHS:
        ensure_partitions(deps.database, "quotes", *([int(month.timestamp() * 1e6)] * 2))
    assert run_once(keeping(deps, quotes=30), NOW)["dropped"] == {"quotes": 4}
    assert partitions(deps.database, "quotes") == ["quotes_2026_10", "quotes_2026_11"]


def test_beside_writers_no_write_fails_or_is_lost_and_what_is_too_old_goes(
    deps: Deps, coin: int, database_url: str
) -> None:
    kept, over = keeping(deps, **ALL), Event()

    def write(instrument: int) -> int:
        database, written = Database(database_url), 0
        while not over.is_set() or not written:
            store(database, instrument, Interval.M1, MONTHS[5] + timedelta(hours=written % 20), price=100.0 + written)
            written += 1
        database.close()
        return written

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, instrument) for instrument in (coin, coin, coin + 1)]
        all_of_it(kept, chunks=1)
        over.set()
        written = [writer.result() for writer in writers]
    assert partitions(deps.database) == ["bars_2026_10", "bars_2026_11"]
    hours = min(written[2], 20)
    assert one(deps.database, "SELECT count(*) FROM bars WHERE instrument_id = :id", id=coin + 1) == hours * 60


def test_beside_another_round_both_end_and_everything_went_once(deps: Deps, coin: int, database_url: str) -> None:
    other = replace(deps, database=Database(database_url))
    together = Barrier(2)

    def rounds(mine: Deps) -> None:
        together.wait(timeout=30)
        all_of_it(keeping(mine, **SHORT), chunks=1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(rounds, (deps, other)))
    other.database.close()
    assert months(deps.database, Interval.M1) == [10, 11]
    assert coin


class Asleep(SimulatorProvider):
    """A provider whose newest quote of anything is of last summer."""

    def fetch_quotes(self, *args: Any) -> dict[str, Quote]:
        return {name: replace(quote, ts=MONTHS[1]) for name, quote in super().fetch_quotes(*args).items()}


def test_a_quote_that_would_be_deleted_is_not_stored_and_its_month_not_made_again(deps: Deps) -> None:
    deps.registry._providers["simulator"] = Asleep(deps.calendars)
    job = quotes_fetch_job(symbols=("BTC-USD",))
    run_quotes_fetch(job, keeping(deps, quotes=30), "t0@here/1", NOW)
    assert partitions(deps.database, "quotes") == []
    run_quotes_fetch(job, deps, "t0@here/1", NOW)
    assert partitions(deps.database, "quotes") == ["quotes_2026_07"]


def test_jobs_that_come_from_outside_are_held_to_the_horizon_too(deps: Deps) -> None:
    kept = keeping(deps, **SHORT)
    over = TimeWindow(start=MONTHS[3], end=NOW)
    job = intake._kept(BackfillJob(symbol="BTC-USD", time_window=over), kept, NOW)
    assert isinstance(job, BackfillJob)
    assert job.time_window == TimeWindow(start=datetime(2026, 10, 21, tzinfo=UTC), end=NOW)
    before = TimeWindow(start=MONTHS[2], end=MONTHS[3])
    with pytest.raises(InvalidRequestError, match=r"retention\.bars_1m_days"):
        intake._kept(BackfillJob(symbol="BTC-USD", time_window=before), kept, NOW)
    with pytest.raises(InvalidRequestError, match=r"retention\.bars_1m_days"):
        run_bars_fetch(bars_fetch_job(symbols=("BTC-USD",), time_window=before), kept, "t0@here/1", NOW)


def test_a_process_that_does_not_follow_the_policy_that_holds_deletes_nothing(database: Database, deps: Deps) -> None:
    behind = replace(deps, running=replace(deps.running, version=deps.running.version + 1))
    assert run_once(behind, NOW) == {"rows": {}, "dropped": {}, "more": True, "busy": ["policy"]}
