"""Whom a fetch asks while providers are well, demoted, probed, paused or out, and what that does to jobs and bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import text

from mdtasks.domain.bars import to_us
from mdtasks.domain.errors import (
    AuthError,
    BadPayloadError,
    CircuitOpenError,
    NoDataError,
    ProviderError,
    UnknownProviderError,
    UnsupportedError,
    VendorError,
)
from mdtasks.domain.health import Circuit, Pause
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, Interval, QuotesFetchJob, Tier, TimeWindow
from mdtasks.domain.rates import Rate
from mdtasks.flows.backfill import BackfillRequest, request_backfill
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import PROBING, dispatch_once
from mdtasks.flows.ingest import Outcome, run_backfill
from mdtasks.flows.live import look_back, run_bars_fetch, run_quotes_fetch
from mdtasks.flows.routing import anybody_well, held_back, route
from mdtasks.flows.scan import due_after_s, scan_tier
from mdtasks.flows.ticks import Feed, Series, tick
from mdtasks.observe import metrics
from mdtasks.settings import Settings
from mdtasks.store import job_reports, jobs
from mdtasks.store.reference import Instrument, add_instruments

#: The first simulator's schedule begins here.
EPOCH = datetime(2026, 11, 20, 15, tzinfo=UTC)  # a Friday, half an hour into New York's session
MICS = ("24/7",)
FIRST, SECOND, THIRD = "simulator", "simulator_2", "simulator_3"


@pytest.fixture
def opened(settings: Settings) -> Iterator[Callable[..., Deps]]:
    """Opens deps with three simulators, of which the first fails from the epoch on; changes are settings."""
    made: list[Deps] = []

    def open_(**changes: Any) -> Deps:
        chosen = {"simulators": 3, "simulator_schedule": "0-60 error=1", "simulator_epoch": EPOCH, **changes}
        made.append(open_deps(settings.model_copy(update=chosen)))
        return made[-1]

    first = open_()
    with first.database.transaction() as connection:
        add_instruments(
            connection,
            [Instrument("BTC-USD", "24/7", "crypto", Tier.T0), Instrument("ETH-USD", "24/7", "crypto", Tier.T0)],
        )
    yield open_
    for deps in made:
        deps.close()


@pytest.fixture
def deps(opened: Callable[..., Deps]) -> Deps:
    """Three providers and nothing wrong but what a test does."""
    return opened(simulator_schedule="", simulator_epoch=None)


def demote(deps: Deps, name: str, *, times: int = 5) -> None:
    for _ in range(times):
        deps.health.tell_request(name, "bars", 0.1, VendorError("500", provider=name))


def come_of_age(deps: Deps, name: str) -> None:
    """Let a demoted provider's cool-down be over."""
    deps.state.hset(f"mdtasks:provider:{name}", "until_us", 0)


def turns(deps: Deps, hint: str | None = None) -> list[tuple[str, bool]]:
    return [(turn.provider.name, turn.insist) for turn in route(deps, Interval.M1, MICS, hint).turns]


def circuit(deps: Deps, name: str) -> Circuit:
    return deps.health.standings({name: ()})[0].circuit


# -- whom to ask ------------------------------------------------------------------------------------


def test_the_well_are_asked_in_the_policys_order(opened: Callable[..., Deps]) -> None:
    deps = opened(policy_bars=(THIRD, FIRST))
    assert turns(deps) == [(THIRD, False), (FIRST, False)]
    demote(deps, THIRD)
    assert turns(deps) == [(FIRST, False)]
    assert "demoted since" in route(deps, Interval.M1, MICS).aside[THIRD]


def test_a_demoted_one_is_probed_first_by_one_process_at_a_time(deps: Deps, opened: Callable[..., Deps]) -> None:
    demote(deps, SECOND)
    come_of_age(deps, SECOND)
    assert turns(deps) == [(SECOND, False), (FIRST, False), (THIRD, False)]
    assert circuit(deps, SECOND) is Circuit.HALF_OPEN
    deps.state.set(f"mdtasks:provider:{SECOND}:probe", b"another/1")
    assert turns(deps) == [(FIRST, False), (THIRD, False)]


