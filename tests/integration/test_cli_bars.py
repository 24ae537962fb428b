"""`mdtasks bars`: what it gives is exactly what is stored."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mdtasks.domain.bars import Bars
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.flows.deps import Deps
from mdtasks.providers.faults import Faults
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.store import bars as store_bars
from mdtasks.store import reference
from mdtasks.store.partitions import ensure_partitions
from tests.integration.cli_calls import Called, Cli, work
from tests.integration.known_earlier import known_since

PRICES = ("open", "high", "low", "close", "volume")
DAY = ("--start", "2026-11-02", "--end", "2026-11-03")
ODD = 0.1 + 0.2


@pytest.fixture
def stored(cli: Cli, cli_deps: Deps) -> Cli:
    """Commands on a stack with one day of BTC-USD."""
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    cli("backfill", "BTC-USD", *DAY)
    assert work(cli_deps) == 1
    return cli


def truth(deps: Deps) -> store_bars.StoredBars:
    """The day as the store holds it."""
    window = TimeWindow(start=datetime(2026, 11, 2, tzinfo=UTC), end=datetime(2026, 11, 3, tzinfo=UTC))
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, ["BTC-USD"])["BTC-USD"]
        return store_bars.read_bars(connection, member.id, Interval.M1, window)


def revise(deps: Deps, close: float) -> None:
    """A later answer changes the day's first bar."""
    first = truth(deps).bars.take(slice(0, 1))
    low, high = min(first.low[0], close), max(first.high[0], close)
    changed = Bars.of(first.ts_us, first.open, [high], [low], [close], first.volume)
    ensure_partitions(deps.database, "bars", int(first.ts_us[0]), int(first.ts_us[0]))
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, ["BTC-USD"])["BTC-USD"]
        batch = store_bars.BarBatch(member.id, changed, final_before_us=int(first.ts_us[0]) + 1)
        assert store_bars.write_bars(connection, Interval.M1, [batch], "files", 1).revised == 1


def test_every_format_gives_the_stored_doubles_back(stored: Cli, cli_deps: Deps, tmp_path: Path) -> None:
    revise(cli_deps, ODD)
    held = truth(cli_deps)
    expected = [tuple(column[row] for column in held.bars.columns) for row in range(len(held))]
    assert len(expected) == 1440
    assert expected[0][3] == ODD
    as_csv = list(csv.DictReader(io.StringIO(stored("bars", "BTC-USD", *DAY).out)))
    as_json = stored("bars", "BTC-USD", *DAY, "--format", "json").json["bars"]
    target = tmp_path / "day.parquet"
    assert stored("bars", "BTC-USD", *DAY, "--output", str(target)).out == ""
    as_parquet: list[dict[str, Any]] = pq.read_table(target).to_pylist()
    piped = pq.read_table(io.BytesIO(stored("bars", "BTC-USD", *DAY, "--format", "parquet").raw)).to_pylist()
    for rows in (as_csv, as_json, as_parquet, piped):
        assert [tuple(float(row[name]) for name in PRICES) for row in rows] == expected
        assert {row["provider"] for row in rows} == {"simulator", "files"}
        assert {row["status"] for row in rows} == {"final"}
    assert as_csv[0]["ts"] == as_json[0]["ts"] == "2026-11-02T00:00:00Z"
    assert as_parquet[0]["ts"] == datetime(2026, 11, 2, tzinfo=UTC)
    assert datetime.fromisoformat(as_csv[0]["known_at"]) == as_parquet[0]["known_at"]


def test_hours_and_silence_are_the_same_question_as_over_http(stored: Cli, cli_deps: Deps, tmp_path: Path) -> None:
    target = tmp_path / "day.arrows"
    assert (
        stored("bars", "BTC-USD", *DAY, "--session", "regular", "--fill", "no_trade", "--output", str(target)).code == 0
    )
    table = pa.ipc.open_stream(target.read_bytes()).read_all()
    assert table["close"].to_pylist() == truth(cli_deps).bars.close.tolist()
    assert stored("bars", "BTC-USD", *DAY, "--format", "arrow").raw == target.read_bytes()
    document = stored("bars", "BTC-USD", *DAY, "--session", "regular", "--json").json
    assert (document["session"], document["fill"], len(document["bars"])) == ("regular", "none", 1440)
    known_since(cli_deps.database)
    early = stored("bars", "BTC-USD", *DAY, "--fill", "no_trade", "--as-of", "2026-11-03", "--json").json
    assert (early["fill"], early["as_of"], early["bars"]) == ("no_trade", "2026-11-03T00:00:00Z", [])


