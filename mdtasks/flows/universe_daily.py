"""Before each open: the listing that the policy names is taken, and what is made of it holds, once a day."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.policy import Policy
from mdtasks.domain.sessions import Calendars
from mdtasks.flows.deps import Deps
from mdtasks.flows.universe import Asked, activate, listing_of, refresh
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
    leaving, held = _leaving(version, deps)
    if leaving > told.most_leave * held:
        log.warning(
            "universe %s waits for `mdtasks universe activate %s`: %d of %d members would leave",
            *(version.version_tag, version.version_tag, leaving, held),
        )
        return {**done, "waits": version.version_tag}
    activate(version.version_tag, ACTOR, f"before the open of {told.mic}", deps)
    return {**done, "activated": version.version_tag}


def _left_over(deps: Deps) -> Version | None:
    """The newest version, if it was made here and nothing was activated since."""
    with deps.database.transaction() as connection:
        newest, last = store.history(connection, 1), store.activations(connection, 1)
    if not newest or newest[0].created_by != ACTOR or (last and last[0].activated_at > newest[0].created_at):
        return None
    return newest[0]


def _leaving(version: Version, deps: Deps) -> tuple[int, int]:
    """How many members of the version that holds are not in this one, and how many it has."""
    with deps.database.transaction() as connection:
        held = store.active(connection)
        if held is None:
            return 0, 0
        before, after = (store.members(connection, each.version) for each in (held, version))
    return len({one.instrument for one in before} - {one.instrument for one in after}), len(before)
