"""The recorder of slow calls: what a trace tells, what never gets into one, and that it is in nobody's way."""

from __future__ import annotations

import cProfile
import gzip
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from mdtasks.domain.errors import VendorError
from mdtasks.domain.slowness import LEAST_CALLS, SlowRule
from mdtasks.observe import traces
from mdtasks.observe.flames import Flame, read_flame, tops
from mdtasks.observe.ring import ring
from mdtasks.observe.traces import MOST_SYMBOLS, PER_MINUTE, Asker, CallContext, Recorder, SlowCall

#: Every call is slow.
ALL = SlowRule(1e-9, 0)
ASKED = CallContext("simulator", "bars_1m", ("SPY",), None, Asker("job-1", 7, 2, "t0@here/1"))
SECRET = "hush-hush-4711"


def recorder(rule: SlowRule = ALL, sample: float = 1.0) -> Recorder:
    return Recorder(rule, sample)


@contextmanager
def recorded(by: Recorder, asked: CallContext = ASKED) -> Iterator[list[SlowCall]]:
    """A call; the list has its record afterwards."""
    found: list[SlowCall] = []
    with by.call(asked, found.append):
        yield found


def content_of(call: SlowCall) -> bytes:
    assert call.trace is not None
    return gzip.decompress(call.trace)


def flame_of(call: SlowCall) -> Flame:
    return read_flame(content_of(call))


def functions(call: SlowCall) -> list[str]:
    return [top.function for top in tops(flame_of(call), 1000)]


def work(size: int = 50_000) -> int:
    return sum(range(size))


def outer(secret: str) -> str:
    told = {"key": secret, "header": f"Bearer {secret}"}
    work()
    work()
    return told["header"]


class Vendor:
    """A stand-in that fails."""

    def fetch(self, secret: str) -> None:
        outer(secret)
        raise VendorError(f"500 at ?apikey={secret}", provider="simulator")


def test_a_trace_names_the_functions_with_their_callers_and_what_was_asked() -> None:
    with recorded(recorder()) as found:
        outer("x")
    (call,) = found
    flame = flame_of(call)
    by_depth = [(each.depth, each.name.partition(" (")[0]) for each in flame.slices]
    assert by_depth[:4] == [(0, "simulator bars_1m"), (1, "outer"), (2, "work"), (2, "work")]
    assert (flame.context["job_id"], flame.context["attempt_id"], flame.context["symbols"]) == ("job-1", 7, ["SPY"])
    assert (flame.context["attempt"], flame.context["worker"], flame.context["policy_version"]) == (
        2,
        "t0@here/1",
        None,
    )
    top = next(each for each in tops(flame, 10) if each.function == "work")
    assert (top.calls, top.where.rpartition("/")[2].partition(":")[0]) == (2, "test_traces.py")


def test_own_times_sum_up_to_the_whole_call() -> None:
    with recorded(recorder()) as found:
        for _ in range(5):
            outer("x")
    flame = flame_of(found[0])
    whole = flame.slices[0]
    assert sum(each.own_us for each in flame.slices) == pytest.approx(whole.duration_us)
    assert all(0 <= each.start_us <= whole.duration_us for each in flame.slices)


def test_a_call_is_judged_and_told_without_the_time_that_was_ours() -> None:
    found: list[SlowCall] = []
    by = recorder(SlowRule(60.0, 0))
    with by.call(ASKED, found.append) as record:
        record.waited_s = -120.0  # as if the call had lasted two minutes
    (slow,) = found
    assert slow.latency_s == pytest.approx(120, abs=30)
    with by.call(ASKED, found.append) as record:
        record.waited_s = 500.0
    assert found == [slow]


def test_no_argument_value_or_message_gets_into_a_trace() -> None:
    found: list[SlowCall] = []
    with pytest.raises(VendorError), recorder().call(ASKED, found.append):
        Vendor().fetch(SECRET)
    (call,) = found
    assert call.error_class == "vendor_error"
    assert "Vendor.fetch" in functions(call)
    assert SECRET.encode() not in content_of(call)
    assert SECRET not in repr(call)
    events = orjson.loads(content_of(call))["traceEvents"]
    assert {key for event in events if event["ph"] == "X" for key in event.get("args", {})} == set(call.as_dict())


def test_a_quick_call_leaves_nothing_and_only_a_long_one_is_compared_with_those_before_it() -> None:
    quick = recorder(SlowRule(3600, 3))
    with recorded(quick) as found:
        work()
    assert not found
    for _ in range(LEAST_CALLS):
        assert quick.judge(ASKED, 0.2) is None
    assert quick.judge(ASKED, 0.59) is None
    assert quick.judge(ASKED, 0.61) == pytest.approx(0.6)
    assert quick.judge(CallContext("simulator", "quotes", ()), 0.61) is None  # nothing is known of those


def test_calls_in_threads_have_each_their_own_trace() -> None:
    together, by, found = threading.Barrier(4), recorder(), dict[int, SlowCall]()

    def ask(number: int) -> None:
        with by.call(CallContext("simulator", f"n{number}", ()), lambda call: found.__setitem__(number, call)):
            together.wait()  # all are in their calls
            exec(f"def only_{number}():\n for _ in range(20): work()\nonly_{number}()", {"work": work})
            together.wait()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, call in found.items():
        named = [name for name in functions(call) if name.startswith("only_")]
        assert (named, functions(call).count("work")) == ([f"only_{number}"], 1)
        assert next(top for top in tops(flame_of(call), 1000) if top.function == "work").calls == 20
    assert len(found) == 4