def test_bars_as_of_an_earlier_time_are_those_known_then(stored: Cli, cli_deps: Deps) -> None:
    before = datetime.now(UTC).isoformat()
    earlier = stored("bars", "BTC-USD", *DAY).out
    revise(cli_deps, ODD)
    assert stored("bars", "BTC-USD", *DAY).out != earlier
    assert stored("bars", "BTC-USD", *DAY, "--as-of", before).out == earlier
    unknown = stored("bars", "BTC-USD", *DAY, "--as-of", "2020-01-01")
    assert (unknown.code, unknown.out) == (2, "")
    assert "unknown symbol BTC-USD as of 2020-01-01" in unknown.err
    known_since(cli_deps.database)
    assert stored("bars", "BTC-USD", *DAY, "--as-of", "2020-01-01", "--json").json["bars"] == []
    assert "as_of 2999" in stored("bars", "BTC-USD", *DAY, "--as-of", "2999-01-01").err
    assert stored("bars", "BTC-USD", *DAY, "--as-of", "2026-11-22T10:00").code == 2
    said = stored("bars", "BTC-USD", *DAY, "--as-of", "2020-01-01").err
    assert "hint: 1,440 are known now, but none was as of 2020-01-01 00:00:00 UTC: leave --as-of out" in said


def test_the_name_of_a_file_tells_the_format_unless_one_is_given(stored: Cli, tmp_path: Path) -> None:
    for name, given in (("day.CSV", ()), ("day.foo", ("--format", "csv")), ("day", ())):
        assert stored("bars", "BTC-USD", *DAY, "--output", str(tmp_path / name), *given).code == 0
        assert (tmp_path / name).read_text().startswith("ts,open")


def test_a_table_shows_the_last_bars_and_says_how_many_there_are(stored: Cli) -> None:
    shown = stored("bars", "BTC-USD", *DAY, "--format", "table")
    assert len(shown.out.splitlines()) == 21
    assert shown.out.splitlines()[-1].startswith("2026-11-02 23:59")
    assert "the last 20 of 1,440 bars" in shown.err
    assert len(stored("bars", "BTC-USD", *DAY, "--format", "table", "--all").out.splitlines()) == 1441


def test_where_there_are_no_bars_it_says_where_there_are(stored: Cli) -> None:
    none = stored("bars", "BTC-USD", "--start", "2026-10-01", "--end", "2026-10-02")
    assert (none.code, none.out) == (0, "ts,open,high,low,close,volume,provider,status,known_at\n")
    assert "no 1m bars of BTC-USD" in none.err
    assert "1,440 are stored from 2026-11-02 00:00 to 2026-11-02 23:59 UTC" in none.err
    assert len(typed(stored, none.err)[0].out.splitlines()) > 1


def test_where_the_interval_is_not_stored_it_says_which_are_and_what_to_type(stored: Cli, cli_deps: Deps) -> None:
    none = stored("bars", "BTC-USD", "--interval", "5m")
    assert (none.code, len(none.out.splitlines())) == (0, 1)
    assert "no 5m bars of BTC-USD" in none.err
    assert "hint: stored are 1m (2026-11-02 to 2026-11-02): `mdtasks bars" in none.err
    shown, fetched = typed(stored, none.err)
    assert len(shown.out.splitlines()) == 1441
    assert (fetched.code, work(cli_deps) > 0) == (0, True)
    assert len(stored("bars", "BTC-USD", "--interval", "5m").out.splitlines()) > 1
    both = stored("bars", "BTC-USD", "--interval", "1h").err
    assert "hint: stored are 1m (2026-11-02 to 2026-11-02), 5m (" in both


