"""The SLO monitor on a real PostgreSQL: who is looked at, who is late, what is kept and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mdtasks.domain.bars import to_us
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.monitor import WORST, forget_once, last_run, run_once
from mdtasks.observe import metrics
from mdtasks.observe.scrape import exposition
from mdtasks.settings import Settings
from mdtasks.store import snapshots
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, current
from mdtasks.store.snapshots import Series, Snapshot

#: Friday, an hour into New York's session; Hong Kong and Sydney are shut.
OPEN = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
SUNDAY = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)
#: Ten past three in Hong Kong on the same Friday; New York sleeps.
HONG_KONG = datetime(2026, 11, 20, 7, 10, tzinfo=UTC)
GAP_T0 = Series("gap", Tier.T0, Interval.M1)
#: 2 x 60 s, settle 60 s, grace 30 s: what a T0 series may lag.
ALLOWED_T0 = timedelta(seconds=210)
#: T1 is asked every 300 s: 240 s more.
ALLOWED_T1 = ALLOWED_T0 + timedelta(seconds=240)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """Deps without any instrument."""
    opened = open_deps(settings, application="tests")
    yield opened
    opened.close()


def made(deps: Deps, *members: Instrument, since: datetime = OPEN - 30 * DAY) -> None:
    """Instruments that were added long ago."""
    with deps.database.transaction() as connection:
        add_instruments(connection, members)
        names = [member.symbol for member in members]
        connection.execute(
            text(
                "UPDATE instruments SET created_at = :since WHERE id IN"
                " (SELECT instrument_id FROM symbols WHERE symbol = ANY(:names))"
            ),
            {"since": since, "names": names},
        )


def fresh(deps: Deps, until: datetime, *symbols: str, interval: Interval = Interval.M1, covered: str = "{}") -> None:
    """Series that have data until then."""
    with deps.database.transaction() as connection:
        for member in current(connection, symbols).values():
            connection.execute(
                text(
                    "INSERT INTO coverage (instrument_id, interval, covered, fresh_until)"
                    " VALUES (:id, CAST(:interval AS bar_interval), CAST(:covered AS tstzmultirange), :until)"
                    " ON CONFLICT (instrument_id, interval) DO UPDATE"
                    " SET covered = excluded.covered, fresh_until = excluded.fresh_until"
                ),
                {"id": member.id, "interval": interval.value, "covered": covered, "until": until},
            )


def execute(deps: Deps, statement: str, **values: object) -> None:
    with deps.database.transaction() as connection:
        connection.execute(text(statement), values)


def looked(deps: Deps, now: datetime) -> dict[tuple[str, str], Snapshot]:
    """What a run at that moment found, without any run before it: (objective, tier) -> snapshot."""
    execute(deps, "DELETE FROM slo_snapshots")
    run_once(deps, now)
    asked = [Series(o, t, i) for o in ("gap", "coverage") for t, i in _watched()]
    with deps.database.transaction() as connection:
        found = snapshots.newest(connection, asked, since=now)
    return {(each.series.objective, each.series.tier.value): each for each in found}


def _watched() -> list[tuple[Tier, Interval]]:
    return [(Tier.T0, Interval.M1), (Tier.T1, Interval.M1), (Tier.T2, Interval.D1)]


def late(deps: Deps, now: datetime, tier: str = "T0") -> list[str] | None:
    """The symbols of the tier that are late; None when nothing was looked at."""
    found = looked(deps, now).get(("gap", tier))
    return None if found is None else [each["symbol"] for each in found.worst]


def t0(*symbols: str, mic: str = "XNYS", **about: Any) -> list[Instrument]:
    return [Instrument(symbol, mic, tier=Tier.T0, **about) for symbol in symbols]


# -- who is late -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("tier", "allowed"), [(Tier.T0, ALLOWED_T0), (Tier.T1, ALLOWED_T1)])
def test_a_series_is_late_a_second_after_what_it_may_lag(deps: Deps, tier: Tier, allowed: timedelta) -> None:
    made(deps, Instrument("JUST", "XNYS", tier=tier), Instrument("LATE", "XNYS", tier=tier))
    fresh(deps, OPEN - allowed, "JUST")
    fresh(deps, OPEN - allowed - SECOND, "LATE")
    found = looked(deps, OPEN)["gap", tier.value]
    assert (found.expected, found.violations) == (2, 1)
    assert [each["symbol"] for each in found.worst] == ["LATE"]
    assert found.lag_s == allowed.total_seconds() + 1


def test_nights_weekends_and_lunch_are_no_lateness(deps: Deps) -> None:
    made(deps, *t0("NY"), *t0("HK", mic="XHKG"))
    fresh(deps, datetime(2026, 11, 20, 21, tzinfo=UTC), "NY")  # Friday's close
    fresh(deps, datetime(2026, 11, 20, 4, tzinfo=UTC), "HK")  # the start of lunch
    monday = datetime(2026, 11, 23, 14, 30, tzinfo=UTC)
    assert late(deps, monday + timedelta(seconds=210)) == []
    assert late(deps, monday + timedelta(seconds=211)) == ["NY"]
    after_lunch = datetime(2026, 11, 20, 5, tzinfo=UTC)
    assert late(deps, after_lunch - SECOND) is None  # both are shut
    assert late(deps, after_lunch + timedelta(seconds=210)) == []
    assert late(deps, after_lunch + timedelta(seconds=211)) == ["HK"]


def test_only_series_whose_exchange_trades_are_looked_at(deps: Deps) -> None:
    made(deps, *t0("NY1", "NY2"), *t0("HK", mic="XHKG"))
    assert looked(deps, OPEN)["gap", "T0"].expected == 2
    assert looked(deps, HONG_KONG)["gap", "T0"].expected == 1
    assert ("gap", "T0") not in looked(deps, SUNDAY)


def test_while_everything_is_shut_nothing_is_counted_or_kept_and_the_run_is_known(deps: Deps) -> None:
    made(deps, *t0("NY"))
    found = run_once(deps, SUNDAY)
    assert (found["expected"], found["violations"]) == (0, 0)
    with deps.database.transaction() as connection:
        assert snapshots.last_at(connection, GAP_T0) is None
    assert last_run(deps) == SUNDAY.timestamp()


def test_an_empty_universe_is_no_fault(deps: Deps) -> None:
    assert run_once(deps, OPEN) == {"expected": 0, "violations": 0, "snapshots": 0, "busy": 0}


def test_a_series_without_any_data_is_late_since_it_was_added(deps: Deps) -> None:
    made(deps, *t0("NEW"), since=OPEN - ALLOWED_T0)
    made(deps, *t0("OLD"), since=OPEN - ALLOWED_T0 - SECOND)
    assert late(deps, OPEN) == ["OLD"]


def test_old_data_of_a_series_that_was_just_added_does_not_make_it_late_by_years(deps: Deps) -> None:
    made(deps, *t0("OLD"), since=OPEN - 60 * SECOND)
    fresh(deps, OPEN - 2000 * DAY, "OLD")
    assert looked(deps, OPEN)["gap", "T0"].lag_s == 60


def test_a_coverage_without_any_range_counts_as_none(deps: Deps) -> None:
    made(deps, *t0("NONE"))
    fresh(deps, OPEN, "NONE")
    execute(deps, "UPDATE coverage SET fresh_until = '-infinity'")
    found = looked(deps, OPEN)["gap", "T0"]
    assert found.violations == 1
    assert found.worst[0]["fresh_until"] is None


def test_only_the_days_on_which_an_instrument_is_listed_count(deps: Deps) -> None:
    today = OPEN.date()
    made(deps, *t0("TODAY", listed_from=today), *t0("TOMORROW", listed_from=today + DAY))
    made(deps, *t0("GONE", delisted_on=today), *t0("LASTDAY", delisted_on=today + DAY))
    # Listed today, it is due since the open, an hour ago, not since it was added.
    opened = OPEN - timedelta(hours=1)
    assert late(deps, opened + ALLOWED_T0) == ["LASTDAY"]
    assert late(deps, opened + ALLOWED_T0 + SECOND) == ["LASTDAY", "TODAY"]


def test_an_instrument_listed_today_is_due_since_the_open_also_where_that_was_yesterday(deps: Deps) -> None:
    opened = datetime(2026, 11, 19, 23, tzinfo=UTC)  # Sydney's session of the 20th
    made(
        deps,
        *t0("SYD", mic="XASX", listed_from=date(2026, 11, 20)),
        *t0("OFF", mic="XASX", delisted_on=date(2026, 11, 20)),
    )
    assert late(deps, opened + ALLOWED_T0) == []
    assert late(deps, opened + ALLOWED_T0 + SECOND) == ["SYD"]


def test_what_bears_no_symbol_any_more_is_not_looked_at(deps: Deps) -> None:
    made(deps, *t0("A", "B"))
    execute(deps, "UPDATE symbols SET valid_to = '2026-11-01' WHERE symbol = 'B'")
    assert late(deps, OPEN) == ["A"]


def test_a_halted_series_is_not_looked_at_and_counts_afresh_from_its_end(deps: Deps) -> None:
    made(deps, *t0("HALT", "REST"))
    fresh(deps, OPEN, "HALT", "REST")
    execute(
        deps,
        'INSERT INTO calendar_overrides (instrument_id, kind, "window", reason, actor, version)'
        " SELECT instrument_id, 'halt', tstzrange(:start, :end), 'news', 'test', 7 FROM symbols WHERE symbol = 'HALT'",
        start=OPEN,
        end=OPEN + timedelta(minutes=30),
    )
    during, after = OPEN + timedelta(minutes=20), OPEN + timedelta(minutes=30) + ALLOWED_T0
    assert looked(deps, during)["gap", "T0"].expected == 1
    assert late(deps, after) == ["REST"]
    assert late(deps, after + SECOND) == ["REST", "HALT"]
    execute(deps, "UPDATE calendar_overrides SET undone_at = now(), undone_version = 8")
    assert late(deps, during + SECOND) == ["HALT", "REST"]


def test_daily_series_are_late_when_three_sessions_are_due(deps: Deps) -> None:
    made(deps, *[Instrument(name, "XNYS", tier=Tier.T2) for name in ("FINE", "THREE")])
    fresh(deps, datetime(2026, 11, 18, tzinfo=UTC), "FINE", interval=Interval.D1)  # lacks the 18th and the 19th
    fresh(deps, datetime(2026, 11, 17, tzinfo=UTC), "THREE", interval=Interval.D1)
    assert late(deps, OPEN, "T2") == ["THREE"]
    found = looked(deps, OPEN + SECOND)["gap", "T2"]
    assert found.lag_s == 3 * 390 * 60 + 3601  # since the open of the 17th


def test_the_fastest_provider_that_may_be_asked_says_how_much_later_a_series_is_due(
    settings: Settings, deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(deps, *t0("NY"))
    fresh(deps, OPEN - ALLOWED_T0 - SECOND, "NY")
    assert late(deps, OPEN) == ["NY"]
    simulator = deps.registry.get("simulator")
    monkeypatch.setattr(simulator, "capabilities", replace(simulator.capabilities, delay_s=1.0))
    assert late(deps, OPEN) == []


def test_a_sample_looks_at_others_each_time(settings: Settings) -> None:
    sampling = open_deps(settings.model_copy(update={"slo_sample_t0": 5}), application="tests")
    made(sampling, *t0(*(f"S{number}" for number in range(40))))
    seen: set[str] = set()
    for number in range(12):
        found = looked(sampling, OPEN + number * SECOND)["gap", "T0"]
        assert (found.expected, found.violations) == (5, 5)
        seen |= {each["symbol"] for each in found.worst}
    assert len(seen) > 20
    sampling.close()


# -- what is kept ----------------------------------------------------------------------------------


def test_the_worst_are_named_over_all_exchanges_with_what_lags_most_first(deps: Deps) -> None:
    made(deps, *t0(*(f"NY{number:02}" for number in range(30))), *t0("BTC", mic="24/7"))
    for number in range(30):
        fresh(deps, OPEN - timedelta(minutes=10 + number), f"NY{number:02}")
    fresh(deps, OPEN - timedelta(hours=50), "BTC")
    found = looked(deps, OPEN)["gap", "T0"]
    assert (found.expected, found.violations, len(found.worst)) == (31, 31, WORST)
    assert [each["symbol"] for each in found.worst[:3]] == ["BTC", "NY29", "NY28"]
    assert found.lag_s == found.worst[0]["lag_s"] == 50 * 3600
    assert found.worst[1]["lag_s"] == 39 * 60


def test_evidence_names_the_provider_of_the_newest_bar_the_job_and_the_letter(deps: Deps) -> None:
    made(deps, *t0("A", "B", "C"))
    fresh(deps, OPEN - timedelta(hours=1), "A", "B", "C")
    job = {"start": OPEN - timedelta(hours=1), "end": OPEN}
    for symbol, status in (("A", "running"), ("B", "failed")):
        execute(
            deps,
            'INSERT INTO backfill_jobs (id, instrument_id, symbol, interval, "window", tier, status, attempts,'
            " max_attempts, last_error) SELECT 'job-' || symbol, instrument_id, symbol, '1m', tstzrange(:start, :end),"
            " 'T0', CAST(:status AS job_status), 2, 5, 'timed out' FROM symbols WHERE symbol = :symbol",
            symbol=symbol,
            status=status,
            **job,
        )
    execute(
        deps,
        "INSERT INTO dead_letters (id, kind, job_id, symbol, interval, provider, error_class, message, envelope, state)"
        " VALUES ('l1', 'backfill', 'job-B', 'B', '1m', 'lean', 'bad_payload', 'cannot be read', '{}', 'open'),"
        " ('l2', 'backfill', 'job-C', 'C', '1m', 'lean', 'bad_payload', 'was sent again', '{}', 'requeued'),"
        " ('l3', 'backfill', 'job-C', 'C', '1d', 'lean', 'bad_payload', 'of another series', '{}', 'open')",
    )
    store_one_bar(deps, "A", OPEN - timedelta(hours=1, minutes=1))
    found = {each["symbol"]: each for each in looked(deps, OPEN)["gap", "T0"].worst}
    assert (found["A"]["provider"], found["A"]["attempt_id"]) == ("simulator", 11)
    assert (found["A"]["fresh_until"], found["A"]["newest_bar"]) == ("2026-11-20T14:30:00Z", "2026-11-20T14:29:00Z")
    running = {"id": "job-A", "status": "running", "attempts": 2, "max_attempts": 5, "error": "timed out"}
    assert (found["A"]["job"], found["A"]["letter"]) == (running, None)
    assert found["B"]["job"] is None
    assert {name: found["B"]["letter"][name] for name in ("id", "job_id", "error_class", "message")} == {
        "id": "l1",
        "job_id": "job-B",
        "error_class": "bad_payload",
        "message": "cannot be read",
    }
    assert [found["C"][name] for name in ("provider", "job", "letter")] == [None, None, None]


def test_evidence_is_of_what_a_series_lacks_not_of_another_day(deps: Deps) -> None:
    made(deps, *t0("A"))
    fresh(deps, OPEN - timedelta(hours=1), "A", covered="{[2026-11-19T14:30Z,2026-11-19T18:00Z)}")
    windows = {
        "old": ("2026-11-10T15:00Z", "2026-11-10T16:00Z"),
        "session": ("2026-11-19T18:00Z", "2026-11-19T19:00Z"),
        "now": ("2026-11-20T14:00Z", "2026-11-20T15:00Z"),
        "before": ("2026-11-20T14:00Z", "2026-11-20T14:30Z"),
    }
    for number, (name, (start, end)) in enumerate(windows.items()):
        values = {"name": name, "start": start, "end": end, "died": OPEN + number * SECOND}
        window = "tstzrange(CAST(:start AS timestamptz), CAST(:end AS timestamptz))"
        execute(
            deps,
            'INSERT INTO dead_letters (id, kind, symbol, interval, "window", error_class, message, envelope, died_at)'
            f" VALUES (:name, 'backfill', 'A', '1m', {window}, 'no_data', 'nobody has it', '{{}}', :died)",
            **values,
        )
        execute(
            deps,
            'INSERT INTO backfill_jobs (id, instrument_id, symbol, interval, "window", tier, status, attempts,'
            f" max_attempts) SELECT :name, instrument_id, symbol, '1m', {window}, 'T0', 'deferred', 0, 5 FROM symbols",
            **{name: values[name] for name in ("name", "start", "end")},
        )

    def named() -> dict[str, tuple[Any, Any]]:
        found = {objective: each.worst[0] for (objective, _), each in looked(deps, OPEN).items()}
        parts = {objective: (one["letter"], one["job"]) for objective, one in found.items()}
        return {objective: (a and a["id"], b and b["id"]) for objective, (a, b) in parts.items()}

    assert named() == {"gap": ("now", "now"), "coverage": ("session", "session")}
    execute(deps, "DELETE FROM dead_letters WHERE id IN ('now', 'session')")
    execute(deps, "DELETE FROM backfill_jobs WHERE id IN ('now', 'session')")
    assert named() == {"gap": (None, None), "coverage": (None, None)}
    # A live fetch asks for what is newest: its letter has no window.
    execute(
        deps,
        "INSERT INTO dead_letters (id, kind, symbol, interval, error_class, message, envelope, died_at)"
        " VALUES ('live', 'bars_fetch', 'A', '1m', 'bad_payload', 'cannot be read', '{}', :died)",
        died=OPEN - 60 * SECOND,
    )
    assert named() == {"gap": ("live", None), "coverage": (None, None)}


def store_one_bar(deps: Deps, symbol: str, ts: datetime) -> None:
    ensure_partitions(deps.database, "bars", to_us(ts), to_us(ts))
    execute(
        deps,
        "INSERT INTO bars (instrument_id, interval, ts, open, high, low, close, volume, provider, status, attempt_id,"
        " known_at) SELECT instrument_id, '1m', :ts, 1, 1, 1, 1, 1, 'simulator', 'final', 11, now() FROM symbols"
        " WHERE symbol = :symbol",
        symbol=symbol,
        ts=ts,
    )


def test_a_snapshot_stands_for_the_trading_time_since_the_one_before_and_no_longer_than_was_watched(deps: Deps) -> None:
    made(deps, *t0("NY1", "NY2", "NY3"), *t0("BTC", mic="24/7"))
    stood_for = {}
    for name, now in {
        "first": OPEN,
        "half a minute": OPEN + 30 * SECOND,
        "after ten minutes": OPEN + 630 * SECOND,
        "at night": HONG_KONG + DAY,
        "at night again": HONG_KONG + DAY + 30 * SECOND,
        "just open": datetime(2026, 11, 23, 14, 30, 10, tzinfo=UTC),
    }.items():
        run_once(deps, now)
        with deps.database.transaction() as connection:
            row = connection.execute(
                text("SELECT session_s FROM slo_snapshots WHERE objective = 'gap' AND at = :at"), {"at": now}
            )
            stood_for[name] = row.scalar_one()
    # The night's looks count for the one series in four that trades then.
    assert stood_for == {
        "first": 30,
        "half a minute": 30,
        "after ten minutes": 150,
        "at night": 37.5,
        "at night again": 7.5,
        "just open": (3 * 10 + 150) / 4,
    }


def test_a_look_keeps_the_version_of_the_calendars(deps: Deps) -> None:
    made(deps, *t0("NY"))
    execute(
        deps,
        'INSERT INTO calendar_overrides (mic, kind, session, "window", reason, actor, version, undone_at,'
        " undone_version) VALUES ('XHKG', 'closed', '2026-11-20', tstzrange(:at, :at, '[]'), 'storm', 'x', 7, :at, 9)",
        at=OPEN,
    )
    run_once(deps, OPEN)
    with deps.database.transaction() as connection:
        assert connection.execute(text("SELECT DISTINCT calendar_version FROM slo_snapshots")).scalar_one() == 9


def test_the_same_moment_is_kept_once_and_two_runs_do_not_meet(deps: Deps, settings: Settings) -> None:
    made(deps, *t0("NY"))
    run_once(deps, OPEN)
    run_once(deps, OPEN)
    with deps.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM slo_snapshots WHERE objective = 'gap'")).scalar_one() == 1
        assert snapshots.take_turn(connection)
        other = open_deps(settings, application="tests")
        assert run_once(other, OPEN + SECOND) == {"expected": 0, "violations": 0, "snapshots": 0, "busy": 1}
        other.close()


def test_what_was_looked_at_and_late_is_counted(deps: Deps, settings: Settings) -> None:
    made(deps, *t0("A", "B", "C"))
    fresh(deps, OPEN, "A")
    metrics.use_multiprocess_dir(settings.metrics_dir)
    try:
        run_once(deps, OPEN)
        run_once(deps, OPEN + 30 * SECOND)
        told = exposition(list, settings.metrics_dir).decode()
    finally:
        metrics.use_multiprocess_dir(None)
    assert 'slo_gap_expected_total{interval="1m",tier="T0"} 6.0' in told
    assert 'slo_gap_violations_total{interval="1m",tier="T0"} 4.0' in told


def test_a_calendar_that_has_ended_does_not_stop_the_others(deps: Deps) -> None:
    now = deps.calendars.get("XSHG").horizon + timedelta(days=9, hours=15)
    made(deps, *t0("600000", mic="XSHG"), *t0("BTC", mic="24/7"))
    assert late(deps, now) == ["BTC"]


# -- whole sessions --------------------------------------------------------------------------------

THURSDAY = "[2026-11-19T14:30Z,2026-11-19T21:00Z)"


def test_the_last_session_is_whole_when_all_its_trading_is_covered(deps: Deps) -> None:
    made(deps, *t0("WHOLE", "HOLE", "NONE", "MORE", "HK", "HK2"))
    execute(
        deps,
        "UPDATE instruments SET mic = 'XHKG' WHERE id IN (SELECT instrument_id FROM symbols WHERE symbol LIKE 'HK%')",
    )
    fresh(deps, OPEN, "WHOLE", covered=f"{{{THURSDAY}}}")
    fresh(deps, OPEN, "HOLE", covered="{[2026-11-19T14:30Z,2026-11-19T18:00Z),[2026-11-19T18:01Z,2026-11-19T21:00Z)}")
    fresh(deps, OPEN, "MORE", covered="{[2026-11-01T00:00Z,2026-11-20T15:00Z)}")
    fresh(deps, OPEN, "HK", covered="{[2026-11-20T01:30Z,2026-11-20T04:00Z),[2026-11-20T05:00Z,2026-11-20T08:00Z)}")
    fresh(deps, OPEN, "HK2", covered="{[2026-11-20T01:30Z,2026-11-20T04:00Z),[2026-11-20T05:00Z,2026-11-20T07:59Z)}")
    found = looked(deps, OPEN)["coverage", "T0"]
    assert (found.expected, found.violations, found.lag_s) == (6, 3, None)
    assert {each["symbol"] for each in found.worst} == {"HOLE", "NONE", "HK2"}


def test_a_halt_leaves_a_session_whole(deps: Deps) -> None:
    made(deps, *t0("HALT"))
    fresh(deps, OPEN, "HALT", covered="{[2026-11-19T14:30Z,2026-11-19T18:00Z),[2026-11-19T18:30Z,2026-11-19T21:00Z)}")
    assert looked(deps, OPEN)["coverage", "T0"].violations == 1
    execute(
        deps,
        'INSERT INTO calendar_overrides (instrument_id, kind, "window", reason, actor, version) SELECT instrument_id,'
        " 'halt', tstzrange('2026-11-19T18:00Z', '2026-11-19T18:30Z'), 'news', 'test', 7 FROM symbols",
    )
    assert looked(deps, OPEN)["coverage", "T0"].violations == 0


@pytest.mark.parametrize(
    ("mic", "opened", "closed", "begun"),
    [
        ("XNYS", "2026-11-19T14:30Z", "2026-11-19T21:00Z", "2026-11-19T15:00Z"),
        ("XASX", "2026-11-19T23:00Z", "2026-11-20T05:00Z", "2026-11-20T00:30Z"),
    ],
)
def test_a_halt_of_a_whole_session_leaves_nothing_of_its_day_expected(
    deps: Deps, mic: str, opened: str, closed: str, begun: str
) -> None:
    made(deps, *[Instrument(name, mic, tier=Tier.T2) for name in ("HALT", "DAY", "PART", "NONE")])
    fresh(deps, OPEN, "DAY", interval=Interval.D1, covered=f"{{[{closed[:10]}T00:00Z,{closed})}}")
    for symbol, start in (("HALT", opened), ("PART", begun)):
        execute(
            deps,
            'INSERT INTO calendar_overrides (instrument_id, kind, "window", reason, actor, version) SELECT'
            " instrument_id, 'halt', tstzrange(:start, :end), 'news', 'test', 7 FROM symbols WHERE symbol = :symbol",
            symbol=symbol,
            start=start,
            end=closed,
        )
    found = looked(deps, OPEN)["coverage", "T2"]
    assert found.expected == 4
    assert {each["symbol"] for each in found.worst} == {"PART", "NONE"}


def test_sessions_are_looked_at_while_all_is_shut_once_a_minute_and_use_no_budget_then(deps: Deps) -> None:
    made(deps, Instrument("D", "XASX", tier=Tier.T2))
    fresh(deps, SUNDAY, "D", interval=Interval.D1, covered="{[2026-11-01T00:00Z,2026-11-20T05:00Z)}")
    for seconds in (0, 30, 61, 89, 121):
        run_once(deps, SUNDAY + seconds * SECOND)
    with deps.database.transaction() as connection:
        rows = connection.execute(
            text(
                "SELECT at, expected, violations, session_s FROM slo_snapshots WHERE objective = 'coverage' ORDER BY at"
            )
        )
        found = [((row.at - SUNDAY).total_seconds(), row.expected, row.violations, row.session_s) for row in rows]
    assert found == [(0, 1, 0, 0), (61, 1, 0, 0), (121, 1, 0, 0)]


# -- what is remembered ----------------------------------------------------------------------------


def test_old_looks_are_thinned_without_changing_what_they_add_up_to_and_then_forgotten(deps: Deps) -> None:
    old = OPEN - 50 * DAY
    with deps.database.transaction() as connection:
        for number in range(40):  # twenty minutes from a full ten on: 30 s each, half of 10 series late in every second
            snapshots.add(
                connection,
                Snapshot(
                    GAP_T0, old + number * 30 * SECOND, 10, 5 * (number % 2), float(number), 30.0, [{"symbol": "A"}]
                ),
            )
        snapshots.add(connection, Snapshot(GAP_T0, OPEN - 401 * DAY, 10, 1, 1.0, 30.0))
        snapshots.add(connection, Snapshot(GAP_T0, OPEN - 39 * DAY, 10, 1, 1.0, 30.0))
        snapshots.add(connection, Snapshot(GAP_T0, OPEN - 39 * DAY + SECOND, 10, 1, 1.0, 30.0))
    assert forget_once(deps, OPEN) == {"pruned": 1, "thinned": 38}
    assert forget_once(deps, OPEN) == {"pruned": 0, "thinned": 0}
    with deps.database.transaction() as connection:
        used = snapshots.used(connection, GAP_T0, OPEN - 60 * DAY)
        rows = connection.execute(
            text("SELECT at, expected, violations, lag_s, session_s, worst FROM slo_snapshots ORDER BY at")
        ).all()
    # 40 looks of 30 s, a quarter of it late: of each ten minutes 2.5 of 10 series are rounded to 2.
    assert (used.watched_s, len(rows)) == (20 * 60 + 60, 4)
    assert [(row.expected, row.violations, row.lag_s, row.session_s, row.worst) for row in rows[:2]] == [
        (10, 2, 19.0, 600.0, []),
        (10, 2, 39.0, 600.0, []),
    ]


def test_the_last_hour_of_trading_is_found_however_long_ago_it_was(deps: Deps) -> None:
    with deps.database.transaction() as connection:
        for number in range(300):
            late_ones = 1 if number < 240 else 4  # the last half an hour was worse
            snapshots.add(
                connection, Snapshot(GAP_T0, OPEN - 3 * DAY + number * 30 * SECOND, 100, late_ones, 0.0, 30.0)
            )
        found = snapshots.used_lately(connection, GAP_T0, 3600)
    assert found.watched_s == 3600
    assert found.late_s == pytest.approx(1800 * 0.01 + 1800 * 0.04)