def test_where_nobody_is_well_the_least_bad_serves_and_one_that_never_answers_does_not(deps: Deps) -> None:
    for name in (FIRST, THIRD):
        demote(deps, name, times=20)
    demote(deps, SECOND)
    assert turns(deps) == [(SECOND, True)]
    assert held_back(deps, Interval.M1) is None
    demote(deps, SECOND, times=15)
    held = held_back(deps, Interval.M1)
    assert held is not None
    assert 0 < (held.retry_after_s or 0) <= 60
    with pytest.raises(CircuitOpenError, match=r"nobody is asked: .*simulator_2 demoted since"):
        route(deps, Interval.M1, MICS)


def test_a_paused_one_is_never_asked(deps: Deps) -> None:
    for name in (FIRST, SECOND, THIRD):
        deps.health.pause(name, Pause("ann", "audit", EPOCH))
    with pytest.raises(CircuitOpenError, match="paused by ann: audit") as held:
        route(deps, Interval.M1, MICS)
    assert held.value.retry_after_s is None
    deps.health.pause(SECOND, None)
    assert turns(deps) == [(SECOND, False)]


def test_a_hint_is_alone_and_where_hints_are_not_honoured_it_changes_nothing(opened: Callable[..., Deps]) -> None:
    deps = opened()
    assert turns(deps, SECOND) == [(SECOND, False)]
    with pytest.raises(UnknownProviderError):
        route(deps, Interval.M1, MICS, "nobody")
    strict = opened(allow_source_override=False)
    assert turns(strict, SECOND) == [(FIRST, False), (SECOND, False), (THIRD, False)]


def test_nobody_serving_is_an_error_of_its_own(opened: Callable[..., Deps]) -> None:
    with pytest.raises(UnsupportedError, match="no configured provider serves 1m bars"):
        route(opened(simulator=False, simulators=1, simulator_schedule=""), Interval.M1, MICS)


