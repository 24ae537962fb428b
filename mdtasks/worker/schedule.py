"""What beat asks for and how often, seconds. RedBeat keeps it in Redis; its lock lets a second beat stand by."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from redbeat import RedBeatScheduler

from mdtasks.domain.jobs import Tier
from mdtasks.settings import Settings, load_settings


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
    live = [(tier, settings.cadence_s(tier)) for tier in Tier]
    table = {
        "dispatch": _every(1.0, "mdtasks.dispatch"),
        "reconcile": _at_once(_every(10.0, "mdtasks.reconcile")),
        "make_partitions": _every(3600.0, "mdtasks.make_partitions"),
        "forget_snapshots": _every(3600.0, "mdtasks.forget_snapshots"),
        "monitor": _at_once(_every(settings.slo_every_s, "mdtasks.monitor")),
        **{f"live_{tier}": _every(s, "mdtasks.live_tick", str(tier), s) for tier, s in live},
        **{f"gaps_{tier}": _at_once(_every(settings.gap_scan_s, "mdtasks.gap_scan", str(tier))) for tier in Tier},
    }
    return {name: entry for name, entry in table.items() if entry["schedule"]}


class Scheduler(RedBeatScheduler):
    """RedBeat with this table as its static entries; entries that left the table leave Redis at the next start."""

    def setup_schedule(self) -> None:
        self.app.redbeat_conf.schedule = schedule(load_settings())
        super().setup_schedule()
