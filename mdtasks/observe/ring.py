"""VizTracer as a ring: always recording while a provider is being asked, and read only when the call was slow.

What VizTracer 1.1 does decides how it is used here. On Python 3.11 it is a profile function per thread, and making
one leaves it set, also for all threads to come; from 3.12 on it is ``sys.monitoring``, for all threads at once. There
can be one at a time. ``stop`` forgets where all threads are, ``load`` takes everything out of the ring. So one ring
serves all calls of a process, it is stopped only when none is open, and what one call takes out is kept for the others
that are still open. It names functions by file and line, never their arguments or values.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from typing import Any, Final

#: Functions that one process remembers; when there are more, the oldest are lost.
ENTRIES: Final = 50_000
#: Functions below this are not remembered by themselves, microseconds: their time is their caller's.
_LEAST_US: Final = 20.0
#: Calls within calls that are looked at.
_DEPTH: Final = 64

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """What the ring holds of one call: VizTracer's events, the call's begin and end on their clock (microseconds), and
    whether older ones were lost.
    """

    events: list[Event]
    begin_us: float
    end_us: float
    overflow: bool
    base_time_ns: int


_rings: list[Ring] = []
_making: Final = threading.Lock()


def ring() -> Ring:
    """The ring of this process; a child that was forked after its parent had one makes its own.

    One is never given up: a thread that ends later would still tell its VizTracer so. Raises ImportError where
    VizTracer is not installed.
    """
    with _making:
        if not _rings or _rings[-1].pid != os.getpid():
            _rings.append(Ring())
        return _rings[-1]


class Ring:
    """The one VizTracer of a process: ask ``ring`` for it."""

    def __init__(self) -> None:
        from viztracer import VizTracer

        before = sys.getprofile()
        self._tracer = VizTracer(
            tracer_entries=ENTRIES,
            max_stack_depth=_DEPTH,
            min_duration=_LEAST_US,
            # Names of C methods are not kept alive by VizTracer: reading one of a class that is gone would crash.
            ignore_c_function=True,
            log_func_args=False,
            log_func_retval=False,
            file_info=False,
            register_global=False,
            process_name="mdtasks",
            verbose=0,
        )
        self.pid = os.getpid()
        self._lock = threading.Lock()
        #: The threads that ask a provider now -> when their call began; those that did since the ring was last idle.
        self._open: dict[int, float] = {}
        self._callers: set[int] = set()
        self._taken: list[Event] = []
        if sys.version_info < (3, 12):
            threading.setprofile(None)
            sys.setprofile(before)

    def begin(self) -> bool:
        """Record this thread from now on; False when it is being recorded already, or somebody else profiles it."""
        thread = threading.get_native_id()
        with self._lock:
            if thread in self._open or self._profiled_by_another():
                return False
            self._tracer.reset_stack()
            if not self._open:
                self._tracer.clear()
                self._start()
            elif sys.version_info < (3, 12):
                self._tracer.enable_thread_tracing()
            self._callers.add(thread)
            self._open[thread] = self._tracer.getts()
            return True

    def end(self, *, take: bool) -> Recording | None:
        """Stop recording this thread; ``take``: and give what its call left. Call it only after ``begin`` was True."""
        thread = threading.get_native_id()
        with self._lock:
            end_us = self._tracer.getts()
            begin_us = self._open.pop(thread)
            taken = self._take(thread, begin_us, end_us) if take else None
            if self._open:
                if sys.version_info < (3, 12):
                    sys.setprofile(None)
            else:
                self._stop()
            self._tracer.reset_stack()
            return taken

    def _profiled_by_another(self) -> bool:
        if sys.version_info >= (3, 12):
            # VizTracer would take the place of whoever has it.
            return not self._open and sys.monitoring.get_tool(sys.monitoring.PROFILER_ID) is not None
        # A thread that was started within somebody's call has our function already.
        found = sys.getprofile()
        return found is not None and self._tracer not in (found, getattr(found, "__self__", None))

    def _start(self) -> None:
        if sys.version_info < (3, 12):
            # What a call does in threads that it starts is part of it.
            threading.setprofile(self._tracer.threadtracefunc)
        self._tracer.start()

    def _stop(self) -> None:
        self._tracer.stop()
        if sys.version_info < (3, 12):
            threading.setprofile(None)
        self._callers.clear()
        self._taken = []

    def _take(self, thread: int, begin_us: float, end_us: float) -> Recording:
        loaded = self._tracer.load()
        events: list[Event] = [*self._taken, *loaded]
        if self._open:
            self._taken = [event for event in events if event["ph"] != "M"][-ENTRIES:]
        # One that other calls made is theirs: a trace tells of one call, and of threads that are no call's.
        others = self._callers - {thread}
        ours = [
            event
            for event in events
            if event["ph"] == "X" and event["tid"] not in others and begin_us <= event["ts"] <= end_us
        ]
        threads = {event["tid"] for event in ours} | {thread}
        names = [event for event in loaded if event["ph"] == "M" and event["tid"] in threads | {self.pid}]
        finished = sum(event["ph"] == "X" for event in events)
        return Recording(names + ours, begin_us, end_us, finished >= ENTRIES, self._tracer.get_base_time())
