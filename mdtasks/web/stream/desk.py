"""Where clients of the live stream come in: who may, which streams their symbols are, and the hub that serves them."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from starlette.concurrency import run_in_threadpool

from mdtasks.domain.errors import TooManyClientsError
from mdtasks.flows import replay
from mdtasks.flows.deps import Deps
from mdtasks.observe import metrics
from mdtasks.observe.metrics import Reading
from mdtasks.settings import Settings
from mdtasks.store import reference
from mdtasks.web.stream.hub import Feed, Hub
from mdtasks.web.stream.session import Client
from mdtasks.web.stream.windows import Windows

#: For how long it is remembered which instrument bears a symbol, seconds: clients come back all at once.
_REMEMBERED_S: Final = 30.0
_MOST_REMEMBERED: Final = 100_000
#: Files of a web process that are no client's: servers, logs, metrics, requests.
_OTHER_FILES: Final = 512


def allow_sockets(most: int) -> None:
    """Let this process have so many sockets, as far as the system lets it: many systems begin with 1024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Desk:
    """The live stream of one web process. ``deps`` gives the Deps that hold now."""

    def __init__(self, deps: Callable[[], Deps], feed: Feed) -> None:
        self._deps = deps
        self.hub = Hub(feed, Windows(lambda asked: replay.windows(deps(), asked, datetime.now(UTC))))
        self._seats: Counter[str] = Counter()
        self._known: dict[str, tuple[int, float]] = {}

    @property
    def settings(self) -> Settings:
        """The limits that hold now."""
        return self._deps().settings

    @contextmanager
    def seat(self, address: str) -> Iterator[Client]:
        """A client from this address, while it is connected. Raises TooManyClientsError."""
        settings = self.settings
        if self._seats.total() >= settings.ws_max_clients:
            raise TooManyClientsError(settings.ws_max_clients, "WS_MAX_CLIENTS")
        if self._seats[address] >= settings.ws_max_per_address:
            raise TooManyClientsError(settings.ws_max_per_address, "WS_MAX_CLIENTS_PER_ADDRESS", address)
        self._seats[address] += 1
        client = Client(self.hub, queue_bytes=settings.ws_queue_bytes, most_symbols=settings.ws_max_symbols)
        try:
            yield client
        finally:
            client.close()
            self._seats[address] -= 1
            if not self._seats[address]:
                del self._seats[address]

    async def instruments(self, symbols: Iterable[str]) -> dict[str, int]:
        """The instrument that bears each symbol. Raises UnknownSymbolError, UnavailableError."""
        asked, now = list(symbols), time.monotonic()
        known = {symbol: self._known[symbol] for symbol in asked if symbol in self._known}
        new = [symbol for symbol in asked if symbol not in known or known[symbol][1] < now]
        if new:
            found = await run_in_threadpool(self._resolve, new)
            known |= {symbol: (instrument_id, now + _REMEMBERED_S) for symbol, instrument_id in found.items()}
            if len(self._known) > _MOST_REMEMBERED:
                self._known.clear()
            self._known |= known
        return {symbol: known[symbol][0] for symbol in asked}

    def _resolve(self, symbols: list[str]) -> dict[str, int]:
        with self._deps().database.transaction() as connection:
            return {symbol: each.id for symbol, each in reference.resolve(connection, symbols).items()}

    def readings(self) -> Iterator[Reading]:
        """What a scrape of this process shows of it."""
        yield Reading(metrics.WS_CLIENTS, self._seats.total(), {})
