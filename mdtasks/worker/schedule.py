"""What beat asks for and how often, seconds. RedBeat keeps it in Redis; its lock lets a second beat stand by."""

from __future__ import annotations

from typing import Any, Final

from redbeat import RedBeatScheduler

from mdtasks.domain.jobs import Tier

#: Seconds between live fetches of 1m bars per tier; T2 has none.
CADENCE_BARS_1M_S: Final = {Tier.T0: 60.0, Tier.T1: 300.0}


def _every(seconds: float, task: str, *args: object) -> dict[str, Any]:
    # Expires with its tick: after an outage one round runs, not all that were missed.
    return {
        "task": task,
        "schedule": seconds,
        "args": args,
        "options": {"queue": "control", "expires": max(seconds, 5.0)},
    }


SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "dispatch": _every(1.0, "mdtasks.dispatch"),
    "reconcile": _every(10.0, "mdtasks.reconcile"),
    "make_partitions": _every(3600.0, "mdtasks.make_partitions"),
    **{f"live_{tier}": _every(s, "mdtasks.live_tick", str(tier), s) for tier, s in CADENCE_BARS_1M_S.items()},
}


class Scheduler(RedBeatScheduler):
    """RedBeat with this table as its static entries; entries that left the table leave Redis at the next start."""

    def setup_schedule(self) -> None:
        self.app.redbeat_conf.schedule = SCHEDULE
        super().setup_schedule()
