"""`mdtasks doctor` finds what is wrong; `mdtasks demo` fills an empty stack, and does little in a full one."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import orjson
import pytest
import redis

from mdtasks.cli.demo import _refuse_without_simulator
from mdtasks.flows import doctor
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import reconcile_once
from mdtasks.flows.doctor import examine_horizons
from mdtasks.settings import CONNECTION_FILE, load_settings
from mdtasks.store import letters, reference
from mdtasks.store.letters import FINDING, Letter
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.cli_calls import Called, Cli, work


def parts(called: Called) -> dict[str, str]:
    """The state of each part."""
    return {check["part"]: check["state"] for check in called.json["checks"]}


@pytest.fixture
def beating(redis_client: redis.Redis) -> Iterator[None]:
    """A worker that says every now and then that it is alive, as Celery's do."""
    over = threading.Event()
    message = orjson.dumps({"headers": {"hostname": "t0@test"}, "body": ""})

    def beat() -> None:
        while not over.wait(0.2):
            redis_client.publish("/0.celeryev/worker.heartbeat", message)

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.usefixtures("beating")
def test_a_sound_stack_has_nothing_bad(cli: Cli, cli_deps: Deps) -> None:
    reconcile_once(cli_deps, datetime.now(UTC))
    found = cli("doctor", "--json")
    assert {part for part, state in parts(found).items() if state == "bad"} == set()
    assert found.code == 0
    assert found.json["healthy"] is True
    workers = next(check for check in found.json["checks"] if check["part"] == "workers")
    assert workers["found"].startswith("t0@test")


@pytest.mark.usefixtures("beating")
def test_open_letters_are_to_look_at_and_counted_by_kind(cli: Cli, cli_deps: Deps) -> None:
    reconcile_once(cli_deps, datetime.now(UTC))

    def told() -> dict[str, str]:
        found = cli("doctor", "--json")
        assert (found.code, found.json["healthy"]) == (0, True)
        return next(check for check in found.json["checks"] if check["part"] == "dead letters")

    assert (told()["state"], told()["found"]) == ("ok", "none is open")
    with cli_deps.database.transaction() as connection:
        for number, kind in enumerate((FINDING, "poison", FINDING)):
            letters.record(connection, Letter(f"{kind}:{number}", kind, "", "name_unclear", "look at it"))
    told_now = told()
    assert (told_now["state"], told_now["found"]) == ("warn", "3 open: 2 findings, 1 poison")
    assert "`mdtasks dlq list`" in told_now["todo"]
    assert "all is well" not in cli("doctor").err


