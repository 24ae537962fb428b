"""What a command works with, opened for it and closed after it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
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
    from mdtasks.observe.metrics import use_multiprocess_dir

    settings = settings or settings_of(args)
    settings.require_database_url()
    if settings.metrics_dir.is_dir():
        use_multiprocess_dir(settings.metrics_dir)
    deps = open_deps(settings, application="mdtasks-cli")
    try:
        yield deps
    finally:
        deps.close()


def calendars_of(args: argparse.Namespace) -> Calendars:
    """The exchanges' calendars, with the years that the stack's home keeps of them (a second less than without)."""
    from mdtasks.domain.sessions import Calendars
    from mdtasks.store.calendars import KeptCalendars

    settings = settings_of(args)
    # A command that only looks makes no home where there is none.
    return Calendars(KeptCalendars(settings.calendars_dir) if settings.home.is_dir() else None)
