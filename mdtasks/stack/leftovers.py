"""Stops what a supervisor left behind that was itself killed: only processes that are surely ours."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from mdtasks.stack.home import Home, StackRecord, is_alive

#: SIGINT is PostgreSQL's fast shutdown; for workers SIGQUIT is the one that does not wait for a broker that is gone.
_SERVER_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)
_PATIENCE_S = 3.0


def stop_leftovers(home: Home) -> list[str]:
    """End every process that the last supervisor of this home recorded and that still runs. Returns their names.

    To be called by whoever holds the home. Only recorded pids whose start time is the recorded one are touched, and
    orphans of their process groups that carry this home in their environment.
    """
    record = home.read()
    if record is None:
        return []
    left = dict(_left(record, home.path))
    for step in range(len(_SIGNALS)):
        living = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        for process in living:
            rule = _SERVER_SIGNALS if left[process] == "postgres" else _SIGNALS
            with suppress(psutil.Error):
                process.send_signal(rule[step])
        psutil.wait_procs(living, timeout=_PATIENCE_S)
    return sorted(set(left.values()))


def _left(record: StackRecord, home: Path) -> Iterator[tuple[psutil.Process, str]]:
    groups = {each.pid: each.name for each in record.processes if each.pid is not None}
    for each in record.processes:
        if each.pid is not None and is_alive(each):
            yield psutil.Process(each.pid), each.name
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            name = groups.get(os.getpgid(process.pid))
            if name and process.pid not in groups and process.environ().get("MDTASKS_HOME") == str(home):
                yield process, name
