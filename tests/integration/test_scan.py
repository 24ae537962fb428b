"""The gap scan on real servers: what is missing is found once, asked for once, and closed when it has come."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from sqlalchemy import text

from mdtasks.domain.bars import from_us
from mdtasks.domain.errors import ProviderError
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow, parse_job
from mdtasks.domain.overrides import Kind
from mdtasks.domain.silence import slots
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.calendars import apply_overrides
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.flows.gaps import Question, accept_gaps, find_gaps
from mdtasks.flows.ingest import Outcome, run_backfill
from mdtasks.flows.letters import requeue_job
from mdtasks.flows.scan import Scanned, due_after_s, scan, scan_tier
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings
from mdtasks.store import gaps as store_gaps
from mdtasks.store import jobs as jobs_at_rest
from mdtasks.store import letters, overrides, silences
from mdtasks.store.bars import read_coverage
from mdtasks.store.gaps import LedgerEntry, Scope
from mdtasks.store.reference import Instrument, add_instruments, resolve, set_tier

#: A Friday, an hour after the close.
NOW = datetime(2026, 11, 20, 22, tzinfo=UTC)
EVER = TimeWindow(start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC))
T0_MINUTES = Scope(Tier.T0, Interval.M1)


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings.model_copy(update={"keep_t0": (Interval.M1,), "settle_s": 60.0}))
    with opened.database.transaction() as connection:
        members = [Instrument("SPY", "XNYS", tier=Tier.T0), Instrument("BTC-USD", "24/7", "crypto", Tier.T0)]
        add_instruments(connection, [*members, Instrument("MSFT", "XNYS", tier=Tier.T2)])
    yield opened
    opened.close()


def _jobs(deps: Deps, queue: str = "T0") -> list[BackfillJob]:
    found = []
    while isinstance(element := deps.broker.rpop(queue), bytes):
        job = parse_job(json.loads(base64.b64decode(json.loads(element)["body"]))[0][0])
        assert isinstance(job, BackfillJob)
        found.append(job)
    return found


def _run(deps: Deps, job: BackfillJob, now: datetime = NOW) -> Outcome:
    try:
        return run_backfill(job, deps, "t0@here/1", now).outcome
    except ProviderError:
        return Outcome.FAILED


def _ledger(deps: Deps, symbol: str, interval: Interval = Interval.M1) -> list[LedgerEntry]:
    with deps.database.transaction() as connection:
        member = resolve(connection, [symbol])[symbol]
        return store_gaps.history(connection, member.id, interval, EVER)


def _one(deps: Deps, statement: str) -> Any:
    with deps.database.transaction() as connection:
        return connection.execute(text(statement)).scalar_one()


def _fill(deps: Deps) -> None:
    scan(T0_MINUTES, deps, NOW)
    assert {_run(deps, job) for job in _jobs(deps)} == {Outcome.DONE}


def _covered(deps: Deps, symbol: str) -> list[tuple[datetime, datetime]]:
    with deps.database.transaction() as connection:
        member = resolve(connection, [symbol])[symbol]
        spans = read_coverage(connection, [member.id], Interval.M1)[member.id]
    return [(span.start, span.end) for span in spans]


def test_what_is_missing_is_found_once_asked_for_once_and_closed_when_it_has_come(deps: Deps) -> None:
    first = scan(T0_MINUTES, deps, NOW)
    # Five sessions: 1,950 minutes of the exchange, and four days and 22 hours of what never closes, in jobs of 1,440.
    assert (first.lacking, first.found, first.queued) == (2, 2, 7)
    jobs = _jobs(deps)
    ends = [job.time_window.end for job in jobs]
    assert ends == sorted(ends, reverse=True)
    assert scan(T0_MINUTES, deps, NOW) == Scanned(lacking=2)

    assert {_run(deps, job) for job in jobs[:-1]} == {Outcome.DONE}
    assert scan(T0_MINUTES, deps, NOW).closed == 1
    assert _run(deps, jobs[-1]) is Outcome.DONE
    assert scan(T0_MINUTES, deps, NOW) == Scanned(closed=1)
    (entry,) = _ledger(deps, "SPY")
    assert (entry.missing, entry.outcome, entry.job_status, entry.found_by) == (1950, "repaired", "done", "scan")
    assert entry.took_s is not None
    assert (entry.start, entry.end) == (
        datetime(2026, 11, 16, 14, 30, tzinfo=UTC),
        datetime(2026, 11, 20, 21, tzinfo=UTC),
    )
    assert scan(T0_MINUTES, deps, NOW) == Scanned()


def test_what_ended_a_moment_ago_is_not_missed_yet(deps: Deps) -> None:
    _fill(deps)
    (until,) = (end for start, end in _covered(deps, "BTC-USD"))
    assert until == NOW - timedelta(seconds=due_after_s(Tier.T0, Interval.M1, "24/7", deps))
    assert scan(T0_MINUTES, deps, NOW + timedelta(seconds=59)).lacking == 0
    found = scan(T0_MINUTES, deps, NOW + timedelta(seconds=60))
    assert (found.lacking, found.found) == (1, 1)  # the exchange has closed, the pair goes on


def test_an_outage_that_lasts_is_one_gap(deps: Deps) -> None:
    _fill(deps)
    for minutes in (10, 20, 30):
        scan(T0_MINUTES, deps, NOW + timedelta(minutes=minutes))
    open_ = [entry for entry in _ledger(deps, "BTC-USD") if entry.closed_at is None]
    assert [(entry.start, entry.missing) for entry in open_] == [(NOW - timedelta(minutes=4), 30)]
    with deps.database.transaction() as connection:
        assert store_gaps.open_count(connection) == {(Tier.T0, Interval.M1): 1}


def test_a_gap_that_grows_while_its_job_waits_is_not_asked_for_minute_by_minute(deps: Deps) -> None:
    _fill(deps)
    asked = [scan(T0_MINUTES, deps, NOW + timedelta(minutes=minutes)).queued for minutes in (10, 11, 12, 30)]
    assert asked == [1, 0, 0, 0]
    (job,) = _jobs(deps)
    assert _run(deps, job, NOW + timedelta(minutes=30)) is Outcome.DONE
    assert scan(T0_MINUTES, deps, NOW + timedelta(minutes=30)).queued == 1
    (rest,) = _jobs(deps)
    assert rest.time_window.start == job.time_window.end
    assert _run(deps, rest, NOW + timedelta(minutes=30)) is Outcome.DONE
    assert scan(T0_MINUTES, deps, NOW + timedelta(minutes=30)) == Scanned(closed=1)


def test_jobs_that_an_outage_had_ended_run_again_when_it_is_over_and_not_for_ever(
    deps: Deps, settings: Settings
) -> None:
    # Jobs die only where the breaker does not hold them back.
    chosen = {"simulator_faults": "error=1", "keep_t0": (Interval.M1,), "max_attempts": 1, "demote_threshold": 0.0}
    deps = replace(deps, settings=deps.settings.model_copy(update={"max_attempts": 1}))
    down = open_deps(settings.model_copy(update=chosen))
    scan(T0_MINUTES, down, NOW)
    first = _jobs(down)

    def die(jobs: list[BackfillJob]) -> None:
        assert {_run(down, job) for job in jobs} == {Outcome.FAILED}
        with deps.database.transaction() as connection:
            for job in jobs:
                letter = letters.letter_of_failed(connection, job.job_id, "", "", "")
                assert letter is not None
                assert letters.record(connection, letter)

    def answer_somebody() -> None:
        with deps.database.transaction() as connection:
            attempt = jobs_at_rest.open_live_attempt(connection, "live", "bars_fetch", "t0@here/1")
            jobs_at_rest.close_attempt(connection, attempt, jobs_at_rest.Ending("done", provider="simulator"))

    die(first)
    scan_tier(Tier.T0, deps, NOW)
    assert dispatch_once(deps).get("T0", 0) == 0  # nobody has been answered since
    for life in (2, 3):
        answer_somebody()
        scan_tier(Tier.T0, deps, NOW)
        assert dispatch_once(deps)["T0"] == len(first), life
        die(_jobs(deps))
    answer_somebody()
    scan_tier(Tier.T0, deps, NOW)
    assert dispatch_once(deps).get("T0", 0) == 0  # three lives: now people are asked
    assert _one(deps, "SELECT count(*) FROM dead_letters WHERE state = 'open'") == len(first)
    down.close()


def test_a_listing_expects_only_its_life_and_a_tier_only_what_it_keeps(deps: Deps) -> None:
    with deps.database.transaction() as connection:
        young = Instrument("YOUNG", "XNYS", tier=Tier.T0, listed_from=date(2026, 11, 19))
        gone = Instrument("GONE", "XNYS", tier=Tier.T0, listed_from=date(2020, 1, 1), delisted_on=date(2026, 11, 18))
        add_instruments(connection, [young, gone])
    scan(T0_MINUTES, deps, NOW)
    assert [entry.missing for entry in _ledger(deps, "YOUNG")] == [780]
    assert [entry.missing for entry in _ledger(deps, "GONE")] == [780]
    with deps.database.transaction() as connection:
        set_tier(connection, ["YOUNG"], Tier.T2, "ops")
    scan_tier(Tier.T2, deps, NOW)
    assert [entry.outcome for entry in _ledger(deps, "YOUNG")] == ["withdrawn"]
    assert [entry.outcome for entry in _ledger(deps, "YOUNG", Interval.D1)] == [None]


def test_daily_gaps_reach_back_a_year_and_wait_for_the_close(deps: Deps) -> None:
    days = Scope(Tier.T2, Interval.D1)
    scan(days, deps, NOW)
    (entry,) = _ledger(deps, "MSFT", Interval.D1)
    assert (entry.start, entry.end) == (
        datetime(2025, 11, 20, tzinfo=UTC) + timedelta(days=1),
        NOW.replace(hour=0) + timedelta(days=1),
    )
    for job in _jobs(deps, "T2"):
        assert _run(deps, job) is Outcome.DONE
    assert scan(days, deps, NOW).closed == 1
    assert scan(days, deps, NOW + timedelta(days=3) - timedelta(hours=2)).lacking == 0  # Monday, before the close
    assert scan(days, deps, NOW + timedelta(days=3)).lacking == 1


def test_nobody_is_asked_for_what_no_provider_serves(deps: Deps) -> None:
    registry = Registry(deps.settings, deps.calendars)
    registry._providers = {}
    assert scan(T0_MINUTES, replace(deps, registry=registry), NOW) == Scanned()


def test_a_job_that_failed_waits_for_people_and_is_not_asked_for_again(deps: Deps, settings: Settings) -> None:
    broken = open_deps(settings.model_copy(update={"simulator_faults": "unknown=SPY", "keep_t0": (Interval.M1,)}))
    scan(T0_MINUTES, broken, NOW)
    assert [_run(broken, job) for job in _jobs(broken)].count(Outcome.FAILED) == 2
    broken.close()
    found = scan(T0_MINUTES, deps, NOW)
    assert (found.lacking, found.queued) == (1, 0)
    (entry,) = _ledger(deps, "SPY")
    assert (entry.closed_at, entry.job_status) == (None, "failed")
    # What was done since about a part of it does not hide what has died.
    hour = TimeWindow(start=NOW.replace(hour=15), end=NOW.replace(hour=16))
    enqueue_jobs([BackfillJob(symbol="SPY", time_window=hour, priority=Tier.T0)], "ann", deps)
    assert _run(deps, _jobs(deps)[0]) is Outcome.DONE
    assert scan(T0_MINUTES, deps, NOW).resolved == 0
    assert [entry.job_status for entry in _ledger(deps, "SPY") if entry.closed_at is None] == ["failed"]
    # Somebody fills the gap by another way: the letters have nothing to say any more.
    with deps.database.transaction() as connection:
        for job in connection.execute(text("SELECT id FROM backfill_jobs WHERE status = 'failed'")).scalars().all():
            letter = letters.letter_of_failed(connection, job, "", "", "")
            assert letter is not None
            assert letters.record(connection, letter)
    window = TimeWindow(start=NOW - timedelta(days=7), end=NOW)
    other = BackfillJob(symbol="SPY", time_window=window, priority=Tier.T0)
    enqueue_jobs([other], "ann", deps)
    assert _run(deps, _jobs(deps)[0]) is Outcome.DONE
    assert scan(T0_MINUTES, deps, NOW) == Scanned(closed=1, resolved=2)
    assert _one(deps, "SELECT count(*) FROM dead_letters WHERE state = 'open'") == 0
    assert _one(deps, "SELECT count(*) FROM backfill_jobs WHERE status = 'failed'") == 0


def test_a_symbol_that_nobody_knows_makes_a_letter_for_each_doubling_and_none_a_minute(
    deps: Deps, settings: Settings
) -> None:
    _fill(deps)
    lost = open_deps(settings.model_copy(update={"simulator_faults": "unknown=BTC-USD", "keep_t0": (Interval.M1,)}))
    asked = []
    for minutes in range(1, 131):
        scan(T0_MINUTES, lost, NOW + timedelta(minutes=minutes))
        for job in _jobs(lost):
            assert _run(lost, job, NOW + timedelta(minutes=minutes)) is Outcome.FAILED
            asked.append(minutes)
    lost.close()
    assert asked == [1, 31, 62, 124]
    assert len([entry for entry in _ledger(deps, "BTC-USD") if entry.closed_at is None]) == 1


def test_letters_of_long_ago_are_resolved_when_nothing_is_missing_of_them_any_more(
    deps: Deps, settings: Settings
) -> None:
    window = TimeWindow(start=datetime(2025, 3, 3, tzinfo=UTC), end=datetime(2025, 3, 8, tzinfo=UTC))
    broken = open_deps(settings.model_copy(update={"simulator_faults": "unknown=SPY", "keep_t0": (Interval.M1,)}))
    died = BackfillJob(symbol="SPY", time_window=window, priority=Tier.T0)
    enqueue_jobs([died], "ann", broken)
    assert _run(broken, _jobs(broken)[0]) is Outcome.FAILED
    broken.close()
    with deps.database.transaction() as connection:
        letter = letters.letter_of_failed(connection, died.job_id, "", "", "")
        assert letter is not None
        assert letters.record(connection, letter)
    until = TimeWindow(start=window.start, end=window.end - timedelta(days=1))
    for filled, resolved in ((until, 0), (window, 1)):
        enqueue_jobs([BackfillJob(symbol="SPY", time_window=filled, priority=Tier.T0)], "ann", deps)
        assert {_run(deps, job) for job in _jobs(deps) if job.time_window == filled} == {Outcome.DONE}
        assert scan(T0_MINUTES, deps, NOW).resolved == resolved
    assert _one(deps, "SELECT count(*) FROM dead_letters WHERE state = 'open'") == 0


def _told(deps: Deps, new: overrides.NewOverride) -> int:
    with deps.database.transaction() as connection:
        overrides.lock(connection)
        made = overrides.add(connection, new, "ann")
    apply_overrides(deps.database, deps.calendars)
    return made.id


def _undone(deps: Deps, override: int) -> None:
    with deps.database.transaction() as connection:
        overrides.undo(connection, override, "it was not so", "ann")
    apply_overrides(deps.database, deps.calendars)


def test_gaps_of_a_closed_day_vanish_and_come_back_when_it_is_undone(deps: Deps) -> None:
    scan(T0_MINUTES, deps, NOW)
    thursday = TimeWindow(start=NOW.replace(day=19, hour=14, minute=30), end=NOW.replace(day=19, hour=21))
    jobs = _jobs(deps)
    closed = _told(deps, overrides.NewOverride(Kind.CLOSED, thursday, "storm", mic="XNYS", session=date(2026, 11, 19)))
    # What is answered while the day is shut speaks for no time of it.
    assert {_run(deps, job) for job in jobs} == {Outcome.DONE}
    found = scan(T0_MINUTES, deps, NOW)  # the fifth session from the end is one day earlier now
    assert (found.closed, found.found, found.queued) == (2, 1, 1)
    assert {_run(deps, job) for job in _jobs(deps)} == {Outcome.DONE}
    assert scan(T0_MINUTES, deps, NOW) == Scanned(closed=1)
    _undone(deps, closed)
    found = scan(T0_MINUTES, deps, NOW)
    assert (found.lacking, found.found, found.queued) == (1, 1, 1)
    entry = _ledger(deps, "SPY")[0]
    assert (entry.start, entry.end, entry.missing) == (thursday.start, thursday.end, 390)
    again = _told(deps, overrides.NewOverride(Kind.CLOSED, thursday, "storm", mic="XNYS", session=date(2026, 11, 19)))
    assert scan(T0_MINUTES, deps, NOW) == Scanned(closed=1)
    assert _ledger(deps, "SPY")[0].outcome == "withdrawn"
    _undone(deps, again)
    assert scan(T0_MINUTES, deps, NOW).found == 1


def test_a_persons_word_is_about_sessions_and_not_about_a_day_that_was_taken_for_closed(deps: Deps) -> None:
    thursday = TimeWindow(start=NOW.replace(day=19, hour=14, minute=30), end=NOW.replace(day=19, hour=21))
    closed = _told(deps, overrides.NewOverride(Kind.CLOSED, thursday, "storm", mic="XNYS", session=date(2026, 11, 19)))
    question = Question(["SPY"], Interval.M1, AskedWindow(NOW.replace(day=18, hour=0), NOW))
    accepted = accept_gaps("SPY", question, ("ann", "no feed"), deps, NOW)
    assert accepted.intervals == 2 * 390
    assert [window.start.day for window in accepted.windows] == [18, 20]
    _undone(deps, closed)
    (found,) = find_gaps(question, deps, NOW)
    assert [gap.window for gap in found.gaps] == [thursday]


def test_a_halt_of_one_symbol_is_no_gap_of_it_and_one_of_the_others(deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("GME", "XNYS", tier=Tier.T0)])
        members = resolve(connection, ["GME", "SPY"])
    halt = TimeWindow(start=NOW.replace(hour=15), end=NOW.replace(hour=16))
    _told(deps, overrides.NewOverride(Kind.HALT, halt, "news", instrument_id=members["GME"].id))
    scan(T0_MINUTES, deps, NOW)
    assert [entry.missing for entry in _ledger(deps, "GME")] == [300, 1590]
    assert [entry.missing for entry in _ledger(deps, "SPY")] == [1950]
    question = Question(["GME", "SPY"], Interval.M1, AskedWindow(NOW.replace(hour=14), NOW))
    counts = {each.symbol: (each.halted, each.missing) for each in find_gaps(question, deps, NOW)}
    assert counts == {"GME": (60, 330), "SPY": (0, 390)}
    assert {_run(deps, job) for job in _jobs(deps)} == {Outcome.DONE}
    assert scan(T0_MINUTES, deps, NOW).lacking == 0


INDEX_DAY = TimeWindow(
    start=datetime(2019, 11, 6, 9, 30, tzinfo=ZoneInfo("America/New_York")),
    end=datetime(2019, 11, 6, 16, tzinfo=ZoneInfo("America/New_York")),
)
THEN = datetime(2019, 11, 8, 23, tzinfo=UTC)


@pytest.fixture
def index(settings: Settings, shared_data: Path, tmp_path: Path) -> Iterator[Deps]:
    """The real minutes of an index, out of a folder of the test's own: twenty of them can be cut out."""
    (tmp_path / "data").mkdir()
    source = shared_data / "mplfinance" / "SP500_NOV2019_IDay.csv"
    (tmp_path / "data" / "index.csv").write_text(source.read_text())
    columns = {name: name.capitalize() for name in ("open", "high", "low", "close", "volume")}
    dataset = {
        "path": "index.csv",
        "symbols": ["SPX"],
        "interval": "1m",
        "columns": {"time": "Date", **columns},
        "timezone": "America/New_York",
        "time_format": "%m/%d/%Y %H:%M",
    }
    mapping = tmp_path / "map.yaml"
    mapping.write_text(yaml.safe_dump({"root": str(tmp_path / "data"), "datasets": [dataset]}))
    chosen = {"simulator": False, "files_map": mapping, "keep_t0": (Interval.M1,), "look_back_sessions": 4}
    opened = open_deps(settings.model_copy(update=chosen))
    with opened.database.transaction() as connection:
        add_instruments(connection, [Instrument("SPX", "XNYS", "index", Tier.T0)])
    yield opened
    opened.close()


