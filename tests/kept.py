"""Calendars made once for all stacks and fleets of a session: each fresh home would load the whole library for them."""

from __future__ import annotations

import atexit
import shutil
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from mdtasks.store.calendars import verified_calendars


@cache
def _made() -> Path:
    folder = Path(mkdtemp(prefix="mdtasks-calendars-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    verified_calendars(folder, datetime.now(UTC))
    return folder


def give_calendars(home: Path) -> None:
    """Put into a home, which may not be there yet, the years of calendars that its first start would keep there."""
    shutil.copytree(_made(), home / "calendars", dirs_exist_ok=True)
