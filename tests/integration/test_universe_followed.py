"""Who follows an activation: live ticks, the gap scan, the objectives, and backfills in every state."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from mdtasks.domain.errors import UnknownSymbolError
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, Interval, Tier, TimeWindow, parse_job
from mdtasks.flows import policies
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.flows.following import Follower
from mdtasks.flows.ingest import run_backfill
from mdtasks.flows.live import run_bars_fetch
from mdtasks.flows.monitor import run_once
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.scan import scan_tier
from mdtasks.flows.ticks import Feed, Series, tick
from mdtasks.settings import Settings
from mdtasks.store import jobs, snapshots
from tests.integration.policy_calls import ME
from tests.integration.universe_calls import activated, counted, csv_of, done, held, taken, with_ids

#: A Friday, an hour into New York's session, and an hour after its close.
OPEN = datetime(2026, 11, 20, 15, 30, 20, tzinfo=UTC)
EVENING = datetime(2026, 11, 20, 22, tzinfo=UTC)
DAY, NEXT = OPEN.date(), OPEN.date() + timedelta(days=1)
LIVES = "symbol,mic,close,volume,listed_from,delisted_on"
#: Two in T0, one in T1.
POLICY = """
universe: {margin: 0, days: 1}
gaps: {back_sessions: 2, back_days: 3}
tiers:
  T0: {size: 2, max_queue: 3, cadence: {bars_1m: 60, quotes_l1: 5, eod: 1}}
  T1: {size: 1, max_queue: 3, cadence: {bars_1m: 300, quotes_l1: 15, eod: 1}}
  T2: {max_queue: 3, cadence: {eod: 1}}