def test_without_redis_the_policys_order_holds(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    away = redis.Redis(port=1)
    monkeypatch.setattr(deps.health, "_client", away)
    assert [name for name, _ in turns(deps)] == [FIRST, SECOND, THIRD]


# -- what comes of it -------------------------------------------------------------------------------


def a_job(deps: Deps, minutes: int = 10, symbol: str = "BTC-USD") -> BackfillJob:
    window = TimeWindow(start=EPOCH - timedelta(hours=1), end=EPOCH - timedelta(minutes=60 - minutes))
    request = BackfillRequest(symbol=(symbol,), interval=Interval.M1, start=window.start, end=window.end)
    request_backfill(request, "tests", deps, EPOCH + timedelta(days=1))
    with deps.database.transaction() as connection:
        row = connection.execute(text("SELECT id FROM backfill_jobs ORDER BY created_at DESC LIMIT 1")).one()
    return BackfillJob(job_id=row.id, symbol=symbol, time_window=window, priority=Tier.T0)


def run(deps: Deps, job: BackfillJob, now: datetime = EPOCH) -> Outcome:
    return run_backfill(job, deps, "t0@here/1", now).outcome


def row(deps: Deps, job: BackfillJob) -> dict[str, Any]:
    with deps.database.transaction() as connection:
        found = connection.execute(text("SELECT * FROM backfill_jobs WHERE id = :id"), {"id": job.job_id}).one()
    return dict(found._mapping)


def attempts(deps: Deps, job: BackfillJob) -> list[dict[str, Any]]:
    with deps.database.transaction() as connection:
        return job_reports.attempts(connection, job.job_id)


def test_the_attempt_tells_who_was_asked_and_what_each_said(opened: Callable[..., Deps]) -> None:
    deps = opened()
    deps.health.pause(THIRD, Pause("ann", "audit", EPOCH))
    job = a_job(deps)
    assert run(deps, job) is Outcome.DONE
    (attempt,) = attempts(deps, job)
    assert attempt["provider"] == SECOND
    assert attempt["route"] == [
        {"provider": FIRST, "answered": 0, "errors": {"vendor_error": f"{FIRST}: 500 (simulated)"}},
        {"provider": SECOND, "answered": 1},
        {"provider": THIRD, "why": "paused by ann: audit"},
    ]


def test_a_job_that_nobody_may_be_asked_for_waits_and_loses_no_attempt(deps: Deps) -> None:
    for name in (FIRST, SECOND, THIRD):
        demote(deps, name, times=20)
    job = a_job(deps)
    for _ in range(10):
        assert run(deps, job) is Outcome.HELD
        found = row(deps, job)
        assert (found["status"], found["attempts"], found["last_error_class"]) == ("deferred", 0, "circuit_open")
        with deps.database.transaction() as connection:
            connection.execute(text("UPDATE backfill_jobs SET not_before = NULL"))
    assert attempts(deps, job) == []
    come_of_age(deps, SECOND)
    assert run(deps, job) is Outcome.DONE
    assert [(each["attempt"], each["outcome"], each["provider"]) for each in attempts(deps, job)] == [
        (1, "done", SECOND)
    ]


def test_the_bars_of_the_least_bad_are_provisional_and_another_answer_makes_them_final(deps: Deps) -> None:
    for name in (FIRST, THIRD):
        demote(deps, name, times=20)
    demote(deps, SECOND)
    job = a_job(deps)
    assert run(deps, job) is Outcome.DONE
    with deps.database.transaction() as connection:
        found = connection.execute(text("SELECT DISTINCT status::text, provider FROM bars")).all()
    assert [tuple(each) for each in found] == [("provisional", SECOND)]
    assert attempts(deps, job)[0]["route"][0] == {"provider": SECOND, "answered": 1, "why": "nobody else is well"}


def test_while_nobody_is_well_the_dispatcher_sends_a_few(deps: Deps) -> None:
    for name in (FIRST, SECOND, THIRD):
        demote(deps, name, times=20)
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument(f"C{n}", "24/7", "crypto", Tier.T0) for n in range(20)])
    for number in range(20):
        a_job(deps, symbol=f"C{number}")
    with deps.database.transaction() as connection:
        connection.execute(text("UPDATE backfill_jobs SET status = 'deferred', queued_at = NULL"))
    deps.broker.delete("T0")
    assert dispatch_once(deps)["T0"] == PROBING
    for name in (FIRST, SECOND, THIRD):
        deps.state.delete(f"mdtasks:provider:{name}")
    assert dispatch_once(deps)["T0"] == 20 - PROBING


def test_live_fetches_are_held_back_without_a_letter(deps: Deps) -> None:
    for name in (FIRST, SECOND, THIRD):
        demote(deps, name, times=20)
    assert tick(Series(Tier.T0, Feed.QUOTES), 5, deps, EPOCH) == 0
    assert tick(Series(Tier.T0, Feed.BARS), 60, deps, EPOCH) == 0
    asked = QuotesFetchJob(job_id="q", symbols=("BTC-USD",), priority=Tier.T0)
    assert run_quotes_fetch(asked, deps, "t0@here/1", EPOCH)["quotes"] == 0
    bars = BarsFetchJob(job_id="b", symbols=("BTC-USD",), priority=Tier.T0)
    assert run_bars_fetch(bars, deps, "t0@here/1", EPOCH)["inserted"] == 0
    with deps.database.transaction() as connection:
        found = connection.execute(text("SELECT job_id, outcome, error_class FROM job_attempts ORDER BY id")).all()
    assert [tuple(each) for each in found] == [("q", "held", "circuit_open"), ("b", "held", "circuit_open")]


@pytest.mark.parametrize("kind", ["quotes", "bars"])
def test_a_live_fetch_that_meets_an_outage_leaves_a_letter_until_it_is_known_for_one(
    opened: Callable[..., Deps], kind: str
) -> None:
    deps = opened(simulators=1)

    def fetch() -> str:
        come_of_age(deps, FIRST)
        try:
            if kind == "quotes":
                asked = QuotesFetchJob(job_id="q", symbols=("BTC-USD",), priority=Tier.T0)
                run_quotes_fetch(asked, deps, "t0@here/1", EPOCH)
            else:
                run_bars_fetch(
                    BarsFetchJob(job_id="q", symbols=("BTC-USD",), priority=Tier.T0), deps, "t0@here/1", EPOCH
                )
        except VendorError:
            return "letter"
        return "none"

    assert [fetch() for _ in range(8)] == [*["letter"] * 3, *["none"] * 5]
    with deps.database.transaction() as connection:
        found = connection.execute(text("SELECT outcome, route FROM job_attempts ORDER BY id")).all()
    assert [each.outcome for each in found] == [*["failed"] * 3, *["held"] * 5]
    assert all(each.route[0]["errors"].keys() == {"vendor_error"} for each in found)


