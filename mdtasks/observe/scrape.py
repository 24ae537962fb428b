"""A scrape: what every process counted, out of its files, and the state as a reader finds it, in Prometheus' text."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mdtasks.observe.metrics import DECLARED, Gauge, Reading, registry

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

_LOCK_FILE: Final = "fold.lock"
#: Name of the process that stands for all dead ones, in place of a pid.
_DEAD: Final = "dead"


def exposition(read: Callable[[], Iterable[Reading]], path: Path | None = None) -> bytes:
    """What /metrics answers, in Prometheus' text format: events of all processes, and the state that ``read`` finds.

    ``path``: the processes' multiprocess dir; None: this process's own counts. Dead processes' files are folded into
    one on the way. Blocks (files, and what ``read`` does). Whatever ``read`` raises passes through.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    state = CollectorRegistry()
    state.register(_State(list(read())))
    if path is None:
        return bytes(generate_latest(registry())) + bytes(generate_latest(state))
    fold_dead(path)
    events = CollectorRegistry()
    with _locked(path):
        events.register(_Ours(MultiProcessCollector(None, path=str(path))))  # type: ignore[no-untyped-call]
        return bytes(generate_latest(events)) + bytes(generate_latest(state))


def fold_dead(path: Path, *, alive: Callable[[int], bool] | None = None) -> int:
    """Add the counts of processes that are gone to one file for all of them, and delete theirs; how many files.

    Without it every process ever started (a worker's children are many) leaves its files for ever. A scrape sees
    the counts before or after, never twice or not at all. ``alive`` tells whether a pid runs (default: here and now).
    """
    folded = 0
    with _locked(path):
        for file in sorted(path.glob("*.db")):
            kind, _, pid = file.stem.rpartition("_")
            if not pid.isdecimal() or (alive or _alive)(int(pid)):
                continue
            if kind in {"counter", "histogram"}:
                _fold(file, path / f"{kind}_{_DEAD}.db")
                folded += 1
            else:
                file.unlink()  # a state of somebody else's that nobody is in any more
    return folded


class _Ours:
    """What is declared here, out of the processes' files: Flower, a process of the stack, counts into them as well."""

    def __init__(self, collector: Any) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Family]:
        names = {declared.name.removesuffix("_total") for declared in DECLARED}
        yield from (family for family in self._collector.collect() if family.name.removesuffix("_total") in names)


class _State:
    """Gauges as read: a prometheus_client collector."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Family]:
        from prometheus_client.core import GaugeMetricFamily

        for gauge in (declared for declared in DECLARED if isinstance(declared, Gauge)):
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.label_names)
            for reading in self._readings:
                if reading.gauge is gauge:
                    family.add_metric([reading.labels[name] for name in gauge.label_names], reading.value)
            if family.samples:
                yield family


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with (path / _LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fold(file: Path, into: Path) -> None:
    from prometheus_client.mmap_dict import MmapedDict

    if not file.stat().st_size:  # its process was killed while it made it
        file.unlink()
        return
    total = MmapedDict(str(into))  # type: ignore[no-untyped-call]
    for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
        total.write_value(key, total.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
    total.close()  # type: ignore[no-untyped-call]
    file.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
