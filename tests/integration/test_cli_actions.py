"""`mdtasks actions` and `mdtasks bars --adjust`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdtasks.flows.deps import Deps
from tests.integration.cli_calls import Cli, work

WEEK = ("--interval", "1d", "--start", "2026-11-02", "--end", "2026-11-07")
FILE = """symbol,ex_date,kind,value,currency
AAPL,2026-11-04,split,2:1,
AAPL,2026-11-05,dividend,0.25,usd
IBM,2026-11-04,rename,,
"""


@pytest.fixture
def stored(cli: Cli, cli_deps: Deps) -> Cli:
    """Commands on a stack with a week of AAPL's daily bars."""
    cli("universe", "add", "AAPL", "IBM", "--mic", "XNYS")
    cli("backfill", "AAPL", *WEEK)
    assert work(cli_deps) == 1
    return cli


def closes(cli: Cli, *words: str) -> list[float]:
    called = cli("bars", "AAPL", *WEEK, "--json", *words)
    assert called.code == 0, called.err
    return [bar["close"] for bar in called.json["bars"]]


def test_what_a_file_tells_is_listed_and_adjusts_bars(stored: Cli, tmp_path: Path) -> None:
    raw = closes(stored)
    path = tmp_path / "actions.csv"
    path.write_text(FILE.replace("rename,,", "delisting,,"))
    read = stored("actions", "import", str(path), "--json")
    assert (read.code, read.json["read"], read.json["added"]) == (0, 3, 3)
    assert stored("actions", "import", str(path), "--json").json["added"] == 0  # once
    listed = stored("actions", "list", "AAPL", "--json").json
    shown = ("ex_date", "kind", "value", "currency", "in_force")
    assert [tuple(one[name] for name in shown) for one in listed["actions"]] == [
        ("2026-11-04", "split", 2.0, None, True),
        ("2026-11-05", "dividend", 0.25, "USD", True),
    ]  # fmt: skip
    split = closes(stored, "--adjust", "split")
    assert split == [raw[0] / 2, raw[1] / 2, *raw[2:]]
    kept = 1 - 0.25 / raw[2]
    assert closes(stored, "--adjust", "total") == pytest.approx(
        [raw[0] / 2 * kept, raw[1] / 2 * kept, raw[2] * kept, *raw[3:]]
    )
    assert closes(stored, "--adjust", "none") == raw
    assert stored("bars", "AAPL", *WEEK, "--json", "--adjust", "split").json["adjust"] == "split"
    table = stored("actions", "list", "AAPL").out
    assert "0.25 USD" in table


def test_a_person_tells_withdraws_and_every_statement_is_on_record(stored: Cli) -> None:
    raw = closes(stored)
    told = stored("actions", "add", "AAPL", "2026-11-04", "split", "4:1", "--reason", "8-K")
    assert (told.code, told.out.splitlines()[0].split(",")[0]) == (0, "1 added")
    assert stored("dlq", "list", "--json").json == []  # a person has the last word
    as_of = stored("actions", "list", "AAPL", "--json").json["actions"][0]["known_at"]
    assert closes(stored, "--adjust", "split")[0] == raw[0] / 4
    gone = stored("actions", "withdraw", "AAPL", "2026-11-04", "split", "--reason", "a hoax", "--json")
    assert gone.json["withdrawn"] == 1
    assert closes(stored, "--adjust", "split") == raw
    history = stored("actions", "list", "AAPL", "--history", "--json").json
    assert [(one["withdrawn"], one["reason"]) for one in history["history"]] == [(False, "8-K"), (True, "a hoax")]
    assert history["actions"] == []
    then = stored("actions", "list", "AAPL", "--as-of", as_of, "--json").json
    assert [one["value"] for one in then["actions"]] == [4.0]
    assert "a hoax" in stored("actions", "list", "AAPL", "--history").out


