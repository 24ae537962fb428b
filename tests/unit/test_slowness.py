"""When a call is slow: bounds that hold whatever a provider's latencies are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.slowness import FLOOR_S, LEAST_CALLS, RECENT_CALLS, Latencies, SlowRule

seconds = st.floats(1e-6, 3600)
rules = st.builds(SlowRule, slow_s=seconds, p95_factor=st.floats(0.1, 100))


@given(rule=rules, p95_s=st.none() | seconds)
def test_the_threshold_is_never_above_the_setting_and_a_p95_never_takes_it_below_the_floor(
    rule: SlowRule, p95_s: float | None
) -> None:
    assert min(FLOOR_S, rule.slow_s) <= rule.threshold_s(p95_s) <= rule.slow_s


@given(rule=rules, p95_s=st.tuples(seconds, seconds))
def test_a_slower_provider_is_given_no_less_time(rule: SlowRule, p95_s: tuple[float, float]) -> None:
    assert rule.threshold_s(min(p95_s)) <= rule.threshold_s(max(p95_s))


@given(slow_s=seconds, p95_s=st.none() | seconds)
def test_without_a_factor_or_a_p95_the_seconds_alone_count(slow_s: float, p95_s: float | None) -> None:
    assert SlowRule(slow_s, 0).threshold_s(p95_s) == SlowRule(slow_s).threshold_s(None) == slow_s


def test_three_times_the_p95_counts_between_the_floor_and_the_seconds() -> None:
    rule = SlowRule()
    assert [rule.threshold_s(p95_s) for p95_s in (0.001, 0.2, 0.5, 5.0)] == [FLOOR_S, 3.0 * 0.2, 1.5, 2.0]


@given(st.lists(seconds, min_size=1, max_size=RECENT_CALLS * 2))
def test_the_p95_has_at_least_95_in_a_hundred_of_the_recent_calls_below_or_at_it_and_is_one_of_them(
    took_s: list[float],
) -> None:
    latencies = Latencies()
    for each in took_s:
        latencies.add(each)
    recent, p95_s = took_s[-RECENT_CALLS:], latencies.p95_s
    if len(recent) < LEAST_CALLS:
        assert p95_s is None
        return
    assert p95_s in recent
    assert sum(each <= p95_s for each in recent) * 100 >= 95 * len(recent)
    assert sum(each < p95_s for each in recent) * 100 < 95 * len(recent)
