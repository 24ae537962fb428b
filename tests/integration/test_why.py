"""`mdtasks why` and ``GET /bars/{symbol}/why``: every version with what is behind it, and every way to have no bar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text

from mdtasks.domain.bars import Bars, RejectedBar, to_us
from mdtasks.domain.jobs import Interval
from mdtasks.flows.deps import Deps
from mdtasks.providers.faults import Faults
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.store import bars as store_bars
from mdtasks.store import reference
from tests.integration.cli_calls import Cli, work

DAY = ("--start", "2026-11-02", "--end", "2026-11-03")
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)


@pytest.fixture
def stored(cli: Cli, cli_deps: Deps) -> Cli:
    """Commands on a stack with a policy and one day of BTC-USD, of which the minute of noon was revised twice."""
    cli("policy", "apply", "-", "--reason", "fewer attempts", stdin="retry: {attempts: 3}")
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    cli("backfill", "BTC-USD", *DAY)
    assert work(cli_deps) == 1
    with cli_deps.database.transaction() as connection:  # as a worker that follows it would say
        connection.execute(text("UPDATE job_attempts SET policy_version = 1"))
    for attempt_id, price in ((1, 50.0), (999, 51.0)):
        revise(cli_deps, attempt_id, price)
    return cli


def revise(deps: Deps, attempt_id: int, price: float) -> None:
    bars = Bars.of([to_us(NOON)], *([price] for _ in range(5)))
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, ["BTC-USD"])["BTC-USD"]
        batch = store_bars.BarBatch(member.id, bars, 2**62)
        store_bars.write_bars(connection, Interval.M1, [batch], "files", attempt_id)


def test_a_bar_tells_every_version_with_its_job_worker_policy_and_route(stored: Cli) -> None:
    found = stored("why", "BTC-USD", "2026-11-02T12:00:30Z", "--json").json
    assert (found["verdict"], found["start"], found["end"]) == (
        "present",
        "2026-11-02T12:00:00Z",
        "2026-11-02T12:01:00Z",
    )
    third, second, first = found["versions"]
    assert (third["close"], third["superseded_at"], third["provider"]) == (51.0, None, "files")
    assert found["bar"] == {name: third[name] for name in found["bar"]}
    assert (second["superseded_at"], first["superseded_at"]) == (third["known_at"], second["known_at"])
    assert third["origin"] is None  # nobody knows an attempt 999
    origin = first["origin"]
    assert (origin["worker"], origin["outcome"], origin["job_status"]) == ("t0@test/1", "done", "done")
    assert (origin["policy_version"], origin["policy_reason"]) == (1, "fewer attempts")
    assert origin["policy_author"]
    assert origin["requested_by"]
    assert [step["provider"] for step in origin["route"]] == ["simulator"]
    page = stored("why", "BTC-USD", "2026-11-02T12:00Z").out
    for words in ("present", "3 stands", "t0@test/1", "fewer attempts", "simulator: answered", "not on record", "next"):
        assert words in page


def test_each_way_to_have_no_bar_is_told_apart(stored: Cli, cli_deps: Deps) -> None:
    def verdict(symbol: str, at: str, interval: str = "1m") -> str:
        found = stored("why", symbol, at, "--interval", interval)
        assert found.code == 0, found.err
        assert found.out.count("\n") > 3
        return str(stored("why", symbol, at, "--interval", interval, "--json").json["verdict"])

    assert verdict("BTC-USD", "2026-11-03T12:00Z") == "missing"
    assert verdict("BTC-USD", "2126-11-03T12:00Z") == "not_ended"
    stored("universe", "add", "SPY", "--mic", "XNYS")
    assert verdict("SPY", "2026-11-02T03:00Z") == "outside_session"
    assert verdict("SPY", "2026-11-26T15:00Z") == "outside_session"  # Thanksgiving
    assert verdict("SPY", "2026-11-02T15:00Z") == "missing"
    assert verdict("SPY", "2026-11-01", "1d") == "outside_session"
    assert "Mon 2026-11-02 14:30" in stored("why", "SPY", "2026-11-01").out
    halt = ("--start", "2026-11-02T16:00Z", "--end", "2026-11-02T16:30Z")
    assert stored("calendar", "halt", "SPY", *halt, "--reason", "news").code == 0
    assert verdict("SPY", "2026-11-02T16:10Z") == "halted"
    with cli_deps.database.transaction() as connection:
        connection.execute(text("UPDATE instruments SET listed_from = '2026-11-02' WHERE mic = 'XNYS'"))
    assert verdict("SPY", "2026-10-30T15:00Z") == "not_listed"
    stored("policy", "apply", "-", "--reason", "disk", stdin="retention: {bars_1m_days: 21}")
    assert verdict("BTC-USD", "2020-01-02T12:00Z") == "not_kept"


def test_silence_is_told_with_who_said_so(cli: Cli, cli_deps: Deps) -> None:
    cli_deps.registry._providers["simulator"] = SimulatorProvider(cli_deps.calendars, Faults.parse("silent=0.25"))
    cli("universe", "add", "THIN", "--mic", "24/7")
    cli("backfill", "THIN", *DAY)
    work(cli_deps)
    with cli_deps.database.transaction() as connection:
        silent = connection.execute(text("SELECT min(starts_at) FROM silences")).scalar_one()
    found = cli("why", "THIN", silent.isoformat(), "--json").json
    assert (found["verdict"], found["bar"]) == ("no_trade", None)
    (said,) = found["silences"]
    assert (said["provider"], said["believed"], said["origin"]["outcome"]) == ("simulator", True, "done")
    assert "believed" in cli("why", "THIN", silent.isoformat()).out


def test_a_bar_that_was_kept_out_is_shown_as_it_came(stored: Cli, cli_deps: Deps) -> None:
    start = NOON + timedelta(days=1)
    with cli_deps.database.transaction() as connection:
        member = reference.resolve(connection, ["BTC-USD"])["BTC-USD"]
        broken = RejectedBar(to_us(start), "high_below_low", 1.0, 0.5, 2.0, 1.0, 7.0)
        batch = store_bars.BarBatch(member.id, Bars.empty(), 0, rejected=[broken])
        store_bars.write_bars(connection, Interval.M1, [batch], "simulator", 1)
    found = stored("why", "BTC-USD", start.isoformat(), "--json").json
    assert found["verdict"] == "quarantined"
    (candidate,) = found["candidates"]
    assert (candidate["reason"], candidate["bar"]["high"], candidate["origin"]["worker"]) == (
        "high_below_low",
        0.5,
        "t0@test/1",
    )
    assert "high_below_low" in stored("why", "BTC-USD", start.isoformat()).out


def test_what_is_not_kept_any_more_is_told_as_such(stored: Cli, cli_deps: Deps) -> None:
    with cli_deps.database.transaction() as connection:
        connection.execute(text("DELETE FROM backfill_jobs"))
        connection.execute(text("UPDATE job_attempts SET route = NULL, message = NULL"))
    page = stored("why", "BTC-USD", "2026-11-02T13:00Z").out
    for words in ("present", "t0@test/1", "its row is not kept any more", "route    not on record"):
        assert words in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("NOPE", "2026-11-02"), "unknown symbol"),
        (("BTC-USD", "2026-11-02T12:00"), "naive"),
        (("BTC-USD", "noon"), "not a time"),
        (("BTC-USD",), "required: TIME"),
    ],
)
def test_wrong_words_are_refused_by_name(stored: Cli, words: tuple[str, ...], said: str) -> None:
    refused = stored("why", *words)
    assert (refused.code, said in refused.err) == (2, True), refused.err


def test_over_http_it_is_told_alike(client: httpx.Client, deps: Deps) -> None:
    found = client.get("/bars/BTC-USD/why", params={"ts": "2026-11-02T12:00:59Z"}).json()
    assert (found["symbol"], found["verdict"], found["versions"]) == ("BTC-USD", "missing", [])
    assert (found["start"], found["end"]) == ("2026-11-02T12:00:00Z", "2026-11-02T12:01:00Z")
    assert client.get("/bars/BTC-USD/why", params={"ts": "2026-11-02", "interval": "1d"}).json()["interval"] == "1d"
    for wrong, field in (({}, "ts"), ({"ts": "noon"}, "ts"), ({"ts": "2026-11-02", "intervall": "1m"}, "intervall")):
        refused = client.get("/bars/BTC-USD/why", params=wrong)
        assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert client.get("/bars/NOPE/why", params={"ts": "2026-11-02"}).json()["code"] == "unknown_symbol"
    assert deps
