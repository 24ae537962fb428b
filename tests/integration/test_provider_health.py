"""Health in Redis: the scripts against a model in Python, and what many processes may do at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdtasks.connections import open_redis
from mdtasks.domain import health
from mdtasks.domain.errors import (
    AuthError,
    CircuitOpenError,
    NoDataError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitedError,
    RateSpentError,
    VendorError,
)
from mdtasks.domain.health import Circuit, Parts, Pause, Rules, Sample
from mdtasks.domain.rates import Rate
from mdtasks.store.health import SAMPLES, HealthBook, spacing
from tests.integration.at_once import AT_ONCE, NAME, gate, of_eight, probe, take

_NOW = datetime(2024, 1, 2, 15, tzinfo=UTC)


@pytest.fixture
def book(redis_url: str) -> Iterator[HealthBook]:
    client = open_redis(redis_url)
    yield HealthBook(client, Rules())
    client.close()


def failed(error: type[ProviderError] = VendorError) -> ProviderError:
    return error("no", provider=NAME)


@dataclass
class Model:
    """What the scripts decide, written down again in Python. A cool-down is over at once."""

    rules: Rules
    circuit: Circuit = Circuit.CLOSED
    parts: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    run: int = 0
    requests: int = 0

    def request(self, latency_s: float, error: ProviderError | None) -> str:
        kind = health.kind_of(error)
        if kind not in (health.Kind.WELL, health.Kind.ILL):
            return ""
        ill = kind is health.Kind.ILL
        told = [0.0, 0.0, 0.0] if ill else [health.latency_part(latency_s), 1.0, None]
        self.requests += 1
        self.run = 0 if ill else self.run + 1
        return self._weigh(told, ill=ill)

    def answer(self, completeness: float) -> str:
        return self._weigh([None, None, completeness], ill=False)

    def _weigh(self, told: Sequence[float | None], *, ill: bool) -> str:
        for i, value in enumerate(told):
            if value is not None:
                self.parts[i] += health.WEIGHT * (value - self.parts[i])
        evidence = Parts(*self.parts).evidence
        if self.circuit is Circuit.CLOSED:
            if self.requests >= self.rules.min_samples and evidence < self.rules.demote:
                self.circuit = Circuit.OPEN
                return "demoted"
        elif self.run >= self.rules.min_samples and evidence >= self.rules.promote:
            self.circuit = Circuit.CLOSED
            return "promoted"
        elif self.circuit is Circuit.HALF_OPEN and ill:
            self.circuit = Circuit.OPEN
        return ""


EVENTS = st.one_of(
    st.tuples(st.floats(0.01, 20), st.sampled_from([None, None, VendorError, ProviderTimeoutError, NoDataError])),
    st.floats(0, 1),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, max_size=60))
def test_the_scripts_decide_as_the_model_does(redis_client: redis.Redis, events: list[Any]) -> None:
    redis_client.flushall()
    book, model = HealthBook(redis_client, Rules()), Model(Rules())
    changes = []
    for event in events:
        if isinstance(event, float):
            found, wanted = (
                book.tell_answer(NAME, Sample(_NOW, "bars", "answer", completeness=event)),
                model.answer(event),
            )
        else:
            error = event[1] and failed(event[1])
            found, wanted = book.tell_request(NAME, "bars", event[0], error), model.request(event[0], error)
        assert found == wanted
        changes += [found] if found else []
        (standing,) = book.standings({NAME: ()})
        assert (standing.circuit, standing.run, standing.requests) == (model.circuit, model.run, model.requests)
        assert _close(standing.parts, model.parts)
    told = book.transitions()
    assert [each.kind for each in told] == changes
    for each in told:
        assert len(each.samples) <= SAMPLES
        low = each.parts.evidence < each.rules.demote
        assert low if each.kind == "demoted" else each.parts.evidence >= each.rules.promote - 1e-9


def _close(parts: Parts, wanted: Sequence[float]) -> bool:
    return all(
        abs(a - b) < 1e-9 for a, b in zip((parts.latency, parts.errors, parts.completeness), wanted, strict=True)
    )


def demote(book: HealthBook) -> None:
    for _ in range(20):
        if book.tell_request(NAME, "bars", 0.1, failed()) == "demoted":
            return
    raise AssertionError("twenty failures in a row did not demote it")


def state(book: HealthBook) -> Circuit:
    return book.standings({NAME: ()})[0].circuit


def test_four_failures_in_a_row_demote_and_the_case_holds_them(book: HealthBook) -> None:
    changes = [book.tell_request(NAME, "bars", 0.1, failed()) for _ in range(6)]
    assert changes == ["", "", "", "demoted", "", ""]
    (case,) = book.transitions()
    assert [sample.code for sample in case.samples] == ["vendor_error"] * 4
    assert "0.522 < 0.55" in "\n".join(case.arithmetic)
    (standing,) = book.standings({NAME: ()})
    assert (standing.circuit, standing.opened) == (Circuit.OPEN, 1)
    assert 0 < standing.retry_in_s <= 60
    assert "demoted since" in standing.why_aside


@pytest.mark.parametrize("error", [AuthError, NoDataError, RateLimitedError])
def test_what_is_not_the_vendors_illness_changes_nothing(book: HealthBook, error: type[ProviderError]) -> None:
    for _ in range(20):
        assert book.tell_request(NAME, "bars", 30, failed(error)) == ""
    assert book.standings({NAME: ()})[0].score == 1.0
    assert [sample.code for sample in book.samples(NAME)] == [error.code] * 20


def test_an_open_circuit_lets_nothing_through_but_who_insists(book: HealthBook) -> None:
    demote(book)
    assert book.admit(NAME, ()).verdict == "open"
    assert 0 < book.admit(NAME, ()).wait_s <= 60
    assert book.admit(NAME, (), insist=True).verdict == "go"


def test_a_failed_probe_leaves_it_alone_for_longer_and_is_no_second_demotion(redis_client: redis.Redis) -> None:
    book = HealthBook(redis_client, Rules(cooldown_s=60))
    demote(book)
    waits = []
    for _ in range(4):
        redis_client.hset(f"mdtasks:provider:{NAME}", "until_us", 0)  # its time has come
        assert book.admit(NAME, ()).verdict == "probe"
        assert state(book) is Circuit.HALF_OPEN
        book.tell_request(NAME, "bars", 0.1, failed())
        waits.append(round(book.standings({NAME: ()})[0].retry_in_s))
    assert waits == [120, 240, 300, 300]
    assert [each.kind for each in book.transitions()] == ["demoted"]


def test_who_must_wait_for_the_rate_does_not_keep_others_from_probing(redis_client: redis.Redis) -> None:
    book = HealthBook(redis_client, Rules())
    demote(book)
    redis_client.hset(f"mdtasks:provider:{NAME}", "until_us", 0)  # its time has come
    rates = (Rate(1, 3600.0),)
    assert book.admit(NAME, rates, insist=True).verdict == "go"
    assert book.admit(NAME, rates).verdict == "wait"
    assert not redis_client.exists(f"mdtasks:provider:{NAME}:probe")
    assert book.admit(NAME, ()).verdict == "probe"
    assert redis_client.exists(f"mdtasks:provider:{NAME}:probe")
    assert book.admit(NAME, ()).verdict == "probe"  # as who holds the right


def test_the_case_of_a_promotion_tells_how_often_it_was_left_alone(redis_client: redis.Redis) -> None:
    book = HealthBook(redis_client, Rules())
    demote(book)
    for error in (failed(), failed(), None):
        redis_client.hset(f"mdtasks:provider:{NAME}", "until_us", 0)  # its time has come
        assert book.admit(NAME, ()).verdict == "probe"
        book.tell_request(NAME, "bars", 0.1, error)
    while not book.tell_request(NAME, "bars", 0.1, None):
        pass
    assert [(each.kind, each.opened) for each in book.transitions()] == [("demoted", 1), ("promoted", 3)]


def test_what_cannot_be_read_holds_nothing_up(redis_client: redis.Redis, book: HealthBook) -> None:
    redis_client.rpush("mdtasks:provider-transitions", b"{", b'{"provider": "x"}')
    demote(book)
    assert [each and each.kind for each in book.waiting_transitions().values()] == [None, None, "demoted"]
    book.forget_transitions([b"{", b'{"provider": "x"}', b"of nobody"])
    assert [each.kind for each in book.transitions()] == ["demoted"]


def test_only_the_prober_says_that_a_probe_failed(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    book = HealthBook(redis_client, Rules())
    demote(book)
    redis_client.hset(f"mdtasks:provider:{NAME}", "until_us", 0)
    assert book.admit(NAME, ()).verdict == "probe"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("mdtasks.store.health._me", lambda: "another/1")
        book.tell_request(NAME, "bars", 0.1, failed())  # begun before, or insisted on
        assert (state(book), book.standings({NAME: ()})[0].opened) == (Circuit.HALF_OPEN, 1)
        assert not book.take_probe(NAME)
    book.tell_request(NAME, "bars", 0.1, failed())
    assert (state(book), book.standings({NAME: ()})[0].opened) == (Circuit.OPEN, 2)


def test_answers_in_a_row_promote_it_once(redis_client: redis.Redis) -> None:
    book = HealthBook(redis_client, AT_ONCE)
    demote(book)
    while book.admit(NAME, ()).verdict != "probe":
        pass
    # The third answer would do, were its completeness judged too.
    assert [book.tell_request(NAME, "bars", 0.1, None) for _ in range(6)] == ["", "", "", "promoted", "", ""]
    assert [each.kind for each in book.transitions()] == ["demoted", "promoted"]
    assert (state(book), book.standings({NAME: ()})[0].opened) == (Circuit.CLOSED, 0)
    book.forget_transitions(list(book.waiting_transitions())[:1])
    assert [each.kind for each in book.transitions()] == ["promoted"]


def test_samples_are_kept_newest_first_and_no_more_than_sixty(book: HealthBook) -> None:
    for number in range(SAMPLES + 5):
        book.tell_request(NAME, "bars", float(number), None)
    kept = book.samples(NAME)
    assert [sample.latency_s for sample in kept] == [float(n) for n in range(SAMPLES + 4, 4, -1)]
    assert {sample.by.rpartition("/")[2] for sample in kept} == {str(os.getpid())}


def test_a_pause_holds_back_everybody_until_it_is_over(book: HealthBook) -> None:
    book.pause(NAME, Pause("ann", "invoice unpaid", _NOW))
    assert book.admit(NAME, (), insist=True).verdict == "paused"
    assert book.standings({NAME: ()})[0].why_aside == "paused by ann: invoice unpaid"
    book.pause(NAME, None)
    assert book.admit(NAME, ()).verdict == "go"


def test_what_the_vendor_said_to_wait_holds_for_all(book: HealthBook) -> None:
    book.tell_request(NAME, "bars", 0.1, RateLimitedError("429", provider=NAME, retry_after_s=30))
    book.tell_request(NAME, "bars", 0.1, RateLimitedError("429", provider=NAME, retry_after_s=1))
    held = book.admit(NAME, ())
    assert held.verdict == "wait"
    assert 29 < held.wait_s <= 30
    assert book.standings({NAME: (Rate(5, 60),)})[0].budget == 0


def test_the_budget_is_what_may_go_at_once(book: HealthBook) -> None:
    rates = (Rate(200, 60.0), Rate(10_000, 60.0))
    left = []
    for _ in range(22):
        left.append(book.standings({NAME: rates})[0].budget)
        if book.admit(NAME, rates).verdict == "wait":
            break
    assert left == [*range(20, 0, -1), 0]
    assert book.standings({NAME: ()})[0].budget is None


@settings(deadline=None)
@given(calls=st.integers(1, 20_000), per_s=st.sampled_from([1.0, 10.0, 60.0, 3600.0]))
def test_no_window_can_hold_more_than_the_rate(calls: int, per_s: float) -> None:
    gap_us, burst = spacing(Rate(calls, per_s))
    most = burst + (round(per_s * 1e6) - 1) // gap_us  # in [t, t + per_s), everything taken as soon as it may be
    assert most <= calls
    assert most >= 0.8 * calls - 1  # and the account is made use of


# -- the gate ---------------------------------------------------------------------------------------


def test_a_gate_tells_of_failures_and_then_holds_back(redis_url: str) -> None:
    found = gate(redis_url, rules=Rules())
    for _ in range(4):
        with pytest.raises(VendorError), found.call(), found.request("bars"):
            raise failed()
    with pytest.raises(CircuitOpenError, match="left alone for") as held, found.call(), found.request("bars"):
        raise AssertionError("the vendor was asked")
    assert held.value.retry_after_s
    with found.call(insist=True), found.request("bars"):
        pass


def test_a_fault_of_ours_says_nothing_of_the_vendor(redis_url: str) -> None:
    found = gate(redis_url)
    with pytest.raises(KeyError), found.call(), found.request("bars"):
        raise KeyError("ours")
    assert HealthBook(open_redis(redis_url), AT_ONCE).samples(NAME) == []


def test_what_would_wait_too_long_is_held_back_with_how_long(redis_url: str) -> None:
    found = gate(redis_url, (Rate(1, 3600.0),))
    with found.call(), found.request("bars"):
        pass
    with pytest.raises(RateSpentError, match="no request of 1/h is left") as held, found.call(), found.request("bars"):
        raise AssertionError("the vendor was asked")
    assert held.value.retry_after_s is not None
    assert 3500 < held.value.retry_after_s < 3700


def test_a_call_tells_how_long_its_requests_waited_and_not_how_long_they_took(
    redis_url: str, book: HealthBook, eventually: Callable[..., None]
) -> None:
    rates = (Rate(1, 1.0),)
    found = gate(redis_url, rates)
    with found.call() as first, found.request("bars"):
        began = time.monotonic()
        # What the vendor takes, here until the next request may go, is not its wait.
        eventually(lambda: book.standings({NAME: rates})[0].budget, what="a request may go")
        took_s = time.monotonic() - began
    assert first.waited_s < took_s
    with found.call() as second:
        for _ in range(2):
            with found.request("bars"):
                pass
    assert second.waited_s > 0.2
    other = gate(redis_url, (Rate(1, 3600.0),))
    with other.call() as refused:
        with other.request("bars"):
            pass
        before_s = refused.waited_s
        with pytest.raises(RateSpentError), other.request("bars"):
            raise AssertionError("the vendor was asked")
    assert refused.waited_s > before_s


@pytest.mark.parametrize(("rates", "goes"), [((), True), ((Rate(5, 60.0),), False)])
def test_without_redis_only_what_has_no_rate_is_asked(rates: tuple[Rate, ...], goes: bool) -> None:
    from mdtasks.domain.errors import BrokerUnavailableError

    found = gate("redis://127.0.0.1:1/0", rates)
    if goes:
        with found.call(), found.request("bars"):
            pass
        return
    with pytest.raises(BrokerUnavailableError), found.call(), found.request("bars"):
        raise AssertionError("the vendor was asked")


# -- many processes ---------------------------------------------------------------------------------


def test_eight_processes_never_ask_more_than_the_rate_in_any_window(redis_url: str) -> None:
    rate = Rate(40, 2.0)
    times = sorted(each for taken in of_eight(take, redis_url, (rate,)) for each in taken)
    for begins, _ in times:
        # Only those count that were asked for and granted within the window: a process may be put aside between.
        assert sum(begins <= asked and granted < begins + 2.0 for asked, granted in times) <= 40
    assert len(times) > 30


def test_one_of_eight_processes_probes(redis_url: str, book: HealthBook) -> None:
    demote(book)
    book._client.hset(f"mdtasks:provider:{NAME}", "until_us", 0)
    found = [set(verdicts) for verdicts in of_eight(probe, redis_url)]
    assert sorted(map(str, found)) == sorted(map(str, [{"probe"}] + [{"open"}] * 7))
