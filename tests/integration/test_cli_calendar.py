"""``mdtasks calendar``: what people tell is seen by every command, and refused by name when it is wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mdtasks.domain.jobs import Interval
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.deps import Deps
from mdtasks.flows.gaps import Question, find_gaps
from mdtasks.store.reference import Instrument, add_instruments, resolve
from tests.integration.cli_calls import Cli

SEPTEMBER = ("--start", "2023-08-31", "--end", "2023-09-09")
NOW = datetime(2023, 9, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def members(cli_deps: Deps) -> None:
    with cli_deps.database.transaction() as connection:
        add_instruments(
            connection, [Instrument("0700.HK", "XHKG"), Instrument("GME", "XNYS"), Instrument("BTC", "24/7")]
        )


def labels(cli: Cli, *words: str) -> dict[str, int]:
    found = cli("calendar", "show", "XHKG", *SEPTEMBER, *words, "--json").json
    return {each["session"]: each["minutes"] for each in found["sessions"]}


def test_a_typhoon_is_told_seen_by_all_and_undone(cli: Cli) -> None:
    days = ("backfill", "0700.HK", "--interval", "1d", *SEPTEMBER, "--json")
    missing = ("gaps", "0700.HK", "--interval", "1m", *SEPTEMBER, "--json")
    assert labels(cli) == {
        f"2023-{day}": 330 for day in ("08-31", "09-01", "09-04", "09-05", "09-06", "09-07", "09-08")
    }
    before = cli(*missing).json[0]["missing"]
    told = cli("calendar", "close", "XHKG", "2023-09-01", "--reason", "typhoon Saola")
    assert told.code == 0
    assert told.out.endswith("XHKG 2023-09-01, 2023-09-01 01:30 to 2023-09-01 08:00 UTC counts as closed\n")
    assert labels(cli)["2023-09-01"] == 0
    assert cli(*missing).json[0]["missing"] == before - 330
    assert cli(*days).json["queued"] == 1
    (held,) = cli("calendar", "list", "XHKG", "--json").json
    assert (held["kind"], held["reason"], held["mic"], held["undone_at"]) == ("closed", "typhoon Saola", "XHKG", None)
    shown = cli("calendar", "show", "XHKG", *SEPTEMBER).out
    assert "typhoon Saola" in shown
    assert "2023-09-01  closed" in shown
    assert cli("calendar", "undo", str(held["id"]), "--reason", "for a test").code == 0
    assert labels(cli)["2023-09-01"] == 330
    assert cli(*missing).json[0]["missing"] == before
    assert cli("calendar", "list").out == ""
    (undone,) = cli("calendar", "list", "--all", "--json").json
    assert undone["undone_reason"] == "for a test"
    assert "for a test" in cli("calendar", "list", "--all").out


@pytest.mark.parametrize(
    ("words", "opens", "closes", "minutes"),
    [
        (("late-open", "XNYS", "2021-03-12", "10:30"), "15:30", "21:00", 330),
        (("late-open", "XNYS", "2021-03-15", "10:30"), "14:30", "20:00", 330),
        (("early-close", "xnas", "2021-03-12", "2021-03-12T18:00Z"), "14:30", "18:00", 210),
        (("early-close", "XNYS", "2021-03-12", "2021-03-12T13:00-05:00"), "14:30", "18:00", 210),
        (("late-open", "XHKG", "2021-03-12", "13:30"), "05:30", "08:00", 150),
        (("late-open", "24/7", "2021-03-12", "10:30"), "10:30", "00:00", 810),
        (("early-close", "CMES", "2021-03-12", "20:00"), "23:00", "02:00", 180),
        (("late-open", "XNYS", "2021-03-12", "15:30Z"), "15:30", "21:00", 330),
        (("late-open", "XASX", "2021-03-12", "23:30Z"), "23:30", "05:00", 330),
        (("early-close", "XASX", "2021-03-12", "01:00Z"), "23:00", "01:00", 120),
        (("late-open", "XASX", "2021-03-12", "11:30"), "00:30", "05:00", 270),
    ],
)
def test_late_opens_and_early_closes_are_told_on_the_exchanges_clock(
    cli: Cli, words: tuple[str, ...], opens: str, closes: str, minutes: int
) -> None:
    assert cli("calendar", *words, "--reason", "outage").code == 0
    day = words[2]
    found = cli("calendar", "show", words[1], "--start", f"{day}T12:00Z", "--end", f"{day}T12:01Z", "--json").json
    if not found["sessions"] or found["sessions"][0]["session"] != day:
        found = cli("calendar", "show", words[1], "--start", day, "--end", f"{day}T23:00Z", "--json").json
    (session,) = [each for each in found["sessions"] if each["session"] == day]
    assert (session["open"][11:16], session["close"][11:16], session["minutes"]) == (opens, closes, minutes)
    assert [each["reason"] for each in session["overrides"]] == ["outage"]


def test_times_for_scripts_end_with_z(cli: Cli) -> None:
    found = cli("calendar", "show", "XHKG", *SEPTEMBER, "--json").json
    first = found["sessions"][0]
    assert (first["session"], first["open"], first["close"]) == (
        "2023-08-31",
        "2023-08-31T01:30:00Z",
        "2023-08-31T08:00:00Z",
    )
    assert first["breaks"] == [{"start": "2023-08-31T04:00:00Z", "end": "2023-08-31T05:00:00Z"}]
    assert found["horizon"].endswith("T00:00:00Z")


def test_a_halt_is_of_one_symbol(cli: Cli, cli_deps: Deps) -> None:
    start, end = "2021-01-28T15:00Z", "2021-01-28T15:05Z"
    told = cli("calendar", "halt", "GME", "--start", start, "--end", end, "--reason", "limit down", "--json").json
    assert (told["kind"], told["symbol"], told["mic"], told["start"]) == (
        "halt",
        "GME",
        None,
        "2021-01-28T15:00:00Z",
    )
    assert [each["id"] for each in cli("calendar", "list", "GME", "--json").json] == [told["id"]]
    assert cli("calendar", "list", "XNYS", "--json").json == []
    cli_deps.watch.refresh(NOW)
    with cli_deps.database.transaction() as connection:
        gme = resolve(connection, ["GME"])["GME"]
    assert len(cli_deps.calendars.halts(gme.id)) == 1
    again = cli("calendar", "halt", "GME", "--start", start, "--end", end, "--reason", "limit down")
    assert (again.code, again.err.count("\n")) == (4, 1)


WRONG = [
    (("close", "XHGK", "2023-09-01"), 2, "mic", "unknown exchange 'XHGK'; did you mean"),
    (("close", "XHKG", "2023-09-02"), 2, "day", "2023-09-02 is no session of XHKG"),
    (("close", "XHKG", "yesterday"), 2, "day", "day 'yesterday' is not a date"),
    (("close", "XHKG", "2023-09-31"), 2, "day", "day '2023-09-31' is not a date"),
    (("close", "XSHG", "2027-01-04"), 2, "day", "past what is known of XSHG"),
    (("close", "24/7", "0001-01-01"), 2, "day", "is no session of 24/7"),
    (
        ("late-open", "XNYS", "2021-03-12", "09:30"),
        2,
        "time",
        "not inside the session 2021-03-12 of XNYS: 09:30 to 16:00",
    ),
    (("late-open", "XNYS", "2021-03-12", "08:00"), 2, "time", "not inside the session"),
    (("late-open", "XNYS", "2021-03-12", "10:30Z"), 2, "time", "not inside the session"),
    (("early-close", "XNYS", "2021-03-12", "16:00"), 2, "time", "not inside the session"),
    (("early-close", "XNYS", "2021-03-12", "2021-03-12T12:00"), 2, "time", "has no time zone"),
    (("early-close", "XNYS", "2021-03-12", "noon"), 2, "time", "is not a time"),
    (("early-close", "XNYS", "2021-03-12", "12:00:30"), 2, "time", "not a whole minute"),
    (
        ("halt", "GMEE", "--start", "2021-01-28T15:00Z", "--end", "2021-01-28T15:05Z"),
        2,
        "symbol",
        "unknown symbol GMEE",
    ),
    (("halt", "GME", "--start", "2021-01-28T15:00", "--end", "2021-01-28T15:05Z"), 2, "start", "zone"),
    (("halt", "GME", "--start", "2021-01-28T15:00Z", "--end", "2021-01-28T15:00Z"), 2, "end", "not after start"),
    (("halt", "GME", "--start", "2021-01-28T05:00Z", "--end", "2021-01-28T06:00Z"), 2, "start", "does not trade"),
    (("halt", "GME", "--start", "2021-01-28T15:00:01Z", "--end", "2021-01-28T16:00Z"), 2, "start", "whole minute"),
    (("undo", "99"), 3, None, "no override 99"),
    (("undo", "first"), 2, "id", "not a number"),
]


def test_what_is_wrong_is_refused_by_name_and_nothing_is_told(cli: Cli) -> None:
    for words, code, field, said in WRONG:
        answer = cli("calendar", *words, "--reason", "because", "--json")
        assert (answer.code, answer.json.get("field")) == (code, field), (words, answer.out)
        assert said in answer.json["error"], words
        plain = cli("calendar", *words, "--reason", "because")
        assert [line.partition(":")[0] for line in plain.err.splitlines()] in (["error"], ["error", "hint"]), words
    for words in (("close", "XHKG", "2023-09-01"), ("undo", "1")):
        silent = cli("calendar", *words, "--reason", "  ", "--json").json
        assert (silent["error"], silent["field"]) == ("reason is empty: say why", "reason")
        assert silent["hint"] == "for example: typhoon Saola"
    assert "such as 2026-11-02" in cli("calendar", "close", "XHKG", "yesterday", "--reason", "storm").err
    assert cli("calendar", "close", "XHKG", "2023-09-01").code == 2
    assert cli("calendar", "list", "NOBODY", "--json").json["field"] == "name"
    assert cli("calendar", "list", "--all", "--json").json == []


def test_a_closed_session_is_not_closed_again_and_an_undone_override_not_undone(cli: Cli) -> None:
    first = cli("calendar", "close", "XHKG", "2023-09-01", "--reason", "typhoon", "--json").json["id"]
    again = cli("calendar", "close", "XHKG", "2023-09-01", "--reason", "typhoon")
    assert again.code == 4
    assert f"day 2023-09-01 is closed on XHKG already by override {first} (typhoon)" in again.err
    assert cli("calendar", "late-open", "XHKG", "2023-09-01", "13:30", "--reason", "typhoon").code == 4
    assert cli("calendar", "undo", str(first), "--reason", "no").code == 0
    twice = cli("calendar", "undo", str(first), "--reason", "no")
    assert twice.code == 4
    assert f"override {first} was undone on" in twice.err


def test_a_calendar_is_shown_without_a_stack(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MDTASKS_DATABASE_URL", "MDTASKS_REDIS_URL"):
        monkeypatch.delenv(name)
    shown = cli("calendar", "show", "XNYS", "--start", "2019-11-27", "--end", "2019-11-30")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == ["session", "2019-11-27", "2019-11-29"]
    assert cli("calendar", "close", "XNYS", "2019-11-27", "--reason", "storm").code == 5
    assert cli("calendar", "show", "24/7").code == 0
    assert cli("calendar", "show", "XSHG", "--start", "2026-12-01", "--end", "2027-12-01").code == 2


def test_the_gap_finder_sees_what_is_told_in_another_process(cli: Cli, cli_deps: Deps) -> None:
    asked = Question(
        ["0700.HK"], Interval.D1, AskedWindow(datetime(2023, 8, 31, tzinfo=UTC), datetime(2023, 9, 9, tzinfo=UTC))
    )
    cli_deps.watch.refresh(NOW)
    (found,) = find_gaps(asked, cli_deps, NOW)
    assert found.missing == 7
    told = cli("calendar", "close", "XHKG", "2023-09-08", "--reason", "black rain", "--json").json
    cli_deps.watch._next_s = 0.0  # a second later
    cli_deps.watch.refresh(NOW)
    assert cli_deps.calendars.overrides.version == told["version"]
    (found,) = find_gaps(asked, cli_deps, NOW)
    assert found.missing == 6