def test_quotes_come_from_the_next_where_the_first_fails(opened: Callable[..., Deps]) -> None:
    deps = opened()
    asked = QuotesFetchJob(job_id="q", symbols=("BTC-USD", "ETH-USD"), priority=Tier.T0)
    assert run_quotes_fetch(asked, deps, "t0@here/1", EPOCH)["quotes"] == 2
    with deps.database.transaction() as connection:
        (found,) = connection.execute(text("SELECT provider, outcome, route FROM job_attempts")).all()
    assert (found.provider, found.outcome) == (SECOND, "done")
    assert [step["provider"] for step in found.route] == [FIRST, SECOND]


def test_judged_answers_tell_of_completeness_and_staleness(opened: Callable[..., Deps]) -> None:
    deps = opened(simulators=1, simulator_schedule="", simulator_epoch=None, simulator_faults="wrong=1")
    job = a_job(deps)
    run(deps, job)
    told = next(sample for sample in deps.health.samples(FIRST) if sample.code == "answer")
    assert told.completeness is not None
    assert told.completeness < 0.5
    assert deps.health.standings({FIRST: ()})[0].parts.completeness < 1


def test_a_second_source_that_has_what_the_first_called_silent_is_told_of_the_first(
    opened: Callable[..., Deps],
) -> None:
    deps = opened(simulator_schedule="0-100000 silent=1", simulators=2)
    healthy = replace(deps, registry=opened(simulator_schedule="", simulator_epoch=None).registry)
    assert run(healthy, a_job(healthy, minutes=40)) is Outcome.DONE  # it trades each minute
    later = TimeWindow(start=EPOCH - timedelta(minutes=20), end=EPOCH)
    asked = BarsFetchJob(job_id="b", symbols=("BTC-USD",), priority=Tier.T0, time_window=later)
    assert run_bars_fetch(asked, deps, "t0@here/1", EPOCH + timedelta(minutes=5))["inserted"] == 20
    told = [sample.disagreement for sample in deps.health.samples(FIRST) if sample.disagreement is not None]
    assert told == [1.0]


def test_a_provider_whose_rate_is_spent_is_not_asked_again_for_each_other_symbol(
    opened: Callable[..., Deps], monkeypatch: pytest.MonkeyPatch
) -> None:
    deps = opened(simulators=1, simulator_schedule="", simulator_epoch=None, vendor_rates={FIRST: (Rate(1, 3600.0),)})
    provider = deps.registry.get(FIRST)
    monkeypatch.setattr(provider, "capabilities", replace(provider.capabilities, max_symbols=1))
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument(f"C{n}", "24/7", "crypto", Tier.T0) for n in range(20)])
    symbols = tuple(f"C{n}" for n in range(20))

    def held() -> float:
        child = metrics.PROVIDER_REQUESTS.labels(provider=FIRST, endpoint="quotes", code="rate_spent")
        return float(child._value.get())

    before = held()
    quotes = QuotesFetchJob(job_id="q", symbols=symbols, priority=Tier.T0)
    assert run_quotes_fetch(quotes, deps, "t0@here/1", EPOCH)["quotes"] == 1
    assert held() - before == 1
    bars = BarsFetchJob(job_id="b", symbols=symbols, priority=Tier.T0)
    assert run_bars_fetch(bars, deps, "t0@here/1", EPOCH)["inserted"] == 0
    with deps.database.transaction() as connection:
        found = connection.execute(text("SELECT outcome, error_class FROM job_attempts WHERE job_id = 'b'")).all()
    assert [tuple(each) for each in found] == [("held", "rate_spent")]


# -- one that is late, one that has another exchange, one that takes too long ----------------------


