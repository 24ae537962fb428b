"""No message ends a worker, and none is lost: what cannot be done is in the dead letters, whole and with its reason.

One worker tree of tier T0 and one for letters meet every shape in turn; both keep their process to the end.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from mdtasks.domain.jobs import BackfillJob
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.dispatch import dispatch_once
from mdtasks.queue.letters import Reason, letter
from mdtasks.testing import backfill_job
from tests.acceptance.harness import Worker, add_symbols, crew, job_of, own_servers, rows, statuses, until

#: Attempts that a job gets here, pauses and limits that keep the test short.
ATTEMPTS = 3
LIMITS = {
    "MDTASKS_MAX_ATTEMPTS": str(ATTEMPTS),
    "MDTASKS_RETRY_BASE_S": "0.05",
    # Above the time that Celery takes to see that a child has gone (it looks every 5 s).
    "MDTASKS_TIME_LIMIT_S": "12",
    "MDTASKS_SIMULATOR_FAULTS": "hang=HANGS,crash=CRASHES,error=1,only=FAILS",
}
_numbers = count()


@dataclass
class Scene:
    """The two worker trees under fire, with their pids at the start."""

    deps: Deps
    redis: redis.Redis
    tier: Worker
    control: Worker
    pids: tuple[int, int]

    def letters(self) -> dict[str, dict[str, Any]]:
        """Every letter on record, by its id."""
        return {row["id"]: row for row in rows(self.deps.database, "SELECT * FROM dead_letters")}

    def new_letters(self, known: dict[str, dict[str, Any]], number: int = 1) -> list[dict[str, Any]]:
        """The letters that arrive after the known ones: exactly ``number``."""

        def arrived() -> list[dict[str, Any]]:
            assert (self.tier.alive, self.control.alive) == (True, True), self.told()
            return [each for name, each in self.letters().items() if name not in known]

        until(lambda: len(arrived()) >= number, f"{number} letters", told=self.told)
        found = arrived()
        assert len(found) == number
        return found

    def told(self) -> str:
        """The last words of both workers, for a failure's message."""
        return "\n".join(worker.said()[-3000:] for worker in (self.tier, self.control))

    def do_a_good_job(self) -> None:
        """Whatever was before: the next good job is done, nothing is left behind, both workers are who they were."""
        job = job_of("GOOD", next(_numbers))
        enqueue_jobs([job], "test", self.deps)
        until(lambda: self.status(job) == "done", "the good job is done", told=self.told)
        until(lambda: not self.redis.hlen("unacked"), "nothing is held")
        assert not self.redis.llen("T0")
        until(lambda: not self.redis.llen("dlq"), "no letter is on its way")
        assert (self.tier.alive, self.control.alive) == (True, True)
        assert self.tier.said().count(" ready.") == self.control.said().count(" ready.") == 1

    def status(self, job: BackfillJob) -> str | None:
        """The status of a job's row."""
        found = rows(self.deps.database, "SELECT status::text FROM backfill_jobs WHERE id = :id", id=job.job_id)
        return found[0]["status"] if found else None


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("poison")
    with own_servers(folder) as servers, crew(servers, folder / "workers", **LIMITS) as workers:
        odd = ("--include", "odd_tasks")
        here = {"PYTHONPATH": str(Path(__file__).parent)}
        tier = workers.start("t0", "T0.live,T0", *odd, concurrency=4, **here)
        control = workers.start("control", "control,dlq")
        deps = open_deps(servers.settings(**LIMITS))
        try:
            add_symbols(deps.database, ["GOOD", "HANGS", "CRASHES", "FAILS"])
            workers.ready(tier, control)
            with redis.Redis.from_url(servers.redis.url) as client:
                yield Scene(deps, client, tier, control, (tier.pid, control.pid))
        finally:
            deps.close()


#: The body of a task that fails in the worker's child: the task takes one argument.
WRONG_ARGUMENTS = "[[1, 2, 3], {}, {}]"


def envelope(body: str | None = None, *, task: object = "mdtasks.backfill", **changes: Any) -> dict[str, Any]:
    """A message as it lies in Redis. ``body``: its text before base64; changes replace whole parts, ``None`` stays."""
    name = str(uuid4())
    text = WRONG_ARGUMENTS if body is None else body
    headers = {"lang": "py", "task": task, "id": name, "root_id": name, "argsrepr": "()", "kwargsrepr": "{}"}
    return {
        "body": base64.b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**headers, "retries": 0},
        "properties": {
            "correlation_id": name,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "T0"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    } | changes