def test_where_nothing_is_stored_it_says_how_to_fetch_some(cli: Cli) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    none = cli("bars", "BTC-USD", "--json")
    assert none.json["bars"] == []
    assert "hint: nothing is stored of BTC-USD: `mdtasks backfill BTC-USD" in none.err
    assert typed(cli, none.err)[0].code == 0


def typed(cli: Cli, said: str) -> list[Called]:
    """Do what a hint says."""
    return [cli(*command.split()[1:]) for command in said.split("`")[1::2]]


def test_bars_that_broke_a_rule_are_listed_with_what_they_were_and_the_job_hints_at_them(
    cli: Cli, cli_deps: Deps
) -> None:
    cli_deps.registry._providers["simulator"] = SimulatorProvider(cli_deps.calendars, Faults.parse("wrong=0.01"))
    cli("universe", "add", "BTC-USD", "ETH-USD", "--mic", "24/7")
    assert cli("quarantine").err == "no quarantined bars\n"
    cli("backfill", "BTC-USD", *DAY)
    assert work(cli_deps) == 1
    (job,) = cli("jobs", "--json").json
    assert job["last_error_class"] == "bad_bars"
    found = cli("quarantine", "--json").json
    assert len(found) > 3
    assert {(each["symbol"], each["interval"], each["provider"], each["job_id"]) for each in found} == {
        ("BTC-USD", "1m", "simulator", job["id"])
    }
    assert all(each["reason"] and each["seen_at"].endswith("Z") and "close" in each["bar"] for each in found)
    shown = cli("jobs", "show", job["id"])
    (hinted,) = typed(cli, shown.err)
    assert len(hinted.out.splitlines()) == len(found) + 1
    assert found[0]["reason"] in hinted.out.splitlines()[1]
    assert cli("quarantine", "ETH-USD").err == "no quarantined bars like that\n"
    for none in (("--interval", "5m"), ("--provider", "files"), ("--since", "2999-01-01")):
        assert cli("quarantine", *none, "--json").json == []
    assert "the 2 seen last" in cli("quarantine", "--limit", "2").err
    assert cli("quarantine", "NOPE").code == 2


def test_a_file_is_written_whole_or_not_at_all(stored: Cli, tmp_path: Path) -> None:
    nowhere = stored("bars", "BTC-USD", "--output", str(tmp_path / "no" / "such.csv"))
    assert (nowhere.code, "cannot write" in nowhere.err, "hint: " in nowhere.err) == (1, True, True)
    target = tmp_path / "day.json"
    assert stored("bars", "BTC-USD", *DAY, "--output", str(target)).code == 0
    assert len(json.loads(target.read_text())["bars"]) == 1440
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_binary_is_refused_on_a_terminal(stored: Cli) -> None:
    ours, theirs = pty.openpty()
    try:
        with stored.start("bars", "BTC-USD", *DAY, "--format", "parquet", stdout=theirs) as process:
            _, err = process.communicate(timeout=20)
    finally:
        os.close(theirs)
        os.close(ours)
    assert process.returncode == 2
    assert err.decode().startswith("error: parquet is binary: it is not for a terminal\nhint: ")


def test_a_full_disk_behind_standard_output_is_said_in_a_line(stored: Cli) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        stored.start("bars", "BTC-USD", *DAY, "--format", "csv", stdout=full) as process,
    ):
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.decode().splitlines()[0] == "error: No space left on device"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("NOPE",), "unknown symbol NOPE"),
        (("BTC-USD", "--start", "2026-11-02T10:00"), "is naive"),
        (("BTC-USD", "--json", "--format", "csv"), "exclude one another"),
        (("BTC-USD", "--format", "xml"), "invalid choice: 'xml'"),
        (("BTC-USD", "--format", "table", "--output", "x"), "a table is not for a file"),
        (("BTC-USD", "--output", "x.foo"), "x.foo tells no format\nhint: end it in .csv, .json, .arrows or .parquet"),
    ],
)
def test_wrong_questions_for_bars_are_refused(stored: Cli, words: tuple[str, ...], said: str) -> None:
    refused = stored("bars", *words)
    assert refused.code == 2
    assert said in (refused.err or refused.out)
