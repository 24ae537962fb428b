"""Calendars at rest: the years that exchange_calendars told of, kept as arrays in the stack's home.

Loading the library costs a process a second and 80 MB (it brings pandas); reading kept years costs a millisecond. They
are kept for the versions of library and pandas that made them, and are not believed under any other.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.known_sessions import verify
from mdtasks.domain.library import Years
from mdtasks.domain.schedules import Schedule
from mdtasks.domain.sessions import Calendars

_COLUMNS: Final = ("labels", "opens", "closes", "part_opens", "part_closes")


@cache
def _installed() -> str:
    """The versions of library and pandas in use; finding them out takes longer than to read kept years."""
    return f"exchange_calendars {version('exchange_calendars')}, pandas {version('pandas')}"


class KeptCalendars:
    """Years of calendars in a folder, a file each. Processes may read and write at once: files change as a whole.

    A folder that cannot be written to is no error: then each process asks the library.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = _installed()

    def load(self, mic: str) -> Years | None:
        """The years kept of a calendar; None when there are none, or of other versions, or the file is broken."""
        try:
            with self._path(mic).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                if str(kept["versions"]) != self._versions:
                    return None
                first, horizon, since, until = (int(value) for value in kept["bounds"])
                labels, opens, closes, *parts = (kept[name] for name in _COLUMNS)
                schedule = Schedule.of((since, until), (labels, opens, closes), (parts[0], parts[1]))
                return Years(first, horizon, str(kept["zone"]), schedule)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None

    def keep(self, mic: str, years: Years) -> None:
        """Keep the years of a calendar in place of those kept so far."""
        held = years.schedule
        bounds = [years.first_us, years.horizon_us, held.since_us, held.until_us]
        columns = {name: getattr(held, name) for name in _COLUMNS}
        path = self._path(mic)
        draft = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            names = {"versions": np.array(self._versions), "zone": np.array(years.zone)}
            np.savez(draft, allow_pickle=False, bounds=np.array(bounds), **names, **columns)
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink()

    @property
    def verified(self) -> bool:
        """Whether the installed versions have passed the self-test here."""
        try:
            return (self._folder / "verified").read_text() == self._versions
        except OSError:
            return False

    def mark_verified(self) -> None:
        """Remember that the installed versions have passed."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "verified").write_text(self._versions)
        except OSError:
            return

    def forget(self) -> None:
        """Let go of all years that were kept."""
        for path in self._folder.glob("*.npz"):
            with suppress(OSError):
                path.unlink()

    def _path(self, mic: str) -> Path:
        return self._folder / f"{mic.replace('/', '-')}.npz"


def verified_calendars(folder: Path, now: datetime) -> Calendars:
    """Calendars that have passed their self-test, with the years around now at hand.

    Raises ConfigurationError on a library that loses sessions: nothing may run on it.
    """
    kept = KeptCalendars(folder)
    calendars = Calendars(kept)
    if not kept.verified:
        kept.forget()  # the library is to answer, not what it, or another one, has said before
        verify(calendars)
        # The exchange that most ask for; others are kept when they are first asked for.
        around = TimeWindow(start=now - timedelta(days=400), end=now + timedelta(days=40))
        calendars.get("XNYS").sessions(around)
        kept.mark_verified()
    return calendars
