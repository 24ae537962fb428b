"""The texts of the runbooks: a Markdown file for each alert, in docs/runbooks; in the wheel, ``mdtasks.runbooks``."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

from mdtasks.domain.errors import NotFoundError

_PACKAGE: Final = Path(__file__).parents[2]


def _folder() -> Path:
    installed = _PACKAGE / "runbooks"
    return installed if installed.is_dir() else _PACKAGE.parent / "docs" / "runbooks"


def names() -> list[str]:
    """The alerts that have a runbook: all of them, sorted."""
    return sorted(path.stem for path in _folder().glob("*.md"))


def known(name: str) -> str:
    """The alert of this name, in any case. Raises NotFoundError with the nearest one."""
    found = {each.lower(): each for each in names()}
    if name.lower() in found:
        return found[name.lower()]
    near = difflib.get_close_matches(name.lower(), found, n=1)
    raise NotFoundError(
        f"no runbook {name}" + (f"; did you mean {found[near[0]]}?" if near else ""),
        hint="`mdtasks runbook` lists them",
    )


def text_of(name: str) -> str:
    """A runbook's Markdown. Raises NotFoundError."""
    return (_folder() / f"{known(name)}.md").read_text(encoding="utf-8")


def meaning_of(name: str) -> str:
    """What an alert means in one line: the first of its runbook."""
    return next(line for line in text_of(name).splitlines() if line and not line.startswith("#"))
