"""Live fetching: what a tick asks for, and what a worker makes of it, on real servers with the simulator."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mdtasks.domain.bars import from_us
from mdtasks.domain.errors import ProviderError
from mdtasks.domain.jobs import BarsFetchJob, Interval, Tier, TimeWindow, parse_job
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.live import LOOK_BACK, look_back, run_bars_fetch, run_quotes_fetch
from mdtasks.flows.ticks import Feed, Series, tick
from mdtasks.settings import Settings
from mdtasks.store import job_reports, quotes
from mdtasks.store.bars import StoredBars, read_bars, read_coverage
from mdtasks.store.reference import Instrument, add_instruments, resolve
from mdtasks.testing import bars_fetch_job, quotes_fetch_job

OPEN = datetime(2026, 11, 20, 15, 30, 20, tzinfo=UTC)  # a Friday, an hour into the session
SUNDAY = datetime(2026, 11, 22, 15, 30, 20, tzinfo=UTC)


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """Deps with two exchanges' worth of instruments in T0 and one in T1."""
    opened = _with_instruments(settings)
    yield opened
    opened.close()


def _with_instruments(settings: Settings) -> Deps:
    opened = open_deps(settings)
    members = [
        Instrument("SPY", "XNYS", tier=Tier.T0),
        Instrument("BTC-USD", "24/7", "crypto", Tier.T0),
        Instrument("MSFT", "XNYS", tier=Tier.T1),
    ]
    with opened.database.transaction() as connection:
        add_instruments(connection, members)
    return opened


def _sent(deps: Deps, queue: str) -> list[BarsFetchJob]:
    found = []
    while isinstance(element := deps.broker.rpop(queue), bytes):
        envelope = json.loads(element)
        assert envelope["headers"]["expires"] is not None
        job = parse_job(json.loads(base64.b64decode(envelope["body"]))[0][0])
        assert isinstance(job, BarsFetchJob)
        found.append(job)
    return found


def _stored(deps: Deps, symbol: str, now: datetime) -> StoredBars:
    with deps.database.transaction() as connection:
        member = resolve(connection, [symbol])[symbol]
        window = TimeWindow(start=now - timedelta(hours=1), end=now)
        return read_bars(connection, member.id, Interval.M1, window)


def test_a_tick_asks_for_the_tiers_symbols_whose_exchange_is_open(deps: Deps) -> None:
    assert tick(Series(Tier.T0, Feed.BARS), 60, deps, OPEN) == 2
    assert [set(job.symbols) for job in _sent(deps, "T0.live")] == [{"SPY", "BTC-USD"}]
    assert tick(Series(Tier.T0, Feed.BARS), 60, deps, SUNDAY) == 1
    assert [job.symbols for job in _sent(deps, "T0.live")] == [("BTC-USD",)]
    assert tick(Series(Tier.T1, Feed.BARS), 300, deps, SUNDAY) == 0
    assert _sent(deps, "T1.live") == []


def test_the_last_bars_of_a_session_are_asked_for_until_they_have_settled(deps: Deps) -> None:
    close = datetime(2026, 11, 20, 21, 0, tzinfo=UTC)
    reach = timedelta(minutes=look_back(300, deps))
    assert tick(Series(Tier.T1, Feed.BARS), 300, deps, close + reach - timedelta(seconds=1)) == 1
    assert tick(Series(Tier.T1, Feed.BARS), 300, deps, close + reach) == 0


@pytest.mark.parametrize(("tier", "cadence_s", "drift_s"), [(Tier.T0, 60, 7), (Tier.T1, 300, 0), (Tier.T1, 300, 31)])
def test_tick_after_tick_every_settled_minute_is_covered_and_final(
    tier: Tier, cadence_s: int, drift_s: int, deps: Deps
) -> None:
    symbol = "BTC-USD" if tier is Tier.T0 else "MSFT"
    for number in range(8):
        now = OPEN + timedelta(seconds=number * (cadence_s + drift_s))
        tick(Series(tier, Feed.BARS), cadence_s, deps, now)
        for job in _sent(deps, f"{tier}.live"):
            run_bars_fetch(job, deps, "t@here/1", now)
    with deps.database.transaction() as connection:
        member = resolve(connection, [symbol])[symbol]
        covered = read_coverage(connection, [member.id], Interval.M1)[member.id]
        settled = TimeWindow(start=OPEN, end=now - timedelta(minutes=2))
        found = read_bars(connection, member.id, Interval.M1, settled)
    assert len(covered) == 1
    assert found.final.all()
    assert len(found) == len(deps.calendars.get(member.mic).expected(settled, Interval.M1))


