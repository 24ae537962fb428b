"""A real uvicorn on a free port, in a thread of the test: what the tests of the web app speak to."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import orjson
import redis
import uvicorn

from mdtasks.flows import letters
from mdtasks.flows.deps import Deps, open_deps
from mdtasks.observe.metrics import use_multiprocess_dir
from mdtasks.queue.letters import Reason
from mdtasks.settings import Settings
from mdtasks.store import jobs
from mdtasks.store.reference import Instrument, add_instruments
from mdtasks.web.app import create_app

START = datetime(2025, 1, 2, tzinfo=UTC)


class _Server(uvicorn.Server):
    """A uvicorn that is told to end and ends at once: its own looks ten times a second, and waits a tenth for nothing.

    With hundreds of servers, one for a test, that is a minute.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end: Callable[[], object] = lambda: None

    def end(self) -> None:
        """Ask it to end; from any thread."""
        self.should_exit = True
        with suppress(RuntimeError):  # it has ended by itself
            self._end()

    async def main_loop(self) -> None:
        told, loop = asyncio.Event(), asyncio.get_running_loop()
        self._end = lambda: loop.call_soon_threadsafe(told.set)
        await self.on_tick(0)  # the headers of answers are made here
        if not self.should_exit:
            await told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        held = self.server_state
        for connection in list(held.connections):
            connection.shutdown()
        deps: Any = self.lifespan.state.get("deps")
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                # A reading that the app gives up at its end goes on in its thread: the pool must not close before it.
                while held.connections or held.tasks or (deps and deps.database.engine.pool.checkedout()):
                    await asyncio.sleep(0.002)
        for task in held.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextmanager
def served(settings: Settings, host: str = "127.0.0.1", port: int = 0) -> Iterator[httpx.Client]:
    """The app under its own uvicorn, and a client; ``client.base_url`` tells where it is (``port`` 0: a free one)."""
    # Named as TCP, as asyncio asks before it turns Nagle's algorithm off: without that each answer takes 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        # It listens before the server runs: the first request waits for it, no test has to.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
        # A stream that a failed test left open ends with the server, not the other way round.
        config = uvicorn.Config(
            create_app(settings), log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=5
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            url = f"http://{host}:{listening.getsockname()[1]}"
            # Without TLS there is nothing to verify, and reading the certificates for it takes longer than a request.
            with httpx.Client(
                base_url=url, verify=False, timeout=30, event_hooks={"response": [says_what_next]}
            ) as client:
                yield client
        finally:
            server.end()
            thread.join()
            use_multiprocess_dir(None)


def says_what_next(answer: httpx.Response) -> None:
    """Whatever is refused says what is wrong and what to do about it, in JSON or on a page."""
    if answer.is_error and answer.request.method != "HEAD":
        answer.read()
        if answer.headers["content-type"].startswith("text/html"):
            assert "<h1>" in answer.text
            return
        said = answer.json()
        for error in [said] if "error" in said else [part for part in said["parts"].values() if not part["ok"]]:
            assert error["error"], said
            assert error["code"], said
            assert error["hint"], said


@contextmanager
def opened(settings: Settings) -> Iterator[Deps]:
    """Deps beside the server's own, for what happens outside it."""
    deps = open_deps(settings, application="tests")
    try:
        with deps.database.transaction() as connection:
            add_instruments(
                connection, [Instrument("BTC-USD", "24/7", "crypto"), Instrument("ETH-USD", "24/7", "crypto")]
            )
        yield deps
    finally:
        deps.close()


def request_document(**changes: Any) -> dict[str, Any]:
    """Three days of BTC-USD: three jobs."""
    end = START + timedelta(days=3)
    return {"symbol": "BTC-USD", "interval": "1m", "start": START.isoformat(), "end": end.isoformat()} | changes


def asked(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    """The answer to a backfill that was taken."""
    answer = client.post("/ops/backfill", json=request_document(**changes))
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


def waiting_ids(client: redis.Redis, queue: str = "T1") -> list[str]:
    """Ids of the jobs in a queue, the next one first."""
    return [job_id for job_id, _ in reversed(_elements(client, queue))]


def _elements(client: redis.Redis, queue: str) -> list[tuple[str, str]]:
    """(job id, envelope) of each element of a queue, the last one first."""
    elements = [str(each, "utf-8") for each in client.lrange(queue, 0, -1) if isinstance(each, bytes)]
    return [(orjson.loads(each)["headers"]["id"], each) for each in elements]


def dies(deps: Deps, job_id: str, *, error_class: str = "bad_payload", provider: str = "simulator") -> None:
    """Let a queued backfill fail for good and its letter be recorded, as a worker and the consumer of dlq do it."""
    raw = dict(_elements(deps.broker, "T1"))[job_id]
    with deps.database.transaction() as connection:
        claim = jobs.claim(connection, job_id, "t1@here/1", 60)
        assert claim is not None
        ending = jobs.Ending("failed", provider, error_class, f"{provider}: cannot be read", 0)
        jobs.fail(connection, claim, ending, None)
    deps.broker.lrem("T1", 1, raw)
    reason = Reason(error_class, "cannot be read", "Traceback: it was like this")
    assert letters.record(letters.Dead(str(uuid4()), raw, reason, "T1"), deps) == "recorded"
