"""The stack's log files: kept small by size, read from the end, followed."""

from __future__ import annotations

import shutil
import time
from collections import deque
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


def last_lines(path: Path, count: int) -> list[str]:
    """The last ``count`` lines of a log; none when there is no such file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=count)]
    except FileNotFoundError:
        return []


def follow(paths: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """(name, line) of each line written from now on, for ever. Sees through rotation; no file need exist yet."""
    offsets = {name: _size(path) for name, path in paths.items()}
    partial = dict.fromkeys(paths, b"")
    while True:
        quiet = True
        for name, path in paths.items():
            size = _size(path)
            if size < offsets[name]:  # emptied
                offsets[name] = 0
            if size > offsets[name]:
                quiet = False
                with path.open("rb") as file:
                    file.seek(offsets[name])
                    fresh = file.read(size - offsets[name])
                offsets[name] += len(fresh)
                *lines, partial[name] = (partial[name] + fresh).split(b"\n")
                yield from ((name, line.decode(errors="replace")) for line in lines)
        if quiet:
            time.sleep(_FOLLOW_PAUSE_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