def test_an_exchange_whose_calendar_ends_does_not_stop_the_others(deps: Deps) -> None:
    horizon = deps.calendars.get("XSHG").horizon
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("600000", "XSHG", tier=Tier.T0)])
    assert tick(Series(Tier.T0, Feed.BARS), 60, deps, horizon + timedelta(days=9, hours=3)) >= 1
    assert "600000" not in {symbol for job in _sent(deps, "T0.live") for symbol in job.symbols}


def test_bars_are_provisional_until_they_have_settled_and_then_final(deps: Deps) -> None:
    job = bars_fetch_job(symbols=("SPY", "BTC-USD"), time_window=None)
    assert run_bars_fetch(job, deps, "t0@here/1", OPEN)["inserted"] == 2 * LOOK_BACK
    first = _stored(deps, "BTC-USD", OPEN)
    assert [f"{from_us(ts):%H:%M}" for ts in first.bars.ts_us] == ["15:25", "15:26", "15:27", "15:28", "15:29"]
    assert first.final.tolist() == [True] * 4 + [False]
    assert run_bars_fetch(job, deps, "t0@here/1", OPEN + timedelta(minutes=1))["inserted"] == 2
    assert _stored(deps, "BTC-USD", OPEN + timedelta(minutes=1)).final.tolist() == [True] * 5 + [False]


def test_only_what_has_settled_is_covered(deps: Deps) -> None:
    run_bars_fetch(bars_fetch_job(symbols=("BTC-USD",), time_window=None), deps, "t0@here/1", OPEN)
    with deps.database.transaction() as connection:
        member = resolve(connection, ["BTC-USD"])["BTC-USD"]
        (window,) = read_coverage(connection, [member.id], Interval.M1)[member.id]
    assert (f"{window.start:%H:%M}", f"{window.end:%H:%M}") == ("15:25", "15:29")


def test_a_symbol_that_fails_alone_leaves_the_others_and_a_word_with_the_attempt(settings: Settings) -> None:
    deps = _with_instruments(settings.model_copy(update={"simulator_faults": "unknown=SPY"}))
    job = bars_fetch_job(symbols=("SPY", "BTC-USD"), time_window=None)
    assert run_bars_fetch(job, deps, "t0@here/1", OPEN)["inserted"] == LOOK_BACK
    with deps.database.transaction() as connection:
        (attempt,) = job_reports.attempts(connection, job.job_id)
    assert attempt["outcome"] == "done"
    assert "1 of 2 symbols failed" in attempt["message"]
    deps.close()


def test_a_fetch_that_nobody_answers_fails_with_the_providers_error(settings: Settings) -> None:
    deps = _with_instruments(settings.model_copy(update={"simulator_faults": "error=1"}))
    bars, latest = bars_fetch_job(symbols=("SPY",)), quotes_fetch_job(symbols=("SPY",))
    with pytest.raises(ProviderError):
        run_bars_fetch(bars, deps, "t0@here/1", OPEN)
    with pytest.raises(ProviderError):
        run_quotes_fetch(latest, deps, "t0@here/1", OPEN)
    for job_id in (bars.job_id, latest.job_id):
        with deps.database.transaction() as connection:
            (attempt,) = job_reports.attempts(connection, job_id)
        assert (attempt["outcome"], attempt["error_class"]) == ("failed", "vendor_error")
    deps.close()


def test_quotes_are_stored_and_the_same_ones_once(deps: Deps) -> None:
    job = quotes_fetch_job(symbols=("SPY", "BTC-USD"))
    for _ in range(2):
        assert run_quotes_fetch(job, deps, "t0@here/1", OPEN)["quotes"] == 2
    with deps.database.transaction() as connection:
        ids = [member.id for member in resolve(connection, job.symbols).values()]
        found = quotes.latest_quotes(connection, ids)
        count = connection.exec_driver_sql("SELECT count(*) FROM quotes").scalar_one()
    assert count == 2
    assert all(quote.bid is not None and quote.ask is not None and quote.bid < quote.ask for quote in found.values())
