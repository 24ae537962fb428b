"""The benchmarks do their work at any size; what they measure is not asserted."""

from __future__ import annotations

from mdtasks.stack.benches.policy import bench_policy
from mdtasks.stack.benches.read import bench_read
from mdtasks.stack.benches.replay import Size, bench_replay
from mdtasks.stack.benches.slo import bench_slo
from mdtasks.stack.benches.trace import bench_trace


def test_the_census_finds_what_the_query_per_series_would() -> None:
    said: list[str] = []
    result = bench_slo(said.append, series=400, rounds=1).as_dict()
    assert set(result["figures"]) == {"census", "whole_run", "gap_scan", "query_per_series, of a twentieth"}
    assert result["unit"] == "milliseconds for 400 series"
    assert set(result["ratios"]) == {"query_per_series / census"}
    assert len(said) == 8  # each case once to warm up and once for a round


def test_what_recording_costs_is_measured_for_each_work_and_each_hook() -> None:
    said: list[str] = []
    result = bench_trace(said.append, bars=200, wait_s=0.001, rounds=3).as_dict()
    works, hooks = ("fetch", "parse", "python"), ("no hook", "off", "armed")
    assert set(result["figures"]) == {f"{work}, {hook}" for work in works for hook in hooks}
    ratios = ("off / no hook", "armed / off")
    assert set(result["ratios"]) == {f"{work}: {ratio}" for work in works for ratio in ratios}
    assert len(said) == len(works) + 1


def test_every_process_of_a_stack_follows_a_change() -> None:
    said: list[str] = []
    result = bench_policy(said.append, rounds=2, web=False).as_dict()
    assert result["unit"] == "milliseconds, 8 processes"
    assert set(result["figures"]) == {"median to the last process", "slowest round"}
    assert len(said) == 3


def test_a_download_is_measured_beside_a_copy_of_the_same_rows() -> None:
    said: list[str] = []
    result = bench_read(said.append, bars=2_000, rounds=1).as_dict()
    assert set(result["figures"]) == {"arrow_http", "copy_binary", "copy_text", "csv_http", "parquet_http"}
    ratios = {"arrow_http / copy_binary", "arrow_http / copy_text", "memory after all bars / after a tenth"}
    assert set(result["ratios"]) == ratios
    assert len(said) == 11


def test_each_client_of_the_stream_and_of_the_bare_broadcast_gets_every_bar() -> None:
    said: list[str] = []
    size = Size(clients=4, symbols=3, each=2, stalled=1, ticks=1, rounds=1)
    result = bench_replay(said.append, size=size).as_dict()  # it fails where one is missing
    cases = ("stream", "stream, a frame a message", "bare broadcast", "stream, some stalled")
    assert {f"{case}: p99" for case in cases} < set(result["figures"])
    assert "stream / bare broadcast: p99" in result["ratios"]
    assert len(said) == 2 * len(cases)
