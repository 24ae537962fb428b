"""`mdtasks backfill`, `jobs` and `universe` on real servers: what they say, what they leave behind, how they refuse."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mdtasks.flows.deps import Deps
from mdtasks.providers.faults import Faults
from mdtasks.providers.simulator import SimulatorProvider
from tests.integration.cli_calls import Cli, work


@pytest.fixture
def universe(cli: Cli) -> Cli:
    """Commands on a stack that knows AAPL (XNYS) and BTC-USD (24/7)."""
    assert cli("universe", "add", "AAPL", "--mic", "XNYS").code == 0
    assert cli("universe", "add", "BTC-USD", "--mic", "24/7", "--tier", "T0").code == 0
    return cli


def spoil(deps: Deps, faults: str) -> None:
    """Give the worker's simulator faults."""
    deps.registry._providers["simulator"] = SimulatorProvider(deps.calendars, Faults.parse(faults))


@contextmanager
def working(deps: Deps) -> Iterator[None]:
    """A worker that works until the block ends."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            work(deps)
            over.wait(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_what_is_asked_for_is_queued_then_merged_then_covered(universe: Cli, cli_deps: Deps) -> None:
    words = ("backfill", "AAPL", "--start", "2026-11-02", "--end", "2026-11-04", "--json")
    first = universe(*words)
    assert (first.code, first.json["queued"], first.json["merged"]) == (0, 1, 0)
    assert universe(*words).json["merged"] == 1
    assert work(cli_deps) == 1
    third = universe(*words).json
    assert (third["queued"], third["merged"], third["covered"]) == (0, 0, 1)
    again = universe(*words, "--refetch").json
    assert (again["queued"], again["covered"]) == (1, 0)


def test_sessions_are_those_of_each_symbols_own_exchange(universe: Cli) -> None:
    assert universe("backfill", "AAPL", "BTC-USD", "--sessions", "2", "--end", "2026-11-09").code == 0
    starts: dict[str, str] = {}
    for job in universe("jobs", "--json").json:
        starts[job["symbol"]] = min(job["start"], starts.get(job["symbol"], job["start"]))
    # The 9th is a Monday: the exchange's two sessions before it were Thursday and Friday.
    assert starts == {"AAPL": "2026-11-05T14:30:00Z", "BTC-USD": "2026-11-07T00:00:00Z"}


def test_symbols_come_from_files_and_standard_input_too(universe: Cli, tmp_path: Path) -> None:
    listed = tmp_path / "symbols.txt"
    listed.write_text("# the liquid ones\nAAPL, BTC-USD # and one more\n")
    span = ("--start", "2026-11-02", "--end", "2026-11-03", "--json")
    assert universe("backfill", f"@{listed}", *span).json["queued"] == 2
    assert universe("backfill", "-", *span, stdin="BTC-USD\nAAPL\nAAPL\n").json["merged"] == 2
    assert universe("universe", "list", "--names").out == "AAPL\nBTC-USD\n"


def test_what_is_over_the_cap_waits_and_is_said(universe: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_MAX_QUEUE_T0", "3")
    asked = universe("backfill", "BTC-USD", "--start", "2026-11-01", "--end", "2026-11-11")
    assert "3 jobs queued" in asked.out
    assert "7 jobs waiting in PostgreSQL for room in the queue (deferred)" in asked.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("APPL", "--sessions", "1"), "unknown_symbol", "unknown symbol APPL; did you mean AAPL?"),
        (("AAPL", "--sessions", "1", "--provider", "foo"), "unknown_provider", "configured: simulator"),
        (("AAPL", "--sessions", "1", "--provider", "No such"), "unknown_provider", "configured: simulator"),
        (("AAPL", "--sessions", "1", "--interval", "2m"), "invalid_request", "unknown interval '2m'; there are 1m, 5m"),
        (("AAPL", "--start", "2026-11-02T14:30"), "invalid_request", "start 2026-11-02T14:30 is naive"),
        (("AAPL", "--start", "2026-11-05", "--end", "2026-11-02"), "invalid_request", "is not after start"),
        (("AAPL", "--start", "2999-01-01"), "invalid_request", "is in the future"),
        (("AAPL", "--start", "yesterday"), "invalid_request", "start 'yesterday' is not a time"),
        (("AAPL",), "invalid_request", "give --start or --sessions"),
        (
            ("AAPL", "--start", "2026-11-02", "--sessions", "1"),
            "invalid_request",
            "give --start or --sessions, not both",
        ),
        (("AA PL", "--sessions", "1"), "invalid_request", "'AA PL' is not a symbol"),
        (("@/no/such", "--sessions", "1"), "invalid_request", "cannot read symbols from /no/such: No such file"),
        ((), "invalid_request", "no symbols were given"),
    ],
)
def test_a_wrong_request_is_refused_in_a_line_with_what_to_do_and_queues_nothing(
    universe: Cli, words: tuple[str, ...], code: str, said: str
) -> None:
    refused = universe("backfill", *words)
    assert refused.code == 2
    error, hint = refused.err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")
    assert universe("backfill", *words, "--json").json["code"] == code
    assert universe("jobs", "--json").json == []


def test_wait_ends_with_the_work_and_says_how_it_went(universe: Cli, cli_deps: Deps) -> None:
    with working(cli_deps):
        waited = universe("backfill", "BTC-USD", "--start", "2026-11-01", "--end", "2026-11-04", "--wait")
    assert waited.code == 0
    assert waited.err.splitlines()[-1] == "3/3 jobs, 4,320 bars"


def test_wait_exits_with_8_when_jobs_failed_and_names_the_newest_error(universe: Cli, cli_deps: Deps) -> None:
    spoil(cli_deps, "unknown=AAPL")
    words = ("backfill", "AAPL", "BTC-USD", "--start", "2026-11-02", "--end", "2026-11-03")
    with working(cli_deps):
        waited = universe(*words, "--wait")
    assert waited.code == 8
    assert "error: 1 of 2 jobs failed; the newest error: simulator: no symbol AAPL" in waited.err
    request = waited.out.split()[1]
    later = universe("backfill", "--status", request, "--json")
    assert (later.code, later.json["failed"], later.json["bars"]) == (8, 1, 1440)
    shown = universe("backfill", "--status", request)
    assert (shown.code, "1 done, 1 failed" in shown.out) == (8, True)


def test_a_request_that_nobody_made_is_not_found(cli: Cli) -> None:
    for request in ("nonsense", "00000000-0000-0000-0000-000000000000"):
        unknown = cli("backfill", "--status", request)
        assert (unknown.code, unknown.err.splitlines()[0]) == (3, f"error: no request {request}")


def test_ctrl_c_leaves_the_jobs_and_says_how_to_look_again(universe: Cli) -> None:
    words = ("backfill", "BTC-USD", "--start", "2026-11-01", "--end", "2026-11-03", "--wait")
    with universe.start(*words) as process:
        assert process.stderr is not None
        assert b"0/2 jobs" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    request = out.split()[1].decode()
    assert process.returncode == 130
    assert f"mdtasks backfill --status {request} --wait" in err.decode()
    assert universe("backfill", "--status", request, "--json").json["jobs"] == {"queued": 2}


def test_without_redis_the_jobs_wait_in_postgres(universe: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDTASKS_REDIS_URL", "redis://127.0.0.1:1/0")
    assert universe("backfill", "AAPL", "--sessions", "1", "--json").json["deferred"] == 1
    assert [job["status"] for job in universe("jobs", "--json").json] == ["deferred"]


def test_without_postgres_it_says_so_with_code_7(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDTASKS_DATABASE_URL", "postgresql://nobody:pw@127.0.0.1:1/none")
    for words in (("backfill", "AAPL", "--sessions", "1"), ("bars", "AAPL"), ("jobs",), ("dlq", "list"), ("gaps",)):
        away = cli(*words)
        assert (away.code, away.err.startswith("error: PostgreSQL does not answer")) == (7, True)


def test_without_any_stack_it_says_where_it_looked(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MDTASKS_DATABASE_URL", "MDTASKS_REDIS_URL"):
        monkeypatch.delenv(name)
    for words in (("backfill", "AAPL", "--sessions", "1"), ("bars", "AAPL"), ("universe", "list"), ("dlq", "stats")):
        nowhere = cli(*words, "--home", str(tmp_path / "nowhere"))
        assert (nowhere.code, str(tmp_path / "nowhere") in nowhere.err) == (5, True)


def test_a_job_is_shown_with_every_attempt(universe: Cli, cli_deps: Deps) -> None:
    spoil(cli_deps, "unknown=AAPL")
    universe("backfill", "AAPL", "--start", "2026-11-02", "--end", "2026-11-03")
    work(cli_deps)
    (listed,) = universe("jobs", "--status", "failed", "--symbol", "AAPL", "--tier", "T1", "--json").json
    shown = universe("jobs", "show", listed["id"], "--json").json
    (attempt,) = shown["history"]
    assert (attempt["worker"], attempt["outcome"], attempt["error_class"]) == ("t0@test/1", "failed", "no_data")
    assert "no_data: simulator: no symbol AAPL" in universe("jobs", "show", listed["id"]).out
    assert universe("jobs", "--status", "done", "--json").json == []
    assert universe("jobs", "show", "nothing").code == 3


def test_the_universe_knows_exchanges_by_their_calendars(cli: Cli) -> None:
    assert cli("universe", "add", "X", "--mic", "NOPE").code == 2
    moved = cli("universe", "add", "MSFT", "nvda", "--mic", "XNAS")
    assert moved.out == "2 symbols added on XNYS in T1\n"
    assert "XNAS keeps the hours of XNYS" in moved.err
    assert cli("universe", "add", "MSFT", "--mic", "XLON").code == 4
    assert cli("universe", "add", "MSFT", "--mic", "XNYS", "--json").json["known"] == 1
    assert cli("universe", "set-tier", "MSFT", "GOOG", "--tier", "T0").code == 2
    assert cli("universe", "set-tier", "MSFT", "--tier", "t0").out == "1 symbol moved to T0\n"
    tiers = {each["symbol"]: each["tier"] for each in cli("universe", "list", "--json").json}
    assert tiers == {"MSFT": "T0", "nvda": "T1"}


def test_a_command_line_that_a_script_reads_keeps_talk_off_standard_output(universe: Cli) -> None:
    readers: tuple[Callable[[], object], ...] = (
        lambda: universe("backfill", "AAPL", "--sessions", "1", "--json").json["request"],
        lambda: universe("jobs", "--json").json[0]["id"],
        lambda: universe("gaps", "--json").json[0]["symbol"],
        lambda: universe("dlq", "stats", "--json").json["open"],
    )
    assert all(reader() is not None for reader in readers)


def test_jobs_that_wait_are_cancelled_and_for_the_others_it_is_said_why(universe: Cli, cli_deps: Deps) -> None:
    universe("backfill", "AAPL", "--sessions", "2")
    (done,) = universe("jobs", "--json").json
    work(cli_deps)
    universe("backfill", "AAPL", "--sessions", "2", "--interval", "1d")
    (job,) = universe("jobs", "--status", "queued", "--json").json
    cancelled = universe("jobs", "cancel", job["id"], job["id"])
    assert (cancelled.code, cancelled.err) == (0, "1 of 1 cancelled\n")
    assert universe("jobs", "show", job["id"], "--json").json["status"] == "cancelled"
    again = universe("jobs", "cancel", job["id"])
    assert (again.code, again.err.splitlines()[0]) == (4, f"error: not cancelled: {job['id']}: it was cancelled before")
    unknown = universe("jobs", "cancel", "nothing")
    assert (unknown.code, unknown.err.splitlines()[0]) == (3, "error: not cancelled: nothing: there is no such job")
    several = universe("jobs", "cancel", "nothing", job["id"], done["id"])
    assert several.code == 3
    assert several.err.splitlines()[:-1] == [
        "0 of 3 cancelled",
        "not cancelled: nothing: there is no such job",
        f"not cancelled: {job['id']}: it was cancelled before",
        f"error: not cancelled: {done['id']}: it is done",
    ]
    as_json = universe("jobs", "cancel", "nothing", done["id"], "--json")
    left = {"nothing": "there is no such job", done["id"]: "it is done"}
    assert (as_json.code, as_json.json) == (3, {"cancelled": [], "left": left})
    assert universe("jobs", "cancel", done["id"], "--json").code == 4
