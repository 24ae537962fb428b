"""Every bar once and in order, whatever happens to the connection, to Redis and to the web process meanwhile.

Clients are the shipped one, cut off at random by a relay between them and the web app; bars are committed to PostgreSQL
and published by the way that workers take.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from mdtasks.client import Bar, stream
from mdtasks.flows.deps import Deps, open_deps
from tests.acceptance.harness import Servers, add_symbols, own_servers, until
from tests.integration.streaming import Publisher

#: Symbols tick as fast as they can: who is away for longer than the bars that are kept could not have them all.
_KEPT = {"WS_REPLAY_MAX_BARS": "10000"}


@dataclass
class Web:
    """A web process at a port that it keeps, over its deaths."""

    servers: Servers
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        argv = [
            sys.executable,
            "-P",
            "-m",
            "uvicorn",
            "mdtasks.web.app:app",
            "--port",
            str(self.port),
            "--no-access-log",
        ]
        with (self.servers.home / "web.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, env={**os.environ, **self.servers.environ(**_KEPT)}, stdout=log, stderr=subprocess.STDOUT
            )
        until(self.answers, "the web app answers", told=lambda: (self.servers.home / "web.log").read_text()[-2000:])

    def answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health").status_code == 200
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Relay:
    """Carries bytes between a client and the web app until it is cut: as a proxy that dies, in the midst of a frame."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.cuts = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection at once."""
        with self._lock:
            self.cuts += bool(self._open)
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def close(self) -> None:
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listening.accept()
                try:
                    there = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    here.close()
                    continue
                with self._lock:
                    self._open |= {here, there}
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            with self._lock:
                self._open.discard(each)


class _EndedError(Exception):
    """The reader is to end."""


@dataclass
class Reader:
    """A client in a thread, and what it was given: closes of each symbol, which count up from 1."""

    relay: Relay
    symbols: Sequence[str]
    got: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    failed: list[BaseException] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cut it off for good: it must not go on knocking while other tests run."""
        self._over.set()
        self.relay.close()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for update in stream(self.symbols, url=self.relay.url, on_lost=self._lost):
                assert isinstance(update, Bar)
                self.got[update.symbol].append(int(update.close))
        except _EndedError:
            return
        except BaseException as error:
            self.failed.append(error)
            raise

    def _lost(self, _error: Exception, _pause_s: float) -> None:
        if self._over.is_set():
            raise _EndedError

    def count(self) -> int:
        """How many bars have come."""
        return sum(map(len, list(self.got.values())))

    def has(self, wanted: dict[str, int]) -> bool:
        """Whether the last bar of each symbol has come."""
        assert not self.failed, self.failed
        return all(self.got[symbol] and self.got[symbol][-1] == last for symbol, last in wanted.items())

    def faults(self, wanted: dict[str, int]) -> dict[str, str]:
        """Symbols of which something is lost, doubled or out of order, and where that begins."""
        found = {}
        for symbol, last in wanted.items():
            got = self.got[symbol]
            right = [*range(1, last + 1)]
            if got != right:
                at = next((at for at, each in enumerate(got) if each != at + 1), len(got))
                found[symbol] = f"{len(got)} of {last}; ... {got[max(at - 2, 0) : at + 3]}"
        return found


@dataclass
class Scene:
    """Servers, a web process, a publisher, and what is published."""

    servers: Servers
    web: Web
    deps: Deps
    publisher: Publisher
    symbols: list[str]

    def tick(self, ticks: int) -> None:
        """Let every symbol tick so many times."""
        for _ in range(ticks):
            self.publisher.tick(dict.fromkeys(self.symbols, 1))


@contextmanager
def scene(folder: Path, symbols: int) -> Iterator[Scene]:
    with own_servers(folder) as servers:
        deps = open_deps(servers.settings(**_KEPT), application="tests")
        names = [f"S{number:02d}" for number in range(symbols)]
        add_symbols(deps.database, names)
        with socket.create_server(("127.0.0.1", 0)) as free:
            web = Web(servers, free.getsockname()[1])
        web.start()
        try:
            yield Scene(servers, web, deps, Publisher(deps), names)
        finally:
            web.kill()
            deps.close()


@contextmanager
def readers(web: Web, *shares: Sequence[str]) -> Iterator[list[Reader]]:
    """A client for each share of the symbols, each behind a relay of its own."""
    made = [Reader(Relay(web.port), share) for share in shares]
    for each in made:
        each.start()
    try:
        yield made
    finally:
        for each in made:
            each.stop()


@pytest.mark.chaos
def test_a_client_that_is_cut_off_again_and_again_gets_each_bar_once(tmp_path: Path, full_size: bool) -> None:
    cuts, symbols = (200, 50) if full_size else (12, 10)
    chance = random.Random(1)
    with scene(tmp_path, symbols) as world, readers(world.web, world.symbols, world.symbols[: symbols // 2]) as clients:
        world.tick(1)
        for client in clients:
            until(lambda client=client: client.has(dict.fromkeys(client.symbols, 1)), "the clients are connected")  # type: ignore[misc]
        at_cut = [0] * len(clients)
        while min(client.relay.cuts for client in clients) < cuts:
            world.tick(chance.randint(1, 8))
            for number, client in enumerate(clients):
                assert not client.failed, client.failed
                # Now and then before it has got anything; at every turn it would only wait, longer and longer.
                if client.count() > at_cut[number] or chance.random() < 0.1:
                    client.relay.cut()
                    at_cut[number] = client.count()
        world.tick(3)
        _all_came(clients, world)


@pytest.mark.chaos
def test_nothing_is_lost_or_doubled_when_redis_loses_all_and_the_web_process_is_killed(
    tmp_path: Path, full_size: bool
) -> None:
    rounds, symbols = (10, 50) if full_size else (1, 10)
    with scene(tmp_path, symbols) as world, readers(world.web, world.symbols, world.symbols[:3]) as clients:
        servers, web = world.servers, world.web
        for _ in range(rounds):
            world.tick(10)
            servers.end(servers.redis)  # with all that it knew
            servers.empty_redis()
            world.tick(2)  # committed; published when it is back
            servers.start(servers.redis)
            _sweep(world)
            world.tick(10)
            web.kill()
            world.tick(10)
            web.start()
            world.tick(5)
            web.kill()  # and Redis with it
            servers.end(servers.redis)
            servers.empty_redis()
            servers.start(servers.redis)
            web.start()
            _sweep(world)
        world.tick(5)
        _all_came(clients, world)


def _sweep(world: Scene) -> None:
    """Publish what could not be published when it was committed, as beat's sweep does."""
    world.publisher.publish(world.symbols)


def _all_came(clients: Sequence[Reader], world: Scene) -> None:
    made = dict(world.publisher.made)
    for client in clients:
        wanted = {symbol: made[symbol] for symbol in client.symbols}
        until(lambda client=client, wanted=wanted: client.has(wanted), "the last bars came")  # type: ignore[misc]
        assert client.faults(wanted) == {}
