"""What a process would have gone by at an instant: the policy that held then, and calendars as people had told of them.

What is not on record is told as it is now: variables of the environment, providers and their delays, the library's
calendars, names and listing dates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval
from mdtasks.flows.calendars import calendars_at
from mdtasks.flows.deps import Deps
from mdtasks.flows.policy_watch import followed
from mdtasks.settings import under
from mdtasks.store import coverage, overrides, policies


def deps_at(connection: Connection, deps: Deps, at: datetime) -> Deps:
    """These Deps with the policy and the calendars of an instant. A version of the policy that this process could not
    follow counts as the one that it follows.
    """
    version = policies.holding_at(connection, at)
    running = deps.running
    if version.version != running.version:
        running = followed(version, deps.policy.environ)[0] or running
    return replace(
        deps,
        settings=under(deps.settings, running.policy) if running is not deps.running else deps.settings,
        running=running,
        calendars=calendars_at(connection, deps.calendars, at),
    )


def refuse_future(as_of: datetime, now: datetime) -> None:
    """Raise InvalidRequestError for an instant of which nobody can know what is known by then."""
    if as_of > now:
        raise InvalidRequestError(
            f"as_of {as_of.isoformat()} is in the future", field="as_of", hint="leave it out for what is known now"
        )


def await_writers(database: Database, interval: Interval, instrument_ids: Iterable[int]) -> None:
    """Wait for whoever writes now what verdicts as of an instant before this are made of: calendars, then bars."""
    with database.transaction() as connection:
        overrides.lock(connection)
    with database.transaction() as connection:
        coverage.hold_writers(connection, interval, instrument_ids)
