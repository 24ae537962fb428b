"""From a commit to the replay buffer: everything once and in order, whatever crashes, races or is away in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import numpy as np
import orjson
import pytest
import redis
from sqlalchemy import text

from mdtasks.domain.answers import Judgement
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.errors import BrokerUnavailableError, UnavailableError
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.replay import Draft, Entry, Position, StreamKey, Window, heard_since
from mdtasks.domain.silence import Silence
from mdtasks.domain.universe import Listing
from mdtasks.flows import replay
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps, equipped, open_deps
from mdtasks.flows.ingest import Outcome, run_backfill
from mdtasks.flows.judging import Fetched, Subject
from mdtasks.flows.live import run_bars_fetch
from mdtasks.settings import Settings
from mdtasks.store import outbox
from mdtasks.store.bars import BarBatch, write_bars
from mdtasks.store.outbox import Note
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, resolve
from mdtasks.store.replay import ReplayBuffer, Told
from mdtasks.testing import backfill_job, bars_fetch_job
from mdtasks.web.gauges import look_for_scrape, readings

NOW = datetime(2026, 11, 20, 15, 30, 20, tzinfo=UTC)  # a Friday, an hour into the session
FIRST = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
MAX_BARS = 6
MINUTE = timedelta(minutes=1)
FINAL, PROVISIONAL = 2**62, 0


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """Deps with a small buffer, two instruments that always trade and one that does not."""
    opened = open_deps(settings.model_copy(update={"replay_max_bars": MAX_BARS}), application="tests")
    with opened.database.transaction() as connection:
        members = [Instrument("S1", "24/7", "crypto", Tier.T0), Instrument("S2", "24/7", "crypto", Tier.T0)]
        add_instruments(connection, [*members, Instrument("SPY", "XNYS", tier=Tier.T0)])
    ensure_partitions(opened.database, "bars", to_us(FIRST - timedelta(days=400)), to_us(NOW))
    yield opened
    opened.close()


def number_of(deps: Deps, symbol: str) -> int:
    with deps.database.transaction() as connection:
        return resolve(connection, [symbol])[symbol].id


def commit(
    deps: Deps, instrument: int, minutes: Sequence[int], close: float = 1.0, final_before_us: int = FINAL
) -> None:
    """Commit bars of these minutes as a flow does, and tell nobody."""
    ts = to_us(FIRST) + np.array(minutes, dtype=np.int64) * 60_000_000
    prices = [close] * len(ts)
    batch = BarBatch(instrument, Bars.of(ts, prices, prices, prices, prices, prices), final_before_us)
    with deps.database.transaction() as connection:
        write_bars(connection, Interval.M1, [batch], "simulator", 1, note=noted(deps))


def noted(deps: Deps, now: datetime = NOW) -> Note:
    return replay.note(deps, [], Interval.M1, now)


def publish(deps: Deps, *instruments: int) -> int:
    return replay.publish_pending(deps, instruments, Interval.M1)


def sweep(deps: Deps, later: timedelta = timedelta(seconds=30)) -> int:
    """A sweep so long after the commits."""
    return replay.sweep(deps, datetime.now(UTC) + later)


def window(deps: Deps, instrument: int, position: Position | None = None) -> Window:
    key = StreamKey(instrument, Interval.M1)
    return replay.windows(deps, {key: position}, NOW)[key]


def shown(entries: Sequence[Entry]) -> list[tuple[int, float]]:
    """(minute, close) of each bar; close -1 for an interval without a trade."""
    documents = [orjson.loads(entry.body) for entry in entries]
    minutes = [(datetime.fromisoformat(document["ts"]) - FIRST) // MINUTE for document in documents]
    return [(minute, document.get("close", -1)) for minute, document in zip(minutes, documents, strict=True)]


def waiting(deps: Deps) -> int:
    with deps.database.transaction() as connection:
        return outbox.pending(connection).rows


def test_what_a_live_fetch_stores_is_in_the_buffer_as_it_is_in_the_store(deps: Deps) -> None:
    spy = number_of(deps, "SPY")
    start = window(deps, spy).position
    for number in range(3):
        run_bars_fetch(bars_fetch_job(symbols=("SPY",)), deps, "t0@here/1", NOW + number * MINUTE)
    resumed = window(deps, spy, start)
    documents = [orjson.loads(entry.body) for entry in resumed.entries]
    assert resumed.resumed
    assert [(each["ts"][11:16], each["final"]) for each in documents] == [
        ("15:25", True), ("15:26", True), ("15:27", True), ("15:28", True), ("15:29", False),
        ("15:29", True), ("15:30", False), ("15:30", True), ("15:31", False),
    ]  # fmt: skip
    with deps.database.transaction() as connection:
        held = outbox.newest(connection, Interval.M1, [spy], MAX_BARS, FIRST)[spy]
    assert [entry.body for entry in window(deps, spy).entries] == [draft.body for draft in held]
    assert set(documents[0]) == {
        "type", "ts", "open", "high", "low", "close", "volume", "final", "provider", "known_at",
    }  # fmt: skip
    assert waiting(deps) == 0


def test_a_stream_is_born_with_the_newest_bars_whoever_comes_first(deps: Deps, redis_client: redis.Redis) -> None:
    one, two = number_of(deps, "S1"), number_of(deps, "S2")
    for instrument in (one, two):
        commit(deps, instrument, range(10))
    assert publish(deps, one, two) == 0  # they are filled with it
    expected = [(minute, 1.0) for minute in range(4, 10)]
    assert shown(window(deps, one).entries) == expected
    redis_client.flushall()
    assert shown(window(deps, two).entries) == expected
    commit(deps, two, [10])
    assert publish(deps, two) == 1
    assert shown(window(deps, two).entries) == [*expected[1:], (10, 1.0)]


def test_bars_of_one_commit_come_in_order_of_time_and_commits_in_theirs(deps: Deps) -> None:
    one = number_of(deps, "S1")
    start = window(deps, one).position
    commit(deps, one, [3, 4])
    commit(deps, one, [1, 2, 5])
    commit(deps, one, [4], close=9.0)
    assert publish(deps, one) == 5
    assert shown(window(deps, one, start).entries) == [(3, 1.0), (1, 1.0), (2, 1.0), (5, 1.0), (4, 9.0)]


def test_a_promotion_is_an_entry_and_an_unchanged_bar_is_none(deps: Deps) -> None:
    one = number_of(deps, "S1")
    start = window(deps, one).position
    for final in (PROVISIONAL, PROVISIONAL, FINAL, FINAL):
        commit(deps, one, [1], final_before_us=final)
        publish(deps, one)
    entries = window(deps, one, start).entries
    assert [orjson.loads(entry.body)["final"] for entry in entries] == [False, True]


def test_silence_that_is_believed_completes_its_intervals(deps: Deps) -> None:
    one = number_of(deps, "S1")
    start = window(deps, one).position
    note = replace(noted(deps), silent={one: [FIRST + 2 * MINUTE, FIRST + 4 * MINUTE]})
    bars = Bars.of(*[[to_us(FIRST + 3 * MINUTE)]], *[[2.0]] * 5)
    for _ in range(2):
        with deps.database.transaction() as connection:
            write_bars(connection, Interval.M1, [BarBatch(one, bars, FINAL)], "simulator", 1, note=note)
        publish(deps, one)
    entries = window(deps, one, start).entries
    assert shown(entries) == [(2, -1), (3, 2.0), (4, -1)]
    assert orjson.loads(entries[0].body) == {"type": "interval_complete", "ts": "2026-11-20T13:02:00Z"}
    assert shown(window(deps, one).entries) == [(3, 2.0)]


def test_silence_is_told_of_the_intervals_that_were_expected_and_only_where_it_is_believed(deps: Deps) -> None:
    spy = number_of(deps, "SPY")
    night = TimeWindow(start=FIRST.replace(day=19, hour=20, minute=59), end=FIRST.replace(hour=14, minute=32))
    later = TimeWindow(start=FIRST.replace(hour=15), end=FIRST.replace(hour=15, minute=5))
    heard = [Silence(night, believed=True), Silence(later, believed=False)]
    batch = BarBatch(spy, Bars.empty(), FINAL, silences=heard)
    part = Fetched(Subject(spy, Listing("SPY", "XNYS")), "simulator", batch, Judgement())
    told = replay.note(deps, [part], Interval.M1, NOW).silent
    assert {who: [f"{at:%d %H:%M}" for at in starts] for who, starts in told.items()} == {
        spy: ["19 20:59", "20 14:30", "20 14:31"]
    }


@pytest.mark.parametrize("seam", ["before it is told", "before it is taken out for good"])
def test_a_crash_between_commit_and_publication_loses_nothing_and_doubles_nothing(
    seam: str, deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = number_of(deps, "S1")
    start = window(deps, one).position
    commit(deps, one, [1, 2])
    tell = ReplayBuffer.publish

    def crash(self: ReplayBuffer, drafts: dict[StreamKey, list[Draft]], committed_us: int) -> Told:
        if seam != "before it is told":
            tell(self, drafts, committed_us)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ReplayBuffer, "publish", crash)
        with pytest.raises(KeyboardInterrupt):
            publish(deps, one)
    assert waiting(deps) == 1
    commit(deps, one, [3])  # by a process that died at once
    assert sweep(deps) == (3 if seam == "before it is told" else 1)
    assert shown(window(deps, one, start).entries) == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert (waiting(deps), sweep(deps)) == (0, 0)


def test_what_waits_is_told_by_the_next_commit_of_the_series_and_before_it(deps: Deps) -> None:
    one = number_of(deps, "S1")
    start = window(deps, one).position
    commit(deps, one, [1])
    commit(deps, one, [2])
    assert publish(deps, one) == 2
    assert shown(window(deps, one, start).entries) == [(1, 1.0), (2, 1.0)]


def test_the_sweep_leaves_alone_what_was_committed_just_now(deps: Deps) -> None:
    one = number_of(deps, "S1")
    commit(deps, one, [1])
    assert sweep(deps, timedelta(0)) == 0
    assert waiting(deps) == 1


def test_a_redis_that_is_away_costs_no_job_and_is_told_when_it_is_back(
    deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = number_of(deps, "S1")
    start = window(deps, one).position
    with monkeypatch.context() as away:
        away.setattr(deps.replay, "_publish", _nobody_answers)
        job = backfill_job(symbol="S1", time_window=TimeWindow(start=FIRST, end=FIRST + 3 * MINUTE))
        enqueue_jobs([job], "tests", deps)
        assert run_backfill(job, deps, "t0@here/1", NOW).outcome is Outcome.DONE
        assert deps.replay.is_away
        commit(deps, one, [5])
        assert publish(deps, one) == 0  # not even tried
        assert sweep(deps) == 0
    assert waiting(deps) == 2
    assert sweep(deps) == 4
    assert [minute for minute, _ in shown(window(deps, one, start).entries)] == [0, 1, 2, 5]


def _nobody_answers(**_: object) -> None:
    raise redis.ConnectionError("refused")


def test_readers_are_told_that_redis_is_away(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deps.replay, "_read", _nobody_answers)
    with pytest.raises(BrokerUnavailableError):
        window(deps, 1)


def test_a_redis_that_loses_what_it_is_given_is_an_error_and_no_empty_window(
    deps: Deps, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    refill = ReplayBuffer.refill

    def lost(self: ReplayBuffer, *args: object) -> int:
        begun = refill(self, *args)  # type: ignore[arg-type]
        redis_client.flushall()
        return begun

    monkeypatch.setattr(ReplayBuffer, "refill", lost)
    one = number_of(deps, "S1")
    commit(deps, one, [1])
    with pytest.raises(UnavailableError, match="loses"):
        window(deps, one)
    assert publish(deps, one) == 0
    assert waiting(deps) == 1


def test_a_redis_that_was_emptied_between_telling_and_filling_misses_nothing(
    deps: Deps, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader fills the stream from before the commit just when its publisher means to."""
    one = number_of(deps, "S1")
    commit(deps, one, [1])
    publish(deps, one)
    commit(deps, one, [2])
    redis_client.flushall()
    newest = outbox.newest
    raced: list[int] = []

    def race(*args: object) -> dict[int, list[Draft]]:
        found = newest(*args)  # type: ignore[arg-type]
        if not raced:
            raced.append(1)
            redis_client.flushall()
            stale = deps.replay.read({StreamKey(one, Interval.M1): None}).births
            deps.replay.refill({StreamKey(one, Interval.M1): found[one][:1]}, stale)
        return found

    monkeypatch.setattr(outbox, "newest", race)
    assert publish(deps, one) == 1
    assert shown(window(deps, one).entries) == [(1, 1.0), (2, 1.0)]


