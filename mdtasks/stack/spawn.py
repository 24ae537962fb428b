"""Starts one process of the stack: in its own session, output appended to a file, tied to the life of its starter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_STUB = Path(__file__).with_name("launch.py")


#: What a server needs of the caller's environment; the rest, with its tokens, is none of its business.
_SERVER_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def server_environ(home: Path) -> dict[str, str]:
    """The environment of a server of this home."""
    kept = {name: os.environ[name] for name in _SERVER_VARIABLES if name in os.environ}
    return {"PATH": os.defpath, **kept, "MDTASKS_HOME": str(home)}


@dataclass(frozen=True)
class RunAs:
    """Another user to run as (only root can). ``reach``: let it pass folders that are closed to it."""

    uid: int
    gid: int
    reach: bool = False


@dataclass(frozen=True)
class Command:
    """What to start. ``die_with``: the signal the process gets when its starter is gone (Linux)."""

    argv: tuple[str, ...]
    die_with: str = "SIGTERM"
    run_as: RunAs | None = None
    environ: Mapping[str, str] | None = None
    cwd: Path | None = None


def launch_argv(command: Command) -> list[str]:
    """The argument list that becomes ``command`` by way of the launch stub."""
    options = ["--parent", str(os.getpid()), "--die-with", command.die_with]
    if command.run_as is not None:
        options += ["--user", f"{command.run_as.uid}:{command.run_as.gid}"]
        options += ["--reach"] if command.run_as.reach else []
    return [sys.executable, "-I", "-S", str(_STUB), *options, "--", *command.argv]


def spawn(command: Command, log: Path) -> subprocess.Popen[bytes]:
    """Start the command; standard output and errors are appended to ``log``. Returns at once.

    To be called from a thread that lives as long as the process shall: the kernel ties it to that thread.
    Its own session keeps a Ctrl-C of the terminal from it: the starter decides in which order things stop.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            launch_argv(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(command.environ) if command.environ is not None else None,
            cwd=command.cwd,
            start_new_session=True,
        )
