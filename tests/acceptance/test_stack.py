"""`mdtasks up` and its fellows with the real processes, as a user has them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mdtasks.stack.binaries import prometheus_binary
from mdtasks.stack.ports import WEB_PORT
from mdtasks.stack.report import stack_status

Eventually = Callable[..., None]
MOVED = f"port {WEB_PORT} is taken by another program"
_NAMES = {"supervisor", "redis", "postgres", "t0", "t1", "t2", "control", "beat", "web", "flower"}
_EXTRA = {"prometheus"} if prometheus_binary() else set()


def mdtasks(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one command in the folder, as typed there."""
    command = [sys.executable, "-m", "mdtasks", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=90, cwd=cwd, env={**os.environ, **environ}
    )


def status(folder: Path) -> dict[str, Any]:
    """What `mdtasks status --json` says in the folder, without a process for each look."""
    return stack_status(folder / ".mdtasks").as_dict()


def process(folder: Path, name: str) -> dict[str, Any]:
    """One process of the status."""
    found: dict[str, Any] = next((each for each in status(folder).get("processes", ()) if each["name"] == name), {})
    return found


def living_in(folder: Path) -> list[str]:
    """The command lines of all processes that belong to a home in this folder, by their arguments or environment."""
    home = str(folder / ".mdtasks")
    found = []
    for each in psutil.process_iter():
        try:
            if home in " ".join(each.cmdline()) or each.environ().get("MDTASKS_HOME") == home:
                found.append(" ".join(each.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def default_port_taken() -> Iterator[None]:
    """Another program is where the web app would be: whoever has the port already, and as soon as he lets go, this."""
    over = threading.Event()

    def hold() -> None:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            while True:
                try:
                    other.bind(("127.0.0.1", WEB_PORT))
                    break
                except OSError:
                    if over.wait(0.01):
                        return
            other.listen()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    yield
    over.set()
    holder.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, default_port_taken: None) -> Iterator[Path]:
    """A folder in which a stack has been started with `mdtasks up --detach`. Stopping it is shown in test_chaos."""
    place = tmp_path_factory.mktemp("an empty folder")
    started = mdtasks("up", "--detach", cwd=place, MDTASKS_SIMULATOR="1", BACKFILL_MAX_QUEUE_T0="3")
    try:
        assert started.returncode == 0, started.stderr + mdtasks("logs", cwd=place).stdout
        assert f"({MOVED})" in started.stderr
        yield place
    finally:
        mdtasks("down", cwd=place)


def test_everything_is_ready_and_within_its_memory(folder: Path, eventually: Eventually) -> None:
    for name in _EXTRA:  # `up` does not wait for it
        eventually(lambda name=name: process(folder, name).get("state") == "ready", within_s=30, what=name)
    found = json.loads(mdtasks("status", "--json", cwd=folder).stdout)
    assert found["state"] == "ready"
    assert {each["name"] for each in found["processes"]} == _NAMES | _EXTRA
    assert {each["state"] for each in found["processes"]} == {"ready"}
    assert sum(each["memory_mb"] for each in found["processes"]) == pytest.approx(found["memory_mb"], abs=1)
    assert 100 < found["memory_mb"] < 1200
    seen = status(folder)
    assert found.keys() == seen.keys()
    assert [each.keys() for each in found["processes"]] == [each.keys() for each in seen["processes"]]


def test_a_second_terminal_fills_in_bars_by_the_caps_and_providers_of_the_stack(folder: Path) -> None:
    assert mdtasks("universe", "add", "BTC-USD", "--mic", "24/7", "--tier", "T0", cwd=folder).returncode == 0
    asked = mdtasks("backfill", "BTC-USD", "--sessions", "6", "--wait", "--json", cwd=folder)
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    # The dispatcher may take a place under the cap before the request does; nobody passes it.
    assert answer["queued"] <= 3
    assert answer["queued"] + answer["deferred"] == 6
    assert mdtasks("gaps", "BTC-USD", "--check", cwd=folder).returncode == 0
    bars = mdtasks("bars", "BTC-USD", "--sessions", "2", cwd=folder).stdout.splitlines()
    assert bars[0].startswith("ts,open,high,low,close,volume")
    assert len(bars) > 1440
    assert mdtasks("dlq", "list", "--json", cwd=folder).stdout.strip() == "[]"


def test_web_and_flower_answer_where_status_says(folder: Path) -> None:
    found = status(folder)
    for url in (f"{found['web_url']}/ready", f"{found['flower_url']}/healthcheck", f"{found['flower_url']}/broker"):
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200


def test_prometheus_scrapes_the_stack_and_knows_its_rules(
    folder: Path, unavailable_here: Callable[[str], None], eventually: Eventually
) -> None:
    if not _EXTRA:
        unavailable_here("prometheus is not on the PATH; on Debian and Ubuntu: apt install prometheus")
    found = status(folder)

    def ask(path: str) -> Any:
        with urllib.request.urlopen(f"{found['prometheus_url']}/api/v1/{path}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    eventually(lambda: [each for each in ask("query?query=up")["result"] if each["value"][1] == "1"], within_s=60)
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} >= {"SLOGapViolationHighT0", "BackfillQueueTooDeep", "SLOMonitorDead"}
    links = {rule["annotations"]["runbook_url"] for rule in rules if rule["type"] == "alerting"}
    assert all(link.startswith(f"{found['web_url']}/runbooks/") for link in links)
    with urllib.request.urlopen(f"{found['web_url']}/health", timeout=10) as answer:
        assert json.loads(answer.read()) == {"ok": True, "prometheus": found["prometheus_url"]}
    served = psutil.Process(process(folder, "prometheus")["pid"])
    addresses = {each.laddr.ip for each in served.net_connections() if each.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}
    assert not [name for name in served.environ() if name.startswith("MDTASKS_") and name != "MDTASKS_HOME"]


def test_a_second_up_says_that_it_runs_and_where(folder: Path) -> None:
    for words in (("up",), ("up", "--detach"), ("up", "--detach", "--json")):
        again = mdtasks(*words, cwd=folder)
        assert again.returncode == 0
        assert status(folder)["web_url"] in again.stdout + again.stderr
        assert "already running" in again.stderr or "--json" in words
        assert f"({MOVED})" in again.stderr or json.loads(again.stdout)["taken_port"] == WEB_PORT
    assert status(folder)["taken_port"] == WEB_PORT
    assert f"({MOVED})" in mdtasks("status", cwd=folder).stdout
    assert {each["restarts"] for each in status(folder)["processes"]} == {0}


def test_a_worker_typed_by_hand_finds_the_running_stack(folder: Path) -> None:
    # Workers that are asked by name are not waited for when all have answered.
    names = ",".join(f"{name}@{socket.gethostname()}" for name in ("t0", "t1", "t2", "control"))
    ping = ("inspect", "ping", "--timeout", "30", "--json", "--destination", names)
    command = [sys.executable, "-m", "celery", "-A", "mdtasks", *ping]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert {name.split("@")[0] for name in json.loads(done.stdout)} == {"t0", "t1", "t2", "control"}


def test_a_taken_port_is_named_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    port = status(folder)["web_url"].rpartition(":")[2]
    refused = mdtasks("up", "--port", port, cwd=tmp_path)
    assert refused.returncode == 4
    assert refused.stderr.splitlines()[-2].startswith(f"error: port {port} is taken")
    assert "mdtasks up --port" in refused.stderr.splitlines()[-1]
    assert living_in(tmp_path) == []
    detached = mdtasks("up", "--detach", "--port", port, cwd=tmp_path)
    assert detached.returncode == refused.returncode
    assert f"error: port {port} is taken" in detached.stderr


def test_processes_that_are_killed_come_back_and_are_counted(folder: Path, eventually: Eventually) -> None:
    killed = {"t1", "redis", "web"}
    for name in killed:
        os.kill(process(folder, name)["pid"], signal.SIGKILL)

    def back() -> set[str]:
        found = status(folder).get("processes", ())
        return {each["name"] for each in found if each["restarts"] >= 1 and each["state"] == "ready"}

    eventually(lambda: killed <= back(), within_s=40, what="killed processes are ready again")
    assert process(folder, "t1")["last_exit"] == -signal.SIGKILL
    assert process(folder, "t0")["restarts"] == 0
    assert "t1" in mdtasks("status", cwd=folder).stdout


def test_logs_show_each_process(folder: Path) -> None:
    assert "ready." in mdtasks("logs", "t0", "-n", "1000", cwd=folder).stdout
    unknown = mdtasks("logs", "t9", cwd=folder)
    assert unknown.returncode == 3
    assert "no log of 't9'" in unknown.stderr


def test_a_killed_supervisor_leaves_nothing_that_the_next_up_does_not_clear(
    folder: Path, eventually: Eventually
) -> None:
    os.kill(process(folder, "supervisor")["pid"], signal.SIGKILL)
    eventually(lambda: mdtasks("status", cwd=folder).returncode == 5, what="status sees that it is gone")
    output = folder / "output"
    with output.open("wb") as file:
        again = subprocess.Popen([sys.executable, "-m", "mdtasks", "up"], cwd=folder, stdout=file, stderr=file)
        try:
            eventually(lambda: "ready in" in output.read_text(), within_s=40, what="it starts again")
            again.send_signal(signal.SIGINT)
            assert again.wait(16) == 0
        finally:
            again.kill()
            again.wait()
    assert f"({MOVED})" in output.read_text()
    assert "stopped, nothing left running" in output.read_text()
    assert living_in(folder) == []
