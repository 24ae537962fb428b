"""How data looks, and what people are told to type first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.cli.output import activation, sparkline


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


@given(values=st.lists(st.floats(0, 1), max_size=70), width=st.integers(1, 60))
def test_a_row_of_blocks_shows_the_lowest_and_is_no_wider(values: list[float], width: int) -> None:
    row = sparkline(values, width)
    assert len(row) == min(width, len(values))
    if values:
        assert min(row) == sparkline([min(values)], 1)


def test_blocks_go_from_the_lowest_to_the_full_one() -> None:
    assert sparkline([0.0, 0.124, 0.125, 0.5, 0.874, 0.875, 1.0, -1.0, 2.0], 60) == "▁▁▂▅▇██▁█"
