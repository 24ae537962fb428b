"""Ticks of local mode: quotes while the exchange is open, whole calls of the provider, and never two at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery.schedules import schedule
from redbeat import RedBeatSchedulerEntry

from mdtasks.domain.jobs import QuotesFetchJob, Tier, parse_job
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.live import run_quotes_fetch
from mdtasks.flows.ticks import Feed, Series, overlaps, packets, report, tick
from mdtasks.observe import metrics
from mdtasks.queue.app import make_app
from mdtasks.settings import Settings
from mdtasks.store import quotes
from mdtasks.store.reference import Instrument, add_instruments
from mdtasks.worker.schedule import Scheduler

OPEN = datetime(2026, 11, 20, 15, 30, 20, tzinfo=UTC)  # a Friday, an hour into the session
CLOSE = datetime(2026, 11, 20, 21, 0, tzinfo=UTC)
QUOTES = Series(Tier.T0, Feed.QUOTES)
BARS = Series(Tier.T0, Feed.BARS)


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """Deps with a share and a coin in T0."""
    opened = open_deps(settings)
    members = [Instrument("SPY", "XNYS", tier=Tier.T0), Instrument("BTC-USD", "24/7", "crypto", Tier.T0)]
    with opened.database.transaction() as connection:
        add_instruments(connection, members)
    yield opened
    opened.close()


def _waiting(deps: Deps) -> list[dict[str, object]]:
    return [json.loads(element) for element in deps.broker.lrange("T0.live", 0, -1)]


def _taken(deps: Deps) -> QuotesFetchJob:
    """Take the oldest message and forget it, as a worker that acknowledges."""
    element = deps.broker.rpop("T0.live")
    assert isinstance(element, bytes)
    job = parse_job(json.loads(base64.b64decode(json.loads(element)["body"]))[0][0])
    assert isinstance(job, QuotesFetchJob)
    return job


def _skipped(series: Series, reason: str = "overlap") -> float:
    child = metrics.LIVE_TICKS_SKIPPED.labels(tier=series.tier, capability=series.feed, reason=reason)
    return float(child._value.get())


def test_quotes_are_asked_for_until_the_second_of_the_close_and_are_there_after_it(deps: Deps) -> None:
    assert tick(QUOTES, 5, deps, CLOSE - timedelta(seconds=1)) == 2
    job = _taken(deps)
    assert set(job.symbols) == {"SPY", "BTC-USD"}
    run_quotes_fetch(job, deps, "t0@here/1", OPEN)
    with deps.database.transaction() as connection:
        found = quotes.latest_rows(connection, ["BTC-USD", "SPY"])
    assert [row["symbol"] for row in found] == ["BTC-USD", "SPY"]
    assert all(row["bid"] < row["ask"] for row in found)
    assert tick(QUOTES, 5, deps, CLOSE) == 1
    assert _taken(deps).symbols == ("BTC-USD",)


def test_a_tick_expires_before_the_next_one_can_come(deps: Deps) -> None:
    tick(QUOTES, 5, deps, OPEN)
    (envelope,) = _waiting(deps)
    headers = envelope["headers"]
    assert isinstance(headers, dict)
    assert OPEN < datetime.fromisoformat(headers["expires"]) <= OPEN + timedelta(seconds=5 * 0.9)


def test_a_tick_is_skipped_and_counted_while_the_one_before_waits_and_other_series_are_not(deps: Deps) -> None:
    before = _skipped(QUOTES)
    assert tick(QUOTES, 5, deps, OPEN) == 2
    assert tick(QUOTES, 5, deps, OPEN + timedelta(seconds=5)) == 0
    assert tick(BARS, 60, deps, OPEN + timedelta(seconds=5)) == 2
    assert tick(Series(Tier.T1, Feed.QUOTES), 15, deps, OPEN) == 0  # of no instruments: asked, not skipped
    assert _skipped(QUOTES) == before + 1
    assert len(_waiting(deps)) == 2
    told = report(deps)["tiers"]["T0"]["quotes_l1"]
    assert (told["cadence_s"], told["symbols"], told["ticks"], told["skipped"]) == (5.0, 2, 1, 1)
    assert told["last_tick"] == OPEN
    assert report(deps)["tiers"]["T1"]["quotes_l1"]["skipped"] == 0


def test_a_tick_is_skipped_while_a_worker_runs_what_the_one_before_asked_for_but_not_for_a_lost_one(deps: Deps) -> None:
    tick(QUOTES, 5, deps, OPEN)
    message = json.loads(deps.broker.rpop("T0.live"))  # type: ignore[arg-type]
    tag = message["properties"]["delivery_tag"]
    deps.broker.hset("unacked", tag, json.dumps([message, "", "T0.live"]))
    deps.broker.zadd("unacked_index", {tag: OPEN.timestamp()})
    assert overlaps(QUOTES, 5, deps, OPEN + timedelta(seconds=29))
    assert not overlaps(BARS, 60, deps, OPEN)
    assert not overlaps(QUOTES, 5, deps, OPEN + timedelta(seconds=31))
    assert tick(QUOTES, 5, deps, OPEN + timedelta(seconds=31)) == 2


def test_jobs_hold_whole_calls_of_the_provider() -> None:
    def sizes(symbols: int, max_symbols: int) -> list[int]:
        return [len(part) for part in packets([f"S{number}" for number in range(symbols)], max_symbols)]

    assert sizes(1200, 300) == [900, 300]
    assert sizes(1200, 5000) == [1000, 200]
    assert sizes(1200, 1) == [20] * 60  # one call after another: a job shall not outlast its time limit
    assert sizes(1200, 600) == [600, 600]
    assert sizes(0, 300) == []


def test_where_no_provider_has_quotes_nothing_is_asked(deps: Deps, settings: Settings) -> None:
    nobody = open_deps(settings.model_copy(update={"simulator": False}))
    assert tick(QUOTES, 5, nobody, OPEN) == tick(BARS, 60, nobody, OPEN) == 0
    assert _waiting(nobody) == []
    nobody.close()


@pytest.mark.filterwarnings("ignore:RedBeat will stop:DeprecationWarning")
def test_live_ticks_come_a_little_early_and_housekeeping_does_not(settings: Settings) -> None:
    app = make_app(settings)

    def pauses_s(name: str) -> set[float]:
        entry = RedBeatSchedulerEntry(name, "mdtasks.live_tick", schedule(5.0, app=app), app=app)
        found = set()
        for _ in range(40):
            asked_at = entry.schedule.now()
            entry = Scheduler.reserve(object.__new__(Scheduler), entry)
            due_at = entry.last_run_at + entry.schedule.run_every
            found.add(round((due_at - asked_at).total_seconds(), 2))
        return found

    jittered = pauses_s("live_T0_quotes_l1")
    assert 4.5 <= min(jittered) < 4.8
    assert max(jittered) > 4.8
    assert min(pauses_s("dispatch")) == 5.0
