"""Rules and dashboards against a real Prometheus that scrapes a real stack: nothing is asked for that none exports."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mdtasks.stack.binaries import prometheus_binary
from tests.acceptance.harness import until
from tests.acceptance.test_stack import mdtasks, status
from tests.queries import BUILT_IN, all_queries, known, used

#: What a stack counts only when something rare happened to it; that their names are declared is shown elsewhere.
_RARE = {"stale_messages_total", "jobs_lost_resent_total", "bars_quarantined_total", "ws_dropped_messages_total"}
#: Enough goes wrong for letters, and looks follow one another fast enough for all to have happened within seconds.
_ROUGH = {
    "MDTASKS_SIMULATOR_FAULTS": "error=0.3",
    "MDTASKS_VENDOR_RATES": "simulator=6000/min",
    "VIZTRACER_SLOW_S": "0.0001",
    "MDTASKS_MAX_ATTEMPTS": "2",
    "MDTASKS_RETRY_BASE_S": "0",
    "MDTASKS_SETTLE_S": "1",
    "MDTASKS_GAP_SCAN_S": "3",
    "SLO_EVERY_S": "3",
    "CADENCE_T0__bars_1m": "5",
}


@pytest.fixture(scope="module")
def prometheus(unavailable_here: Callable[[str], None]) -> None:
    """Only where the program is."""
    if prometheus_binary() is None:
        unavailable_here("prometheus is not on the PATH; on Debian and Ubuntu: apt install prometheus")


@contextmanager
def stack(folder: Path, **environ: str) -> Iterator[None]:
    """A stack in the folder, with a symbol in each tier that trades at any hour."""
    started = mdtasks("up", "--detach", cwd=folder, MDTASKS_SIMULATOR="1", POLICY_BARS_1M="simulator", **environ)
    try:
        assert started.returncode == 0, started.stderr
        for tier, symbol in (("T0", "BTC-USD"), ("T1", "ETH-USD"), ("T2", "SOL-USD")):
            assert mdtasks("universe", "add", symbol, "--mic", "24/7", "--tier", tier, cwd=folder).returncode == 0
        yield
    finally:
        mdtasks("down", cwd=folder)


@contextmanager
def follower(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A client of the live stream, while this lasts."""
    words = [sys.executable, "-m", "mdtasks", "replay", "BTC-USD", "ETH-USD", "--follow", "--home", ".mdtasks"]
    with (folder / "follower.log").open("wb") as log:
        client = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield client
    finally:
        client.kill()
        client.wait()


def ask(folder: Path, path: str, **parameters: str) -> Any:
    """What the stack's Prometheus answers."""
    record = json.loads((folder / ".mdtasks" / "state.json").read_text())  # `status` would take a process each time
    url = f"{record['prometheus_url']}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())["data"]