def test_who_keeps_others_waiting_is_named(cli: Cli, cli_deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_WAITS_S", 0.0)
    database = cli_deps.database

    def told() -> dict[str, str]:
        return next(check for check in cli("doctor", "--json").json["checks"] if check["part"] == "locks")

    def change() -> None:
        with database.transaction() as connection:
            reference.lock(connection)

    assert told()["state"] == "ok"
    with database.transaction() as connection:
        reference.lock(connection)
        waiting = threading.Thread(target=change)
        waiting.start()
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        while not connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one():
            pass
        found = told()
    waiting.join()
    assert found["state"] == "warn"
    assert f"for process {pid} (" in found["found"]
    assert f"pg_terminate_backend({pid})" in found["todo"]


def test_silent_workers_and_a_beat_that_never_ran_are_bad(cli: Cli) -> None:
    found = cli("doctor", "--json")
    assert {part for part, state in parts(found).items() if state == "bad"} == {"workers", "beat"}
    assert found.code == 1
    assert all(check["todo"] for check in found.json["checks"] if check["state"] == "bad")


@pytest.mark.usefixtures("beating")
def test_a_redis_that_evicts_is_bad(cli: Cli, cli_deps: Deps, redis_client: redis.Redis) -> None:
    reconcile_once(cli_deps, datetime.now(UTC))
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = cli("doctor")
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert found.code == 1
    line = next(line for line in found.out.splitlines() if line.startswith("bad"))
    assert "allkeys-lru" in line
    assert "set maxmemory-policy noeviction" in line


def test_servers_that_are_away_are_named_and_what_leans_on_them_is_left_out(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDTASKS_REDIS_URL", "redis://127.0.0.1:1/0")
    found = cli("doctor", "--json")
    assert found.code == 1
    assert parts(found)["redis"] == "bad"
    assert parts(found)["postgres"] == "ok"
    assert not {"workers", "beat", "clocks"} & set(parts(found))


def test_without_a_stack_the_rest_is_still_examined(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MDTASKS_DATABASE_URL", "MDTASKS_REDIS_URL"):
        monkeypatch.delenv(name)
    found = cli("doctor", "--json", "--home", str(tmp_path / "nowhere"))
    assert found.code == 1
    assert parts(found)["stack"] == "bad"
    assert parts(found)["packages"] == "ok"


def _bars_stored(said: str) -> int:
    found = re.search(r"([\d,]+) bars? stored in", said)
    assert found, said
    return int(found[1].replace(",", ""))


def test_the_demo_fills_an_empty_stack_and_does_little_in_a_full_one(cli: Cli, cli_deps: Deps) -> None:
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            work(cli_deps)
            over.wait(0.05)

    worker = threading.Thread(target=run)
    worker.start()
    try:
        first = cli("demo", "--no-live")
        again = cli("demo", "--no-live")
    finally:
        over.set()
        worker.join()
    assert (first.code, again.code) == (0, 0)
    assert (first.out, again.out) == ("", "")
    assert "bars stored in" in first.err
    assert "mdtasks gaps AAPL --home" in first.err
    assert len(cli("universe", "list", "--json").json) == 6
    for found in cli("gaps", "--json").json:
        assert found["missing"] == 0
        assert found["present"] > 1000 or found["symbol"] in {"AAPL", "SPY", "MSFT", "NVDA"}
    # All that was lacking by then are the minutes since: of the two pairs that never close, and of all in a session.
    assert _bars_stored(again.err) < _bars_stored(first.err) / 20


def test_the_demo_is_refused_where_the_workers_have_no_simulator(
    cli: Cli, cli_deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = cli_deps.settings.home
    home.mkdir(parents=True, exist_ok=True)
    urls = {name: os.environ[f"MDTASKS_{name.upper()}"] for name in ("database_url", "redis_url")}
    for name, simulator in (("1", False), ("", False), ("", True)):
        monkeypatch.setenv("MDTASKS_SIMULATOR", name)
        content = {**urls, "settings": {"simulator": True} if simulator else {}}
        (home / CONNECTION_FILE).write_bytes(orjson.dumps(content))
        if simulator:
            _refuse_without_simulator(load_settings(home=home))
        else:
            refused = cli("demo", "--no-live")
            assert refused.code == 4
            assert "mdtasks up --demo" in refused.err
    assert cli("universe", "list", "--json").json == []


def test_an_empty_universe_needs_no_calendar_and_is_told_so(cli_deps: Deps) -> None:
    now = datetime.now(UTC)
    assert examine_horizons(cli_deps, now).found.startswith("the universe is empty")
    with cli_deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("GONE", "XBOM", delisted_on=date(2020, 1, 1))])
    assert examine_horizons(cli_deps, now).found.startswith("every instrument of the universe is delisted")


@pytest.mark.parametrize(("days", "state"), [(61, "ok"), (59, "warn"), (-1, "warn")])
def test_a_calendar_that_ends_soon_is_told_while_an_instrument_trades_by_it(
    cli_deps: Deps, days: int, state: str
) -> None:
    horizon = cli_deps.calendars.get("XSHG").horizon
    now = horizon - timedelta(days=days)
    gone = Instrument("GONE", "XBOM", delisted_on=date(2020, 1, 1))
    with cli_deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("600000", "XSHG"), Instrument("BTC-USD", "24/7", "crypto"), gone])
    found = examine_horizons(cli_deps, now)
    assert found.state == state
    assert (f"XSHG until {horizon:%Y-%m-%d}" in found.found) == (state == "warn")
    assert "XBOM" not in found.found
    assert bool(found.todo) == (state == "warn")
