"""`mdtasks slo rules` writes what the objectives say, and tells when files do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli_calls import Cli


def test_rules_are_written_checked_and_rewritten(cli: Cli, tmp_path: Path) -> None:
    place = str(tmp_path / "rules of ours")
    assert cli("slo", "rules", "--dir", place, "--check").code == 1  # nothing is there
    assert cli("slo", "rules", "--dir", place).code == 0
    assert cli("slo", "rules", "--dir", place, "--check").code == 0
    alerts = tmp_path / "rules of ours" / "rules" / "alerts.yml"
    alerts.write_text(alerts.read_text().replace("> 10000", "> 20000"))
    checked = cli("slo", "rules", "--dir", place, "--check")
    assert (checked.code, "alerts.yml" in checked.err, "recording.yml" in checked.err) == (1, True, False)


def test_rules_go_by_the_targets_of_the_stack(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLO_TARGET_T0", "0.0125")
    assert cli("slo", "rules", "--dir", str(tmp_path), "--web-url", "https://md.example.org/").code == 0
    text = (tmp_path / "rules" / "alerts.yml").read_text()
    assert "> 0.0125" in text
    assert "https://md.example.org/runbooks/SLOGapViolationHighT0" in text


@pytest.mark.parametrize("words", [("--web-url", "md.example.org"), ("--calendar", "NOWHERE"), ("--dir",)])
def test_what_cannot_be_is_refused(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert cli("slo", "rules", *(words if words == ("--dir",) else ("--dir", str(tmp_path), *words))).code == 2
    assert not list(tmp_path.glob("rules"))