def query(folder: Path, expr: str) -> list[dict[str, Any]]:
    """A query's series now."""
    found: list[dict[str, Any]] = ask(folder, "query", query=expr)["result"]
    return found


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("prometheus")
def test_every_query_asks_for_what_a_running_stack_exports(tmp_path: Path) -> None:
    wanted: dict[str, set[str]] = {}
    for place in all_queries().values():
        for each in used(place):
            wanted.setdefault(each.metric, set()).update(each.labels)
    declared = known()
    skipped = {*BUILT_IN, *_RARE}
    recorded = {name for name in wanted if ":" in name}
    exported = {name: wanted[name] for name in wanted.keys() & declared.keys() - skipped - recorded}
    with stack(tmp_path, **_ROUGH), follower(tmp_path) as client:
        asked = mdtasks("backfill", "BTC-USD", "ETH-USD", "SOL-USD", "--sessions", "20", cwd=tmp_path)
        assert asked.returncode == 0, asked.stderr
        missing = dict(exported)

        def all_there() -> bool:
            assert client.poll() is None, (tmp_path / "follower.log").read_text()
            for name in list(missing):
                if any(missing[name] <= each["metric"].keys() for each in query(tmp_path, name)):
                    del missing[name]
            return not missing

        until(all_there, "all metrics with their labels", within_s=300, told=lambda: str(missing))
        for place, expr in all_queries().items():
            chosen = expr.replace("$tier", ".*").replace("$provider", ".*")
            assert isinstance(query(tmp_path, chosen), list), place
        healthy = [rule for group in ask(tmp_path, "rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in healthy} <= {"ok", "unknown"}


def alerts(folder: Path, name: str) -> list[dict[str, Any]]:
    """The alerts of this name that fire."""
    return [
        each
        for each in ask(folder, "alerts")["alerts"]
        if each["labels"]["alertname"] == name and each["state"] == "firing"
    ]


@pytest.mark.full_size_only
@pytest.mark.usefixtures("prometheus")
def test_a_provider_that_is_down_fires_its_alert_and_ends_it(tmp_path: Path) -> None:
    """Takes about fifteen minutes: alerts wait as long as they do at night."""
    with stack(tmp_path, MDTASKS_SIMULATOR_FAULTS="error=1", MDTASKS_MAX_ATTEMPTS="100"):
        mdtasks("backfill", "BTC-USD", "--sessions", "20", cwd=tmp_path)
        until(lambda: alerts(tmp_path, "ProviderDown"), "the provider's alert", within_s=600)
        (firing,) = alerts(tmp_path, "ProviderDown")
        assert firing["labels"]["provider"] == "simulator"
        with urllib.request.urlopen(firing["annotations"]["runbook_url"], timeout=10) as page:
            assert b"<h1>ProviderDown</h1>" in page.read()
        found = json.loads(mdtasks("runbook", "ProviderDown", "--json", cwd=tmp_path).stdout)
        assert found["findings"][0]["cause"] in ("the provider simulator fails", "simulator is demoted")
    with stack(tmp_path):
        until(lambda: query(tmp_path, 'up{job="mdtasks"} == 1'), "a scrape", within_s=60)
        until(lambda: not alerts(tmp_path, "ProviderDown"), "the end of the alert", within_s=600)
        until(
            lambda: mdtasks("gaps", "BTC-USD", "--check", cwd=tmp_path).returncode == 0, "all gaps closed", within_s=600
        )


@pytest.mark.full_size_only
@pytest.mark.usefixtures("prometheus")
def test_late_series_fire_their_alert_and_end_it(tmp_path: Path) -> None:
    """Takes about twenty minutes: the provider stops, its series are late, and it comes back."""
    with stack(tmp_path):
        until(lambda: query(tmp_path, "slo_gap_expected_total"), "a look of the monitor", within_s=300)
    with stack(tmp_path, MDTASKS_SIMULATOR_FAULTS="error=1", MDTASKS_MAX_ATTEMPTS="100"):
        until(lambda: alerts(tmp_path, "SLOGapViolationHighT0"), "the objective's alert", within_s=1200)
        (firing,) = alerts(tmp_path, "SLOGapViolationHighT0")
        assert (firing["labels"]["severity"], firing["labels"]["interval"]) == ("page", "1m")
        with urllib.request.urlopen(f"{status(tmp_path)['web_url']}/slo", timeout=20) as page:
            said = page.read().decode()
        assert "BTC-USD" in said
        found = json.loads(mdtasks("runbook", "SLOGapViolationHighT0", "--json", cwd=tmp_path).stdout)
        causes = {each["cause"] for each in found["findings"]}
        assert causes & {"the provider simulator fails", "simulator is demoted"}
    with stack(tmp_path):
        until(lambda: query(tmp_path, 'up{job="mdtasks"} == 1'), "a scrape", within_s=60)
        until(lambda: not alerts(tmp_path, "SLOGapViolationHighT0"), "the end of the alert", within_s=1200)
        until(
            lambda: mdtasks("gaps", "BTC-USD", "--check", cwd=tmp_path).returncode == 0, "all gaps closed", within_s=600
        )
        repaired = "sum by (tier) (gap_repair_seconds_count)"
        until(lambda: {each["metric"]["tier"] for each in query(tmp_path, repaired)} >= {"T0"}, "repair times")

        def outcomes() -> set[str | None]:
            (told,) = json.loads(mdtasks("gaps", "BTC-USD", "--explain", "--json", cwd=tmp_path).stdout)
            return {entry["outcome"] for entry in told["ledger"]}

        until(lambda: outcomes() == {"repaired"}, "the scan that closes the ledger", within_s=180)