def without(part: str, key: str, **changes: Any) -> dict[str, Any]:
    """An envelope that lacks one key of its headers or properties."""
    made = envelope(**changes)
    del made[part][key]
    return made


def having(part: str, **values: Any) -> dict[str, Any]:
    """An envelope with other values in its headers or properties."""
    made = envelope()
    made[part] |= values
    return made


def invalid(**changes: object) -> str:
    """The body of a job that the schema refuses."""
    return json.dumps([[backfill_job().model_dump(mode="json") | changes], {}, {}])


#: Name of the shape -> the list element, and the error class it shall be recorded under.
SHAPES: dict[str, tuple[str | bytes | dict[str, Any], str]] = {
    # The thirteen that were tried against stock Celery.
    "unknown task": (envelope(task="nope.task"), "unknown_task"),
    "not JSON": ("garbage{", "undecodable"),
    "JSON without properties": ({"body": "x"}, "undecodable"),
    "a JSON list": ("[1, 2]", "undecodable"),
    "body is not base64": (envelope() | {"body": "@@@not-base64="}, "undecodable"),
    "body is not JSON": (envelope("{bad json"), "undecodable"),
    "body of the wrong shape": (envelope('{"a": 1}'), "invalid_task"),
    "pickle": (envelope() | {"content-type": "application/x-python-serialize"}, "invalid_task"),
    "unknown content type": (envelope() | {"content-type": "application/x-foo"}, "invalid_task"),
    "no task header": (envelope() | {"headers": {"x": 1}}, "unknown_message"),
    "headers are null": (envelope() | {"headers": None}, "unknown_message"),
    "an ETA that is no date": (having("headers", eta="not-a-date"), "invalid_task"),
    "wrong arguments": (envelope(), "TypeError"),
    # What else a stranger, a bug or a bad cable may put there.
    "an empty element": ("", "undecodable"),
    "bytes that are no text": (b"\xff\xfe\x00\x80{", "undecodable"),
    "a NUL in the element": ("gar\x00bage", "undecodable"),
    "a NUL in the job": (envelope(invalid(symbol="A\x00B")), "invalid_request"),
    "half a surrogate pair": (envelope('[["\\ud800"], {}, {}]'), "invalid_request"),
    "nested without end": ("[" * 100_000, "undecodable"),
    "properties are null": (envelope() | {"properties": None}, "undecodable"),
    "no delivery tag": (without("properties", "delivery_tag"), "undecodable"),
    "a delivery tag that is no text": (having("properties", delivery_tag=["x"]), "undecodable"),
    "no delivery info": (without("properties", "delivery_info"), "TypeError"),
    "delivery info is null": (having("properties", delivery_info=None), "TypeError"),
    "routed elsewhere": (having("properties", delivery_info={"exchange": "x", "routing_key": "y"}), "TypeError"),
    "unknown task without an id": (without("headers", "id", task="nope.task"), "unknown_task"),
    "a task without an id": (without("headers", "id"), "invalid_task"),
    "task name is a list": (envelope(task=["mdtasks.backfill"]), "invalid_task"),
    "an id that is a number": (having("headers", id=5), "invalid_task"),
    "an id that is an object": (having("headers", id={"a": 1}), "invalid_task"),
    "headers are a list": (envelope() | {"headers": [1]}, "undecodable"),
    "an unknown compression": (having("headers", compression="x"), "undecodable"),
    "an unknown encoding": (having("properties", body_encoding="x"), "undecodable"),
    "time limits that are no numbers": (having("headers", timelimit=["x", "y"]), "invalid_task"),
    "one time limit": (having("headers", timelimit=[1]), "invalid_task"),
    "retries that are no number": (having("headers", retries="x"), "invalid_task"),
    "an expiry that is no date": (having("headers", expires="x"), "invalid_task"),
    "a chord of nonsense": (envelope('[[], {}, {"chord": 5, "callbacks": 7, "chain": 3}]'), "TypeError"),
    "embedded nonsense": (envelope("[[], {}, 5]"), "TypeError"),
    "no body": (envelope() | {"body": None}, "undecodable"),
    # Messages that are tasks, and jobs that are none.
    "a job that the schema refuses": (envelope(invalid(interval="7m")), "invalid_request"),
    "a job with an unknown field": (envelope(invalid(surprise=1)), "invalid_request"),
    "a naive time": (
        envelope(invalid(time_window={"start": "2024-01-02T00:00", "end": "2024-01-03T00:00"})),
        "invalid_request",
    ),
    "a job of another type": (
        envelope(json.dumps([[{"type": "quotes_fetch", "symbols": ["A"]}], {}, {}])),
        "invalid_request",
    ),
    "a live job of an unknown symbol": (
        envelope(json.dumps([[{"type": "bars_fetch", "symbols": ["NOBODY"]}], {}, {}]), task="mdtasks.bars_fetch"),
        "unknown_symbol",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_message_that_cannot_be_done_is_in_the_dead_letters_and_the_next_job_runs(scene: Scene, shape: str) -> None:
    element, error_class = SHAPES[shape]
    raw = json.dumps(element) if isinstance(element, dict) else element
    known = scene.letters()
    scene.redis.lpush("T0", raw)
    (found,) = scene.new_letters(known)
    # What can be read as a job is recorded as one.
    kind = {"a job of another type": "quotes_fetch", "a live job of an unknown symbol": "bars_fetch"}.get(
        shape, "poison"
    )
    assert (found["error_class"], found["kind"], found["queue"], found["state"]) == (error_class, kind, "T0", "open")
    assert_same(found["envelope"], element)
    scene.do_a_good_job()


def assert_same(kept: str, element: str | bytes | dict[str, Any]) -> None:
    """The record holds the message as it was on the wire; where it was taken from is the transport's own note."""
    if isinstance(element, dict):
        told = json.loads(kept)
        for message in (told, element := json.loads(json.dumps(element))):
            if isinstance(message.get("properties"), dict):
                message["properties"].pop("delivery_info", None)
        assert told == element
    else:
        text = element.decode(errors="backslashreplace") if isinstance(element, bytes) else element
        assert kept == text.replace("\x00", "\\x00")


def garbage_letters() -> dict[str, tuple[str | bytes, str]]:
    """What may lie in ``dlq`` that is no letter of ours, and what it shall be recorded as."""
    right = json.loads(letter("raw", Reason("x", "y"), "T0"))

    def body(text: str) -> str:
        return json.dumps(right | {"body": base64.b64encode(text.encode()).decode()})

    def with_header(**values: object) -> str:
        return json.dumps(right | {"headers": right["headers"] | values})

    return {
        "not JSON": ("garbage{", "undecodable"),
        "bytes that are no text": (b"\xff\x00", "undecodable"),
        "a letter whose body is not JSON": (body("{bad"), "invalid_task"),
        "a letter that is pickled": (
            json.dumps(right | {"content-type": "application/x-python-serialize"}),
            "invalid_task",
        ),
        "a letter of the wrong shape": (body('{"a": 1}'), "invalid_task"),
        "a letter without arguments": (body("[[], {}, {}]"), "invalid_task"),
        "a letter with arguments of other types": (body("[[5, 6, 7], {}, {}]"), "invalid_task"),
        "a letter with a reason of its own": (body('[["raw", {"why": "so"}, "T0"], {}, {}]'), "invalid_task"),
        "a letter with an ETA that is no date": (with_header(eta="not-a-date"), "invalid_task"),
        "a letter without an id": (with_header(id=None), "invalid_task"),
        "an unknown task": (json.dumps(envelope(task="nope.task")), "unknown_task"),
    }


@pytest.mark.parametrize("shape", garbage_letters())
def test_garbage_among_the_letters_is_recorded_as_what_it_is_and_never_circles(scene: Scene, shape: str) -> None:
    element, error_class = garbage_letters()[shape]
    known = scene.letters()
    scene.redis.lpush("dlq", element)
    (found,) = scene.new_letters(known)
    assert (found["error_class"], found["kind"], found["queue"]) == (error_class, "poison", "dlq")
    scene.do_a_good_job()


@pytest.mark.parametrize("text", ["a NUL \x00", "half a pair \ud800", "much " * 1_000_000])
def test_a_letter_is_recorded_whatever_its_text(scene: Scene, text: str) -> None:
    known = scene.letters()
    scene.redis.lpush("dlq", letter(text, Reason("odd", text, text, text), "T0"))
    (found,) = scene.new_letters(known)
    assert (found["error_class"], found["queue"]) == ("odd", "T0")
    assert found["envelope"][:6] == text[:6]
    scene.do_a_good_job()


#: How a task of odd_tasks ends -> the error class it shall be recorded under.
ODD_ENDS = {
    "memory": "RuntimeError",
    "exit": "worker_lost",
    "interrupt": "worker_lost",
    "unspeakable": "UnspeakableError",
    "binary": "RuntimeError",
    "gone": "worker_lost",
    "killed": "worker_lost",
    "segfault": "worker_lost",
}


@dataclass
class Ends:
    """What became of work that ends in all the slow ways, all of it at the same time."""

    odd: dict[str, tuple[dict[str, Any], dict[str, Any]]]
    jobs: dict[str, BackfillJob]


@pytest.fixture(scope="module")
def ends(scene: Scene) -> Ends:
    """Tasks that end in every odd way, and jobs that kill, hang and fail, driven to their ends."""
    known = scene.letters()
    elements = {how: envelope(json.dumps([[how], {}, {}]), task="odd.end") for how in ODD_ENDS}
    for element in elements.values():
        scene.redis.lpush("T0", json.dumps(element))
    jobs = {symbol: job_of(symbol, 0) for symbol in ("CRASHES", "HANGS", "FAILS")}
    enqueue_jobs(list(jobs.values()), "test", scene.deps)

    def ended() -> bool:
        dispatch_once(scene.deps)  # as beat would
        assert (scene.tier.alive, scene.control.alive) == (True, True), scene.told()
        return len(scene.letters()) >= len(known) + len(elements) + len(jobs)

    until(ended, "all have ended", within_s=120, told=scene.told)
    letters = [each for name, each in scene.letters().items() if name not in known]
    assert len(letters) == len(elements) + len(jobs)
    of_id = {json.loads(each["envelope"])["headers"]["id"]: each for each in letters}
    return Ends({how: (of_id[element["headers"]["id"]], element) for how, element in elements.items()}, jobs)


@pytest.mark.parametrize("how", ODD_ENDS)
def test_however_a_task_ends_its_message_is_a_letter_and_the_worker_lives(scene: Scene, ends: Ends, how: str) -> None:
    found, element = ends.odd[how]
    assert (found["error_class"], found["kind"], found["task"]) == (ODD_ENDS[how], "poison", "odd.end")
    assert_same(found["envelope"], element)
    scene.do_a_good_job()


def attempts(scene: Scene, job: BackfillJob) -> list[tuple[int, str, str]]:
    """(number, outcome, error class) of each attempt of a job."""
    history = rows(scene.deps.database, "SELECT * FROM job_attempts WHERE job_id = :id ORDER BY id", id=job.job_id)
    return [(each["attempt"], each["outcome"], each["error_class"]) for each in history]


def only_letter(scene: Scene, job: BackfillJob) -> dict[str, Any]:
    """The one letter of a job."""
    found = until(lambda: [each for each in scene.letters().values() if each["job_id"] == job.job_id], "its letter")
    (one,) = found
    assert json.loads(one["envelope"])["headers"]["id"] == job.job_id
    assert (one["kind"], one["task"], one["tier"], one["symbol"]) == ("backfill", "mdtasks.backfill", "T0", job.symbol)
    return one


def test_a_job_that_kills_its_worker_ends_dead_after_its_attempts(scene: Scene, ends: Ends) -> None:
    job = ends.jobs["CRASHES"]
    one = only_letter(scene, job)
    assert (one["error_class"], one["attempts"]) == ("worker_lost", ATTEMPTS)
    assert attempts(scene, job) == [
        *((number, "lost", "worker_lost") for number in range(1, ATTEMPTS)),
        (ATTEMPTS, "failed", "worker_lost"),
    ]
    scene.do_a_good_job()


def test_a_job_that_exceeds_its_hard_time_limit_is_dead_at_once(scene: Scene, ends: Ends) -> None:
    job = ends.jobs["HANGS"]
    one = only_letter(scene, job)
    assert (one["error_class"], one["attempts"]) == ("time_limit", 1)
    assert "12 s" in one["message"]
    assert attempts(scene, job) == [(1, "failed", "time_limit")]
    scene.do_a_good_job()


def test_a_job_whose_provider_keeps_failing_is_dead_after_its_attempts(scene: Scene, ends: Ends) -> None:
    job = ends.jobs["FAILS"]
    one = only_letter(scene, job)
    assert (one["error_class"], one["attempts"], one["provider"]) == ("vendor_error", ATTEMPTS, "simulator")
    assert attempts(scene, job) == [
        *((number, "retry", "vendor_error") for number in range(1, ATTEMPTS)),
        (ATTEMPTS, "failed", "vendor_error"),
    ]
    scene.do_a_good_job()


def test_in_the_end_no_row_waits_and_the_workers_are_those_of_the_start(scene: Scene) -> None:
    scene.do_a_good_job()
    assert set(statuses(scene.deps.database)) <= {"done", "failed"}
    assert (scene.tier.pid, scene.control.pid) == scene.pids
    assert len(scene.tier.children()) == 4
