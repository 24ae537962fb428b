"""Longer bars made of minutes on a real server: right to the last bit, only what changed, never in a vendor's place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.gaps import spans_of
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.overrides import Kind
from mdtasks.domain.universe import Listing
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows import derive
from mdtasks.flows.calendars import apply_overrides
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.gaps import Question, accept_gaps, find_gaps
from mdtasks.flows.scan import scan
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.settings import Settings
from mdtasks.store import overrides
from mdtasks.store.bars import BarBatch, StoredBars, WriteCounts, read_bars, read_coverage, write_bars
from mdtasks.store.coverage import coverage_as_of
from mdtasks.store.gaps import Scope
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, resolve

#: A Friday, an hour after the close.
NOW = datetime(2026, 11, 20, 22, tzinfo=UTC)
OPEN = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
DAY = TimeWindow(start=datetime(2026, 11, 20, tzinfo=UTC), end=NOW)
WEEK = TimeWindow(start=datetime(2026, 11, 16, tzinfo=UTC), end=NOW)
LONGER = (Interval.M5, Interval.M15, Interval.H1, Interval.D1)
ALL = tuple(Interval)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """A provider that has minutes only, and a tier that keeps all intervals."""
    opened = open_deps(settings.model_copy(update={"keep_t0": ALL, "settle_s": 60.0}))
    provider: Any = opened.registry.get("simulator")
    provider.capabilities = replace(provider.capabilities, intervals=frozenset({Interval.M1}))
    with opened.database.transaction() as connection:
        members = [Instrument("SPY", "XNYS", tier=Tier.T0), Instrument("BTC-USD", "24/7", "crypto", Tier.T0)]
        add_instruments(connection, members)
    ensure_partitions(opened.database, "bars", to_us(OPEN - timedelta(days=40)), to_us(NOW))
    yield opened
    opened.close()


def _id(deps: Deps, symbol: str = "SPY") -> int:
    with deps.database.transaction() as connection:
        return resolve(connection, [symbol])[symbol].id


def _made_up(deps: Deps, interval: Interval, window: TimeWindow = DAY, symbol: str = "SPY", mic: str = "XNYS") -> Bars:
    return SimulatorProvider(deps.calendars).fetch_bars([Listing(symbol, mic)], interval, window, NOW).bars[symbol]


def _write(
    deps: Deps,
    bars: Bars,
    covered: Sequence[TimeWindow] = (DAY,),
    *,
    interval: Interval = Interval.M1,
    provider: str = "simulator",
    final: bool = True,
    **more: Any,
) -> WriteCounts:
    batch = BarBatch(_id(deps), bars, 2**62 if final else 0, covered, **more)
    with deps.database.transaction() as connection:
        return write_bars(connection, interval, [batch], provider, 7)


def _read(deps: Deps, interval: Interval, as_of: datetime | None = None, symbol: str = "SPY") -> StoredBars:
    ever = TimeWindow(start=datetime(2026, 10, 1, tzinfo=UTC), end=datetime(2027, 1, 1, tzinfo=UTC))
    with deps.database.transaction() as connection:
        return read_bars(connection, resolve(connection, [symbol])[symbol].id, interval, ever, as_of)


def _covered(deps: Deps, interval: Interval) -> list[tuple[datetime, datetime]]:
    with deps.database.transaction() as connection:
        (found,) = read_coverage(connection, [_id(deps)], interval).values()
    return [(each.start, each.end) for each in found]


def _same(left: Bars, right: Bars) -> None:
    assert left.ts_us.tolist() == right.ts_us.tolist()
    for mine, theirs in zip(left.columns, right.columns, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def _server_now(deps: Deps) -> datetime:
    with deps.database.transaction() as connection:
        return connection.execute(text("SELECT clock_timestamp()")).scalar_one()  # type: ignore[no-any-return]


def _waiting(deps: Deps) -> int:
    with deps.database.transaction() as connection:
        return int(connection.execute(text("SELECT count(*) FROM minute_changes")).scalar_one())


def _without(bars: Bars, at: datetime) -> Bars:
    return bars.take(bars.ts_us != to_us(at))


def test_longer_bars_of_a_session_are_those_of_its_minutes_and_say_that_they_are_derived(deps: Deps) -> None:
    _write(deps, _made_up(deps, Interval.M1))
    done = derive.derive_once(deps, NOW)
    assert done == {"changes": 1, "inserted": 78 + 26 + 7 + 1, "revised": 0, "promoted": 0}
    for interval in LONGER:
        found = _read(deps, interval)
        _same(found.bars, _made_up(deps, interval))
        assert set(found.provider) == {"derived"}
        assert found.final.all()
        assert set(found.attempt_id.tolist()) == {7}  # who brought their minutes
    assert _waiting(deps) == 0
    assert derive.derive_once(deps, NOW) == {"changes": 0, "inserted": 0, "revised": 0, "promoted": 0}


def test_their_coverage_has_no_holes_at_night(deps: Deps) -> None:
    _write(deps, _made_up(deps, Interval.M1, WEEK), [WEEK])
    derive.derive_once(deps, NOW)
    for interval in LONGER:
        assert len(_covered(deps, interval)) == 1, interval
        asked = Question(["SPY"], interval, AskedWindow(WEEK.start, WEEK.end))
        (found,) = find_gaps(asked, deps, NOW)
        assert (found.missing, found.present) == (0, len(_made_up(deps, interval, WEEK)))


def test_minutes_of_extended_hours_belong_to_no_bar(deps: Deps) -> None:
    regular = _made_up(deps, Interval.M1)
    early, late = to_us(OPEN - 10 * MINUTE), to_us(OPEN + 391 * MINUTE)
    _write(deps, Bars.concat([Bars.of([early], *[[9e9]] * 5), regular, Bars.of([late], *[[9e9]] * 5)]))
    derive.derive_once(deps, NOW)
    for interval in LONGER:
        _same(_read(deps, interval).bars, _made_up(deps, interval))


def test_a_bar_is_made_when_it_has_ended_and_its_neighbours_are_left_alone(deps: Deps) -> None:
    ten = TimeWindow(start=OPEN, end=OPEN + 9 * MINUTE)
    _write(deps, _made_up(deps, Interval.M1, ten), [ten])
    derive.derive_once(deps, ten.end)
    assert [from_us(us) for us in _read(deps, Interval.M5).bars.ts_us] == [OPEN]
    assert len(_read(deps, Interval.D1)) == 0
    first = _read(deps, Interval.M5).known_at_us.tolist()
    last = TimeWindow(start=ten.end, end=ten.end + MINUTE)
    _write(deps, _made_up(deps, Interval.M1, last), [last])
    derive.derive_once(deps, last.end)
    found = _read(deps, Interval.M5)
    assert len(found) == 2
    assert found.known_at_us.tolist()[:1] == first


def test_a_revised_minute_is_a_revision_of_each_bar_it_makes_and_the_past_stays_as_it_was(deps: Deps) -> None:
    minutes = _made_up(deps, Interval.M1)
    _write(deps, minutes)
    derive.derive_once(deps, NOW)
    then = _server_now(deps)
    before = {interval: _read(deps, interval).bars for interval in LONGER}
    high = minutes.high.copy()
    high[100] = 1e6
    _write(deps, replace(minutes, high=high))
    # The minutes are new, and nobody has made anything of them yet.
    assert _waiting(deps) == 1
    done = derive.derive_once(deps, NOW)
    assert (done["inserted"], done["revised"]) == (0, 4)
    for interval in LONGER:
        now = _read(deps, interval)
        assert (now.bars.high == 1e6).sum() == 1
        assert now.final.all()
        _same(_read(deps, interval, then).bars, before[interval])
        revised = now.known_at_us[now.bars.high == 1e6]
        assert (revised > to_us(then)).all()


def test_a_bar_is_provisional_while_a_minute_of_it_is_missing(deps: Deps) -> None:
    minutes, hole = _made_up(deps, Interval.M1), OPEN + 62 * MINUTE
    parts = [TimeWindow(start=DAY.start, end=hole), TimeWindow(start=hole + MINUTE, end=DAY.end)]
    _write(deps, _without(minutes, hole), parts)
    derive.derive_once(deps, NOW)
    for interval in LONGER:
        found = _read(deps, interval)
        assert (~found.final).sum() == 1, interval
        (bad,) = found.bars.ts_us[~found.final].tolist()
        # Time after it is answered for, it is not.
        assert all(not start <= from_us(bad) < end for start, end in _covered(deps, interval))
    (held,) = find_gaps(Question(["SPY"], Interval.M5, AskedWindow(DAY.start, DAY.end)), deps, NOW)
    assert held.missing == 1

    _write(deps, minutes.take(minutes.ts_us == to_us(hole)), [TimeWindow(start=hole, end=hole + MINUTE)])
    derive.derive_once(deps, NOW)
    for interval in LONGER:
        _same(_read(deps, interval).bars, _made_up(deps, interval))
        assert _read(deps, interval).final.all()
        assert len(_covered(deps, interval)) == 1


def test_silence_that_is_believed_is_complete_and_a_bar_of_nothing_but_silence_is_no_trade(deps: Deps) -> None:
    minutes = _made_up(deps, Interval.M1)
    silent = (minutes.ts_us >= to_us(OPEN + 60 * MINUTE)) & (minutes.ts_us < to_us(OPEN + 67 * MINUTE))
    _write(deps, minutes.take(~silent))
    derive.derive_once(deps, NOW)
    found = _read(deps, Interval.M5)
    assert len(found) == 77
    assert found.final.all()
    (verdict,) = find_gaps(Question(["SPY"], Interval.M5, AskedWindow(DAY.start, DAY.end)), deps, NOW)
    assert (verdict.present, verdict.no_trade, verdict.missing) == (77, 1, 0)


def test_provisional_minutes_make_provisional_bars_and_their_promotion_promotes_them(deps: Deps) -> None:
    minutes = _made_up(deps, Interval.M1)
    _write(deps, minutes, [], final=False)
    derive.derive_once(deps, NOW)
    first = _read(deps, Interval.M15)
    assert not first.final.any()
    _write(deps, minutes)
    assert derive.derive_once(deps, NOW)["promoted"] == 78 + 26 + 7 + 1
    promoted = _read(deps, Interval.M15)
    assert promoted.final.all()
    assert promoted.known_at_us.tolist() == first.known_at_us.tolist()


def test_silence_that_is_doubted_again_opens_the_bar_it_lies_in(deps: Deps) -> None:
    minutes, at = _made_up(deps, Interval.M1), OPEN + 62 * MINUTE
    _write(deps, _without(minutes, at))
    derive.derive_once(deps, NOW)
    assert _read(deps, Interval.M5).final.all()
    _write(deps, Bars.empty(), [], retracted=[TimeWindow(start=at, end=at + MINUTE)])
    derive.derive_once(deps, NOW)
    for interval in LONGER:
        assert (~_read(deps, interval).final).sum() == 1
    assert len(_covered(deps, Interval.M5)) == 2
    with deps.database.transaction() as connection:
        # The same values, but no longer sure: who follows the bar is told by its new version.
        sure = connection.execute(text("SELECT interval, status FROM bar_revisions ORDER BY interval")).all()
    assert [(row.interval, row.status) for row in sure] == [(str(each), "final") for each in LONGER]


def test_what_was_answered_for_of_derived_bars_is_told_as_of_any_moment(deps: Deps) -> None:
    minutes, at = _made_up(deps, Interval.M1), OPEN + 62 * MINUTE
    silent = [TimeWindow(start=at, end=at + MINUTE)]
    hour = _made_up(deps, Interval.H1)
    events: list[Callable[[], object]] = [
        lambda: _write(deps, minutes.take(minutes.ts_us < to_us(at)), [TimeWindow(start=DAY.start, end=at)]),
        lambda: _write(deps, _without(minutes, at)),
        lambda: _write(deps, Bars.empty(), [], retracted=silent),
        lambda: _write(deps, Bars.empty(), silent),
        lambda: _write(deps, hour, interval=Interval.H1, provider="vendor", final=False),
        lambda: _write(deps, minutes, [], final=False),
        lambda: _write(deps, minutes),
        lambda: _write(deps, hour, interval=Interval.H1, provider="vendor"),
    ]
    known: list[tuple[datetime, dict[Interval, list[tuple[datetime, datetime]]]]] = []
    for event in events:
        event()
        derive.derive_once(deps, NOW)
        known.append((_server_now(deps), {interval: _covered(deps, interval) for interval in LONGER}))
    assert len({repr(covered) for _, covered in known}) > 3
    ever = TimeWindow(start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2027, 1, 1, tzinfo=UTC))
    for as_of, covered in known:
        for interval in LONGER:
            with deps.database.transaction() as connection:
                then = coverage_as_of(connection, _id(deps), interval, ever, as_of)
            assert then.tolist() == spans_of(TimeWindow(start=a, end=b) for a, b in covered[interval]).tolist()


def test_a_vendors_bar_takes_a_derived_ones_place_and_never_the_other_way_round(deps: Deps) -> None:
    minutes = _made_up(deps, Interval.M1)
    _write(deps, minutes)
    derive.derive_once(deps, NOW)
    then, own = _server_now(deps), _made_up(deps, Interval.D1)
    # A provisional one does not unsettle what is final; a final one takes over, even with the same values.
    assert _write(deps, own, [], interval=Interval.D1, provider="lean", final=False).unchanged == 1
    assert _write(deps, own, [], interval=Interval.D1, provider="lean").revised == 1
    assert _read(deps, Interval.D1).provider.tolist() == ["lean"]
    assert _read(deps, Interval.D1, then).provider.tolist() == ["derived"]
    _write(deps, replace(minutes, close=minutes.close + 1))
    done = derive.derive_once(deps, NOW)
    assert done["revised"] == 78 + 26 + 7
    assert _read(deps, Interval.D1).bars.close.tolist() == own.close.tolist()


def test_a_provisional_bar_of_a_vendor_takes_a_provisional_ones_place(deps: Deps) -> None:
    minutes = _made_up(deps, Interval.M1)
    _write(deps, minutes, [], final=False)
    derive.derive_once(deps, NOW)
    own = _made_up(deps, Interval.D1)
    assert _write(deps, own, [], interval=Interval.D1, provider="lean", final=False).revised == 1
    _write(deps, minutes)
    derive.derive_once(deps, NOW)
    found = _read(deps, Interval.D1)
    assert (found.provider.tolist(), found.final.tolist()) == (["lean"], [False])


def test_what_a_provider_serves_and_what_a_tier_does_not_keep_is_not_made(deps: Deps) -> None:
    provider: Any = deps.registry.get("simulator")
    provider.capabilities = replace(provider.capabilities, intervals=frozenset({Interval.M1, Interval.H1}))
    some = replace(deps, settings=deps.settings.model_copy(update={"keep_t0": (Interval.M1, Interval.H1, Interval.M5)}))
    _write(some, _made_up(deps, Interval.M1))
    assert derive.derive_once(some, NOW)["inserted"] == 78
    assert _waiting(deps) == 0


def test_what_fails_on_the_way_is_still_to_be_made(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(deps, _made_up(deps, Interval.M1))
    with monkeypatch.context() as patched:

        def gone(*_: object) -> None:
            raise OSError("cut off")

        patched.setattr(derive, "is_derived", gone)
        with pytest.raises(OSError, match="cut off"):
            derive.derive_once(deps, NOW)
    assert _waiting(deps) == 1
    assert derive.derive_once(deps, NOW)["inserted"] == 112


def test_a_second_one_at_it_leaves_it_to_the_first(deps: Deps) -> None:
    _write(deps, _made_up(deps, Interval.M1))
    with deps.database.transaction() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('mdtasks.derived'))"))
        assert derive.derive_once(deps, NOW)["changes"] == 0
    assert derive.derive_once(deps, NOW)["changes"] == 1


def test_the_gap_scan_sees_derived_series_and_has_them_made_without_asking_anybody(deps: Deps) -> None:
    _write(deps, _made_up(deps, Interval.M1, WEEK), [WEEK])
    with deps.database.transaction() as connection:  # of before the tier kept hours, or lost with a crash of a disk
        connection.execute(text("DELETE FROM minute_changes"))
    scope = Scope(Tier.T0, Interval.H1, [_id(deps)])
    found = scan(scope, deps, NOW)
    assert (found.lacking, found.found, found.queued) == (1, 1, 0)
    derive.derive_once(deps, NOW)
    assert len(_read(deps, Interval.H1)) == 5 * 7
    assert scan(scope, deps, NOW).closed == 1
    assert scan(scope, deps, NOW).as_dict() == scan(Scope(Tier.T0, Interval.H1, []), deps, NOW).as_dict()


def test_what_no_minutes_can_make_is_a_gap_that_costs_no_round_after_the_first(deps: Deps) -> None:
    minutes, hole = _made_up(deps, Interval.M1), OPEN + 62 * MINUTE
    parts = [TimeWindow(start=DAY.start, end=hole), TimeWindow(start=hole + MINUTE, end=DAY.end)]
    _write(deps, _without(minutes, hole), parts)
    with deps.database.transaction() as connection:
        connection.execute(text("DELETE FROM minute_changes"))
    scope = Scope(Tier.T0, Interval.M15, [_id(deps)])
    scan(scope, deps, NOW)
    assert _waiting(deps) == 1  # a row for all of the day, with the one that has the hole: it has no bar yet
    derive.derive_once(deps, NOW)
    assert len(_read(deps, Interval.M15)) == 26
    assert scan(scope, deps, NOW).lacking == 1
    assert _waiting(deps) == 0


def test_silence_that_a_person_takes_on_completes_the_bars_it_lies_in(deps: Deps) -> None:
    minutes, hole = _made_up(deps, Interval.M1), OPEN + 62 * MINUTE
    parts = [TimeWindow(start=DAY.start, end=hole), TimeWindow(start=hole + MINUTE, end=DAY.end)]
    _write(deps, _without(minutes, hole), parts)
    derive.derive_once(deps, NOW)
    assert not _read(deps, Interval.D1).final.any()
    asked = Question(["SPY"], Interval.M1, AskedWindow(DAY.start, DAY.end))
    accept_gaps("SPY", asked, ("ann", "no feed"), deps, NOW)
    assert derive.derive_once(deps, NOW)["promoted"] == 4
    assert _read(deps, Interval.D1).final.all()


def test_a_tier_without_minutes_is_not_expected_to_have_what_is_made_of_them(deps: Deps) -> None:
    none = replace(deps, settings=deps.settings.model_copy(update={"keep_t0": (Interval.D1,)}))
    assert scan(Scope(Tier.T0, Interval.D1), none, NOW).found == 0


def test_a_halt_belongs_to_no_bar(deps: Deps) -> None:
    halt = TimeWindow(start=OPEN + 60 * MINUTE, end=OPEN + 75 * MINUTE)
    spy = _id(deps)
    with deps.database.transaction() as connection:
        overrides.add(connection, overrides.NewOverride(Kind.HALT, halt, "test", instrument_id=spy), "test")
    apply_overrides(deps.database, deps.calendars)
    minutes = _made_up(deps, Interval.M1)
    during = (minutes.ts_us >= to_us(halt.start)) & (minutes.ts_us < to_us(halt.end))
    parts = [TimeWindow(start=DAY.start, end=halt.start), TimeWindow(start=halt.end, end=DAY.end)]
    _write(deps, minutes.take(~during), parts)
    derive.derive_once(deps, NOW)
    assert (len(_read(deps, Interval.M5)), len(_read(deps, Interval.D1))) == (75, 1)
    assert _read(deps, Interval.D1).final.all()


_RESAMPLED = {Interval.M5: "5min", Interval.M15: "15min", Interval.H1: "1h", Interval.D1: "1D"}


@given(
    kept=st.lists(st.integers(0, 2 * 1440 - 1), min_size=1, max_size=300, unique=True),
    seed=st.integers(0, 2**32 - 1),
)
@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_around_the_clock_they_are_what_pandas_resamples(deps: Deps, kept: list[int], seed: int) -> None:
    start = datetime(2026, 11, 18, tzinfo=UTC)
    days, random = TimeWindow(start=start, end=start + timedelta(days=2)), np.random.default_rng(seed)
    ts = to_us(start) + np.sort(kept) * 60_000_000
    low, high = np.sort(random.lognormal(3, 1, (2, len(ts))), axis=0)
    open_, close = random.uniform(low, high), random.uniform(low, high)
    minutes = Bars.of(ts, open_, high, low, close, low * 100)
    with deps.database.transaction() as connection:
        connection.execute(text("TRUNCATE bars, bar_revisions, coverage, minute_changes"))
        pair = resolve(connection, ["BTC-USD"])["BTC-USD"].id
        write_bars(connection, Interval.M1, [BarBatch(pair, minutes, 2**62, [days])], "simulator", 1)
    derive.derive_once(deps, NOW)
    frame = pd.DataFrame(
        dict(zip(("open", "high", "low", "close", "volume"), minutes.columns, strict=True)),
        index=pd.to_datetime(ts, unit="us", utc=True),
    )
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    for interval, rule in _RESAMPLED.items():
        want = frame.resample(rule).agg(how).dropna()
        found = _read(deps, interval, symbol="BTC-USD")
        assert [from_us(us) for us in found.bars.ts_us] == list(want.index.to_pydatetime())
        for name in ("open", "high", "low", "close"):
            assert getattr(found.bars, name).tolist() == want[name].tolist(), (interval, name)
        assert found.bars.volume == pytest.approx(want["volume"].to_numpy(), rel=1e-12)
        assert found.final.all()