def _cut(folder: Path) -> str:
    """Take 10:30 to 10:49 of 6 November out of the file; returns it whole."""
    path = folder / "data" / "index.csv"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    kept = [line for line in lines if not any(line.startswith(f"11/6/2019 10:{minute}") for minute in range(30, 50))]
    assert len(kept) == len(lines) - 20
    path.write_text("".join(kept))
    return whole


def _work(deps: Deps, now: datetime) -> list[Outcome]:
    """Run what waits, and what is to be tried again, until nothing is."""
    outcomes: list[Outcome] = []
    while True:
        with deps.database.transaction() as connection:
            rows = connection.execute(
                text(
                    'SELECT id, symbol, lower("window") AS a, upper("window") AS b FROM backfill_jobs'
                    " WHERE status IN ('queued', 'deferred') ORDER BY id"
                )
            ).all()
            connection.execute(text("UPDATE backfill_jobs SET not_before = NULL WHERE status = 'deferred'"))
        if not rows:
            return outcomes
        for row in rows:
            window = TimeWindow(start=row.a, end=row.b)
            job = BackfillJob(job_id=row.id, symbol=row.symbol, time_window=window, priority=Tier.T0)
            outcomes.append(_run(deps, job, now))


def test_twenty_minutes_cut_out_of_an_index_are_found_exactly_and_repaired(index: Deps, tmp_path: Path) -> None:
    whole = _cut(tmp_path)
    scan(T0_MINUTES, index, THEN)
    assert _work(index, THEN).count(Outcome.FAILED) == 1
    scan(T0_MINUTES, index, THEN)
    (entry,) = _ledger(index, "SPX")
    hole = (datetime(2019, 11, 6, 15, 30, tzinfo=UTC), datetime(2019, 11, 6, 15, 50, tzinfo=UTC))
    assert entry.closed_at is None
    missing = _missing(index)
    assert [(from_us(start), from_us(end)) for start, end in missing] == [hole]
    # Three attempts met the same silence, then people were asked; nobody is asked for ever.
    job = _one(index, "SELECT id FROM backfill_jobs WHERE status = 'failed'")
    assert _one(index, "SELECT count(*) FROM job_attempts WHERE error_class = 'silence_doubted'") == 3
    assert scan(T0_MINUTES, index, THEN).queued == 0
    with index.database.transaction() as connection:
        letter = letters.letter_of_failed(connection, job, "", "", "")
        assert letter is not None
        assert (letter.error_class, letter.attempts) == ("silence_doubted", 3)
        assert letters.record(connection, letter)
    (tmp_path / "data" / "index.csv").write_text(whole)
    assert requeue_job(job, "ann", index)["requeued"] == 1
    assert _work(index, THEN) == [Outcome.DONE]
    assert scan(T0_MINUTES, index, THEN).closed == 1
    (entry,) = _ledger(index, "SPX")
    assert (entry.outcome, entry.job_status) == ("repaired", "done")
    assert _missing(index) == []


