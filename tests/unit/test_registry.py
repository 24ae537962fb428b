"""The registry: only what is configured, in the order that policy or default says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mdtasks.domain.errors import ConfigurationError, UnknownProviderError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.rates import Rate
from mdtasks.providers.gate import Gate, OpenGate
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "map.yaml"
    path.write_text("datasets: [{path: a.csv, symbols: [A], interval: 1d}]")
    return path


def registry(tmp_path: Path, mapping: Path, **changes: Any) -> Registry:
    return Registry(Settings(files_map=mapping, lean_dir=tmp_path, simulator=True, **changes))


def names(providers: list[Any]) -> list[str]:
    return [provider.name for provider in providers]


def test_without_configuration_there_is_no_provider() -> None:
    empty = Registry(Settings())
    assert empty.names() == []
    assert empty.order(Interval.M1) == []
    with pytest.raises(UnknownProviderError, match="configured: none"):
        empty.get("simulator")


def test_by_default_made_up_data_never_stands_in_for_real_data(tmp_path: Path, mapping: Path) -> None:
    found = registry(tmp_path, mapping)
    assert found.names() == ["lean", "files", "simulator"]
    assert names(found.order(Interval.D1)) == ["lean", "files"]
    assert names(Registry(Settings(simulator=True)).order(Interval.D1)) == ["simulator"]


def test_only_providers_that_declare_the_capability_are_tried(tmp_path: Path, mapping: Path) -> None:
    found = registry(tmp_path, mapping)
    assert names(found.order(Interval.M1)) == ["lean"]
    assert names(found.order(Interval.M5)) == []
    assert names(found.order("quotes")) == ["lean"]


def test_each_policy_orders_its_own_capability(tmp_path: Path, mapping: Path) -> None:
    found = registry(tmp_path, mapping, policy_bars="simulator,lean", policy_eod="files", policy_quotes=("simulator",))
    assert names(found.order(Interval.M1)) == ["simulator", "lean"]
    assert names(found.order(Interval.D1)) == ["files"]
    assert names(found.order("quotes")) == ["simulator"]


def test_a_hint_stands_first_and_alone(tmp_path: Path, mapping: Path) -> None:
    found = registry(tmp_path, mapping, policy_eod="lean")
    assert names(found.order(Interval.D1, "files")) == ["files"]
    assert found.order(Interval.M5, "files") == []
    with pytest.raises(UnknownProviderError, match="'yahoo' is not configured; configured: lean, files, simulator"):
        found.order(Interval.D1, "yahoo")


def test_a_policy_that_names_an_unknown_provider_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="POLICY_EOD") as refused:
        Registry(Settings(simulator=True, policy_eod=("yahoo",)))
    assert refused.value.name == "POLICY_EOD"


def test_an_adapter_is_imported_only_when_it_is_configured() -> None:
    program = (
        "import sys; from mdtasks.settings import Settings; from mdtasks.providers.registry import Registry; "
        "Registry(Settings()); "
        "print([m for m in sys.modules if m in ('pyarrow', 'pandas', 'yaml') or m.startswith('mdtasks.providers.')])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "['mdtasks.providers.base', 'mdtasks.providers.gate', 'mdtasks.providers.registry']"


_READ = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings

import numpy
registry = Registry(Settings(files_map=Path(sys.argv[1])))
threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
registry.preload()
assert not threads or len(os.listdir("/proc/self/task")) == threads, "importing started a thread"
loaded = set(sys.modules)
window = TimeWindow(start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2024, 1, 3, tzinfo=UTC))
answer = registry.get("files").fetch_bars([Listing("A", "24/7")], Interval.D1, window, datetime(2025, 1, 1, tzinfo=UTC))
assert len(answer.bars["A"]) == 2, answer
late = {name.partition(".")[0] for name in set(sys.modules) - loaded}
print(*sorted(late & {"pandas", "pyarrow", "numpy"}))
"""


def test_what_a_reader_needs_is_loaded_before_the_fork_without_a_thread_or_pandas(
    tmp_path: Path, mapping: Path
) -> None:
    (tmp_path / "a.csv").write_text("time,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n2024-01-02,1,1,,1,1\n")
    ran = subprocess.run([sys.executable, "-c", _READ, str(mapping)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr


_KEYS: dict[str, Any] = {
    "alpaca_key": "k",
    "alpaca_secret": "s",
    "massive_key": "k",
    "databento_key": "k",
    "finnhub_key": "k",
    "yfinance": True,
}


def test_a_vendor_is_there_when_its_key_is_and_stands_behind_files_of_ones_own(tmp_path: Path, mapping: Path) -> None:
    vendors = ["alpaca", "massive", "databento", "finnhub", "yfinance"]
    found = registry(tmp_path, mapping, **_KEYS)
    assert found.names() == ["lean", "files", *vendors, "simulator"]
    assert names(found.order(Interval.H1)) == ["lean", "alpaca", "massive", "databento"]
    assert names(found.order("quotes")) == ["lean", "alpaca", "finnhub"]
    candles: dict[str, Any] = {"finnhub_key": "k", "finnhub_candles": True}
    assert names(Registry(Settings(**candles)).order(Interval.D1)) == ["finnhub"]


@pytest.mark.parametrize(
    ("name", "changes", "rates", "delay_s", "days", "complete"),
    [
        ("alpaca", {}, "200/min", 0, None, False),
        ("alpaca", {"alpaca_feed": "sip"}, "200/min", 960, None, True),
        ("massive", {}, "5/min", 86_400, 730, True),
        ("databento", {}, "100/s", 86_400, None, False),
        ("finnhub", {}, "60/min+30/s", 0, None, False),
        ("yfinance", {}, "30/min", 0, 29, False),
        (
            "massive",
            {"vendor_rates": "massive=none", "vendor_delays": "massive=0", "vendor_history": "massive=none"},
            "",
            0,
            None,
            True,
        ),
    ],
)
def test_the_free_plan_holds_until_the_settings_tell_of_another(
    name: str, changes: dict[str, Any], rates: str, delay_s: float, days: int | None, complete: bool
) -> None:
    gated: dict[str, tuple[Rate, ...]] = {}

    def gate_for(vendor: str, limits: tuple[Rate, ...]) -> Gate:
        gated[vendor] = limits
        return OpenGate()

    told = Registry(Settings(**_KEYS, **changes), gate_for=gate_for).get(name).capabilities
    assert "+".join(map(str, told.rates)) == rates
    assert gated[name] == told.rates
    reach = told.reach(Interval.M1)
    assert (told.delay_s, reach.days if reach else None, told.complete) == (delay_s, days, complete)
