"""The benchmarks do their work at any size; what they measure is not asserted."""

from __future__ import annotations

from mdtasks.stack.benches.slo import bench_slo


def test_the_census_finds_what_the_query_per_series_would() -> None:
    said: list[str] = []
    result = bench_slo(said.append, series=400, rounds=1).as_dict()
    assert set(result["figures"]) == {"census", "whole_run", "gap_scan", "query_per_series, of a twentieth"}
    assert result["unit"] == "milliseconds for 400 series"
    assert set(result["ratios"]) == {"query_per_series / census"}
    assert len(said) == 8  # each case once to warm up and once for a round
