"""The command line's frame: errors, exit codes, streams."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdtasks.cli import main
from mdtasks.cli.frame import every_command
from mdtasks.cli.up_screen import UpScreen
from mdtasks.settings import load_settings
from mdtasks.stack.benches.runs import BENCHES
from mdtasks.stack.home import Home, ProcessRecord, StackRecord
from mdtasks.stack.processes import Plan
from mdtasks.stack.supervisor import Event


def test_help_imports_nothing_heavy() -> None:
    heavy = ("celery", "sqlalchemy", "pandas", "psycopg", "redis", "rich", "pydantic", "numpy")
    script = (
        "import sys; from mdtasks.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "mdtasks" in done.stdout
    assert done.stderr.strip() == "[]"


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every command as it is typed, without ``mdtasks``."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                deeper = list(_commands(below))
                if not deeper or below.get_default("func").__name__ != "<lambda>":  # not only a group of others
                    yield name
                yield from (f"{name} {each}" for each in deeper)


def test_every_command_is_on_the_page_of_the_command_line() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    named = re.findall(r"`([a-z][^`]*)`", page)
    commands = list(_commands(every_command()[0]))
    assert {"demo", "bench", "jobs", "jobs show", "dlq groups", "universe set-tier"} < set(commands)
    assert "dlq" not in commands
    assert [each for each in commands if not any(re.match(rf"{each}(\s|$)", text) for text in named)] == []


def test_an_error_is_one_line_and_a_hint_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--home", str(tmp_path)]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"error: no mdtasks stack runs in {tmp_path}"
    assert err.splitlines()[1].startswith("hint: ")


def test_an_error_is_json_on_standard_output_where_json_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--json", "--home", str(tmp_path)]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out)["code"] == "stack_not_running"
    assert err == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["statsu"], "unknown command 'statsu'; did you mean `mdtasks status`?"),
        (["up", "--port", "70000"], "'70000' is not a port"),
        (["up", "--prot", "1"], "unrecognized arguments: --prot 1; did you mean --port?"),
        (["bars", "AAPL", "--sesions", "5"], "unrecognized arguments: --sesions 5; did you mean --sessions?"),
        (["bars", "AAPL", "--sesions=5"], "; did you mean --sessions?"),
        (["dlq", "list", "--limt", "5"], "; did you mean --limit?"),
        (["jobs", "show", "ID", "--limit", "5"], "unrecognized arguments: --limit 5\n"),
        (["universe", "add", "AAPL", "--mci", "XNYS"], "required: --mic; did you mean --mic?"),
        (["--hme", "here", "status"], "; did you mean --home?"),
        (["gaps", "--zzz"], "unrecognized arguments: --zzz\n"),
        (["down", "--home"], "expected one argument"),
    ],
)
def test_wrong_arguments_are_refused_with_code_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "field", "help_of"),
    [
        (["up", "--port", "0", "--json"], "port", "mdtasks up"),
        (["dlq", "purge", "--days", "-3", "--json"], "days", "mdtasks dlq purge"),
        (["jobs", "--stats", "--json"], "arguments", "mdtasks jobs"),
        (["bars", "--json"], "arguments", "mdtasks bars"),
    ],
)
def test_a_wrong_argument_names_its_field_and_the_help_of_its_command(
    argv: list[str], field: str, help_of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["code"], said["field"]) == ("invalid_request", field)
    assert said["hint"] == f"see `{help_of} --help`"


@pytest.mark.parametrize("argv", [["--home", "{home}", "status"], ["status", "--home", "{home}"]])
def test_home_may_stand_before_or_after_the_command(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(home=tmp_path) for word in argv]) == 5
    assert str(tmp_path) in capsys.readouterr().err


def test_down_where_nothing_runs_says_so_and_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "--home", str(tmp_path / "nothing here")]) == 0
    assert "no stack runs in" in capsys.readouterr().err
    assert not (tmp_path / "nothing here").exists()


@pytest.mark.parametrize("words", [["up"], ["up", "--detach"]])
def test_a_home_that_cannot_be_made_is_refused_by_name(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "home"
    assert main([*words, "--home", str(home)]) == 2
    assert f"error: cannot use {home} as a home: Not a directory" in capsys.readouterr().err


def test_a_bug_is_one_line_and_its_traceback_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_home: Path) -> bool:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("mdtasks.stack.start.stop_stack", broken)
    assert main(["down", "--home", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: unexpected ZeroDivisionError: division by zero\nhint: ")
    main(["down", "--home", str(tmp_path), "--traceback"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_home: Path) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("mdtasks.stack.start.stop_stack", interrupted)
    assert main(["down", "--home", str(tmp_path)]) == 130


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "t0.log"
    log.parent.mkdir()
    log.write_text("a line\n" * 200_000)
    command = [sys.executable, "-m", "mdtasks", "logs", "t0", "-n", "200000", "--home", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 141


def test_the_page_of_commands_lists_every_benchmark() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert f"| `bench {' '.join(f'[{name}]' for name in BENCHES)}` |" in page


@pytest.mark.parametrize("name", ["cli.md", "alerts.md"])
def test_a_repair_without_a_terminal_is_said_to_need_yes(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / name).read_text()
    about = page[page.index("`--apply`") :]
    assert "`--yes`" in about[: about.index("`audit_log`") if "`audit_log`" in about else about.index("\n")]


_STACK = StackRecord(ProcessRecord("supervisor", "ready", 7), ready=True, web_url="http://127.0.0.1:8642")


@pytest.mark.parametrize(("simulator", "said"), [("", 1), ("1", 0)])
def test_a_stack_that_can_fetch_nothing_says_what_to_set(
    simulator: str, said: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MDTASKS_FILES_MAP", "MDTASKS_LEAN_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MDTASKS_SIMULATOR", simulator)
    monkeypatch.setattr("mdtasks.stack.start.detach", lambda *_: _STACK)
    assert main(["up", "--detach", "--home", str(tmp_path)]) == 0
    detached = capsys.readouterr().err
    screen = UpScreen(tmp_path, demo=False)
    screen.on_plan(Plan(load_settings(home=tmp_path), 8642, 8643))
    screen.on_event(Event("stack", "ready", "1 s"))
    foreground = capsys.readouterr().err
    for shown in (detached, foreground):
        lines = [line for line in shown.splitlines() if "no provider is configured" in line]
        assert len(lines) == said
        ways = ("MDTASKS_FILES_MAP", "MDTASKS_LEAN_DIR", "MDTASKS_ALPACA_KEY", "MDTASKS_SIMULATOR=1", "up --demo")
        assert all(way in line for way in ways for line in lines)


def test_a_second_detached_up_says_that_one_runs_already(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Home, "running", lambda _: _STACK)
    assert main(["up", "--detach", "--home", str(tmp_path)]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "already running (pid 7)"