def late(deps: Deps, name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let a provider have bars a day later than others, or declare what else is told."""
    provider = deps.registry.get(name)
    monkeypatch.setattr(provider, "capabilities", replace(provider.capabilities, **(changes or {"delay_s": 86_400.0})))


def refusing(deps: Deps, name: str, monkeypatch: pytest.MonkeyPatch, error: type[ProviderError]) -> None:
    def refuse(*_: object) -> None:
        raise error("says no", provider=name)

    monkeypatch.setattr(deps.registry.get(name), "fetch_bars", refuse)


def test_a_job_waits_for_whoever_may_serve_it_soonest_and_names_them_all(
    opened: Callable[..., Deps], monkeypatch: pytest.MonkeyPatch
) -> None:
    deps = opened(simulators=2, simulator_schedule="", simulator_epoch=None)
    late(deps, SECOND, monkeypatch)
    demote(deps, FIRST)
    job = a_job(deps)
    assert run(deps, job) is Outcome.HELD
    found = row(deps, job)
    assert (found["last_error_class"], found["attempts"]) == ("circuit_open", 0)
    assert "has bars 86400 s after" in found["last_error"]
    assert "simulator demoted since" in found["last_error"]
    assert found["not_before"] < datetime.now(UTC) + timedelta(minutes=3)
    come_of_age(deps, FIRST)
    assert run(deps, job) is Outcome.STALE  # its time has not come
    with deps.database.transaction() as connection:
        assert jobs.wake_held(connection, [FIRST]) == 1
    assert run(deps, job) is Outcome.DONE


def test_one_that_has_it_only_later_speaks_for_a_job_that_nobody_else_has(
    opened: Callable[..., Deps], monkeypatch: pytest.MonkeyPatch
) -> None:
    deps = opened(simulators=2, simulator_schedule="", simulator_epoch=None)
    late(deps, SECOND, monkeypatch)
    refusing(deps, FIRST, monkeypatch, NoDataError)
    job = a_job(deps)
    assert run(deps, job) is Outcome.HELD
    assert row(deps, job)["last_error_class"] == "not_yet"
    with deps.database.transaction() as connection:
        assert jobs.wake_held(connection, [FIRST]) == 1


@pytest.mark.parametrize(
    ("error", "outcome"), [(AuthError, Outcome.FAILED), (VendorError, Outcome.RETRY), (BadPayloadError, Outcome.FAILED)]
)
def test_what_somebody_must_know_of_is_not_hidden_by_one_that_has_it_later(
    opened: Callable[..., Deps],
    monkeypatch: pytest.MonkeyPatch,
    error: type[ProviderError],
    outcome: Outcome,
) -> None:
    deps = opened(simulators=2, simulator_schedule="", simulator_epoch=None, policy_bars=(SECOND, FIRST))
    late(deps, SECOND, monkeypatch)
    refusing(deps, FIRST, monkeypatch, error)
    job = a_job(deps)
    if outcome is Outcome.FAILED:
        with pytest.raises(error):
            run(deps, job)
    else:
        assert run(deps, job) is outcome
    assert row(deps, job)["last_error_class"] == error.code


def test_an_outage_costs_a_job_no_more_attempts_once_it_is_known_for_one(opened: Callable[..., Deps]) -> None:
    deps = opened(simulators=1, simulator_schedule="0-3600 error=1")
    job = a_job(deps)
    outcomes = []
    for minute in range(12):
        with deps.database.transaction() as connection:
            connection.execute(text("UPDATE backfill_jobs SET not_before = NULL"))
        come_of_age(deps, FIRST)  # each is a probe once it is demoted
        outcomes.append(run(deps, job, EPOCH + timedelta(minutes=minute)))
    assert outcomes == [*[Outcome.RETRY] * 3, *[Outcome.HELD] * 9]
    found = row(deps, job)
    assert (found["status"], found["attempts"], found["last_error_class"]) == ("deferred", 3, "circuit_open")
    assert "500 (simulated)" in found["last_error"]
    kept = attempts(deps, job)
    assert [each["outcome"] for each in kept] == [*["retry"] * 3, *["held"] * 9]  # whom each asked is on record
    assert all(each["route"][0]["errors"] for each in kept)
    come_of_age(deps, FIRST)
    with deps.database.transaction() as connection:
        connection.execute(text("UPDATE backfill_jobs SET not_before = NULL"))
    assert run(deps, job, EPOCH + timedelta(hours=2)) is Outcome.DONE


def test_a_wrong_key_is_told_of_though_another_provider_is_paused(
    opened: Callable[..., Deps], monkeypatch: pytest.MonkeyPatch
) -> None:
    deps = opened(simulators=2, simulator_schedule="", simulator_epoch=None)
    refusing(deps, FIRST, monkeypatch, AuthError)
    deps.health.pause(SECOND, Pause("ann", "audit", EPOCH))
    job = a_job(deps)
    with pytest.raises(AuthError):
        run(deps, job)
    assert row(deps, job)["last_error_class"] == "auth"


def test_the_fastest_provider_decides_what_is_due(opened: Callable[..., Deps], monkeypatch: pytest.MonkeyPatch) -> None:
    deps = opened(simulators=2, simulator_schedule="", simulator_epoch=None)
    alone = look_back(60, deps), due_after_s(Tier.T0, Interval.M1, "24/7", deps)
    late(deps, SECOND, monkeypatch)
    assert (look_back(60, deps), due_after_s(Tier.T0, Interval.M1, "24/7", deps)) == alone
    late(deps, FIRST, monkeypatch, mics=frozenset({"XNYS"}))
    assert due_after_s(Tier.T0, Interval.M1, "24/7", deps) > 86_400
    assert due_after_s(Tier.T0, Interval.M1, "XNYS", deps) == alone[1]


@pytest.mark.parametrize("changes", [{}, {"mics": frozenset({"XNYS"})}])
def test_the_right_to_probe_is_not_kept_by_who_had_nothing_to_ask(
    deps: Deps, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    late(deps, SECOND, monkeypatch, **changes)
    demote(deps, SECOND)
    come_of_age(deps, SECOND)
    assert run(deps, a_job(deps)) is Outcome.DONE
    assert not deps.state.exists(f"mdtasks:provider:{SECOND}:probe")


def test_an_exchange_that_nobody_has_is_neither_asked_for_nor_held_against_anybody(
    opened: Callable[..., Deps], monkeypatch: pytest.MonkeyPatch
) -> None:
    deps = opened(simulators=1, simulator_schedule="", simulator_epoch=None)
    late(deps, FIRST, monkeypatch, mics=frozenset({"XNYS"}))
    assert tick(Series(Tier.T0, Feed.QUOTES), 5, deps, EPOCH) == 0
    with pytest.raises(UnsupportedError, match="no configured provider serves quotes of 24/7"):
        run_quotes_fetch(QuotesFetchJob(job_id="q", symbols=("BTC-USD",), priority=Tier.T0), deps, "t0@here/1", EPOCH)
    assert scan_tier(Tier.T0, deps, EPOCH)["1m"]["lacking"] == 0
    assert deps.health.samples(FIRST) == []


def test_quotes_are_judged_by_what_the_provider_has(
    opened: Callable[..., Deps], monkeypatch: pytest.MonkeyPatch
) -> None:
    deps = opened(simulators=1, simulator_schedule="", simulator_epoch=None)
    late(deps, FIRST, monkeypatch, mics=frozenset({"XNYS"}))
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("SPY", "XNYS", tier=Tier.T0)])
    asked = QuotesFetchJob(job_id="q", symbols=("BTC-USD", "SPY"), priority=Tier.T0)
    assert run_quotes_fetch(asked, deps, "t0@here/1", EPOCH)["quotes"] == 1
    assert [each.completeness for each in deps.health.samples(FIRST) if each.code == "answer"] == [1.0]


@pytest.mark.parametrize("kind", ["quotes", "bars"])
def test_a_live_job_ends_in_time_and_leaves_the_rest(
    opened: Callable[..., Deps], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    slow = {"simulator_schedule": "", "simulator_epoch": None, "simulator_faults": "latency_s=0.3", "time_limit_s": 2}
    deps = opened(simulators=1, **slow)
    late(deps, FIRST, monkeypatch, max_symbols=1)
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument(f"C{n}", "24/7", "crypto", Tier.T0) for n in range(20)])
    symbols = tuple(f"C{n}" for n in range(20))
    if kind == "quotes":
        run_quotes_fetch(QuotesFetchJob(job_id="q", symbols=symbols, priority=Tier.T0), deps, "t0@here/1", EPOCH)
    else:
        run_bars_fetch(BarsFetchJob(job_id="b", symbols=symbols, priority=Tier.T0), deps, "t0@here/1", EPOCH)
    requests = deps.health.standings({FIRST: ()})[0].requests
    assert 0 < requests < 20
    with deps.database.transaction() as connection:
        (said,) = connection.execute(text("SELECT message FROM job_attempts")).scalars()
    assert "the job's time is over" in said


def test_a_sole_provider_is_asked_once_a_job_also_as_a_probe(opened: Callable[..., Deps]) -> None:
    deps = opened(simulators=1, simulator_schedule="", simulator_epoch=None)
    demote(deps, FIRST)
    assert turns(deps) == [(FIRST, True)]
    come_of_age(deps, FIRST)
    assert turns(deps) == [(FIRST, False)]


def test_providers_that_nobody_asks_for_bars_do_not_count_as_well(opened: Callable[..., Deps]) -> None:
    deps = opened(policy_bars=(FIRST,), policy_eod=(FIRST,), simulator_schedule="", simulator_epoch=None)
    assert anybody_well(deps)
    demote(deps, FIRST, times=20)
    assert not anybody_well(deps)


# -- the whole story --------------------------------------------------------------------------------


def test_traffic_moves_from_a_failing_provider_and_back_each_once_and_nothing_is_lost(
    opened: Callable[..., Deps], redis_client: redis.Redis
) -> None:
    """The first of three is slow for a minute, fails for two, and is well again: a story of five minutes, told by
    moments that are given, not waited for. The cool-down alone runs on Redis' clock, so it is let be over when the
    story says so.
    """
    spells = "60-120 latency_s=0.02; 120-240 error=1"
    deps = opened(simulator_schedule=spells, breaker_cooldown_s=30.0)
    served: list[tuple[int, str]] = []
    changes: list[tuple[int, str, str]] = []
    opened_at: int | None = None
    for second in range(0, 360, 5):
        now = EPOCH + timedelta(seconds=second)
        if opened_at is not None and (second - opened_at) >= 30:
            come_of_age(deps, FIRST)
        minute = TimeWindow(start=now - timedelta(minutes=6), end=now - timedelta(minutes=5))
        start_us = to_us(minute.start) // 60_000_000 * 60_000_000
        window = TimeWindow(
            start=datetime.fromtimestamp(start_us / 1e6, UTC), end=datetime.fromtimestamp(start_us / 1e6 + 60, UTC)
        )
        job = BarsFetchJob(job_id=f"b{second}", symbols=("BTC-USD", "ETH-USD"), priority=Tier.T0, time_window=window)
        run_bars_fetch(job, deps, "t0@here/1", now)
        with deps.database.transaction() as connection:
            (attempt,) = connection.execute(
                text("SELECT provider, outcome, route FROM job_attempts WHERE job_id = :id"), {"id": job.job_id}
            ).all()
        assert attempt.outcome == "done"
        served.append((second, attempt.provider))
        for change in deps.health.transitions():
            changes.append((second, change.provider, change.kind))
            opened_at = second if change.kind == "demoted" else None
        deps.health.forget_transitions(deps.health.waiting_transitions())
    assert [(name, kind) for _, name, kind in changes] == [(FIRST, "demoted"), (FIRST, "promoted")]
    demoted, promoted = (second for second, _, _ in changes)
    assert 120 <= demoted <= 150
    assert 240 <= promoted <= 300
    assert {name for second, name in served if second < 120} == {FIRST}
    assert {name for second, name in served if demoted < second < 240} == {SECOND}
    assert served[-1][1] == FIRST
    with deps.database.transaction() as connection:
        stored = connection.execute(text("SELECT count(*), count(DISTINCT (instrument_id, ts)) FROM bars")).one()
    assert stored[0] == stored[1] == 2 * 6
