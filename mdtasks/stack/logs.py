"""The stack's log files: kept small by size, read from the end, followed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: A log that has grown past this is moved to NAME.log.1 (and that to .2, ...).
MAX_BYTES: Final = 20_000_000
KEPT: Final = 3
_FOLLOW_PAUSE_S = 0.2


def rotate(path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> bool:
    """Copy a log that is too big aside and empty it. Returns whether it did.

    Copied, not renamed: the process goes on writing to the file that it has open (in append mode, so at its new end).
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
        for number in range(kept - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        with path.open("r+b") as file:
            file.truncate()
    except OSError:  # a full disk, say: the log stays as it is, the stack goes on
        return False
    return True


def last_lines(path: Path, count: int, *, end: int | None = None) -> list[str]:
    """The last ``count`` lines of a log (before byte ``end``); none when there is no such file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2) if end is None else end
            wanted, tail = 4096, b""
            while tail.count(b"\n") <= count and len(tail) < end:
                wanted *= 4
                file.seek(max(0, end - wanted))
                tail = file.read(min(wanted, end))
    except FileNotFoundError:
        return []
    lines = tail.decode(errors="replace").splitlines()
    return lines[-count:] if count > 0 else []


class Follower:
    """Reads what is written to logs from now on. Sees through rotation; a file may come later."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths
        #: Name of a log -> how far it has been read, bytes.
        self.offsets = {name: _size(path) for name, path in paths.items()}
        self._partial = dict.fromkeys(paths, b"")

    def new_lines(self) -> list[tuple[str, str]]:
        """(name, line) of each line finished since the last call, log by log."""
        found: list[tuple[str, str]] = []
        for name, path in self._paths.items():
            size = _size(path)
            if size < self.offsets[name]:  # emptied by a rotation
                self.offsets[name] = 0
            if size > self.offsets[name]:
                *lines, self._partial[name] = (self._partial[name] + self._read(name, size)).split(b"\n")
                found += ((name, line.decode(errors="replace")) for line in lines)
        return found

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every line from now on, for ever."""
        while True:
            yield from self.new_lines()
            time.sleep(_FOLLOW_PAUSE_S)

    def _read(self, name: str, size: int) -> bytes:
        with self._paths[name].open("rb") as file:
            file.seek(self.offsets[name])
            fresh = file.read(size - self.offsets[name])
        self.offsets[name] += len(fresh)
        return fresh


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