def test_what_a_call_does_in_threads_of_its_own_is_in_its_trace() -> None:
    with recorded(recorder()) as found:
        thread = threading.Thread(target=outer, args=("x",))
        thread.start()
        thread.join()
    flame = flame_of(found[0])
    (other,) = {each.thread for each in flame.slices if each.name.startswith("outer (")}
    assert list(flame.threads)[1:] == [other]


def test_a_call_within_a_call_is_timed_and_the_outer_one_keeps_its_trace() -> None:
    by = recorder()
    with recorded(by) as outside:
        with recorded(by) as inside:
            work()
        outer("x")
    assert inside[0].trace is None
    assert "outer" in functions(outside[0])


def test_after_a_call_nothing_is_profiled_and_who_profiles_already_is_left_alone() -> None:
    with recorded(recorder()):
        work()
    assert sys.getprofile() is None
    assert threading.getprofile() is None
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        with recorded(recorder()) as found:
            work()
    finally:
        profiler.disable()
    assert any(entry.code is work.__code__ for entry in profiler.getstats())
    assert found[0].trace is None


def test_many_calls_leave_the_depth_where_it_was() -> None:
    by = recorder()
    for _ in range(200):
        with recorded(by) as found:
            outer("x")
        by._made_at.clear()
    assert [each.depth for each in flame_of(found[0]).slices][:4] == [0, 1, 2, 2]


def test_a_call_that_ends_in_an_error_deep_down_does_not_shift_the_next() -> None:
    by = recorder()
    with pytest.raises(VendorError), by.call(ASKED, lambda _call: None):
        Vendor().fetch("x")
    with recorded(by) as found:
        outer("x")
    assert [each.depth for each in flame_of(found[0]).slices][:4] == [0, 1, 2, 2]


def test_a_process_keeps_so_many_traces_a_minute_and_a_record_of_all_calls() -> None:
    by, found = recorder(), list[SlowCall]()
    for _ in range(PER_MINUTE + 3):
        with by.call(ASKED, found.append):
            work()
    assert [call.trace is not None for call in found] == [True] * PER_MINUTE + [False] * 3


def test_a_share_of_none_keeps_records_alone() -> None:
    with recorded(recorder(sample=0)) as found:
        work()
    assert found[0].trace is None


def test_of_many_symbols_the_first_are_named_and_all_are_counted() -> None:
    with recorded(recorder(), CallContext("simulator", "quotes", tuple(f"S{n}" for n in range(1000)))) as found:
        work()
    context = flame_of(found[0]).context
    assert (len(context["symbols"]), context["symbol_count"]) == (MOST_SYMBOLS, 1000)


def test_a_record_that_cannot_be_kept_is_logged_and_the_call_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_call: SlowCall) -> None:
        raise RuntimeError("the disk is gone")

    with recorder().call(ASKED, fails):
        answer = work()
    assert answer
    assert "was not kept" in caplog.text


def test_without_viztracer_calls_are_timed_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> Any:
        raise ImportError("no viztracer here")

    monkeypatch.setattr(traces, "ring", missing)
    by = recorder()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with recorded(by) as found:
                work()
            assert found[0].trace is None
    assert caplog.text.count("no viztracer here") == 1


_FORKS = """
import os, sys
from mdtasks.observe.traces import CallContext, Recorder
from mdtasks.domain.slowness import SlowRule
def work(): return sum(range(50_000))
by, found = Recorder(SlowRule(1e-9, 0)), []
with by.call(CallContext("p", "c", ()), found.append): work()
child = os.fork()
with by.call(CallContext("p", "c", ()), found.append): work()
import gzip
said = gzip.decompress(found[-1].trace)
assert b"work" in said and b'"pid":%d' % os.getpid() in said, said[:300]
sys.exit(0 if child == 0 else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_records_by_itself() -> None:
    assert subprocess.run([sys.executable, "-c", _FORKS], check=False, capture_output=True).returncode == 0


_OVERFLOWS = """
import gzip
from mdtasks.observe import ring
ring.ENTRIES = 100
from mdtasks.observe.flames import read_flame
from mdtasks.observe.traces import CallContext, Recorder
from mdtasks.domain.slowness import SlowRule
def work(): return sum(range(50_000))
by, found = Recorder(SlowRule(1e-9, 0)), []
with by.call(CallContext("p", "c", ()), found.append):
    for _ in range(300): work()
flame = read_flame(gzip.decompress(found[0].trace))
assert flame.overflow and 90 < len(flame.slices) < 110, (flame.overflow, len(flame.slices))
assert flame.slices[0].name == "p c" and flame.slices[0].start_us == 0
with by.call(CallContext("p", "c", ()), found.append): work()
assert not read_flame(gzip.decompress(found[1].trace)).overflow
"""


def test_a_ring_that_was_full_says_so_and_the_call_is_still_whole_in_its_trace() -> None:
    done = subprocess.run([sys.executable, "-c", _OVERFLOWS], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_viztracer_is_imported_when_a_call_is_recorded_and_not_before() -> None:
    script = (
        "import sys, mdtasks.worker.tasks, mdtasks.web.app, mdtasks.cli.traces\n"
        "from mdtasks.flows.deps import open_recorder\nfrom mdtasks.settings import Settings\n"
        "assert open_recorder(Settings(viztracer_enabled=False)) is None and open_recorder(Settings())\n"
        "assert 'viztracer' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_ring_is_one_for_the_process() -> None:
    assert ring() is ring()
