"""How the objectives stand, as the report, the endpoint and the command tell it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text

from mdtasks.connections import open_redis
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.flows import monitor
from mdtasks.flows.deps import Deps
from mdtasks.flows.objectives import Standing, history, report
from mdtasks.settings import Settings
from mdtasks.store import snapshots
from mdtasks.store.reference import Instrument, add_instruments
from mdtasks.store.snapshots import Series, Snapshot
from tests.integration.cli_calls import Cli
from tests.integration.web_server import asked, served

#: Friday, two hours into New York's session.
OPEN = datetime(2026, 11, 20, 16, 30, tzinfo=UTC)
SUNDAY = datetime(2026, 11, 22, 16, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GAP_T0 = Series("gap", Tier.T0, Interval.M1)


def add(deps: Deps, *members: Instrument) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, members)
        connection.execute(text("UPDATE instruments SET created_at = '2026-01-01'"))


def execute(deps: Deps, statement: str, **values: object) -> None:
    with deps.database.transaction() as connection:
        connection.execute(text(statement), values)


def standing(deps: Deps, now: datetime, tier: Tier = Tier.T0, objective: str = "gap") -> Standing:
    found = report(deps, now, tier).standings
    (one,) = [each for each in found if each.series.objective == objective]
    return one


def ny(symbol: str, tier: Tier = Tier.T0) -> Instrument:
    return Instrument(symbol, "XNYS", tier=tier)


# -- the report ------------------------------------------------------------------------------------


def test_a_tier_is_ok_up_to_its_target_and_late_beyond_it(cli_deps: Deps) -> None:
    add(cli_deps, *(ny(f"S{number}") for number in range(200)))
    execute(
        cli_deps,
        "INSERT INTO coverage (instrument_id, interval, covered, fresh_until)"
        " SELECT id, '1m', '{}', :now - interval '1 hour' * (id % 200 = 0)::int FROM instruments",
        now=OPEN,
    )
    monitor.run_once(cli_deps, OPEN)
    found = standing(cli_deps, OPEN)
    assert (found.state, found.snapshot and found.snapshot.rate, found.target) == ("ok", 0.005, 0.005)
    execute(
        cli_deps,
        "UPDATE coverage SET fresh_until = :then WHERE instrument_id % 200 < 2",
        then=OPEN - timedelta(hours=1),
    )
    monitor.run_once(cli_deps, OPEN + SECOND)
    found = standing(cli_deps, OPEN + SECOND)
    assert (found.state, found.snapshot and found.snapshot.violations, found.allowed_s) == ("late", 2, 210)


def test_states_tell_apart_no_session_no_series_and_nobody_watching(cli_deps: Deps) -> None:
    add(cli_deps, ny("A"), Instrument("B", "24/7", tier=Tier.T1))
    assert standing(cli_deps, SUNDAY).state == "not_watched"
    monitor.run_once(cli_deps, SUNDAY)
    assert [standing(cli_deps, SUNDAY, tier).state for tier in Tier] == ["no_session", "late", "no_series"]
    assert standing(cli_deps, SUNDAY).snapshot is None
    assert (
        standing(cli_deps, SUNDAY, objective="coverage").state == "late"
    )  # whether sessions are whole is told at night
    assert standing(cli_deps, SUNDAY + 150 * SECOND, Tier.T1).state == "late"
    assert standing(cli_deps, SUNDAY + 151 * SECOND, Tier.T1).state == "not_watched"


def test_a_tier_that_was_all_added_just_now_is_new_not_late(cli_deps: Deps, cli: Cli) -> None:
    add(cli_deps, Instrument("A", "24/7", tier=Tier.T0), Instrument("B", "24/7", tier=Tier.T0))
    execute(cli_deps, "UPDATE instruments SET created_at = :now", now=OPEN)
    for seconds, state in ((0, "new"), (299, "new"), (300, "late")):
        now = OPEN + seconds * SECOND
        monitor.run_once(cli_deps, now)
        assert standing(cli_deps, now, objective="coverage").state == state
    assert standing(cli_deps, now).state == "late"
    execute(cli_deps, "UPDATE instruments SET created_at = created_at - interval '1 day' WHERE id = 1")
    execute(cli_deps, "DELETE FROM slo_snapshots")
    monitor.run_once(cli_deps, OPEN)
    assert standing(cli_deps, OPEN, objective="coverage").state == "late"  # one of them had its time
    execute(cli_deps, "UPDATE instruments SET created_at = now()")
    monitor.run_once(cli_deps, datetime.now(UTC))
    shown = cli("slo", "--check", "--tier", "T0")
    assert (shown.code, " new " in shown.out) == (0, True)


def test_an_empty_tier_has_no_budget_to_be_left(cli: Cli) -> None:
    lines = cli("slo", "--tier", "T2").out.splitlines()
    assert re.match(r"on time +T2 +1d +.* -$", lines[1])


def test_without_redis_the_newest_look_tells_when_the_monitor_ran(cli_deps: Deps, settings: Settings) -> None:
    add(cli_deps, ny("A"))
    monitor.run_once(cli_deps, OPEN)
    cli_deps.state.close()
    found = report(replace(cli_deps, state=open_redis("redis://127.0.0.1:1/0")), OPEN + SECOND)
    assert found.last_run == OPEN
    assert found.standings[0].state == "late"


def test_the_budget_is_the_months_share_of_session_minutes_and_what_was_late_of_it(cli_deps: Deps) -> None:
    add(cli_deps, ny("A"))
    with cli_deps.database.transaction() as connection:
        for number in range(120):  # an hour of looks, one series in a hundred late
            snapshots.add(connection, Snapshot(GAP_T0, OPEN - number * 30 * SECOND, 100, 1, 0.0, 30.0))
        for at in (datetime(2026, 10, 30, 15, tzinfo=UTC), datetime(2026, 11, 2, 15, tzinfo=UTC)):
            snapshots.add(connection, Snapshot(GAP_T0, at, 100, 100, 0.0, 60.0))
    found = standing(cli_deps, OPEN)
    # November 2026 has 20 sessions, the 27th ends after 210 minutes; 14 were over and two hours of the 15th.
    assert found.budget.as_dict() == {
        "month": "2026-11",
        "minutes": 19 * 390 + 210,
        "minutes_so_far": 14 * 390 + 120,
        "allowed": pytest.approx(0.005 * (19 * 390 + 210)),
        "allowed_so_far": pytest.approx(0.005 * (14 * 390 + 120)),
        "consumed": pytest.approx(0.6 + 1),  # October's minute is October's
        "left": pytest.approx(0.005 * (19 * 390 + 210) - 1.6),
        "watched": 61,
    }
    assert found.burn == pytest.approx(0.01 / 0.005)


def test_a_backlog_tells_how_old_it_is_and_when_it_will_be_drained(cli_deps: Deps) -> None:
    add(cli_deps, ny("A"))
    execute(
        cli_deps,
        'INSERT INTO backfill_jobs (id, instrument_id, symbol, interval, "window", tier, status, max_attempts,'
        " created_at) SELECT 'job-' || n, 1, 'A', '1m', tstzrange('2026-11-19', '2026-11-20'), 'T0',"
        " (CASE WHEN n <= 20 THEN 'done' ELSE 'deferred' END)::job_status, 5, now() - interval '1000 s'"
        " FROM generate_series(1, 80) n",
    )
    execute(
        cli_deps,
        "INSERT INTO job_attempts (job_id, job_type, attempt, fence, worker, ended_at, outcome)"
        " SELECT 'job-' || n, 'backfill', 1, 1, 'w', now() - interval '1 s' * n, 'done' FROM generate_series(1, 20) n",
    )
    drains = report(cli_deps, OPEN).drains
    first = drains[0].as_dict()
    assert (first["waiting"], first["jobs_per_minute"], first["drained_in_s"], first["state"]) == (60, 2, 1800, "late")
    assert first["oldest_age_s"] >= 1000
    assert [each.as_dict()["drained_in_s"] for each in drains[1:]] == [0, 0]


def test_a_backlog_that_nobody_works_on_is_never_drained(client: httpx.Client, deps: Deps) -> None:
    asked(client)
    (found,) = [each for each in report(deps, datetime.now(UTC)).drains if each.tier is Tier.T1]
    assert (found.waiting, found.state, found.drained_in_s) == (3, "ok", None)


def test_history_comes_in_stretches_that_can_be_read(cli_deps: Deps) -> None:
    with cli_deps.database.transaction() as connection:
        for number in range(240):  # two hours until OPEN, the second one worse
            at = OPEN - (240 - number) * 30 * SECOND
            snapshots.add(connection, Snapshot(GAP_T0, at, 100, 1 if number < 120 else 3, float(number), 30.0))
    found = history(cli_deps, Tier.T0, "gap", since=OPEN - timedelta(days=2), now=OPEN)
    assert found.step_s == 3600
    assert [(row["from"], row["looks"], row["most_late"], row["consumed"]) for row in found.rows] == [
        (OPEN - timedelta(minutes=30), 60, 3, 0.9),
        (OPEN - timedelta(minutes=90), 120, 3, 1.2),
        (OPEN - timedelta(minutes=150), 60, 1, 0.3),
    ]
    assert history(cli_deps, Tier.T0, "gap", since=OPEN - timedelta(minutes=30), now=OPEN).step_s == 60


# -- over HTTP -------------------------------------------------------------------------------------


def test_slo_is_open_and_names_the_worst_with_evidence(settings: Settings, client: httpx.Client, deps: Deps) -> None:
    add(deps)  # the two of T1, which always trade, as of long ago
    monitor.run_once(deps, datetime.now(UTC))
    answer = client.get("/slo")
    assert answer.status_code == 200
    found = answer.json()
    by_key = {(each["objective"], each["tier"]): each for each in found["objectives"]}
    assert set(by_key) == {(objective, f"T{n}") for objective in ("gap", "coverage", "drain") for n in range(3)}
    late = by_key["gap", "T1"]
    assert (late["state"], late["rate"], late["target"], late["violations"]) == ("late", 1.0, 0.02, 2)
    assert {each["symbol"] for each in late["worst"]} == {"BTC-USD", "ETH-USD"}
    assert late["worst"][0]["fresh_until"] is None
    assert late["budget"]["month"] == f"{datetime.now(UTC):%Y-%m}"
    assert by_key["gap", "T0"]["state"] == "no_series"
    assert found["last_run"].endswith("Z")


def test_slo_of_one_tier_and_wrong_questions(client: httpx.Client) -> None:
    found = client.get("/slo?tier=T1").json()["objectives"]
    assert {each["tier"] for each in found} == {"T1"}
    for query, field in (("tier=T9", "tier"), ("teir=T1", "teir")):
        answer = client.get(f"/slo?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_slo_says_when_postgresql_is_away(settings: Settings) -> None:
    away = Settings.model_validate({"database_url": "postgresql://nobody@127.0.0.1:1/none"}).database_url
    with served(settings.model_copy(update={"database_url": away})) as client:
        answer = client.get("/slo")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


# -- on the command line ---------------------------------------------------------------------------


def test_slo_shows_state_budget_and_why(cli: Cli, cli_deps: Deps) -> None:
    add(cli_deps, *(Instrument(f"C{number}", "24/7", "crypto", Tier.T0) for number in range(7)))
    execute(
        cli_deps,
        "INSERT INTO dead_letters (id, kind, symbol, interval, error_class, message, envelope)"
        " VALUES ('letter-1', 'backfill', 'C3', '1m', 'bad_payload', 'cannot be read', '{}')",
    )
    monitor.run_once(cli_deps, datetime.now(UTC))
    shown = cli("slo")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert re.match(r"on time +T0 +1m +LATE +7 +7 +100.00% +0.50% ", lines[1])
    assert re.search(r"\d+% \([\d.,-]+ of [\d.,]+ min\)$", lines[1])
    assert "on time, T0 1m: the 5 worst of 7" in lines
    why = next(line for line in lines if line.startswith("C3 "))
    assert "dead letter letter-1: bad_payload: cannot be read" in why
    other = next(line for line in lines if line.startswith("C1 "))
    assert other.endswith("it never had any data, and no job works on it")
    assert "last look 0 s ago, one every 30 s" in shown.err or "last look 1 s ago" in shown.err
    assert "C6" in cli("slo", "--worst", "20").out
    assert "worst of" not in cli("slo", "--worst", "0").out


def test_slo_check_tells_a_script(cli: Cli, cli_deps: Deps) -> None:
    add(cli_deps, Instrument("C", "24/7", "crypto", Tier.T0))
    unwatched = cli("slo", "--check")
    assert (unwatched.code, "NOT WATCHED" in unwatched.out) == (1, True)
    assert "the monitor has never run" in unwatched.err
    execute(
        cli_deps,
        "INSERT INTO coverage (instrument_id, interval, covered, fresh_until)"
        " SELECT id, '1m', '{[2026-01-01,2100-01-01)}', '2100-01-01' FROM instruments",
    )
    monitor.run_once(cli_deps, datetime.now(UTC))
    assert cli("slo", "--check").code == 0
    assert cli("slo", "--tier", "T0", "--json").json["objectives"][0]["state"] == "ok"


def test_slo_history_of_a_tier(cli: Cli, cli_deps: Deps) -> None:
    now = datetime.now(UTC)
    with cli_deps.database.transaction() as connection:
        snapshots.add(connection, Snapshot(GAP_T0, now - timedelta(hours=3), 200, 1, 14.0, 30.0))
    shown = cli("slo", "history", "--tier", "T0", "--since", "2d")
    assert shown.code == 0
    assert re.search(r" 1 +200 +1 +0.50% +14 s +0.5 +0.00$", shown.out.splitlines()[1])
    found = cli("slo", "history", "--tier", "T0", "--json").json
    assert (found["tier"], found["objective"], found["history"][0]["expected"]) == ("T0", "gap", 200)
    assert "nothing was looked at" in cli("slo", "history", "--tier", "T0", "--objective", "coverage").err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["slo", "--tier", "T7"], "T7"),
        (["slo", "--worst", "21"], "21"),
        (["slo", "now"], "now"),
        (["slo", "history"], "--tier"),
        (["slo", "history", "--tier", "T0", "--since", "yesterday"], "yesterday"),
        (["slo", "history", "--tier", "T0", "--since", "2999-01-01"], "not before now"),
        (["slo", "history", "--tier", "T0", "--objective", "speed"], "speed"),
    ],
)
def test_wrong_words_are_refused_by_name(cli: Cli, words: list[str], said: str) -> None:
    refused = cli(*words)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
