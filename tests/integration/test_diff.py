"""`mdtasks diff` and ``GET /bars/{symbol}/diff``: what two reads of the store differ in, and who did it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.connections import Database
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.differences import apply, diff
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.domain.stored import StoredBars
from mdtasks.flows.deps import Deps
from mdtasks.flows.scan import scan
from mdtasks.store import reference, retention
from mdtasks.store.bars import BarBatch, read_bars, write_bars
from mdtasks.store.gaps import Scope
from mdtasks.store.partitions import ensure_partitions
from tests.integration.cli_calls import Cli, work
from tests.unit.test_differences import digest

_SMALL_TIERS = """
universe: {margin: 0}
tiers:
  T0: {cadence: {eod: 1}, keep: [1d], max_queue: 100, size: 1}
  T1: {cadence: {eod: 1}, keep: [1d], max_queue: 100, size: 1}
  T2: {cadence: {eod: 1}, keep: [1d], max_queue: 100}
"""
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
HOUR = TimeWindow(start=NOON, end=NOON + timedelta(hours=1))
DAY = ("--start", "2026-11-02", "--end", "2026-11-03")
_instruments = itertools.count(1)


def clock(database: Database) -> datetime:
    with database.transaction() as connection:
        found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def write(database: Database, instrument: int, prices: dict[int, float], *, provider: str, attempt: int = 1) -> None:
    minutes = sorted(prices)
    column = [prices[minute] for minute in minutes]
    bars = Bars.of([to_us(NOON) + minute * 60_000_000 for minute in minutes], *([column] * 5))
    ensure_partitions(database, "bars", to_us(NOON), to_us(NOON))
    with database.transaction() as connection:
        write_bars(connection, Interval.M1, [BarBatch(instrument, bars, 2**62)], provider, attempt)


def read(database: Database, instrument: int, as_of: datetime) -> StoredBars:
    with database.transaction() as connection:
        return read_bars(connection, instrument, Interval.M1, HOUR, as_of)


_answers = st.tuples(
    st.dictionaries(st.integers(0, 9), st.sampled_from([100.0, 100.1, 100.2]), min_size=1, max_size=10),
    st.sampled_from(["files", "simulator"]),
)


@given(history=st.lists(_answers, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_any_history_the_same_as_of_is_the_same_bytes_for_ever_and_differences_lead_from_one_to_another(
    database: Database, history: list[tuple[dict[int, float], str]]
) -> None:
    instrument = next(_instruments)
    known: list[tuple[datetime, str]] = []
    for number, (prices, provider) in enumerate(history):
        write(database, instrument, prices, provider=provider, attempt=number + 1)
        now = clock(database)
        known.append((now, digest(read(database, instrument, now))))
    reads = [read(database, instrument, as_of) for as_of, _ in known]
    assert [digest(each) for each in reads] == [seen for _, seen in known]
    for first, second in itertools.pairwise(reads):
        change = diff(first, second)
        assert digest(apply(change, first)) == digest(second)
        assert len(change.removed) == 0
    assert digest(apply(diff(reads[0], reads[-1]), reads[0])) == digest(reads[-1])


@pytest.fixture
def stored(cli: Cli, cli_deps: Deps) -> tuple[Cli, dict[str, datetime]]:
    """One day of BTC-USD, the first minutes of noon revised by another attempt, and when that was."""
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    times = {"before": clock(cli_deps.database)}
    cli("backfill", "BTC-USD", *DAY)
    assert work(cli_deps) == 1
    times["filled"] = clock(cli_deps.database)
    with cli_deps.database.transaction() as connection:
        coin = reference.resolve(connection, ["BTC-USD"])["BTC-USD"].id
    write(cli_deps.database, coin, {0: 50.0, 1: 51.0}, provider="files", attempt=999)
    times["revised"] = clock(cli_deps.database)
    return cli, times


def test_what_came_and_what_was_revised_is_told_with_who_did_it(stored: tuple[Cli, dict[str, datetime]]) -> None:
    cli, times = stored
    at = {name: time.isoformat() for name, time in times.items()}
    hour = ("--start", "2026-11-02T12:00Z", "--end", "2026-11-02T13:00Z")
    found = cli("diff", "BTC-USD", "--from", at["before"], "--to", at["filled"], *hour, "--json").json
    bars = found["bars"]
    assert (bars["before"], bars["after"], bars["inserted"], bars["revised"], bars["removed"]) == (0, 60, 60, 0, 0)
    (by,) = bars["by"]
    assert (by["provider"], by["inserted"], by["worker"], by["job_type"]) == ("simulator", 60, "t0@test/1", "backfill")
    assert (len(bars["rows"]["inserted"]), bars["cut"]) == (20, True)

    bars = cli("diff", "BTC-USD", "--from", at["filled"], *hour, "--json").json["bars"]
    assert (bars["inserted"], bars["revised"], bars["unchanged"]) == (0, 2, 58)
    assert [(each["provider"], each["revised"], each["job_id"]) for each in bars["by"]] == [("files", 2, None)]
    first = bars["rows"]["revised"][0]
    assert (first["ts"], first["fields"]["close"][1], first["fields"]["provider"]) == (
        "2026-11-02T12:00:00Z",
        50.0,
        ["simulator", "files"],
    )
    assert "final" not in first["fields"]
    page = cli("diff", "BTC-USD", "--from", at["filled"], *hour).out
    for words in ("60 bars then, 60 later", "2 revised", "provider simulator -> files", "files"):
        assert words in page
    nothing = cli("diff", "BTC-USD", "--from", at["revised"], *hour, "--json").json
    assert (nothing["bars"]["inserted"], nothing["bars"]["revised"], nothing["bars"]["by"]) == (0, 0, [])


def test_gaps_that_were_found_and_closed_meanwhile_are_told(cli: Cli, cli_deps: Deps) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    start = clock(cli_deps.database)
    now = datetime(2026, 11, 3, 1, tzinfo=UTC)
    scan(Scope(Tier.T1, Interval.M1), cli_deps, now)
    found = clock(cli_deps.database)
    work(cli_deps)
    scan(Scope(Tier.T1, Interval.M1), cli_deps, now)

    def gaps(since: datetime, until: datetime) -> Any:
        words = ("--from", since.isoformat(), "--to", until.isoformat())
        return cli("diff", "BTC-USD", *words, *DAY, "--json").json["gaps"]

    assert [(g["found"], g["closed"]) for g in (gaps(start, found), gaps(found, clock(cli_deps.database)))] == [
        (1, 0),
        (0, 1),
    ]
    assert "1 gap found, 1 closed" in cli("diff", "BTC-USD", "--from", start.isoformat(), *DAY).out


def test_what_was_deleted_is_not_compared_as_if_it_had_been_there(
    stored: tuple[Cli, dict[str, datetime]], cli_deps: Deps
) -> None:
    cli, times = stored
    words = ("diff", "BTC-USD", "--from", times["before"].isoformat())
    retention.Round(cli_deps.database, 1).begin("bars_1m", NOON, 1)
    cut = cli(*words, *DAY, "--json").json
    assert (cut["kept_from"], cut["bars"]["inserted"]) == ("2026-11-02T12:00:00Z", 720)
    refused = cli(*words, "--start", "2026-11-02", "--end", "2026-11-02T12:00Z")
    assert (refused.code, "were deleted" in refused.err) == (2, True)
    retention.Round(cli_deps.database, 1).begin("revisions", times["filled"], 1)
    refused = cli(*words, *DAY)
    assert (refused.code, "cannot be told" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("BTC-USD",), "required: --from"),
        (("BTC-USD", "--from", "2026-11-03", "--to", "2026-11-02"), "is not before"),
        (("BTC-USD", "--from", "2126-11-03"), "is not before"),
        (("BTC-USD", "--from", "noon"), "not a time"),
        (("NOPE", "--from", "2026-11-02"), "unknown symbol"),
    ],
)
def test_wrong_words_are_refused_by_name(cli: Cli, words: tuple[str, ...], said: str) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    refused = cli("diff", *words)
    assert (refused.code, said in refused.err) == (2, True), refused.err


def test_over_http_it_is_told_alike(client: httpx.Client, deps: Deps) -> None:
    before = clock(deps.database)
    with deps.database.transaction() as connection:
        coin = reference.resolve(connection, ["BTC-USD"])["BTC-USD"].id
    write(deps.database, coin, {0: 50.0}, provider="files")
    window = {"start": "2026-11-02T12:00Z", "end": "2026-11-02T13:00Z"}
    asked = {"as_of_from": before.isoformat(), **window}
    bars = client.get("/bars/BTC-USD/diff", params=asked).json()["bars"]
    assert (bars["inserted"], bars["rows"]["inserted"][0]["close"]) == (1, 50.0)
    wrongs: tuple[tuple[dict[str, str], str], ...] = (
        ({}, "as_of_from"),
        ({**asked, "as_of_to": "2020-01-01"}, "as_of_from"),
        ({**asked, "as_of_to": "2999-01-01"}, "as_of_to"),
        ({**asked, "limit": "0"}, "limit"),
        ({**asked, "from": "2020-01-01"}, "from"),
    )
    for wrong, field in wrongs:
        refused = client.get("/bars/BTC-USD/diff", params=wrong)
        assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_actions_and_tiers_that_changed_meanwhile_are_told(cli: Cli, cli_deps: Deps, tmp_path: Path) -> None:
    listing = tmp_path / "listing.csv"

    def followed(tag: str, *symbols: str) -> None:
        lines = "".join(f"{symbol},XNYS,10,{1000 - 100 * n}\n" for n, symbol in enumerate(symbols))
        listing.write_text("symbol,mic,close,volume\n" + lines)
        assert cli("universe", "refresh", "--source", f"csv:{listing}", "--tag", tag).code == 0
        assert cli("universe", "activate", tag, "--reason", "a test").code == 0

    assert cli("policy", "apply", "-", stdin=_SMALL_TIERS).code == 0
    followed("one", "AAA", "BBB")
    assert cli("actions", "add", "AAA", "2024-03-07", "split", "2:1", "--reason", "a test").code == 0
    before = clock(cli_deps.database)
    followed("two", "BBB", "AAA")
    assert cli("actions", "withdraw", "AAA", "2024-03-07", "split", "--reason", "it did not").code == 0
    assert cli("actions", "add", "AAA", "2024-03-08", "dividend", "0.5", "--reason", "a test").code == 0
    asked = ("diff", "AAA", "--interval", "1d", "--from", before.isoformat())
    found = cli(*asked, "--json").json
    (tier,) = found["tier"]["rows"]
    assert (tier["before"], tier["tier"], tier["version_tag"], tier["reason"]) == ("T0", "T1", "two", "a test")
    told = found["actions"]
    assert (told["appeared"], told["gone"], told["statements"]) == (1, 1, 2)
    assert [(each["kind"], each["ex_date"]) for each in told["rows"]["gone"]] == [("split", "2024-03-07")]
    shown = cli(*asked).out
    assert "tier T0 then, T1 later" in shown
    assert "1 came to stand, 1 no longer do" in shown
    nothing = cli(*asked[:-1], clock(cli_deps.database).isoformat(), "--json").json
    assert (nothing["tier"]["rows"], nothing["tier"]["after"], nothing["actions"]["statements"]) == ([], "T1", 0)