def test_a_person_may_accept_silence_and_the_gap_closes_as_accepted(index: Deps, tmp_path: Path) -> None:
    _cut(tmp_path)
    scan(T0_MINUTES, index, THEN)
    _work(index, THEN)
    scan(T0_MINUTES, index, THEN)
    ((start, end),) = _missing(index)
    with index.database.transaction() as connection:
        member = resolve(connection, ["SPX"])["SPX"]
        window = TimeWindow(start=from_us(start), end=from_us(end))
        silences.accept(connection, member.id, Interval.M1, window, ("ann", "the feed was shut by the exchange"))
    assert scan(T0_MINUTES, index, THEN).closed == 1
    (entry,) = _ledger(index, "SPX")
    assert entry.outcome == "accepted"


def _missing(deps: Deps) -> list[tuple[int, int]]:
    calendar = deps.calendars.get("XNYS")
    day = TimeWindow(start=INDEX_DAY.start - timedelta(days=1), end=INDEX_DAY.end + timedelta(days=2))
    expected = calendar.expected(day, Interval.M1)
    spans = {"XNYS": slots(expected, Interval.M1)}
    with deps.database.transaction() as connection:
        found = store_gaps.lacking(connection, T0_MINUTES, spans, {})
    return [(start, end) for each in found for start, end in each.missing.tolist()]
