"""The stack's small parts: pauses, ports, logs, records, the notify socket."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.errors import ConflictError
from mdtasks.observe.ready import tell_ready
from mdtasks.settings import load_settings
from mdtasks.stack.binaries import prometheus_binary
from mdtasks.stack.child import restart_pause_s
from mdtasks.stack.embedded import PostgresServer, ValkeyServer
from mdtasks.stack.home import Home, ProcessRecord, StackRecord, identity, is_alive
from mdtasks.stack.logs import Follower, last_lines, rotate
from mdtasks.stack.notify import NotifySocket
from mdtasks.stack.ports import (
    WEB_PORT,
    any_free_port,
    choose_flower_port,
    choose_web_port,
    is_free,
    taken_port,
    why_moved,
)
from mdtasks.stack.processes import Plan, StopRule, process_table, stop_server
from mdtasks.stack.prometheus import argv_of, write_files
from mdtasks.stack.supervisor import exit_words


def test_pauses_grow_from_half_a_second_to_thirty() -> None:
    assert [restart_pause_s(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@given(st.integers(1, 10**9))
def test_a_pause_is_never_zero_and_never_above_thirty_seconds(failures: int) -> None:
    assert 0.5 <= restart_pause_s(failures) <= 30


def test_a_taken_port_that_was_asked_for_is_refused_with_its_number_and_another_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(ConflictError, match=f"port {port} is taken") as refused:
            choose_web_port(port)
        assert "mdtasks up --port" in refused.value.hint
        assert choose_flower_port(port - 1) not in (port, port - 1)


def test_a_web_app_that_had_to_move_knows_from_where() -> None:
    assert taken_port(None, WEB_PORT) is None
    assert taken_port(WEB_PORT + 2, WEB_PORT + 2) is None  # where it was asked to be
    assert taken_port(None, WEB_PORT + 2) == WEB_PORT
    assert (why_moved(None), why_moved(WEB_PORT)) == ("", f"port {WEB_PORT} is taken by another program")


def test_a_port_taken_on_all_addresses_is_seen() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        assert not is_free(taken.getsockname()[1])


def test_a_free_port_that_was_asked_for_is_taken() -> None:
    port = any_free_port()
    assert choose_web_port(port) == port


def test_a_log_that_has_grown_is_copied_aside_and_its_writer_goes_on_at_the_new_start(tmp_path: Path) -> None:
    path = tmp_path / "t0.log"
    with path.open("ab", buffering=0) as writer:
        for number in range(5):
            writer.write(f"{number}".encode() * 100 + b"\n")
            assert rotate(path, max_bytes=100, kept=3)
        assert not rotate(path, max_bytes=100, kept=3)
        writer.write(b"after\n")
    assert path.read_text() == "after\n"
    kept = sorted(each.name for each in tmp_path.iterdir())
    assert kept == ["t0.log", "t0.log.1", "t0.log.2", "t0.log.3"]
    assert [(tmp_path / name).read_text()[0] for name in kept[1:]] == ["4", "3", "2"]


def test_following_sees_each_new_line_whole_through_rotation_and_in_logs_that_come_later(tmp_path: Path) -> None:
    first, later = tmp_path / "a.log", tmp_path / "b.log"
    first.write_text("old\n")
    follower = Follower({"a": first, "b": later})
    with first.open("ab", buffering=0) as writer:
        writer.write(b"half")
        assert follower.new_lines() == []
        writer.write(b" whole\n")
        later.write_text("born\n")
        assert follower.new_lines() == [("a", "half whole"), ("b", "born")]
        rotate(first, max_bytes=1)
        writer.write(b"new\n")
        assert follower.new_lines() == [("a", "new")]
        assert follower.new_lines() == []


@pytest.mark.parametrize("count", [0, 1, 3, 5000, 20_000])
def test_the_last_lines_of_a_long_log_are_its_last_lines(tmp_path: Path, count: int) -> None:
    path = tmp_path / "long.log"
    lines = [f"line {number}" for number in range(10_000)]
    path.write_text("\n".join(lines) + "\n")
    assert last_lines(path, count) == lines[max(0, 10_000 - count) :]
    assert last_lines(tmp_path / "none.log", count) == []


def test_a_home_is_held_by_one_at_a_time_and_free_when_its_holder_dies(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.held() as first, home.held() as second:
        assert (first, second) == (True, False)
    script = (
        "import os, sys; from pathlib import Path; from mdtasks.stack.home import Home\n"
        "with Home(Path(sys.argv[1])).held() as mine: print(mine, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n"
    with home.held() as mine:
        assert mine


def test_a_record_survives_and_is_private(tmp_path: Path) -> None:
    home = Home(tmp_path)
    me = ProcessRecord("supervisor", "ready", os.getpid(), identity(os.getpid()), 1.5)
    record = StackRecord(
        me, True, False, "http://web", "http://flower", (ProcessRecord("t0", "waiting", last_exit=-9),)
    )
    home.write(record)
    assert home.read() == record
    assert home.running() == record
    assert stat.S_IMODE(home.state_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"supervisor": {}, "processes": []}'])
def test_a_spoilt_record_is_no_record(tmp_path: Path, content: str) -> None:
    Home(tmp_path).state_file.write_text(content)
    assert Home(tmp_path).read() is None


def test_a_pid_that_somebody_else_has_now_is_not_ours() -> None:
    me = ProcessRecord("t0", "ready", os.getpid(), identity(os.getpid()))
    assert is_alive(me)
    assert not is_alive(ProcessRecord("t0", "ready", os.getpid(), "another boot:1"))
    assert not is_alive(ProcessRecord("t0", "stopped"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert identity(gone.pid) is None


def test_a_process_that_says_it_is_ready_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = NotifySocket()
    try:
        monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
        assert not listener.is_ready(os.getpid())
        tell_ready()
        assert listener.is_ready(os.getpid())
        assert not listener.is_ready(1)
    finally:
        listener.close()
    tell_ready()  # nobody listens any more: no harm
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell_ready()


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, ""), (0, "exit 0"), (3, "exit 3"), (-9, "killed (SIGKILL)"), (-250, "killed by signal 250")],
)
def test_exits_are_told_in_words(code: int | None, words: str) -> None:
    assert exit_words(code) == words


def _longest_s(rule: StopRule) -> float:
    return sum(seconds for _, seconds in rule)


def test_a_stack_whose_processes_all_hang_is_stopped_in_less_than_fifteen_seconds(tmp_path: Path) -> None:
    specs = process_table(Plan(load_settings({}, home=tmp_path), 1, 2))
    phases = {spec.phase: 0.0 for spec in specs}
    for spec in specs:
        phases[spec.phase] = max(phases[spec.phase], _longest_s(spec.stop))
    servers = max(_longest_s(stop_server(server.stop_signals)) for server in (ValkeyServer, PostgresServer))
    looks_s = 0.5  # what is over is seen at the next look, 20 of them a second
    assert sum(phases.values()) + servers + looks_s < 15
    assert {spec.stop[0] for spec in specs if spec.name in {"t0", "t1", "t2", "control"}} == {(signal.SIGTERM, 10.0)}


def test_servers_get_nothing_of_the_callers_environment_that_they_do_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDTASKS_API_TOKEN", "a secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    for server in (ValkeyServer(tmp_path), PostgresServer(tmp_path)):
        environ = server.command().environ
        assert environ is not None
        assert "a secret" not in environ.values()
        assert environ["TZ"] == "Asia/Tokyo"
        assert "PATH" in environ


def test_flower_does_not_count_into_a_folder_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    specs = process_table(Plan(load_settings({}, home=tmp_path), 1, 2))
    environ = next(spec.command.environ for spec in specs if spec.name == "flower")
    assert environ is not None
    assert "PROMETHEUS_MULTIPROC_DIR" not in environ


def test_an_intake_runs_where_there_is_an_outside_coordinator(tmp_path: Path) -> None:
    assert "intake" not in {spec.name for spec in process_table(Plan(load_settings({}, home=tmp_path), 1, 2))}
    specs = process_table(Plan(load_settings({"USE_RLC": "true"}, home=tmp_path), 1, 2))
    (spec,) = [each for each in specs if each.name == "intake"]
    assert (spec.command.argv[-2:], spec.notifies, spec.needed) == (("mdtasks", "intake"), True, False)
    assert spec.stop[0] == (signal.SIGTERM, 10.0)
    assert spec.phase == 0


def test_prometheus_runs_where_its_program_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({}, home=tmp_path)
    assert "prometheus" not in {spec.name for spec in process_table(Plan(settings, 1, 2))}
    program = tmp_path / "bin" / "prometheus"
    monkeypatch.setenv("PATH", str(program.parent))
    assert prometheus_binary() is None
    program.parent.mkdir()
    program.touch(mode=0o755)
    assert prometheus_binary() == program
    plan = Plan(settings, 1, 2, prometheus=(program, 3))
    spec = next(each for each in process_table(plan) if each.name == "prometheus")
    assert (spec.ready_url, spec.needed) == ("http://127.0.0.1:3/-/ready", False)


def test_prometheus_goes_by_the_targets_and_addresses_of_its_stack(tmp_path: Path) -> None:
    environ = {"SLO_TARGET_T0": "0.0375", "MDTASKS_GRAFANA_URL": "https://grafana.example.org"}
    config = write_files(load_settings(environ, home=tmp_path), "http://127.0.0.1:9999")
    alerts = (config.parent / "rules" / "alerts.yml").read_text()
    for words in ("> 0.0375", "https://grafana.example.org/d/mdtasks-slo", "http://127.0.0.1:9999/runbooks/"):
        assert words in alerts
    assert "- 127.0.0.1:9999" in config.read_text()
    argv = argv_of("prometheus", 7, config)
    assert "--web.listen-address=127.0.0.1:7" in argv
    assert f"--storage.tsdb.path={tmp_path / 'prometheus' / 'data'}" in argv
