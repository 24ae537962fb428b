"""What `mdtasks doctor` can tell of this machine without any server."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mdtasks.flows.doctor import Check, State, checked
from mdtasks.settings import Settings

#: Libraries whose versions decide whether things work; with the first version that does not, where there is one.
_PACKAGES: Final = {
    "celery": (5, 8),
    "kombu": (5, 8),
    "redis": (9,),
    "SQLAlchemy": (2, 2),
    "psycopg": None,
    "exchange_calendars": (4, 14),
    "pandas": (3, 1),
    "numpy": None,
    "pyarrow": None,
}
_LOW_DISK_BYTES: Final = 2_000_000_000
_NO_DISK_BYTES: Final = 200_000_000


def examine_machine(settings: Settings) -> Iterator[Check]:
    """Python, its packages, the disk, the token."""
    yield checked("python", _python)
    yield checked("packages", _packages)
    yield checked("home and disk", lambda: _disk(settings.home))
    yield _token(settings)


def _python() -> tuple[State, str, str]:
    good = sys.version_info >= (3, 11)
    return (
        "ok" if good else "bad",
        f"{platform.python_version()} ({sys.prefix})",
        "" if good else "install 3.11 or newer",
    )


def _packages() -> tuple[State, str, str]:
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    shown = ", ".join(f"{name} {version}" for name, version in found.items())
    late = [name for name, limit in _PACKAGES.items() if limit and _numbers(found[name]) >= limit]
    if late:
        return "bad", shown, f"{', '.join(late)} is newer than what works: pip install --upgrade mdtasks"
    return "ok", shown, ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _disk(home: Path) -> tuple[State, str, str]:
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{home}, {free / 1e9:,.1f} GB free"
    if free < _LOW_DISK_BYTES:
        state: State = "bad" if free < _NO_DISK_BYTES else "warn"
        return state, found, "free space: when it is full, jobs wait and nothing is lost"
    return "ok", found, ""


def _token(settings: Settings) -> Check:
    if settings.api_token is None:
        return Check("token", "ok", "none: the web app answers on this machine's loopback address only")
    weak = len(settings.api_token.get_secret_value()) < 16
    todo = "give MDTASKS_API_TOKEN 16 characters or more" if weak else ""
    return Check("token", "warn" if weak else "ok", "set: /ops asks for it" + (", but short" if weak else ""), todo)
