"""The quota planner: demand by hand, limits in their own stretch of time, and advice that makes it fit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy import Facts, Offer, Policy, check, examine, plan
from mdtasks.domain.rates import parse_rates

BARS = frozenset({"1m", "1d"})


def offer(name: str, rates: str = "none", **said: object) -> Offer:
    return replace(Offer(name, BARS, quotes=True, max_symbols=100, rates=parse_rates(rates)), **said)  # type: ignore[arg-type]


def facts(*offers: Offer, symbols: tuple[int, int, int] = (1000, 0, 0), minutes: int = 390) -> Facts:
    names = tuple(each.name for each in offers)
    counted = dict(zip(Tier, symbols, strict=True))
    return Facts(names, {each.name: each for each in offers}, names, symbols=counted, session_minutes=minutes)


def changed(*changes: tuple[str, object]) -> Policy:
    document = Policy().model_dump(mode="json")
    for path, value in changes:
        *above, name = path.split(".")
        at = document
        for part in above:
            at = at[part]
        at[name] = value
    return Policy.model_validate(document)


def test_demand_is_the_calls_of_each_tick() -> None:
    found = plan(Policy(), facts(offer("alpaca", "200/min"), symbols=(250, 50, 10)))
    assert [(d.tier, d.feed, d.calls, d.per_min) for d in found.demands] == [
        ("T0", "bars_1m", 3, 3.0),
        ("T0", "quotes_l1", 3, 36.0),
        ("T1", "bars_1m", 1, 0.2),
        ("T1", "quotes_l1", 1, 4.0),
    ]
    (quota,) = found.quotas
    assert (quota.live_per_min, quota.limit_per_min, quota.over_per_min) == (43.2, 200.0, 0.0)
    # a call for each symbol and kept interval: T0 and T1 keep two, T2 one
    assert quota.fill_calls == 2 * 250 + 2 * 50 + 10
    assert quota.drain_min == pytest.approx(610 / (200 - 43.2))


def test_each_provider_serves_what_it_is_first_for() -> None:
    bars = offer("lean", quotes=False, max_symbols=1000)
    found = plan(changed(("orders.eod", ["alpaca"])), facts(bars, offer("alpaca", "200/min")))
    assert {(d.feed, d.provider) for d in found.demands} == {("bars_1m", "lean"), ("quotes_l1", "alpaca")}
    assert {(each.interval, each.provider) for each in found.fills} == {("1m", "lean"), ("1d", "alpaca")}
    assert [(quota.provider, quota.limit_per_min) for quota in found.quotas] == [("lean", None), ("alpaca", 200.0)]


def test_what_nobody_serves_asks_nothing_of_anybody() -> None:
    found = plan(Policy(), facts(offer("files", quotes=False)))
    assert [(d.provider, d.calls) for d in found.demands] == [("files", 10), ("", 0)]
    assert found.fits


@pytest.mark.parametrize(
    ("rates", "minutes", "per_min"),
    [
        ("5/min", 390, 5.0),
        ("10/s", 390, 600.0),
        ("600/min+5/s", 390, 300.0),
        ("60/h", 390, 1.0),
        ("390/day", 390, 1.0),
        ("1440/day", 1440, 1.0),
    ],
)
def test_a_limit_counts_in_trading_time(rates: str, minutes: int, per_min: float) -> None:
    (quota,) = plan(Policy(), facts(offer("alpaca", rates), minutes=minutes)).quotas
    assert quota.limit_per_min == pytest.approx(per_min)


def test_the_limits_of_the_policy_are_those_of_the_account() -> None:
    (quota,) = plan(changed(("limits", {"alpaca": "7/min"})), facts(offer("alpaca", "200/min"))).quotas
    assert quota.limit_per_min == 7.0


def test_the_advice_makes_it_fit() -> None:
    here = facts(offer("massive", "60/min"))
    policy = Policy()
    (quota,) = plan(policy, here).quotas
    assert (quota.live_per_min, quota.over_per_min) == (130.0, 70.0)
    advised = re.match(r"tiers\.T0\.cadence\.quotes_l1: (\d+) s or longer \(now 5 s\)", quota.advice[0])
    assert advised is not None
    assert plan(changed(("tiers.T0.cadence.quotes_l1", float(advised[1]))), here).fits
    assert not plan(changed(("tiers.T0.cadence.quotes_l1", float(advised[1]) - 1)), here).fits
    account = re.search(r"limits\.massive: an account that allows (\d+)/min", " ".join(quota.advice))
    assert account is not None
    assert plan(changed(("limits", {"massive": f"{account[1]}/min"})), here).fits


def test_where_no_single_cadence_is_enough_the_account_or_the_order_is_named() -> None:
    (quota,) = plan(Policy(), facts(offer("massive", "5/min"), symbols=(1000, 1000, 0))).quotas
    assert [advice.partition(":")[0] for advice in quota.advice] == [
        "limits.massive",
        "orders.bars_1m or orders.quotes_l1",
    ]
    assert quota.drain_min is None


def test_a_policy_that_does_not_fit_is_refused_by_its_largest_cadence() -> None:
    (error,) = check(Policy(), facts(offer("massive", "60/min")))
    assert (error.path, error.value) == ("tiers.T0.cadence.quotes_l1", "5.0")
    assert "130 calls per minute in all, of which its account allows 60" in error.rule
    assert "12 s or longer" in error.rule


def test_a_change_that_makes_it_no_worse_is_not_to_blame() -> None:
    here = facts(offer("massive", "60/min"))
    assert check(changed(("retry.attempts", 9)), here, Policy()) == []
    assert check(changed(("tiers.T0.cadence.quotes_l1", 6.0)), here, Policy()) == []
    assert check(changed(("tiers.T0.cadence.quotes_l1", 4.0)), here, Policy())


def test_the_caps_must_leave_the_broker_room() -> None:
    small = replace(facts(offer("files")), broker_bytes=100_000_000)
    (error,) = check(Policy(), small)
    assert error.path == "tiers.T2.max_queue"
    assert "80,000, must be at most 30,000, for the broker has 100 MB" in error.rule


def test_a_tier_without_symbols_is_as_large_as_it_may_be() -> None:
    found = plan(Policy(), replace(facts(offer("files")), symbols={}))
    assert (dict(found.symbols), found.counted) == ({"T0": 1200, "T1": 3000, "T2": 0}, False)


def test_a_call_holds_no_more_time_than_the_provider_gives() -> None:
    hourly = offer("alpaca", "200/min", windows_s={"1m": 3600.0})
    found = plan(Policy(), facts(hourly))
    assert {fill.interval.value: fill.calls for fill in found.fills} == {"1m": 7 * 1000, "1d": 1000}


def test_a_plan_says_what_is_wrong_beside_it() -> None:
    assert examine(b"limits: {massive: 5/min}", facts(offer("massive")), Policy()).policy is None
