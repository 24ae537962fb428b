"""What a process would have gone by at an instant: the policy that held then, and calendars as people had told of them.

What is not on record is told as it is now: variables of the environment, providers and their delays, the library's
calendars. Before a read as of an instant, whoever may still write what is dated before it is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from mdtasks.connections import Database
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval
from mdtasks.flows.calendars import calendars_at
from mdtasks.flows.deps import Deps
from mdtasks.flows.policy_watch import followed
from mdtasks.settings import under
from mdtasks.store import actions, coverage, gaps, overrides, policies, readings, reference

#: Of an instant so long ago everything is on record, unless a transaction of then is still open.
_SETTLED_S: Final = 60.0
#: So long is waited for each of those who write.
_LOCK_S: Final = 10.0


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


def refuse_future(as_of: datetime, clock: datetime, field: str = "as_of") -> None:
    """Raise InvalidRequestError naming ``field`` for an instant to come by the store's clock, which dates all that is
    put on record: nobody can know yet what is known by then.
    """
    if as_of > clock:
        raise InvalidRequestError(
            f"{field} {as_of.isoformat()} is still to come: the store's clock says {clock.isoformat()}",
            field=field,
            hint="leave it out for what is known now",
        )


def await_changes(database: Database, as_of: datetime, *, field: str = "as_of") -> None:
    """Wait for whoever changes the universe, where it may still be dated before an instant: symbols, lives, tiers, the
    version that holds. What every read as of an instant begins with. Raises as ``refuse_future``; BusyError.
    """
    with database.transaction() as connection:
        refuse_future(as_of, readings.clock(connection), field)
        settled = readings.is_settled(connection, as_of, _SETTLED_S)
    if not settled:
        _take_turns(database, reference.await_changes)


def await_statements(database: Database, as_of: datetime) -> None:
    """Wait likewise for whoever tells of corporate actions. Raises BusyError."""
    if not _is_settled(database, as_of):
        _take_turns(database, actions.await_writers)


def await_writers(database: Database, as_of: datetime, interval: Interval, symbols: Sequence[str]) -> None:
    """Wait likewise for whoever writes what verdicts on these symbols ([]: the whole universe) are made of: calendars,
    then bars. Raises BusyError, UnknownSymbolError.
    """
    if _is_settled(database, as_of):
        return
    with database.transaction() as connection:
        ids = [each.id for each in reference.asked_for(connection, symbols, as_of)]
    _take_turns(database, overrides.lock, lambda connection: coverage.hold_writers(connection, interval, ids))


def await_scan(database: Database, as_of: datetime) -> None:
    """Wait likewise for a scan that is under way: it dates the gaps that it finds before they are seen."""
    if not _is_settled(database, as_of):
        _take_turns(database, gaps.lock)


def _is_settled(database: Database, as_of: datetime) -> bool:
    """Whether all that could be dated before an instant is on record."""
    with database.transaction() as connection:
        return readings.is_settled(connection, as_of, _SETTLED_S)


def _take_turns(database: Database, *locks: Callable[[Connection], None]) -> None:
    """Take locks and let go of them, one after the other."""
    for lock in locks:
        with database.waiting(_LOCK_S) as connection:
            lock(connection)
