"""Stored bars beside another source, on real servers: what is compared, who is blamed, and what people read of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import text

from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.errors import VendorError
from mdtasks.domain.health import Sample
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.flows.crosschecks import check_once
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.providers import pause
from mdtasks.flows.retention import run_once
from mdtasks.observe import metrics
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.settings import Settings
from mdtasks.store.bars import BarBatch, write_bars
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, resolve
from tests.integration.cli_calls import Cli

#: A Friday, two hours after the close.
NOW = datetime(2026, 11, 20, 23, tzinfo=UTC)
WEEK = TimeWindow(start=datetime(2026, 11, 9, tzinfo=UTC), end=NOW)
FIRST, SECOND, THIRD = "simulator", "simulator_2", "simulator_3"


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """Three providers of the same bars, and one symbol."""
    opened = open_deps(settings.model_copy(update={"keep_t0": (Interval.M1, Interval.D1), "simulators": 3}))
    with opened.database.transaction() as connection:
        add_instruments(connection, [Instrument("SPY", "XNYS", tier=Tier.T0)])
    ensure_partitions(opened.database, "bars", to_us(WEEK.start), to_us(NOW))
    yield opened
    opened.close()


def _made_up(deps: Deps, interval: Interval) -> Bars:
    return SimulatorProvider(deps.calendars).fetch_bars([Listing("SPY", "XNYS")], interval, WEEK, NOW).bars["SPY"]


def _write(
    deps: Deps, interval: Interval, bars: Bars, provider: str = FIRST, *, final: bool = True, covered: bool = True
) -> None:
    with deps.database.transaction() as connection:
        spy = resolve(connection, ["SPY"])["SPY"].id
        batch = BarBatch(spy, bars, 2**62 if final else 0, [WEEK] if covered else [])
        write_bars(connection, interval, [batch], provider, 1)


def _fill(deps: Deps, *intervals: Interval) -> None:
    for interval in intervals:
        _write(deps, interval, _made_up(deps, interval))


def _policy(deps: Deps, **changes: Any) -> Deps:
    checks = deps.running.policy.cross_checks.model_copy(update=changes)
    policy = deps.running.policy.model_copy(update={"cross_checks": checks})
    return replace(deps, running=replace(deps.running, policy=policy))


def _days_alone(deps: Deps) -> Deps:
    return _policy(deps, series=0)


def _others_alone(deps: Deps, interval: Interval = Interval.M1) -> Deps:
    kept = replace(deps, settings=deps.settings.model_copy(update={"keep_t0": (interval,)}))
    return _policy(kept, days=0)


def _rows(deps: Deps) -> list[Any]:
    with deps.database.transaction() as connection:
        return list(connection.execute(text("SELECT * FROM reconciliations ORDER BY id")))


@dataclass
class _Wrong:
    """A provider with prices that are wrong by a share."""

    provider: Any
    share: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.provider, name)

    def fetch_bars(self, listings: Any, interval: Interval, window: TimeWindow, now: datetime) -> Any:
        answer = self.provider.fetch_bars(listings, interval, window, now)
        bars = {
            symbol: Bars(each.ts_us, *(column * (1 + self.share) for column in each.columns))
            for symbol, each in answer.bars.items()
        }
        return replace(answer, bars=bars)


def _spoil(deps: Deps, name: str, share: float = 0.01) -> None:
    providers: Any = deps.registry._providers
    providers[name] = _Wrong(providers[name], share)


def _counted(name: str, kind: str) -> float:
    return float(metrics.registry().get_sample_value("bars_disagreements_total", {"provider": name, "kind": kind}) or 0)


def _samples(deps: Deps, name: str) -> Sequence[Sample]:
    return [each for each in deps.health.samples(name) if each.disagreement is not None]


def test_daily_bars_that_are_their_minutes_agree_and_are_compared_once(deps: Deps) -> None:
    _fill(deps, Interval.M1, Interval.D1)
    some = _days_alone(deps)
    assert check_once(some, NOW) == {"compared": 5, "disagreed": 0}
    assert check_once(some, NOW) == {"compared": 0, "disagreed": 0}
    rows = _rows(deps)
    assert {(row.kind, row.interval, row.provider, row.other_provider) for row in rows} == {
        ("minutes", "1d", FIRST, FIRST)
    }
    assert rows[0].ts == datetime(2026, 11, 20, tzinfo=UTC)
    assert all(row.bar == row.other_bar and not row.beyond and row.wrong is None for row in rows)


def test_so_many_at_a_time_the_newest_first(deps: Deps) -> None:
    _fill(deps, Interval.M1, Interval.D1)
    some = _policy(_days_alone(deps), days=4, series=0)
    assert [check_once(some, NOW)["compared"] for _ in range(3)] == [4, 1, 0]
    assert len({row.ts for row in _rows(deps)}) == 5


def test_a_day_that_its_minutes_contradict_is_on_record_with_both_values_and_again_when_revised(deps: Deps) -> None:
    days = _made_up(deps, Interval.D1)
    close = days.close.copy()
    close[-1] *= 1.02
    _fill(deps, Interval.M1)
    _write(deps, Interval.D1, replace(days, close=close))
    before = _counted(FIRST, "minutes")
    some = _days_alone(deps)
    assert check_once(some, NOW) == {"compared": 5, "disagreed": 1}
    (row,) = [row for row in _rows(deps) if row.beyond]
    assert (row.beyond, row.wrong) == (["close"], FIRST)
    assert (row.bar[3], row.other_bar[3]) == (close[-1], days.close[-1])
    assert row.apart_bp[3] == pytest.approx(10_000 * 0.02 / 1.02)
    assert _counted(FIRST, "minutes") == before + 1
    # As if so much of what was asked for had not been answered for.
    (sample,) = _samples(deps, FIRST)
    assert sample.code == "answer"
    assert [sample.disagreement, sample.completeness] == pytest.approx([1 / 5, 4 / 5])
    (standing,) = deps.health.standings({FIRST: ()})
    assert standing.parts.errors == 1.0

    _write(deps, Interval.D1, days)
    assert check_once(some, NOW) == {"compared": 1, "disagreed": 0}
    minutes = _made_up(deps, Interval.M1)
    high = minutes.high.copy()
    high[-1] *= 2
    _write(deps, Interval.M1, replace(minutes, high=high))
    assert check_once(some, NOW) == {"compared": 1, "disagreed": 1}


def test_known_differences_are_within_the_tolerances(deps: Deps) -> None:
    days = _made_up(deps, Interval.D1)
    _fill(deps, Interval.M1)
    # A closing auction after the last minute, and volume that no minute has.
    _write(deps, Interval.D1, replace(days, close=days.close * 1.002, volume=days.volume * 1.4))
    assert check_once(_days_alone(deps), NOW) == {"compared": 5, "disagreed": 0}


@pytest.mark.parametrize("what", ["provisional day", "provisional minutes", "a minute missing", "derived day"])
def test_only_what_is_settled_and_final_and_a_vendors_is_compared(deps: Deps, what: str) -> None:
    minutes = _made_up(deps, Interval.M1)
    if what == "a minute missing":
        _write(deps, Interval.M1, minutes.take(np.arange(len(minutes)) != 5), covered=False)
    else:
        _write(deps, Interval.M1, minutes, final=what != "provisional minutes")
    name = "derived" if what == "derived day" else FIRST
    _write(deps, Interval.D1, _made_up(deps, Interval.D1), name, final=what != "provisional day")
    assert check_once(_days_alone(deps), NOW)["compared"] == 0


def test_a_sample_is_asked_of_a_second_provider_and_agrees(deps: Deps) -> None:
    _fill(deps, Interval.M1)
    assert check_once(_others_alone(deps), NOW) == {"compared": 30, "disagreed": 0}
    rows = _rows(deps)
    assert {(row.kind, row.interval, row.provider, row.other_provider) for row in rows} == {
        ("provider", "1m", FIRST, SECOND)
    }
    assert _samples(deps, FIRST) == _samples(deps, SECOND) == []


@pytest.mark.parametrize(("wrong", "judge"), [(SECOND, THIRD), (FIRST, THIRD)])
def test_of_two_that_disagree_the_one_that_a_third_contradicts_is_blamed(deps: Deps, wrong: str, judge: str) -> None:
    bars = _made_up(deps, Interval.M1)
    if wrong == FIRST:  # what is stored of it
        _write(deps, Interval.M1, Bars(bars.ts_us, *(column * 1.01 for column in bars.columns)))
    else:
        _fill(deps, Interval.M1)
        _spoil(deps, wrong)
    before = _counted(wrong, "provider")
    assert check_once(_others_alone(deps), NOW) == {"compared": 30, "disagreed": 30}
    assert {row.wrong for row in _rows(deps)} == {wrong}
    assert _counted(wrong, "provider") == before + 30
    (sample,) = _samples(deps, wrong)
    assert (sample.code, sample.failed, sample.of_request, sample.disagreement) == ("disagreement", True, False, 1.0)
    (standing,) = deps.health.standings({wrong: ()})
    assert standing.parts.errors < 1.0
    assert _samples(deps, judge) == []


def test_of_two_alone_nobody_is_blamed(deps: Deps) -> None:
    _fill(deps, Interval.M1)
    _spoil(deps, SECOND)
    pause(THIRD, "test", "test", deps, NOW)
    before = [_counted(name, "provider") for name in (FIRST, SECOND)]
    assert check_once(_others_alone(deps), NOW)["disagreed"] == 30
    assert {row.wrong for row in _rows(deps)} == {None}
    assert [_counted(name, "provider") for name in (FIRST, SECOND)] == [count + 30 for count in before]
    for name in (FIRST, SECOND):
        (sample,) = _samples(deps, name)
        assert (sample.code, sample.disagreement, sample.completeness) == ("answer", 1.0, None)
        (standing,) = deps.health.standings({name: ()})
        assert (standing.parts.errors, standing.parts.completeness) == (1.0, 1.0)


def test_one_that_fails_or_is_left_aside_is_not_asked_and_the_next_is(deps: Deps) -> None:
    _fill(deps, Interval.M1)
    for _ in range(5):
        deps.health.tell_request(SECOND, "bars", 0.1, VendorError("away", provider=SECOND))
    check_once(_others_alone(deps), NOW)
    assert {row.other_provider for row in _rows(deps)} == {THIRD}
    pause(THIRD, "test", "test", deps, NOW)
    assert check_once(_others_alone(deps), NOW)["compared"] == 0


def test_one_without_calls_to_spare_is_not_asked(settings: Settings, deps: Deps) -> None:
    from mdtasks.domain.rates import Rate

    _fill(deps, Interval.M1)
    rates = {name: (Rate(1, 3600.0),) for name in (SECOND, THIRD)}
    limited = open_deps(deps.settings.model_copy(update={"vendor_rates": rates}))
    assert check_once(_others_alone(limited), NOW)["compared"] == 0
    limited.close()


def test_daily_bars_are_sampled_too(deps: Deps) -> None:
    _fill(deps, Interval.D1)
    assert check_once(_others_alone(deps, Interval.D1), NOW) == {"compared": 5, "disagreed": 0}


def test_old_comparisons_are_forgotten(deps: Deps) -> None:
    _fill(deps, Interval.M1, Interval.D1)
    check_once(_days_alone(deps), NOW)
    later = datetime.now(UTC) + timedelta(days=401)
    assert run_once(deps, later - timedelta(days=10))["rows"] == {}
    done = run_once(deps, later)
    assert (done["rows"], done["more"]) == ({"reconciliations": 5}, False)


def test_people_read_of_it_on_the_command_line_and_over_http(cli: Cli, deps: Deps) -> None:
    from tests.integration.web_server import served

    assert "nothing was compared" in cli("reconcile").err
    days = _made_up(deps, Interval.D1)
    _fill(deps, Interval.M1)
    _write(deps, Interval.D1, replace(days, close=np.append(days.close[:-1], days.close[-1] * 1.02)))
    check_once(_days_alone(deps), NOW)
    shown = cli("reconcile")
    assert shown.code == 0
    assert "its minutes" in shown.out
    assert "close" in shown.out
    assert cli("reconcile", "--check").code == 1
    document = cli("reconcile", "SPY", "--json").json
    assert (document["compared"], document["disagreed"]) == (5, 1)
    (source,) = document["sources"]
    assert source["worst_bp"]["close"] == pytest.approx(10_000 * 0.02 / 1.02)
    (one,) = document["disagreements"]
    assert (one["symbol"], one["beyond"], one["wrong"]) == ("SPY", ["close"], FIRST)
    assert one["bar"]["close"] == pytest.approx(one["other_bar"]["close"] * 1.02)
    assert cli("reconcile", "NOPE").code == 2
    with served(deps.settings) as client:
        found = client.get("/stats/reconciliation", params={"symbols": "SPY", "limit": 1}).json()
        assert found["disagreements"] == document["disagreements"]
        assert client.get("/stats/reconciliation", params={"since": "2099-01-01"}).json()["compared"] == 0
        assert _refused(client) == ("limit", 422)


def _refused(client: httpx.Client) -> tuple[str, int]:
    answer = client.get("/stats/reconciliation", params={"limit": -1})
    return answer.json()["field"], answer.status_code