"""


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    opened = open_deps(settings, application="tests")
    policies.apply(desk_of(opened), POLICY, ME, OPEN)
    follower = Follower(opened)
    opened.policy.refresh(OPEN, at_once=True)
    yield follower.refresh(OPEN)
    opened.close()


def listing(*ranked: str, mic: str = "XNYS") -> bytes:
    """These symbols, the most traded first."""
    return csv_of(*(f"{symbol},{mic},1,{1000 - rank}" for rank, symbol in enumerate(ranked)))


def asked_live(deps: Deps, tier: Tier) -> set[str]:
    """Whom a tick of bars asks for."""
    tick(Series(tier, Feed.BARS), 60, deps, OPEN)
    found: set[str] = set()
    while isinstance(element := deps.broker.rpop(f"{tier}.live"), bytes):
        found |= set(json.loads(base64.b64decode(json.loads(element)["body"]))[0][0]["symbols"])
    return found


def test_live_ticks_ask_for_who_is_in_the_tier_and_lives(deps: Deps) -> None:
    held(deps, csv_of("A,XNYS,1,9,,", f"B,XNYS,1,8,,{NEXT}", "C,XNYS,1,7,,", columns=LIVES), DAY)
    assert (asked_live(deps, Tier.T0), asked_live(deps, Tier.T1)) == ({"A", "B"}, {"C"})
    done(deps, "update instruments set delisted_on = :day where id = 2", day=DAY)  # its last day was yesterday
    assert asked_live(deps, Tier.T0) == {"A"}
    held(deps, listing("C", "A", "D"), NEXT)
    assert (asked_live(deps, Tier.T0), asked_live(deps, Tier.T1)) == ({"A", "C"}, {"D"})


def minutes_asked(deps: Deps) -> dict[str, int]:
    """Hours of minute bars that backfills ask for, by symbol."""
    sql = (
        'select symbol, sum(extract(epoch from upper("window") - lower("window")))::int / 3600 from backfill_jobs'
        " where interval = '1m' and status in ('queued', 'deferred') group by 1"
    )
    with deps.database.transaction() as connection:
        return {row[0]: row[1] for row in connection.execute(text(sql))}


def test_the_gap_scan_asks_for_who_came_and_lets_go_of_who_left(deps: Deps) -> None:
    held(deps, listing("A", "B", "C", "D"), DAY)
    for tier in Tier:
        scan_tier(tier, deps, EVENING)
    assert set(minutes_asked(deps)) == {"A", "B", "C"}  # T2 keeps daily bars alone
    assert counted(deps, "select count(*) from gaps where instrument_id = 2 and closed_at is null") > 0
    assert held(deps, listing("A", "D", "C"), NEXT)["gaps_withdrawn"] > 0
    for tier in Tier:
        scan_tier(tier, deps, EVENING)
    assert counted(deps, "select count(*) from gaps where instrument_id = 2 and closed_at is null") == 0
    assert counted(deps, "select count(*) from gaps where instrument_id = 2 and outcome <> 'withdrawn'") == 0
    assert set(minutes_asked(deps)) == {"A", "B", "C", "D"}  # what was asked for of B is done all the same


def test_nothing_is_expected_outside_a_listings_life(deps: Deps) -> None:
    thursday = DAY - timedelta(days=1)
    rows = [f"NEW,XNYS,1,9,{DAY},", f"GONE,XNYS,1,8,,{NEXT}", f"DEAD,XNYS,1,7,,{thursday}"]
    held(deps, csv_of(*rows, columns=LIVES), thursday)
    scan_tier(Tier.T0, deps, EVENING)
    # Two sessions of six hours and a half are looked at: NEW was born into the second, GONE dies after it.
    hours = minutes_asked(deps)
    assert set(hours) == {"NEW", "GONE"}
    assert hours["NEW"] < hours["GONE"]
    sql = """select count(*) from backfill_jobs where symbol = 'NEW' and lower("window") < :day"""
    with deps.database.transaction() as connection:
        assert connection.execute(text(sql), {"day": datetime(2026, 11, 20, tzinfo=UTC)}).scalar_one() == 0


def test_who_came_up_is_not_late_for_what_nobody_asked_for(deps: Deps) -> None:
    held(deps, listing("A", "B", "C", "D"), DAY)
    done(deps, "update instruments set created_at = '2020-01-01', tier_since = '2020-01-02'")
    assert late(deps) == {"A", "B"}
    held(deps, listing("D", "A", "C"), NEXT)
    done(deps, "update instruments set tier_since = :now where id = 4", now=OPEN - timedelta(seconds=5))
    assert late(deps) == {"A"}
    done(deps, "update instruments set tier_since = :now where id = 4", now=OPEN - timedelta(minutes=30))
    assert late(deps) == {"A", "D"}


def late(deps: Deps) -> set[str]:
    """Who of T0 is late at OPEN."""
    done(deps, "delete from slo_snapshots")
    run_once(deps, OPEN)
    with deps.database.transaction() as connection:
        (found,) = snapshots.newest(connection, [snapshots.Series("gap", Tier.T0, Interval.M1)], since=OPEN)
    return {each["symbol"] for each in found.worst}


# -- backfills -------------------------------------------------------------------------------------------

START = datetime(2025, 1, 2, tzinfo=UTC)


def job(symbol: str, number: int, tier: Tier) -> BackfillJob:
    start = START + timedelta(minutes=10 * number)
    window = TimeWindow(start=start, end=start + timedelta(minutes=10))
    return BackfillJob(job_id=f"{symbol}-{number}", symbol=symbol, priority=tier, time_window=window)


def standing(deps: Deps) -> dict[str, tuple[str, str]]:
    with deps.database.transaction() as connection:
        rows = connection.execute(text("select id, tier, status::text from backfill_jobs"))
        return {row[0]: (row[1], row[2]) for row in rows}


def drained(deps: Deps) -> int:
    """Do all that waits, as workers would; returns how many."""
    count = 0
    while any(status in ("queued", "deferred") for _, status in standing(deps).values()):
        dispatch_once(deps)
        for tier in Tier:
            while isinstance(element := deps.broker.rpop(tier.value), bytes):
                found = parse_job(json.loads(base64.b64decode(json.loads(element)["body"]))[0][0])
                assert isinstance(found, BackfillJob)
                run_backfill(found, deps, f"{tier}@here/1", EVENING)
                count += 1
    return count


def test_what_waits_in_postgresql_moves_and_what_is_on_its_way_ends_where_it_is(deps: Deps) -> None:
    held(deps, listing("A", "B", "C", mic="24/7"), DAY)
    asked = [job("A", number, Tier.T0) for number in range(6)] + [job("A", 9, Tier.T2), job("C", 1, Tier.T1)]
    enqueue_jobs(asked, "me", deps)
    with deps.database.transaction() as connection:
        assert jobs.claim(connection, "A-5", "t0@here/1", 600) is not None
    before = standing(deps)
    t0 = sorted(status for tier, status in before.values() if tier == "T0")
    assert t0 == ["deferred"] * 3 + ["queued"] * 2 + ["running"]
    counts = held(deps, listing("B", "C", "A", mic="24/7"), NEXT)  # A and C change places
    assert counts == {"up": 1, "down": 1, "jobs_moved": 3, "jobs_staying": 4}
    after = standing(deps)
    for name, (tier, status) in before.items():
        # What somebody asked for in a tier of his own choice stays there.
        assert after[name] == ("T1" if (tier, status) == ("T0", "deferred") else tier, status)
    assert drained(deps) == 8  # also the message of the one that runs, which is dropped
    assert standing(deps).pop("A-5") == ("T0", "running")
    assert {status for name, (_, status) in standing(deps).items() if name != "A-5"} == {"done"}


def test_backfills_of_one_that_left_are_done_as_t2(deps: Deps) -> None:
    held(deps, listing("A", "B", mic="24/7"), DAY)
    enqueue_jobs([job("B", number, Tier.T0) for number in range(5)], "me", deps)
    assert held(deps, listing("A", mic="24/7"), NEXT) == {"left": 1, "jobs_moved": 2, "jobs_staying": 3}
    assert sorted(standing(deps).values()) == [("T0", "queued")] * 3 + [("T2", "deferred")] * 2
    assert drained(deps) == 5
    assert {status for _, status in standing(deps).values()} == {"done"}


def test_a_row_that_somebody_is_just_moving_is_not_waited_for(deps: Deps) -> None:
    held(deps, listing("A", "B", "C", mic="24/7"), DAY)
    enqueue_jobs([job("A", number, Tier.T0) for number in range(6)], "me", deps)
    later = taken(deps, listing("B", "C", "A", mic="24/7"), NEXT)
    with deps.database.transaction() as dispatcher:
        (mine,) = jobs.dispatchable(dispatcher, Tier.T0, 1)
        assert activated(deps, later)["jobs_moved"] == 2  # at once, though the dispatcher's transaction is open
    assert standing(deps)[mine.job_id] == ("T0", "queued")


def test_a_live_fetch_that_knew_an_old_name_asks_by_the_new_one(deps: Deps) -> None:
    held(deps, with_ids("1,OLD,24/7,1,1", "2,B,24/7,1,1"), DAY)
    today = datetime.now(UTC).date()
    taken(deps, with_ids("1,NEW,24/7,1,1", "2,B,24/7,1,1"), today)
    did = run_bars_fetch(BarsFetchJob(symbols=("OLD", "B", "NEW")), deps, "t0@here/1", datetime.now(UTC))
    assert did["failed"] is None
    assert counted(deps, "select count(distinct instrument_id) from bars") == 2
    with pytest.raises(UnknownSymbolError, match="NEVER"):
        run_bars_fetch(BarsFetchJob(symbols=("NEVER", "OLD")), deps, "t0@here/1", datetime.now(UTC))


def test_a_backfill_of_a_renamed_instrument_asks_by_its_new_name(deps: Deps) -> None:
    held(deps, with_ids("1,OLD,24/7,1,1"), DAY)
    enqueue_jobs([job("OLD", 1, Tier.T0)], "me", deps)
    taken(deps, with_ids("1,NEW,24/7,1,1"), NEXT)
    with deps.database.transaction() as connection:
        claim = jobs.claim(connection, "OLD-1", "t0@here/1", 600)
    assert claim is not None
    assert claim.listing.symbol == "NEW"
