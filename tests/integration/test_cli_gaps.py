"""`mdtasks gaps` and ``GET /gaps``: the verdicts, why something is missing, and a person's word that it is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from mdtasks.domain.bars import Bars, RejectedBar, to_us
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.live import run_bars_fetch
from mdtasks.flows.scan import scan
from mdtasks.providers.faults import Faults
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.store import bars as store_bars
from mdtasks.store import reference
from mdtasks.store.gaps import Scope
from mdtasks.store.partitions import ensure_partitions
from mdtasks.testing import bars_fetch_job
from tests.integration.cli_calls import Cli, work

DAY = ("--start", "2026-11-02", "--end", "2026-11-03")
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
HOLE = ("--start", "2026-11-02T12:00Z", "--end", "2026-11-02T12:20Z")


@pytest.fixture
def stored(cli: Cli, cli_deps: Deps) -> Cli:
    """Commands on a stack with one day of BTC-USD."""
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    cli("backfill", "BTC-USD", *DAY)
    assert work(cli_deps) == 1
    return cli


def test_gaps_are_what_is_expected_and_not_covered(stored: Cli, cli_deps: Deps) -> None:
    week = ("--start", "2026-11-01", "--end", "2026-11-05")
    found = stored("gaps", "BTC-USD", *week, "--json")
    (one,) = found.json
    assert found.code == 0
    assert (one["expected"], one["present"], one["no_trade"], one["missing"]) == (5760, 1440, 0, 4320)
    assert one["gaps"] == [
        {"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z", "missing": 1440},
        {"start": "2026-11-03T00:00:00Z", "end": "2026-11-05T00:00:00Z", "missing": 2880},
    ]
    assert stored("gaps", "BTC-USD", *week, "--check").code == 1
    stored("backfill", "BTC-USD", *week)
    work(cli_deps)
    after = stored("gaps", "BTC-USD", *week, "--check")
    assert (after.code, "no gaps" in after.err) == (0, True)


def test_a_covered_minute_without_a_bar_is_no_trade_and_no_gap(cli: Cli, cli_deps: Deps) -> None:
    cli_deps.registry._providers["simulator"] = SimulatorProvider(cli_deps.calendars, Faults.parse("silent=0.25"))
    cli("universe", "add", "THIN", "--mic", "24/7")
    cli("backfill", "THIN", *DAY)
    work(cli_deps)
    (found,) = cli("gaps", "THIN", *DAY, "--json").json
    assert found["missing"] == 0
    assert found["no_trade"] > 200
    assert found["present"] + found["no_trade"] == found["expected"] == 1440


def test_gaps_of_an_exchange_pass_over_nights_holidays_and_early_closes(cli: Cli) -> None:
    cli("universe", "add", "SPY", "--mic", "XNYS")
    (found,) = cli("gaps", "SPY", "--start", "2019-11-27", "--end", "2019-11-30", "--json").json
    # Thanksgiving between a whole session and one that ends at 13:00 in New York: one gap over the three days.
    assert (found["expected"], found["missing"]) == (390 + 210, 600)
    assert found["gaps"] == [{"start": "2019-11-27T14:30:00Z", "end": "2019-11-29T18:00:00Z", "missing": 600}]


def test_without_symbols_the_whole_universe_is_looked_at(cli: Cli) -> None:
    assert "the universe is empty" in cli("gaps").err
    cli("universe", "add", "A", "B", "--mic", "24/7")
    assert [each["symbol"] for each in cli("gaps", *DAY, "--json").json] == ["A", "B"]


def test_what_ended_a_moment_ago_is_pending_and_not_missed(cli: Cli, cli_deps: Deps) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    cli("backfill", "BTC-USD", "--sessions", "1")
    work(cli_deps)
    (found,) = cli("gaps", "BTC-USD", "--sessions", "1", "--json").json
    assert found["gaps"] == []
    assert found["pending"] <= 3


class Holed(SimulatorProvider):
    """The simulator with twenty minutes of nothing at noon."""

    def fetch_bars(self, *args: Any) -> Any:
        answer = super().fetch_bars(*args)
        start_us, end_us = to_us(NOON), to_us(NOON + timedelta(minutes=20))
        kept = {
            symbol: bars.take((bars.ts_us < start_us) | (bars.ts_us >= end_us)) for symbol, bars in answer.bars.items()
        }
        return replace(answer, bars=kept)


@pytest.fixture
def holed(cli: Cli, cli_deps: Deps) -> Cli:
    """Commands on a stack whose provider has nothing of twenty minutes, and a job that has given up on them."""
    cli_deps.registry._providers["simulator"] = Holed(cli_deps.calendars)
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    cli("backfill", "BTC-USD", *DAY)
    for _ in range(3):
        assert work(cli_deps) == 1
        with cli_deps.database.transaction() as connection:
            connection.execute(text("UPDATE backfill_jobs SET status = 'queued' WHERE status = 'deferred'"))
    scan(Scope(Tier.T1, Interval.M1), cli_deps, datetime(2026, 11, 3, 1, tzinfo=UTC))
    with cli_deps.database.transaction() as connection:
        connection.execute(text("UPDATE backfill_jobs SET status = 'cancelled' WHERE status <> 'failed'"))
    cli_deps.broker.flushdb()
    return cli


def test_a_gap_is_explained_by_what_was_tried_and_said(holed: Cli) -> None:
    told = holed("gaps", "BTC-USD", *DAY, "--explain")
    assert told.code == 0
    for words in ("1,420 from simulator", "open", "failed after 3 attempts", "silence not believed", "mdtasks requeue"):
        assert words in told.out + told.err
    (document,) = holed("gaps", "BTC-USD", *DAY, "--explain", "--json").json
    hole = {"start": "2026-11-02T12:00:00Z", "end": "2026-11-02T12:20:00Z"}
    assert document["gaps"] == [{**hole, "missing": 20}]
    entry = next(each for each in document["ledger"] if each["start"] == hole["start"])
    assert (entry["missing"], entry["closed_at"], entry["job_status"]) == (20, None, "failed")
    assert entry["letter"].startswith(entry["job"])
    (said,) = (each for each in document["silences"] if not each["believed"])
    assert (said["provider"], said["starts_at"], said["ends_at"]) == ("simulator", hole["start"], hole["end"])


def test_a_persons_word_closes_the_gap_and_resolves_the_letter(holed: Cli, cli_deps: Deps) -> None:
    accepted = holed("gaps", "accept", "BTC-USD", *HOLE, "--reason", "the venue was down", "--json")
    assert (accepted.code, accepted.json["accepted"]) == (0, 20)
    (document,) = holed("gaps", "BTC-USD", *DAY, "--explain", "--json").json
    assert (document["missing"], document["no_trade"]) == (0, 20)
    assert "accepted by" in holed("gaps", "BTC-USD", *DAY, "--explain").out
    assert holed("dlq", "list", "--json").json == []
    with cli_deps.database.transaction() as connection:
        audit = connection.execute(text("SELECT action, details->>'reason' FROM audit_log")).one()
    assert tuple(audit) == ("gaps.accept", "the venue was down")
    again = holed("gaps", "accept", "BTC-USD", *HOLE, "--reason", "twice")
    assert (again.code, "nothing is missing" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("accept", "BTC-USD", *HOLE), "--reason"),
        (("accept", "BTC-USD", *HOLE, "--reason", " "), "say why"),
        (("accept", "NOPE", *HOLE, "--reason", "x"), "unknown symbol NOPE"),
        (("accept", "BTC-USD", "--start", "2026-11-02T12:00", "--end", "2026-11-03", "--reason", "x"), "is naive"),
        (("--explain",), "which symbols"),
        (("accept", "BTC-USD", "--start", "2026-11-03", "--end", "2026-11-02", "--reason", "x"), "is not after start"),
    ],
)
def test_wrong_words_are_refused_by_name(stored: Cli, words: tuple[str, ...], said: str) -> None:
    refused = stored("gaps", *words)
    assert refused.code == 2
    assert said in refused.err


def test_quarantined_intervals_are_missing_and_shown_with_their_rule(stored: Cli, cli_deps: Deps) -> None:
    start = datetime(2026, 11, 3, tzinfo=UTC)
    ensure_partitions(cli_deps.database, "bars", to_us(start), to_us(start))
    with cli_deps.database.transaction() as connection:
        member = reference.resolve(connection, ["BTC-USD"])["BTC-USD"]
        broken = RejectedBar(to_us(start), "high_below_low", 1.0, 0.5, 2.0, 1.0, 1.0)
        batch = store_bars.BarBatch(member.id, Bars.empty(), 0, rejected=[broken])
        store_bars.write_bars(connection, Interval.M1, [batch], "simulator", 1)
    hour = ("--start", "2026-11-03", "--end", "2026-11-03T01:00Z")
    (document,) = stored("gaps", "BTC-USD", *hour, "--explain", "--json").json
    assert (document["missing"], document["quarantined"]) == (60, 1)
    assert [each["reason"] for each in document["rejected"]] == ["high_below_low"]
    assert "high_below_low" in stored("gaps", "BTC-USD", *hour, "--explain").out


def test_over_http_a_gap_is_explained_and_accepted_alike(client: httpx.Client, deps: Deps) -> None:
    window = {"start": "2025-01-02T00:00:00Z", "end": "2025-01-02T01:00:00Z"}
    found = client.get("/gaps/BTC-USD", params=window).json()
    assert (found["symbol"], found["expected"], found["missing"], found["tier"]) == ("BTC-USD", 60, 60, "T1")
    assert found["gaps"] == [{**window, "missing": 60}]
    said = {"symbol": "BTC-USD", **window, "reason": "before the venue opened"}
    answer = client.post("/ops/gaps/accept", json=said)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 60)
    found = client.get("/gaps/BTC-USD", params=window).json()
    assert (found["missing"], found["no_trade"], found["silences"][0]["believed"]) == (0, 60, True)
    for wrong, field in (({"reason": ""}, "reason"), ({"symbol": "NOPE"}, "symbol"), ({"start": "noon"}, "start")):
        refused = client.post("/ops/gaps/accept", json={**said, **wrong})
        assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert client.get("/gaps/NOPE").json()["code"] == "unknown_symbol"
    assert client.get("/gaps/BTC-USD", params={"intervall": "1m"}).json()["field"] == "intervall"


def test_a_live_fetch_that_leaves_a_hole_has_it_looked_for_at_once(cli: Cli, cli_deps: Deps) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7", "--tier", "T0")
    window = TimeWindow(start=NOON - timedelta(hours=3), end=NOON + timedelta(minutes=40))
    cli_deps.registry._providers["simulator"] = Holed(cli_deps.calendars)
    job = bars_fetch_job(symbols=("BTC-USD",), time_window=window)
    done = run_bars_fetch(job, cli_deps, "t0@here/1", NOON + timedelta(hours=1))
    assert done["gaps"] == 3  # the time before, the hole, and the time after
    at_noon = {"noon": NOON, "later": NOON + timedelta(minutes=20)}
    with cli_deps.database.transaction() as connection:
        found = text('SELECT found_by FROM gaps WHERE closed_at IS NULL AND "window" = tstzrange(:noon, :later)')
        assert connection.execute(found, at_noon).scalar_one() == "live"
        asked = text('SELECT status FROM backfill_jobs WHERE "window" = tstzrange(:noon, :later)')
        assert connection.execute(asked, at_noon).scalar_one() == "queued"