def typed(words: str, begin: str) -> list[str]:
    """A command as a message has it, that begins so: the words after ``mdtasks``."""
    (command,) = [each for each in words.split("`")[1::2] if each.startswith(begin)]
    return command.split()[1:]


def test_what_the_bars_say_against_a_persons_word_is_said_at_once_with_what_takes_it_back(stored: Cli) -> None:
    split = ("actions", "add", "AAPL", "2026-11-04", "split", "2:1", "--reason", "a rumour")
    told = stored(*split)
    assert told.code == 0
    assert "the bars say otherwise: AAPL: split 2 of 2026-11-04 is on record, but the price went from" in told.err
    (doubt,) = stored(*split, "--json").json["doubts"]  # as long as it stands
    assert stored("dlq", "list", "--json").json == []
    raw = closes(stored)
    assert closes(stored, "--adjust", "split") != raw
    assert stored(*typed(doubt, "mdtasks actions withdraw")).code == 0
    assert closes(stored, "--adjust", "split") == raw
    fine = stored("actions", "add", "AAPL", "2026-11-05", "dividend", "0.25", "--reason", "8-K", "--json")
    assert fine.json["doubts"] == []


def test_the_commands_of_a_letter_can_be_typed_as_they_stand(
    stored: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDTASKS_SIMULATORS", "2")  # another who may be asked
    path = tmp_path / "actions.csv"
    path.write_text("ex_date,kind,value\n2026-11-04,split,2\n")
    assert stored("actions", "import", str(path), "--symbol", "AAPL").code == 0
    (letter,) = stored("dlq", "list", "--json").json
    again = typed(letter["message"], "mdtasks backfill")
    assert again[again.index("--start") : again.index("--refetch")] == ["--start", "2026-11-03", "--end", "2026-11-05"]
    assert again[-2:] == ["--provider", "simulator_2"]
    asked = stored(*again, "--json")
    assert (asked.code, asked.json["queued"]) == (0, 1), asked.err
    assert stored(*typed(letter["message"], "mdtasks actions withdraw")).code == 0
    assert stored("dlq", "list", "--json").json == []


def test_a_split_of_a_file_that_the_bars_do_not_show_is_told_of(stored: Cli, tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    path.write_text("ex_date,kind,value\n2026-11-04,split,2\n")
    told = stored("actions", "import", str(path), "--symbol", "AAPL")
    assert "1 suspect" in told.out
    assert "mdtasks dlq list" in told.err
    (letter,) = stored("dlq", "list", "--json").json
    assert (letter["kind"], letter["error_class"], letter["symbol"]) == ("action", "action_without_jump", "AAPL")
    refused = stored("requeue", letter["id"])
    assert refused.code == 3
    assert "a finding about what is stored" in refused.err
    assert "what it says settles it" in refused.err
    many = stored("dlq", "requeue", letter["id"], "--yes")
    assert (many.code, "a finding about what is stored" in many.err) == (3, True)
    none = stored("dlq", "requeue", "--all", "--yes")
    assert (none.code, "what a finding says settles it" in none.err) == (0, True)
    (group,) = stored("dlq", "groups", "--json").json
    assert (group["letters"], group["findings"]) == (1, 1)
    page = stored("dlq", "show", letter["id"])
    assert "action_without_jump" in page.out
    assert "message was lost" not in page.out
    assert "`mdtasks requeue" not in page.err
    assert "cannot be sent again: it is a finding" in page.err
    (bar,) = stored("quarantine", "--json").json
    assert bar["reason"] == "action_without_jump"


def test_refresh_asks_and_says_what_came(stored: Cli) -> None:
    asked = stored("actions", "refresh", "AAPL", "--json")
    assert (asked.code, asked.json["answered"], asked.json["unanswered"]) == (0, 1, 0)
    answered = stored("actions", "list", "AAPL", "--json").json["answered"]
    assert [one["source"] for one in answered] == ["simulator"]
    assert stored("actions", "refresh").out == "1 answered\n"  # IBM
    assert stored("actions", "refresh").out == "nothing to ask: all were asked about today\n"
    nobody = stored("actions", "refresh", "--source", "yfinance")
    assert nobody.code == 2
    assert "is not configured" in nobody.err


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("symbol,ex_date,kind,value\nAAPL,2026-11-04,merger,1\n", "kind", "line 2: kind 'merger' is unknown"),
        ("symbol,ex_date,kind,value\nAAPL,04/11/2026,split,2\n", "ex_date", "ex_date '04/11/2026' is not a date"),
        ("symbol,ex_date,kind,value\nAAPL,2026-11-04,split,\n", "value", "line 2: a split without a value"),
        ("symbol,ex_date,kind,value\nAAPL,2026-11-04,split,2\nAAPL,2026-11-05,split\n", "file", "line 3: not as many"),
        ("ex_date,kind\n", "file", "has no column value"),
        ("symbol,ex_date,kind,value,colour\n", "file", "unknown column 'colour'"),
        ("ex_date,kind,value\n2026-11-04,split,2\n", "symbol", "has no column symbol"),
        (
            "symbol,ex_date,kind,value,new_symbol\nAAPL,2026-11-04,split,2,\nAAPL,2026-11-05,rename,,a b\n",
            "new_symbol",
            "line 3: new_symbol 'a b' is no symbol",
        ),
        ("symbol,ex_date,kind,value\nNOPE,2026-11-04,split,2\n", "symbol", "unknown symbol NOPE"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named_and_nothing_of_the_file_is_kept(
    stored: Cli, tmp_path: Path, text: str, field: str, said: str
) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    refused = stored("actions", "import", str(path), "--json")
    assert refused.code == 2
    assert refused.json["field"] == field
    assert said in refused.json["error"]
    assert stored("actions", "list", "AAPL", "--json").json["actions"] == []


def test_what_cannot_be_told_is_refused(stored: Cli, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(FILE)
    for words, field in (
        (("import", str(path), "--source", "yfinance"), "source"),
        (("import", str(path), "--source", "person"), "source"),
        (("import", str(tmp_path / "none.csv")), "file"),
        (("add", "AAPL", "2026-11-04", "split", "0", "--reason", "x"), "value"),
        (("add", "AAPL", "2026-11-04", "split", "2", "--reason", " "), "reason"),
        (("add", "AAPL", "2026-11-04", "rename", "--reason", "x"), "new_symbol"),
        (("add", "AAPL", "2026-11-04", "rename", "--new-symbol", "a b", "--reason", "x"), "new_symbol"),
        (("add", "AAPL", "2026-11-04", "rename", "--new-symbol", " ", "--reason", "x"), "new_symbol"),
        (("add", "AAPL", "2026-11-04", "rename", "--new-symbol", "A" * 33, "--reason", "x"), "new_symbol"),
        (("add", "AAPL", "2026-11-04", "rename", "--new-symbol", "METÁ", "--reason", "x"), "new_symbol"),
        (("add", "AAPL", "2026-11-04", "spin_off", "0.9", "--new-symbol", "a\nb", "--reason", "x"), "new_symbol"),
        (("add", "AAPL", "2026-11-04", "split", "2", "--new-symbol", "META", "--reason", "x"), "new_symbol"),
        (("add", "NOPE", "2026-11-04", "split", "2", "--reason", "x"), "symbol"),
    ):
        refused = stored("actions", *words, "--json")
        assert (refused.code, refused.json["field"]) == (2, field), words
        assert refused.json["hint"]
    for symbol in ("AAPL", "IBM"):
        assert stored("actions", "list", symbol, "--history", "--json").json["history"] == []
    assert stored("actions", "withdraw", "AAPL", "2026-11-04", "dividend", "--reason", "x").code == 3
    assert stored("actions", "import", str(path), "--json").code == 2  # a rename without its new symbol
