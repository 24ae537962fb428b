"""When SDKs are loaded, who names them, and what is said when one is not there."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mdtasks
from mdtasks.domain.errors import (
    ConfigurationError,
)
from mdtasks.providers import vendor as vendor_module
from tests.vendors.configured import SWITCHES, vendor
from tests.vendors.server import VendorServer
from tests.vendors.week import CALENDARS, a_week

every_vendor = pytest.mark.parametrize("name", list(SWITCHES))


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with a_week() as running:
        yield running


@every_vendor
def test_a_vendor_without_its_sdk_is_refused_with_what_to_install(
    name: str, server: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_module, "installed", lambda module: False)
    with pytest.raises(ConfigurationError) as refused:
        vendor(name, server, CALENDARS)
    assert refused.value.hint == f"pip install 'mdtasks[{name}]'"


_LOAD = """
import os, sys
import numpy
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings
registry = Registry(Settings(alpaca_key="k", alpaca_secret="s", massive_key="k", finnhub_key="k", yfinance=True,
                             databento_key="k"))
sdks = {"alpaca", "massive", "finnhub", "yfinance", "databento", "pandas", "requests", "urllib3", "curl_cffi"}
assert not sdks & set(sys.modules), sdks & set(sys.modules)
threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
registry.preload()
assert not threads or len(os.listdir("/proc/self/task")) == threads, "importing started a thread"
print(*sorted(sdks & set(sys.modules)))
"""


def test_sdks_are_loaded_when_used_or_asked_for_and_not_before() -> None:
    ran = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split() == [
        "alpaca", "curl_cffi", "databento", "finnhub", "massive", "pandas", "requests", "urllib3", "yfinance"
    ]  # fmt: skip


def test_each_sdk_is_named_in_its_own_adapter_alone() -> None:
    folder = Path(mdtasks.__file__).parent
    for path in folder.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        loads = {
            str(node.args[0].value).partition(".")[0]
            for node in calls
            if getattr(node.func, "id", getattr(node.func, "attr", "")) in {"loaded", "import_module"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        }
        assert loads & set(SWITCHES) <= {path.stem}, path
