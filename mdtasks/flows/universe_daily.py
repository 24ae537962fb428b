"""Before each open: the listing that the policy names is taken, and what is made of it holds, once a day."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from mdtasks.domain.errors import TooManyMoveError
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.policy import Policy
from mdtasks.domain.sessions import Calendars
from mdtasks.flows.deps import Deps
from mdtasks.flows.universe import Asked, activate, refresh
from mdtasks.flows.universe_listings import listing_of
from mdtasks.store import listings
from mdtasks.store import universe as store
from mdtasks.store.universe import Version

log = logging.getLogger(__name__)

#: Who makes these versions.
ACTOR: Final = "beat"
#: How far ahead an open is looked for.
_AHEAD: Final = timedelta(days=15)


def due_since(policy: Policy, calendars: Calendars, now: datetime) -> datetime | None:
    """Since when the listing of the coming session is due; None: it is not yet, or none is wanted."""
    told = policy.universe
    if told.source is None:
        return None
    calendar = calendars.get(told.mic)
    coming = calendar.sessions(TimeWindow(start=now, end=min(now + _AHEAD, calendar.horizon)))
    opens = next((session.open for session in coming if session.open > now), None)
    since = None if opens is None else opens - timedelta(seconds=told.before_open_s)
    return since if since is not None and since <= now else None


def run_once(deps: Deps, now: datetime) -> dict[str, str]:
    """Take the listing and let its version hold, where that is due and not done. Safe to repeat: a round that failed,
    or died between the two, is made good by the next. Returns what was done: ``made``, ``activated``, ``waits``.

    Raises ProviderError, InvalidRequestError (an exchange without a calendar too), StoreUnavailableError.
    """
    told = deps.running.policy.universe
    since = due_since(deps.running.policy, deps.calendars, now)
    if since is None or told.source is None:
        return {}
    with deps.database.transaction() as connection:
        fetched = listings.last_fetched(connection, told.source)
    done: dict[str, str] = {}
    if fetched is None or fetched < since:
        version = refresh(told.source, listing_of(told.source, deps, now), Asked(ACTOR), deps).version
        done["made"] = version.version_tag
    else:
        found = _left_over(deps)
        if found is None:
            return {}
        version = found
    if version.active or not told.activate:
        return done
    try:
        activate(version.version_tag, ACTOR, f"before the open of {told.mic}", deps)
    except TooManyMoveError as error:
        log.warning("universe %s waits for a person: %s; %s", version.version_tag, error, error.hint)
        return {**done, "waits": version.version_tag}
    return {**done, "activated": version.version_tag}


def _left_over(deps: Deps) -> Version | None:
    """The newest version, if it was made here and nothing was activated since."""
    with deps.database.transaction() as connection:
        newest, last = store.history(connection, 1), store.activations(connection, 1)
    if not newest or newest[0].created_by != ACTOR or (last and last[0].activated_at > newest[0].created_at):
        return None
    return newest[0]
