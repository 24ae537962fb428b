"""What beat asks for and how often, seconds. RedBeat keeps it in Redis; its lock lets a second beat stand by."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from redbeat import RedBeatScheduler

from mdtasks.connections import Database, open_redis
from mdtasks.domain.jobs import Tier
from mdtasks.flows.policy_watch import PolicyWatch, process_name
from mdtasks.flows.ticks import JITTER, SERIES
from mdtasks.settings import Settings, load_settings
from mdtasks.settings.overriding import policy_variables, under

#: What the names of live ticks' entries begin with.
_LIVE: Final = "live_"


def _every(seconds: float, task: str, *args: object) -> dict[str, Any]:
    # Expires with its tick: after an outage one round runs, not all that were missed.
    return {
        "task": task,
        "schedule": seconds,
        "args": args,
        "options": {"queue": "control", "expires": max(seconds, 5.0)},
    }


def _at_once(entry: dict[str, Any]) -> dict[str, Any]:
    # As if it had last run long ago: a stack that has just started tells at once how things stand.
    return {**entry, "last_run_at": datetime(2000, 1, 1, tzinfo=UTC)}


def schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Beat's table for these settings; a cadence of 0 leaves its entry out."""
    # With an outside coordinator, what is fetched live and when is its affair alone.
    live = [] if settings.use_rlc else [(series, series.cadence_s(settings)) for series in SERIES]
    table = {
        "dispatch": _every(1.0, "mdtasks.dispatch"),
        "reconcile": _at_once(_every(10.0, "mdtasks.reconcile")),
        "derive": _every(settings.derive_every_s, "mdtasks.derive"),
        "cross_check": _every(settings.cross_check_s, "mdtasks.cross_check"),
        "make_partitions": _every(3600.0, "mdtasks.make_partitions"),
        "forget_snapshots": _every(3600.0, "mdtasks.forget_snapshots"),
        "provider_health": _at_once(_every(10.0, "mdtasks.provider_health")),
        "policy_canary": _every(5.0, "mdtasks.policy_canary"),
        "replay": _every(5.0, "mdtasks.replay"),
        "universe": _every(300.0, "mdtasks.universe"),
        "forget_traces": _every(3600.0, "mdtasks.forget_traces"),
        "refresh_actions": _every(settings.actions_every_s, "mdtasks.refresh_actions"),
        # Each round is short, and nearly free when the day's work is done.
        "retention": _every(60.0, "mdtasks.retention"),
        "monitor": _at_once(_every(settings.slo_every_s, "mdtasks.monitor")),
        **{
            f"{_LIVE}{each.tier}_{each.feed}": _every(s, "mdtasks.live_tick", str(each.tier), s, str(each.feed))
            for each, s in live
        },
        **{f"gaps_{tier}": _at_once(_every(settings.gap_scan_s, "mdtasks.gap_scan", str(tier))) for tier in Tier},
    }
    return {name: entry for name, entry in table.items() if entry["schedule"]}


class Scheduler(RedBeatScheduler):
    """RedBeat with this table as its static entries. It follows the policy: entries with another cadence are made anew,
    those that left the table leave Redis.
    """

    def setup_schedule(self) -> None:
        """Make the table's entries, at the start and whenever the policy is another one."""
        if not hasattr(self, "_settings"):
            self._settings = load_settings()
            self._database = Database(self._settings.require_database_url(), application="mdtasks-beat", pool_size=1)
            self._state = open_redis(self._settings.require_redis_url())
            variables = policy_variables(self._settings)
            self._policy = PolicyWatch(self._database, self._state, variables, process=process_name("mdtasks-beat"))
            self._policy.refresh(datetime.now(UTC))
        self._made_for = self._policy.current
        followed = under(self._settings, self._made_for.policy) if self._made_for.version else self._settings
        self.app.redbeat_conf.schedule = schedule(followed)
        super().setup_schedule()

    def close(self) -> None:
        """As RedBeat's; beat is no longer among those that follow the policy."""
        self._policy.close()
        self._database.close()
        self._state.close()
        super().close()

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """As RedBeat's, by the newest policy."""
        self._policy.refresh(datetime.now(UTC))
        if self._policy.current.version != self._made_for.version:
            self.setup_schedule()
        return super().tick(*args, **kwargs)

    def reserve(self, entry: Any) -> Any:
        """As RedBeat's; a live tick counts as run a little earlier than it was: the next one is jittered."""
        if not entry.name.startswith(_LIVE):
            return super().reserve(entry)
        aside_s = entry.schedule.run_every.total_seconds() * random.uniform(0, JITTER)  # noqa: S311 - no secret
        return entry.next(last_run_at=entry.schedule.now() - timedelta(seconds=aside_s))
