"""How data looks, and what people are told to type first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mdtasks.cli.output import activation


@pytest.mark.parametrize(
    ("folder", "on_path", "told"),
    [(".venv", False, ". .venv/bin/activate"), (".venv", True, ""), ("not an environment", False, "")],
)
def test_where_mdtasks_would_not_be_found_it_is_said_how_to_find_it(
    folder: str, on_path: bool, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "activate").touch()
    (bin_ / "mdtasks").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / folder))
    monkeypatch.setenv("PATH", str(bin_ if on_path else tmp_path))
    assert activation() == told
