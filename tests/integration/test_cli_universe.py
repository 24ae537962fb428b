"""`mdtasks universe`: versions made, compared, activated, made again; names told by people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.cli_calls import Called, Cli

ROWS = "symbol,mic,close,volume\nAAPL,XNAS,190,1000\nMSFT,XNAS,370,2000\nIBM,XNYS,160,10\n"
FEWER = "symbol,mic,close,volume\nAAPL,XNAS,190,1000\nMSFT,XNAS,370,1000\nNVDA,XNAS,500,1000\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name, text in (("one.csv", ROWS), ("two.csv", FEWER)):
        (tmp_path / name).write_text(text)
    return f"csv:{tmp_path / 'one.csv'}", f"csv:{tmp_path / 'two.csv'}"


def test_from_a_listing_to_the_tiers_and_back(cli: Cli, files: tuple[str, str], tmp_path: Path) -> None:
    one, two = files
    made = cli("universe", "refresh", "--source", one, "--tag", "first", "--as-of", "2024-01-02")
    assert (made.code, made.out) == (0, "version first has 3 members: T0 3, T1 0, T2 0\n")
    assert "3 instruments were new" in made.err
    assert "`mdtasks universe activate first` lets it hold" in made.err
    assert cli("universe", "list", "--names").out == ""
    assert cli("universe", "show").code == 3
    assert (
        cli("universe", "activate", "first", "--reason", "begin").out == "first holds: 3 came, 0 up, 0 down, 0 left\n"
    )
    assert cli("universe", "activate", "first").out == "first holds already: nothing was changed\n"
    assert cli("universe", "list", "--names").out == "AAPL\nIBM\nMSFT\n"
    held = datetime.now(UTC).isoformat()

    later = cli("universe", "refresh", "--source", two, "--as-of", "2024-01-03", "--json").json
    assert (later["changed"], later["members"], later["parent"], later["source"]) == (True, 3, "first", "csv")
    tag = later["version_tag"]
    moves = cli("universe", "diff", "ACTIVE", tag, "--json").json
    assert {each["symbol"]: (each["before"] is None, each["after"] is None) for each in moves} == {
        "IBM": (False, True),
        "NVDA": (True, False),
    }
    assert len(cli("universe", "diff", "first", tag, "--all", "--json").json) == 4
    assert cli("universe", "diff", tag, tag).err == "nobody came, left, moved or was renamed\n"
    assert (later["leaving"], later["held"], later["too_many"], later["doubts"]) == (1, 3, True, [])
    refused = cli("universe", "activate", tag)
    assert refused.code == 4
    assert "1 of 3 members (IBM) would leave" in refused.err
    assert "--force" in refused.err
    assert cli("universe", "show", "--json").json["version_tag"] == "first"
    assert cli("universe", "activate", tag, "--force", "--json").json["counts"]["left"] == 1

    shown = cli("universe", "show", "--tier", "T0", "--limit", "2")
    assert [line.split()[:3] for line in shown.out.splitlines()[1:]] == [["1", "MSFT", "T0"], ["2", "NVDA", "T0"]]
    assert cli("universe", "show", "--as-of", held, "--json").json["version_tag"] == "first"
    assert cli("universe", "show", "--as-of", "2024-01-01").code == 3
    assert [each["version_tag"] for each in cli("universe", "history", "--json").json] == [tag, "first"]
    assert "begin" in cli("universe", "history").out
    assert [each["active"] for each in cli("universe", "versions", "--json").json] == [True, False]
    assert tag in cli("universe", "versions").out

    same = cli("universe", "recompute", "ACTIVE", "--check")
    assert (same.code, same.out) == (0, f"{tag}: 3 members, byte for byte the same\n")
    path = tmp_path / "version.zip"
    assert cli("universe", "export", tag, "--output", str(path), "--json").json["bytes"] == path.stat().st_size
    elsewhere = cli("universe", "recompute", "--from", str(path), "--check", "--home", str(tmp_path / "none"), "--json")
    assert (elsewhere.code, elsewhere.json["same"]) == (0, True)


def test_a_listing_may_come_by_a_pipe_and_the_same_one_says_so(cli: Cli, files: tuple[str, str]) -> None:
    cli("universe", "refresh", "--source", files[0], "--tag", "x")
    again = cli("universe", "refresh", "--source", files[0])
    assert again.out == "version x was there already: T0 3, T1 0, T2 0\n"


def test_a_listing_that_looks_cut_off_is_doubted(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "listing.csv"

    def refreshed(*rows: str) -> Called:
        path.write_text("\n".join(["symbol,mic,close,volume", *rows]))
        return cli("universe", "refresh", "--source", f"csv:{path}", "--as-of", "2024-01-02")

    cut = ", and the file ends there without a newline: it was cut off"
    short = refreshed("A,XNYS,1,2", "B,XN")
    assert short.code == 2
    assert f"line 3: 2 values for 4 columns{cut}" in short.err
    for rows in (("A,XNYS,1,2", "B,XN", ""), ("A,XNYS,1", "B,XNYS,1,2"), ("A,XNYS,1,2", "B,XNYS,1,2,3")):
        elsewhere = refreshed(*rows)
        assert elsewhere.code == 2
        assert cut not in elsewhere.err
    assert "newline" not in refreshed("A,XNYS,1,2", "").err
    doubted = refreshed("A,XNYS,1,2", "B,XNYS,1,1")
    assert doubted.code == 0
    said = "line 3, the last (B), has no newline after it: is its volume '1' whole, or was the file cut off there?"
    assert said in doubted.err
    whole = cli("universe", "refresh", "--source", f"csv:{path}", "--as-of", "2024-01-02", "--json").json
    assert whole["doubts"] == [f"the listing of 2024-01-02: {said}"]
    assert "(B), has no newline after it: has it no volume, or was" in refreshed("A,XNYS,1,2", "B,XNYS,1,").err


def test_who_would_go_down_is_told_before(cli: Cli, tmp_path: Path) -> None:
    policy, path = tmp_path / "policy.yaml", tmp_path / "listing.csv"
    sizes = "cadence: {eod: 1}, max_queue: 9"
    policy.write_text(
        f"universe: {{days: 1}}\ntiers: {{T0: {{size: 20, {sizes}}}, T1: {{size: 20, {sizes}}}, T2: {{{sizes}}}}}\n"
    )
    assert cli("policy", "apply", str(policy)).code == 0

    def refreshed(day: str, order: range) -> Called:
        path.write_text(
            "symbol,mic,close,volume\n" + "".join(f"S{one},XNYS,1,{99 - n}\n" for n, one in enumerate(order))
        )
        return cli("universe", "refresh", "--source", f"csv:{path}", "--as-of", day, "--tag", day)

    assert "go down" not in refreshed("2024-01-02", range(40)).err
    assert cli("universe", "activate", "2024-01-02").code == 0
    later = refreshed("2024-01-03", range(39, -1, -1))
    told = "20 of 20 members of T0 would go down a tier, more than universe.most_leave lets: that needs --force"
    assert told in later.err
    assert "`mdtasks universe activate 2024-01-03 --force` lets it hold" in later.err
    refused = cli("universe", "activate", "2024-01-03")
    assert (refused.code, "20 of 20 members of T0 (S0, S1, S2, …) would go down a tier" in refused.err) == (4, True)
    assert cli("universe", "activate", "2024-01-03", "--force").code == 0


def test_names_are_told_and_shown(cli: Cli) -> None:
    cli("universe", "add", "FB", "WM", "--mic", "XNYS", "--from", "1983-03-11")
    assert cli("universe", "rename", "FB", "META", "--on", "2022-06-09").out == "FB is META since 2022-06-09\n"
    assert cli("universe", "delist", "WM", "--on", "2008-09-26").out == "WM no longer trades since 2008-09-26\n"
    added = cli("universe", "add", "WM", "--mic", "XNYS", "--from", "2009-08-05", "--json").json
    assert (added["added"], added["known"]) == (1, 0)
    rows = cli("universe", "symbols", "WM", "--json").json
    assert [(row["valid_from"], row["valid_to"]) for row in rows] == [
        ("1983-03-11", "2008-09-26"),
        ("2009-08-05", None),
    ]
    assert len({row["instrument_id"] for row in rows}) == 2
    (then,) = cli("universe", "symbols", "WM", "--on", "2007-01-03", "--json").json
    assert then["instrument_id"] == rows[0]["instrument_id"]
    assert "2022-06-09" in cli("universe", "symbols", "META").out
    assert cli("universe", "delist", "WM", "--on", "2030-01-01", "--json").json["delisted_on"] == "2030-01-01"
    assert cli("universe", "delist", "WM", "--undo").out == "WM trades on\n"


WRONG = [
    (("refresh", "--source", "csv"), 2, "names no file"),
    (("refresh", "--source", "lean:x"), 2, "names a file"),
    (("refresh", "--source", "csv:/nowhere/none.csv"), 2, "No such file"),
    (("refresh", "--source", "alpaca"), 2, "provider 'alpaca' is not configured"),
    (("refresh", "--source", "simulator"), 1, "does not list its instruments"),
    (("refresh", "--source", "simulator", "--as-of", "2024-01-02"), 2, "a provider says itself"),
    (("refresh", "--source", "csv:ONE", "--as-of", "tomorrow"), 2, "is not a date"),
    (("refresh", "--source", "csv:ONE", "--as-of", str((datetime.now(UTC) + timedelta(days=2)).date())), 2, "to come"),
    (("refresh", "--source", "csv:ONE", "--tag", "a b"), 2, "no name of a version"),
    (("activate", "none"), 3, "no universe version 'none'"),
    (("diff", "none", "none"), 3, "no universe version"),
    (("diff", "ACTIVE", "none"), 3, "no universe version 'none'"),
    (("show", "ACTIVE"), 3, "no version was ever activated"),
    (("recompute",), 2, "give TAG or --from FILE"),
    (("recompute", "none"), 3, "no universe version"),
    (("recompute", "--from", "/nowhere.zip"), 2, "no exported version"),
    (("show", "x", "--as-of", "2024-01-02"), 2, "not both"),
    (("rename", "NONE", "X"), 2, "unknown symbol NONE"),
    (("delist", "NONE", "--on", "2024-01-02"), 2, "unknown symbol NONE"),
    (("symbols", "NONE"), 2, "unknown symbol NONE"),
    (("symbols", "NONE", "--on", "2024-01-02"), 2, "unknown symbol NONE on 2024-01-02"),
    (("add", "X", "--mic", "XNYS", "--from", "2024-01-02", "--until", "2024-01-02"), 2, "is not after"),
]


@pytest.mark.parametrize(("words", "code", "said"), WRONG, ids=[" ".join(words) for words, *_ in WRONG])
def test_what_is_wrong_is_said_and_changes_nothing(
    cli: Cli, files: tuple[str, str], words: tuple[str, ...], code: int, said: str
) -> None:
    called = cli("universe", *(word.replace("csv:ONE", files[0]) for word in words))
    assert called.code == code, called
    assert said in called.err
    assert "hint: " in called.err
    assert cli("universe", "versions", "--json").json == []


def test_the_first_activation_can_be_looked_at_before(cli: Cli, files: tuple[str, str]) -> None:
    assert cli("universe", "refresh", "--source", files[0], "--tag", "first").code == 0
    moves = cli("universe", "diff", "ACTIVE", "first", "--json").json
    assert moves
    assert all(each["before"] is None for each in moves)
