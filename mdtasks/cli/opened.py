"""What a command works with, opened for it and closed after it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mdtasks.cli.frame import settings_of

if TYPE_CHECKING:
    from mdtasks.connections import Database
    from mdtasks.domain.sessions import Calendars
    from mdtasks.flows.deps import Deps
    from mdtasks.settings import Settings


@contextmanager
def opened_database(args: argparse.Namespace) -> Iterator[Database]:
    """The store of the command's stack. Raises StackNotRunningError when there is none."""
    from mdtasks.connections import Database

    database = Database(settings_of(args).require_database_url(), application="mdtasks-cli", pool_size=1)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def opened_deps(args: argparse.Namespace, settings: Settings | None = None) -> Iterator[Deps]:
    """Everything that flows need. What is counted here is counted for the stack, where one runs on this machine."""
    from mdtasks.flows.deps import open_deps
    from mdtasks.flows.following import Follower
    from mdtasks.observe.metrics import use_multiprocess_dir

    settings = settings or settings_of(args)
    settings.require_database_url()
    if settings.metrics_dir.is_dir():
        use_multiprocess_dir(settings.metrics_dir)
    deps = open_deps(settings, application="mdtasks-cli")
    try:
        _take_overrides(deps.database, deps.calendars)
        yield Follower(deps).refresh(datetime.now(UTC))
    finally:
        deps.close()


def calendars_of(args: argparse.Namespace, database: Database | None = None) -> Calendars:
    """The exchanges' calendars, with the years that the stack's home keeps of them (a second less than without), and
    with what people told of them. ``database``: the store where one is open already.
    """
    from mdtasks.connections import Database
    from mdtasks.domain.sessions import Calendars
    from mdtasks.store.calendars import KeptCalendars

    settings = settings_of(args)
    # A command that only looks makes no home where there is none.
    calendars = Calendars(KeptCalendars(settings.calendars_dir) if settings.home.is_dir() else None)
    if database is not None:
        _take_overrides(database, calendars)
    elif settings.database_url is not None:
        opened = Database(settings.require_database_url(), application="mdtasks-cli", pool_size=1)
        _take_overrides(opened, calendars)
        opened.close()
    return calendars


def _take_overrides(database: Database, calendars: Calendars) -> None:
    """Let hold what people told of calendars. A store that cannot say so will be told of by what the command does."""
    from mdtasks.flows.calendars import apply_overrides

    with suppress(Exception):
        apply_overrides(database, calendars)
