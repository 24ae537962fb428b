"""``mdtasks policy``: shown, judged, changed, brought back; what is wrong is a row each and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdtasks.cli import main
from mdtasks.domain.policy import Policy, canonical, examine
from mdtasks.flows.deps import Deps
from mdtasks.flows.policy_facts import shipped_file
from tests.integration.cli_calls import Cli


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def test_a_policy_is_judged_applied_shown_and_brought_back(cli: Cli, file: Path) -> None:
    file.write_text("retry: {attempts: 7}\ntiers:\n" + _tiers().replace("60.0", "30"))
    judged = cli("policy", "validate", str(file))
    assert judged.code == 0
    assert judged.out.splitlines() == [
        "field                     before  after",
        "tiers.T0.cadence.bars_1m  60.0    30.0",
        "retry.attempts            5       7",
    ]
    assert "beat: live_T0_bars_1m 60 s -> 30 s" in judged.err
    assert cli("policy", "history").out == ""
    applied = cli("policy", "apply", str(file), "--reason", "faster")
    assert applied.code == 0
    assert applied.out.startswith("policy 1 holds in place of 0\n")
    assert cli("policy", "apply", str(file)).out == "policy 1 has this content already: nothing was changed\n"
    (made,) = cli("policy", "history", "--json").json
    assert (made["policy_version"], made["reason"], made["parent"], "@" in made["author"]) == (1, "faster", 0, True)
    assert "faster" in cli("policy", "history").out
    shown = cli("policy", "show")
    assert "  attempts: 7                       # default: 5" in shown.out
    assert "policy 1: by" in shown.err
    assert cli("policy", "show", "--json").json["policy"]["retry"]["attempts"] == 7
    assert cli("policy", "diff", "0", "1").out == judged.out
    assert cli("policy", "diff", "1").err == "nothing differs from version 1 to 1\n"
    back = cli("policy", "rollback", "0", "--reason", "slower", "--json").json
    assert (back["policy_version"], back["restores"], back["changed"]) == (2, 0, True)
    assert cli("policy", "show", "--stored").out == cli("policy", "show", "0", "--stored").out


def _tiers() -> str:
    from mdtasks.domain.policy.pages import yaml_of

    return yaml_of(Policy(), comments=False).partition("orders:")[0].removeprefix("tiers:\n")


def test_what_show_prints_can_be_applied(cli: Cli, file: Path) -> None:
    for options in ((), ("--stored",)):
        out = cli("policy", "show", *options).out
        found = examine(out)
        assert found.policy is not None
        assert canonical(found.policy) == canonical(Policy())
        file.write_text(out)
        assert cli("policy", "apply", str(file)).out == "policy 0 has this content already: nothing was changed\n"


def test_every_error_is_a_row_and_nothing_is_changed(cli: Cli, file: Path) -> None:
    file.write_text("breaker: {demote: 0.8, promot: 0.7}\nretry: {attempts: many}\n")
    for command in ("validate", "apply", "diff", "plan"):
        refused = cli("policy", command, str(file))
        assert refused.code == 2, refused.err
        rows = [line.split()[:2] for line in refused.out.splitlines()]
        assert rows == [["field", "line"], ["breaker.promot", "1"], ["retry.attempts", "2"], ["breaker.demote", "1"]]
        assert "error: the policy is refused: 3 errors, the first: line 1: breaker.promot" in refused.err
        told = cli("policy", command, str(file), "--json")
        assert told.code == 2
        assert [each["path"] for each in told.json["errors"]] == ["breaker.promot", "retry.attempts", "breaker.demote"]
    assert cli("policy", "history", "--json").json == []


def test_another_version_than_expected_is_refused(cli: Cli, file: Path) -> None:
    file.write_text("retry: {attempts: 7}\n")
    refused = cli("policy", "apply", str(file), "--expect", "4")
    assert refused.code == 4
    assert refused.err.startswith("error: the policy is at version 0, not at 4: nothing was changed\nhint: ")


def test_the_environment_is_said_to_win(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_MAX_QUEUE_T1", "500")
    shown = cli("policy", "show")
    assert "max_queue: 500 " in shown.out
    assert "# BACKFILL_MAX_QUEUE_T1 sets it; applied: 20000; default: 20000" in shown.out
    assert "the environment sets BACKFILL_MAX_QUEUE_T1 in its place" in shown.err
    assert "500" not in cli("policy", "show", "--stored").out
    assert cli("policy", "show", "--json").json["overridden"] == {"tiers.T1.max_queue": "BACKFILL_MAX_QUEUE_T1"}


def test_a_change_that_a_variable_hides_is_said(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDTASKS_MAX_ATTEMPTS", "3")
    monkeypatch.setenv("MDTASKS_VENDOR_RATES", "alpaca=5/s")
    file.write_text("retry: {attempts: 7}\nlimits: {alpaca: 7/s}\n")
    applied = cli("policy", "apply", str(file))
    assert "retry.attempts stays as it is where MDTASKS_MAX_ATTEMPTS is set, as it is here" in applied.err
    assert "limits.alpaca stays as it is where MDTASKS_VENDOR_RATES is set, as it is here" in applied.err
    shown = cli("policy", "show").out
    assert '# MDTASKS_VENDOR_RATES sets it; applied: {"alpaca": "7/s"}' in shown
    assert examine(shown).policy is not None
    assert cli("policy", "show", "--json").json["policy"]["retry"]["attempts"] == 3
    assert cli("policy", "show", "--stored", "--json").json["policy"]["retry"]["attempts"] == 7


def test_a_plan_says_what_does_not_fit(cli: Cli, file: Path) -> None:
    file.write_text("limits: {simulator: 30/min}\n")
    assert cli("policy", "plan").code == 0
    planned = cli("policy", "plan", str(file))
    assert planned.code == 1
    assert planned.out.splitlines()[1].split()[:6] == ["simulator", "TOO", "MUCH", "38.6", "30", "8.6"]
    assert "tiers.T0.cadence.quotes_l1: 8 s or longer (now 5 s)" in planned.out
    assert "limits.simulator: an account that allows 39/min (now 30/min)" in planned.out
    document = cli("policy", "plan", str(file), "--json").json
    assert (document["fits"], document["quotas"][0]["over_per_min"]) == (False, 8.6)


def test_a_candidate_may_come_by_standard_input(cli: Cli) -> None:
    assert cli("policy", "validate", "-", stdin='{"retry": {"attempts": 6}}').code == 0
    assert cli("policy", "validate", "-", stdin="").code == 2


def test_who_follows_it_is_listed(cli: Cli, cli_deps: Deps) -> None:
    assert "no process has left word yet" in cli("policy", "status").err
    from datetime import UTC, datetime

    cli_deps.policy.refresh(datetime.now(UTC))
    told = cli("policy", "status", "--check")
    assert told.code == 0
    assert told.out.splitlines()[1].split()[:4] == [cli_deps.policy._process, "-", "0", "current"]
    assert cli("policy", "status", "--json").json["behind"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("diff", "1", "2", "3"), "at most two"),
        (("diff", "1", "x.yaml"), "two versions are compared"),
        (("rollback", "first"), "'first' is no version"),
        (("show", "9"), "no policy version 9"),
        (("rollback", "9"), "no policy version 9"),
        (("validate", "/no/such/file"), "cannot read the policy from /no/such/file: No such file"),
        (("validate", "/"), "cannot read the policy from /: Is a directory"),
        (("history", "--limit", "0"), "is not a number of versions"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, words: tuple[str, ...], said: str) -> None:
    refused = cli("policy", *words)
    assert refused.code in (2, 3)
    assert said in refused.err


def test_where_no_stack_runs_a_file_is_judged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MDTASKS_HOME", str(tmp_path / "none"))
    assert main(["policy", "validate", str(shipped_file())]) == 0
    assert "is right: the same as the defaults" in capsys.readouterr().err
    assert main(["policy", "apply"]) == 5
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", [("--watch", "20s"), ("--wait",)])
def test_who_speaks_of_a_trial_must_say_who_tries(cli: Cli, file: Path, words: tuple[str, ...]) -> None:
    refused = cli("policy", "apply", str(file), *words)
    assert (refused.code, f"{words[0]} is of a trial" in refused.err) == (2, True)
    assert cli("policy", "history", "--json").json == []
