"""The recorder around provider calls: each is timed, a slow one leaves a record, with a trace of where its time went.

A record goes to the ``keep`` that the call was begun with. Nothing in here fails the call: what goes wrong is logged.
"""

from __future__ import annotations

import gzip
import logging
import os
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import orjson

from mdtasks.domain.errors import error_class
from mdtasks.domain.jobs import TimeWindow
from mdtasks.domain.slowness import Latencies, SlowRule
from mdtasks.observe import metrics
from mdtasks.observe.ring import Recording, Ring, ring

log = logging.getLogger(__name__)

#: Traces that one process keeps in a minute: making one takes about a tenth of a second.
PER_MINUTE: Final = 6
#: Symbols that a record names; it tells how many there were.
MOST_SYMBOLS: Final = 50
#: What the event of the call itself is called in a trace, and its category.
CATEGORY: Final = "mdtasks"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: which attempt at which job, in which worker process; None: not known."""

    job_id: str | None = None
    attempt_id: int | None = None
    attempt: int | None = None
    worker: str | None = None


NOBODY: Final = Asker()


@dataclass(frozen=True, slots=True)
class CallContext:
    """Which provider is asked what, by whom. ``capability``: ``bars_1m`` to ``quotes``; ``window``: None for quotes."""

    provider: str
    capability: str
    symbols: tuple[str, ...]
    window: TimeWindow | None = None
    asker: Asker = NOBODY
    policy_version: int | None = None


@dataclass(frozen=True, slots=True)
class SlowCall:
    """A slow call: what was asked, when, how long it took (seconds), and from when on it was slow.

    ``trace``: gzip of VizTracer's JSON; None: this one was not sampled, or could not be traced.
    """

    context: CallContext
    started_at: datetime
    latency_s: float
    threshold_s: float
    error_class: str | None = None
    trace: bytes | None = None

    def as_dict(self) -> dict[str, Any]:
        """What a trace says of its call; of many symbols the first MOST_SYMBOLS."""
        asked = self.context
        return {
            "provider": asked.provider,
            "capability": asked.capability,
            "symbols": list(asked.symbols[:MOST_SYMBOLS]),
            "symbol_count": len(asked.symbols),
            "window": None if asked.window is None else [asked.window.start, asked.window.end],
            **asdict(asked.asker),
            "policy_version": asked.policy_version,
            "started_at": self.started_at,
            "latency_s": round(self.latency_s, 6),
            "threshold_s": self.threshold_s,
            "error_class": self.error_class,
        }


Keep = Callable[[SlowCall], None]


class Recorder:
    """Times the provider calls of one process. ``sample``: share of the slow ones that get a trace."""

    def __init__(self, rule: SlowRule, sample: float = 1.0) -> None:
        self._rule = rule
        self._sample = sample
        self._latencies: defaultdict[tuple[str, str], Latencies] = defaultdict(Latencies)
        self._made_at: deque[float] = deque(maxlen=PER_MINUTE)
        self._lock = threading.Lock()
        self._broken = False

    def call(self, context: CallContext, keep: Keep) -> Call:
        """A context manager around one provider call; ``keep`` gets the record if the call was slow."""
        return Call(self, context, keep)

    def preload(self) -> None:
        """Import VizTracer, before the children are forked that will share it."""
        with suppress(ImportError):
            import viztracer  # noqa: F401

    def begin(self) -> Ring | None:
        """The ring of this process, which records this thread from now on; None where it cannot, now or ever."""
        if self._broken:
            return None
        try:
            found = ring()
            return found if found.begin() else None
        except Exception as error:
            self._give_up(error)
            return None

    def end(self, begun: Ring, *, take: bool) -> Recording | None:
        """Stop recording this thread; ``take``: and give what its call left."""
        try:
            return begun.end(take=take)
        except Exception as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        # VizTracer stands in nobody's way: without it calls are timed all the same.
        self._broken = True
        log.warning("slow provider calls are no longer traced here: %s: %s", type(error).__name__, error)

    def judge(self, context: CallContext, latency_s: float) -> float | None:
        """Take note of a call; returns the threshold that it passed, seconds, or None: it was not slow."""
        with self._lock:
            known = self._latencies[context.provider, context.capability]
            threshold_s = self._rule.threshold_s(known.p95_s if self._rule.p95_factor else None)
            known.add(latency_s)
        return threshold_s if latency_s > threshold_s else None

    def wanted(self) -> bool:
        """Whether the slow call that just ended gets a trace; one that does is counted against the minute."""
        if random.random() >= self._sample:  # noqa: S311 - spreads load, protects nothing
            return False
        now = time.monotonic()
        with self._lock:
            if len(self._made_at) == PER_MINUTE and now - self._made_at[0] < 60:
                return False
            self._made_at.append(now)
            return True


class Call:
    """One provider call between its begin and its end. ``waited_s``: what of its time was ours, as far as that is told
    before it ends; the call is judged, and its record tells, without it.
    """

    __slots__ = ("_began", "_context", "_keep", "_recorder", "_ring", "_started_at", "waited_s")

    def __init__(self, recorder: Recorder, context: CallContext, keep: Keep) -> None:
        self._recorder, self._context, self._keep = recorder, context, keep
        self._ring: Ring | None = None
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        self._started_at = datetime.now(UTC)
        self._began = time.perf_counter()
        self._ring = self._recorder.begin()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        latency_s = max(time.perf_counter() - self._began - self.waited_s, 0.0)
        threshold_s = self._recorder.judge(self._context, latency_s)
        recording = None
        if self._ring is not None:
            take = threshold_s is not None and self._recorder.wanted()
            recording = self._recorder.end(self._ring, take=take)
        if threshold_s is not None:
            named = None if error is None else error_class(error)
            slow = SlowCall(self._context, self._started_at, latency_s, threshold_s, named)
            self._tell(slow, recording)

    def _tell(self, slow: SlowCall, recording: Recording | None) -> None:
        labels = {"provider": slow.context.provider, "capability": slow.context.capability}
        try:
            metrics.PROVIDER_SLOW_CALLS.labels(**labels).inc()
            self._keep(slow if recording is None else traced(slow, recording))
        except Exception:  # the call's answer is worth more than the record of how long it took
            log.exception("the record of a slow call of %(provider)s (%(capability)s) was not kept", labels)


def traced(slow: SlowCall, recording: Recording) -> SlowCall:
    """The record with its trace: VizTracer's events, and around them one of the call itself with its context."""
    from viztracer import __version__

    context = slow.as_dict()
    around = {
        "ph": "X",
        "cat": CATEGORY,
        "name": f"{slow.context.provider} {slow.context.capability}",
        "pid": os.getpid(),
        "tid": threading.get_native_id(),
        "ts": recording.begin_us,
        "dur": recording.end_us - recording.begin_us,
        "args": context,
    }
    document = {
        "traceEvents": [*recording.events, around],
        "displayTimeUnit": "ms",
        "viztracer_metadata": {
            "version": __version__,
            "overflow": recording.overflow,
            "baseTimeNanoseconds": recording.base_time_ns,
        },
        CATEGORY: context,
    }
    content = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    return replace(slow, trace=gzip.compress(content, 6))