def test_who_publishes_waits_for_who_began_before(
    deps: Deps, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    one = number_of(deps, "S1")
    start = window(deps, one).position
    commit(deps, one, [1])
    took, go_on = threading.Event(), threading.Event()
    tell = ReplayBuffer.publish

    def slowly(self: ReplayBuffer, drafts: Mapping[StreamKey, Sequence[Draft]], committed_us: int) -> Told:
        if not took.is_set():
            took.set()
            assert go_on.wait(timeout=60)
        return tell(self, drafts, committed_us)

    def waits_or_is_done() -> bool:
        with deps.database.transaction() as connection:
            locked = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(connection.execute(text(locked)).scalar_one()) or second.done()

    monkeypatch.setattr(ReplayBuffer, "publish", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(publish, deps, one)
        assert took.wait(timeout=60)
        commit(deps, one, [2])
        second = pool.submit(publish, deps, one)
        eventually(waits_or_is_done)
        go_on.set()
        assert (first.result(), second.result()) == (1, 1)
    assert shown(window(deps, one, start).entries) == [(1, 1.0), (2, 1.0)]


def test_publishers_that_race_keep_the_order_of_the_commits(deps: Deps) -> None:
    deps = replace(deps, replay=ReplayBuffer(deps.state, 50, 100))  # its log reaches back to the first
    one, two = number_of(deps, "S1"), number_of(deps, "S2")
    start = {each: window(deps, each).position for each in (one, two)}
    ready = threading.Barrier(4)

    def work(number: int) -> None:
        ready.wait(timeout=60)
        for minute in range(number, 40, 4):
            for instrument in (one, two) if number % 2 else (two, one):
                commit(deps, instrument, [minute])
            publish(deps, *((one, two) if number % 2 else (two, one)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert (waiting(deps), sweep(deps)) == (0, 0)
    with deps.database.transaction() as connection:
        rows = connection.execute(text("SELECT instrument_id, ts FROM bars ORDER BY known_at, instrument_id")).all()
    for instrument in (one, two):
        committed = [(ts - FIRST) // MINUTE for number, ts in rows if number == instrument]
        resumed = window(deps, instrument, start[instrument])
        assert [minute for minute, _ in shown(resumed.entries)] == committed
        assert [entry.offset for entry in resumed.entries] == list(range(1, 41))


def test_a_backfill_of_years_adds_what_the_buffer_has_place_for_and_no_more(deps: Deps) -> None:
    one = number_of(deps, "S1")
    ts = to_us(NOW - timedelta(days=300)) // 3_600_000_000 * 3_600_000_000 + np.arange(7200) * 3_600_000_000
    bars = Bars.of(ts, *[np.full(len(ts), 1.0)] * 5)
    with deps.database.transaction() as connection:
        write_bars(connection, Interval.H1, [BarBatch(one, bars, FINAL)], "simulator", 1, note=_hourly(deps))
        (held,) = connection.execute(text("SELECT bars FROM bar_outbox")).scalars().all()
    assert [to_us(at) for at in sorted(held)] == ts[-MAX_BARS:].tolist()


def test_what_is_long_ago_or_behind_newer_bars_leaves_no_note(deps: Deps) -> None:
    one = number_of(deps, "S1")
    commit(deps, one, range(100, 120))
    publish(deps, one)
    commit(deps, one, range(100))  # the hole before them
    commit(deps, one, range(-30 * 1440, -29 * 1440))
    assert waiting(deps) == 0
    commit(deps, one, range(112, 118), close=2.0)  # the newest six begin at 114
    with deps.database.transaction() as connection:
        (held,) = connection.execute(text("SELECT bars FROM bar_outbox")).scalars().all()
    assert [(at - FIRST) // MINUTE for at in held] == [114, 115, 116, 117]


def test_a_thin_series_holds_its_newest_bars_however_old_they_are(deps: Deps) -> None:
    one = number_of(deps, "S1")
    days = [-300, -200, -100, -1]
    commit(deps, one, [day * 1440 for day in days])
    assert shown(window(deps, one).entries) == [(day * 1440, 1.0) for day in days]


def test_a_note_that_waited_longer_than_a_stream_lives_is_dropped_with_the_stream(
    deps: Deps, redis_client: redis.Redis
) -> None:
    one, two = number_of(deps, "S1"), number_of(deps, "S2")
    before = {each: window(deps, each).position for each in (one, two)}
    commit(deps, one, [1])
    assert sweep(deps, timedelta(seconds=deps.replay.ttl_s + 70)) == 0
    assert waiting(deps) == 0
    again = window(deps, one, before[one])
    assert (again.resumed, shown(again.entries)) == (False, [(1, 1.0)])
    assert window(deps, two, before[two]).resumed


def test_a_scrape_tells_what_waits_and_for_how_long(deps: Deps) -> None:
    def told() -> dict[str, float]:
        now = datetime.now(UTC)
        found = readings(anyio.run(look_for_scrape, deps, now), now)
        return {each.gauge.name: each.value for each in found if each.gauge.name.startswith("replay_")}

    assert told() == {"replay_pending": 0, "replay_oldest_age_seconds": 0}
    one = number_of(deps, "S1")
    commit(deps, one, [1])
    commit(deps, one, [2])
    waits = told()
    assert waits["replay_pending"] == 2
    assert waits["replay_oldest_age_seconds"] > 0


def test_a_new_policy_changes_how_much_is_kept(deps: Deps) -> None:
    policy = deps.running.policy.model_copy(
        update={"replay": deps.running.policy.replay.model_copy(update={"max_bars": 3, "ttl_s": 77})}
    )
    changed = replace(deps, **equipped(deps, replace(deps.running, policy=policy)))
    assert (changed.replay.max_bars, changed.replay.ttl_s) == (3, 77)
    one = number_of(deps, "S1")
    commit(changed, one, range(10))
    assert [minute for minute, _ in shown(window(changed, one).entries)] == [7, 8, 9]


def test_since_when_a_buffer_may_want_bars_reaches_over_the_longest_holidays() -> None:
    days = {interval: (NOW - heard_since(interval, 120, NOW)).days for interval in Interval}
    assert days == {Interval.M1: 16, Interval.M5: 20, Interval.M15: 28, Interval.H1: 70, Interval.D1: 182}


def _hourly(deps: Deps) -> Note:
    return replay.note(deps, [], Interval.H1, NOW)
