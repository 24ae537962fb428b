"""An outside coordinator's jobs: the same result as our own, refused by field, each once wherever a process dies."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from mdtasks.domain.errors import NotFoundError, StoreUnavailableError
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, Interval, QuotesFetchJob, Tier, parse_job
from mdtasks.flows import intake, letters
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.ingest import run_backfill
from mdtasks.flows.live import run_bars_fetch, run_quotes_fetch
from mdtasks.queue.coordinator import BATCH, Coordinator
from mdtasks.settings import Settings
from mdtasks.store import letters as store_letters
from mdtasks.store.bars import read_bars
from mdtasks.store.letters import LetterFilter
from mdtasks.store.quotes import latest_rows
from mdtasks.store.reference import Instrument, add_instruments, resolve
from mdtasks.testing import SESSION, backfill_job, job_documents, quotes_fetch_job
from tests.integration.cli_calls import Cli
from tests.integration.web_server import served

NOW = datetime(2024, 1, 2, 15, 30, 20, tzinfo=UTC)  # an hour into the session of the fixtures
JOBS = "market:jobs"


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """Deps in RLC mode, with the instruments of the fixtures."""
    opened = open_deps(settings.model_copy(update={"use_rlc": True}))
    with opened.database.transaction() as connection:
        add_instruments(connection, [Instrument(name, "XNYS") for name in ("AAPL", "MSFT")])
    yield opened
    opened.close()


def _push(client: redis.Redis, *documents: object, key: str = JOBS) -> None:
    """Push as a coordinator does."""
    for document in documents:
        client.lpush(key, document if isinstance(document, str | bytes) else json.dumps(document))


def _letters(deps: Deps) -> list[dict[str, Any]]:
    with deps.database.transaction() as connection:
        return store_letters.matching(connection, LetterFilter())


def _messages(deps: Deps) -> list[tuple[str, BarsFetchJob | QuotesFetchJob | BackfillJob]]:
    """Every message with its queue, the oldest first; they stay."""
    found = []
    for queue in (f"{tier}{kind}" for tier in Tier for kind in (".live", "")):
        for element in reversed(deps.broker.lrange(queue, 0, -1)):
            found.append((queue, parse_job(json.loads(base64.b64decode(json.loads(element)["body"]))[0][0])))
    return found


def _rows(deps: Deps, statement: str) -> list[tuple[Any, ...]]:
    with deps.database.transaction() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def _from_coordinator(deps: Deps) -> None:
    _push(deps.broker, *job_documents())
    assert intake.run_once(deps, NOW) == {"taken": 4, "queued": 4}


def _our_own(deps: Deps) -> None:
    for document in job_documents():
        job = parse_job(document)
        if isinstance(job, BackfillJob):
            enqueue_jobs([job], "tests", deps)
        else:
            deps.enqueuer.push_live(job, NOW, expires_s=60)


@pytest.mark.parametrize("ask", [_our_own, _from_coordinator], ids=["local", "rlc"])
def test_both_ways_in_give_the_same_result_for_the_same_jobs(ask: Callable[[Deps], None], deps: Deps) -> None:
    ask(deps)
    for _, job in _messages(deps):
        if isinstance(job, BackfillJob):
            assert run_backfill(job, deps, "t@here/1", NOW).as_dict()["outcome"] == "done"
        elif isinstance(job, BarsFetchJob):
            run_bars_fetch(job, deps, "t@here/1", NOW)
        else:
            run_quotes_fetch(job, deps, "t@here/1", NOW)
    queues = Counter((queue, str(job.type)) for queue, job in _messages(deps))
    assert queues == {
        ("T0.live", "bars_fetch"): 1,
        ("T0.live", "quotes_fetch"): 1,
        ("T1.live", "bars_fetch"): 1,
        ("T1", "backfill"): 1,
    }
    with deps.database.transaction() as connection:
        members = resolve(connection, ["AAPL", "MSFT"])
        bars = [len(read_bars(connection, each.id, Interval.M1, SESSION)) for each in members.values()]
        found = latest_rows(connection, ["AAPL", "MSFT"])
    assert bars == [60, 5]  # AAPL's session so far, MSFT's latest minutes
    assert all(row["ts"] == NOW for row in found)
    assert _rows(deps, "SELECT id, status::text FROM backfill_jobs") == [("backfill-1", "done")]
    attempts = Counter(kind for (kind,) in _rows(deps, "SELECT job_type FROM job_attempts WHERE outcome = 'done'"))
    assert attempts == {"bars_fetch": 2, "quotes_fetch": 1, "backfill": 1}
    assert _letters(deps) == []


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ("{", "job"),
        (b"\xff\xfe", "job"),
        ("[1]", "job"),
        ("{}", "type"),
        ({"type": "bars_fetsch", "symbols": ["AAPL"]}, "type"),
        ({"type": "bars_fetch", "symbols": []}, "symbols"),
        ({"type": "quotes_fetch", "symbols": ["AAPL", "no spaces"]}, "symbols.1"),
        ({"type": "quotes_fetch", "symbols": ["AAPL"], "colour": "red"}, "colour"),
        ({"type": "backfill", "symbol": "AAPL", "job_id": None}, "job_id"),
        (
            backfill_job().model_dump(mode="json") | {"time_window": {"start": "2024-01-02T14:30:00", "end": "x"}},
            "time_",
        ),
        (backfill_job(symbol="NOPE").model_dump(mode="json"), "symbol"),
        ({"type": "quotes_fetch", "symbols": ["AAPL"], "job_id": "\u0000\ud800"}, "job"),
    ],
)
def test_what_is_not_valid_is_buried_with_the_field_that_is_wrong_and_never_sent_again(
    document: object, field: str, deps: Deps
) -> None:
    good = quotes_fetch_job().model_dump(mode="json")
    _push(deps.broker, document, good)
    assert intake.run_once(deps, NOW) == {"taken": 2, "queued": 1, "refused": 1}
    (letter,) = _letters(deps)
    assert letter["message"].startswith(field), letter["message"]
    assert (letter["kind"], letter["queue"]) == ("poison", JOBS)
    with pytest.raises(NotFoundError, match="the coordinator's job is not valid"):
        letters.requeue_job(letter["id"], "tests", deps)
    assert deps.broker.llen(JOBS) == 0


def test_a_refused_message_of_ours_is_not_pushed_back_to_the_coordinator(deps: Deps) -> None:
    _our_own(deps)
    (stray,) = deps.broker.lrange("T1", 0, -1)
    assert isinstance(stray, bytes)
    _push(deps.broker, stray)
    intake.run_once(deps, NOW)
    (letter,) = _letters(deps)
    with pytest.raises(NotFoundError):
        letters.requeue_job(letter["id"], "tests", deps)
    assert deps.broker.llen(JOBS) == 0


def test_a_list_of_a_tier_says_the_tier_of_those_that_do_not_and_takes_backfills_only(deps: Deps) -> None:
    document = backfill_job().model_dump(mode="json")
    del document["priority"]
    own = backfill_job(job_id="own", symbol="MSFT", priority="T2").model_dump(mode="json")
    live = quotes_fetch_job().model_dump(mode="json")
    _push(deps.broker, document, own, live, key="market:backfills:T0")
    assert intake.run_once(deps, NOW) == {"taken": 3, "queued": 2, "refused": 1}
    assert {(queue, job.job_id) for queue, job in _messages(deps)} == {("T0", "backfill-1"), ("T2", "own")}
    assert _letters(deps)[0]["message"].startswith("type: quotes_fetch is no backfill")


def test_over_the_cap_they_wait_and_what_comes_again_is_known(deps: Deps) -> None:
    two = [backfill_job(job_id=name, symbol=name).model_dump(mode="json") for name in ("AAPL", "MSFT")]
    live = quotes_fetch_job().model_dump(mode="json")
    _push(deps.broker, *two, live)
    with closing(open_deps(deps.settings.model_copy(update={"cap_t1": 1}))) as capped:
        assert intake.run_once(capped, NOW) == {"taken": 3, "queued": 2, "deferred": 1}
        _push(deps.broker, *two, live)
        assert intake.run_once(capped, NOW) == {"taken": 3, "merged": 3}
    assert len(_messages(deps)) == 2


def _documents() -> list[object]:
    """Jobs with and without ids, and two that are not valid."""
    nameless: dict[str, Any] = {"type": "quotes_fetch", "symbols": ["MSFT"]}
    window = backfill_job(symbol="MSFT").model_dump(mode="json")
    del window["job_id"]
    return [*job_documents(), nameless, nameless, window, "{", backfill_job(symbol="NOPE").model_dump(mode="json")]


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("mdtasks.flows.intake.enqueue_jobs", False),
        ("mdtasks.flows.intake.enqueue_jobs", True),
        ("mdtasks.flows.backfill._push", False),
        ("mdtasks.flows.intake._push_live", True),
        ("mdtasks.flows.intake._buried", False),
        ("mdtasks.flows.intake._buried", True),
        ("mdtasks.queue.coordinator.Coordinator.settle", False),
        ("mdtasks.queue.coordinator.Coordinator.settle", True),
    ],
)
def test_wherever_an_intake_is_killed_the_next_does_what_is_left_and_nothing_twice(
    name: str, after: bool, deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    _push(deps.broker, *_documents())
    with monkeypatch.context() as patched:
        _kill_at(name, after, patched)
        with pytest.raises(KeyboardInterrupt):
            intake.run_once(deps, NOW)
    assert deps.coordinator is not None
    deps.coordinator.leave()  # as a lease that has run out
    with closing(open_deps(deps.settings)) as second:
        counts = intake.run_once(second, NOW)
        assert intake.run_once(second, NOW) == {"taken": 0}
        assert second.coordinator is not None
        assert set(second.coordinator.depths().values()) == {0}
    assert counts["taken"] == (0 if (name.endswith("settle") and after) else 9)
    # A job whose row was written and whose message was not is for the reconciler, as everywhere.
    lost = name.endswith("backfill._push")
    assert len([queue for queue, _ in _messages(deps) if queue == "T1"]) == (0 if lost else 2)
    assert len([queue for queue, _ in _messages(deps) if queue.endswith(".live")]) == 5
    assert len(_rows(deps, "SELECT id FROM backfill_jobs WHERE status = 'queued'")) == 2
    assert len(_letters(deps)) == 2


def _kill_at(name: str, after: bool, patched: pytest.MonkeyPatch) -> None:
    module, _, attribute = name.rpartition(".")
    real = _resolved(module, attribute)

    def killed(*args: Any, **kwargs: Any) -> Any:
        if after:
            real(*args, **kwargs)
        raise KeyboardInterrupt

    patched.setattr(name, killed)


def _resolved(module: str, attribute: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(Coordinator if module.endswith("Coordinator") else _module(module), attribute)
    return found


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(name)


def test_what_a_living_intake_holds_is_left_to_it_and_a_late_take_is_not_settled_with_the_batch(deps: Deps) -> None:
    assert deps.coordinator is not None
    other = Coordinator(deps.broker, deps.settings.rlc_keys)
    _push(deps.broker, *job_documents()[:2])
    first = deps.coordinator.take()
    assert other.take() == []
    _push(deps.broker, *job_documents()[2:])
    late = deps.coordinator.take()
    assert [each.raw for each in late] == [json.dumps(document).encode() for document in job_documents()]
    deps.coordinator.settle(first)
    assert deps.coordinator.take() == late[2:]
    assert deps.coordinator.depths() == {"jobs": 0, "T0": 0, "T1": 0, "T2": 0, "held": 2}


def test_a_full_list_does_not_keep_the_others_waiting(deps: Deps) -> None:
    assert deps.coordinator is not None
    _push(deps.broker, *[b"{"] * (2 * BATCH))
    _push(deps.broker, b"{", key="market:backfills:T2")
    taken = Counter(each.source for each in deps.coordinator.take())
    assert taken == {"jobs": BATCH - 1, "T2": 1}


def test_an_element_that_nobody_foresaw_is_buried_alone(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    real = parse_job

    def parse(document: dict[str, object]) -> Any:
        if document.get("job_id") == "quotes-fetch-1":
            raise ZeroDivisionError("of all things")
        return real(document)

    monkeypatch.setattr(intake, "parse_job", parse)
    _push(deps.broker, *job_documents())
    assert intake.run_once(deps, NOW) == {"taken": 4, "queued": 3, "refused": 1}
    (letter,) = _letters(deps)
    assert (letter["error_class"], letter["message"]) == ("intake_error", "job: ZeroDivisionError: of all things")


def test_while_a_server_is_away_it_waits_and_says_that_it_is_ready_when_it_is(
    deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = iter([True, True, False])
    real = enqueue_jobs

    def enqueue(*args: Any) -> Any:
        if next(away):
            raise StoreUnavailableError("PostgreSQL does not answer")
        return real(*args)

    monkeypatch.setattr(intake, "enqueue_jobs", enqueue)
    _push(deps.broker, *job_documents())
    pauses: list[float] = []
    heard: list[str] = []

    def stopped(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) > 5

    intake.run(deps, stopped, lambda: heard.append(f"ready in round {len(pauses)}"))
    assert pauses == [0.0, 0.2, 0.4, 0.0, 0.1, 0.1]
    assert heard == ["ready in round 3"]
    assert len(_messages(deps)) == 4


def test_depths_of_the_lists_are_scraped_only_where_there_is_a_coordinator(deps: Deps) -> None:
    _push(deps.broker, *job_documents())
    with served(deps.settings) as client:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("intake_depth{")]
    assert lines == [
        'intake_depth{list="jobs"} 4.0',
        *(f'intake_depth{{list="{name}"}} 0.0' for name in ("T0", "T1", "T2", "held")),
    ]
    with served(deps.settings.model_copy(update={"use_rlc": False})) as client:
        assert "intake_depth{" not in client.get("/metrics").text


def test_by_hand_without_a_coordinator_it_is_refused(cli: Cli) -> None:
    refused = cli("intake")
    assert (refused.code, "USE_RLC is off" in refused.err) == (2, True)


def test_a_wrong_address_is_refused_by_its_own_setting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_RLC", "1")
    monkeypatch.setenv("RLC_REDIS_URL", "coordinator:6379")
    refused = cli("intake")
    assert (refused.code, "RLC_REDIS_URL is not a Redis URL" in refused.err) == (2, True)
