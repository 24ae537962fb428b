"""Which benchmarks there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mdtasks.stack.benches.calendar import bench_calendar
from mdtasks.stack.benches.measure import Result, Say
from mdtasks.stack.benches.policy import bench_policy
from mdtasks.stack.benches.read import bench_read
from mdtasks.stack.benches.replay import bench_replay
from mdtasks.stack.benches.slo import bench_slo
from mdtasks.stack.benches.spine import bench_enqueue, bench_ingest
from mdtasks.stack.benches.trace import bench_trace

#: What ``mdtasks bench NAME`` runs.
BENCHES: Final[Mapping[str, Callable[[Say], Result]]] = {
    "enqueue": bench_enqueue,
    "ingest": bench_ingest,
    "calendar": bench_calendar,
    "slo": bench_slo,
    "trace": bench_trace,
    "policy": bench_policy,
    "read": bench_read,
    "replay": bench_replay,
}
