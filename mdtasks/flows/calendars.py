"""Calendars as this process knows them: what people have told of them, and the days around now, kept up to date."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.settings import Settings
from mdtasks.store import overrides, reference

log = logging.getLogger(__name__)

#: A process looks for a new version of the overrides this often at most, seconds.
EVERY_S: Final = 1.0
#: After PostgreSQL was away, seconds: each look may wait for it as long as a connection takes to fail.
AWAY_S: Final = 5.0


def apply_overrides(database: Database, calendars: Calendars) -> None:
    """Let the overrides on record hold, where they are not those that do. Raises StoreUnavailableError."""
    with database.transaction() as connection:
        if overrides.version(connection) != calendars.overrides.version:
            calendars.apply(overrides.standing(connection))


def calendars_at(connection: Connection, calendars: Calendars, at: datetime) -> Calendars:
    """The calendars with what people had told of them at an instant."""
    return calendars.under(overrides.standing(connection, at))


class CalendarWatch:
    """Keeps the calendars of a process current. Ask it where a piece of work begins, never in the midst of one."""

    def __init__(
        self, database: Database, calendars: Calendars, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._calendars = calendars
        self._before = timedelta(days=settings.calendar_back_days)
        self._after = timedelta(days=settings.calendar_forward_days)
        self._clock = clock
        self._looking = threading.Lock()
        self._next_s = float("-inf")
        self._day: date | None = None
        self._away = False

    def is_due(self) -> bool:
        """Whether ``refresh`` would ask the store."""
        return self._clock() >= self._next_s

    def refresh(self, now: datetime) -> None:
        """Take over a new version of the overrides, and on a new day load the days around it. Never fails and, at once
        after another call, does nothing: while the store is away, what was last known holds.
        """
        if not self.is_due() or not self._looking.acquire(blocking=False):
            return
        try:
            apply_overrides(self._database, self._calendars)
            if self._day != now.date():
                self._load_around(now)
            self._away, pause_s = False, EVERY_S
        except Exception as error:  # whatever it is, work goes on with what is known
            pause_s = AWAY_S
            if not self._away:
                log.warning("calendars stay at version %d: %s", self._calendars.overrides.version, error)
            self._away = True
        finally:
            self._next_s = self._clock() + pause_s
            self._looking.release()

    def _load_around(self, now: datetime) -> None:
        """Load the days around now, of the exchanges of the universe. One that cannot be had stops no other."""
        with self._database.transaction() as connection:
            mics = reference.exchanges(connection, day=now.date())
        window = TimeWindow(start=now - self._before, end=now + self._after + timedelta(days=1))
        for mic in mics:
            try:
                self._calendars.preload([mic], window)
            except MdtasksError as error:
                log.warning("the calendar of %s cannot be loaded: %s", mic, error)
        self._day = now.date()
