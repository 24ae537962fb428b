"""What beat asks for and how often, seconds. RedBeat keeps it in Redis; its lock lets a second beat stand by."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from redbeat import RedBeatScheduler

from mdtasks.domain.jobs import Tier
from mdtasks.flows.ticks import JITTER, SERIES
from mdtasks.settings import Settings, load_settings

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
        "make_partitions": _every(3600.0, "mdtasks.make_partitions"),
        "forget_snapshots": _every(3600.0, "mdtasks.forget_snapshots"),
        "provider_health": _at_once(_every(10.0, "mdtasks.provider_health")),
        "forget_traces": _every(3600.0, "mdtasks.forget_traces"),
        "monitor": _at_once(_every(settings.slo_every_s, "mdtasks.monitor")),
        **{
            f"{_LIVE}{each.tier}_{each.feed}": _every(s, "mdtasks.live_tick", str(each.tier), s, str(each.feed))
            for each, s in live
        },
        **{f"gaps_{tier}": _at_once(_every(settings.gap_scan_s, "mdtasks.gap_scan", str(tier))) for tier in Tier},
    }
    return {name: entry for name, entry in table.items() if entry["schedule"]}


class Scheduler(RedBeatScheduler):
    """RedBeat with this table as its static entries; entries that left the table leave Redis at the next start."""

    def setup_schedule(self) -> None:
        self.app.redbeat_conf.schedule = schedule(load_settings())
        super().setup_schedule()

    def reserve(self, entry: Any) -> Any:
        """As RedBeat's; a live tick counts as run a little earlier than it was: the next one is jittered."""
        if not entry.name.startswith(_LIVE):
            return super().reserve(entry)
        aside_s = entry.schedule.run_every.total_seconds() * random.uniform(0, JITTER)  # noqa: S311 - no secret
        return entry.next(last_run_at=entry.schedule.now() - timedelta(seconds=aside_s))
