"""Requests through urllib3, and what is built on it, that pass a vendor's gate, one by one, and end in time.

The libraries' own timeouts hold for each read, so an answer that drips never ends. Here one clock runs over connection,
headers and body; when it is up, the socket is shut, and whoever reads from it finds the end. Imported only with an SDK.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any, Final

import urllib3
import urllib3.connection
import urllib3.exceptions

from mdtasks.providers.http import Answer, Wire, causes

_TIMEOUTS: Final = (urllib3.exceptions.TimeoutError, TimeoutError)
#: What urllib3 raises, and what is built on it: the errors of requests are OSErrors.
_FAILURES: Final = (urllib3.exceptions.HTTPError, OSError)


class Watch:
    """The clock of one request at a time: shuts the connection in use when it is up."""

    def __init__(self) -> None:
        self.up = False
        self._connection: Any = None

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let the block use connections for so long; ``up`` says afterwards whether that was too short."""
        self.up, self._connection = False, None
        timer = Timer(seconds, self._shut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def over(self, connection: Any) -> None:
        """Mind this connection. Called again when it is open: the clock may have run out before it had a socket."""
        self._connection = connection
        if self.up:
            self._shut()

    def _shut(self) -> None:
        self.up = True
        held = getattr(self._connection, "sock", None)
        if held is not None:
            with suppress(OSError):
                # A TLS socket's own shutdown drops its state under the reader's hands; the plain one wakes the reader.
                socket.socket.shutdown(held, socket.SHUT_RDWR)


def watched(manager: urllib3.PoolManager, watch: Watch) -> None:
    """Let the manager make connections that the watch minds."""

    class Watched(urllib3.connection.HTTPConnection):
        def connect(self) -> None:
            watch.over(self)
            super().connect()
            watch.over(self)

        def request(self, *args: Any, **kwargs: Any) -> None:
            watch.over(self)
            super().request(*args, **kwargs)

    class Secure(Watched, urllib3.connection.HTTPSConnection):
        """The same over TLS, which is an HTTPConnection too."""

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Watched

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}


def exchanged(wire: Wire, watch: Watch, url: str, send: Callable[[str], tuple[Any, Any]]) -> tuple[Any, bytes]:
    """Send one request through the gate and read its answer whole: what ``send`` gave first, and the body.

    ``send`` takes the real address and gives (what the library calls a response, urllib3's response, unread). Raises
    the ProviderError that the answer, or its absence, means.
    """
    with wire.request(url):
        begun = False
        try:
            with watch.within(wire.timeout_s):
                given, raw = send(wire.address(url))
                begun = True
                body = raw.read(decode_content=True)
                raw.release_conn()
        except _FAILURES as exc:
            timed_out = watch.up or any(map(_timed_out, causes(exc)))
            raise wire.failed(url, exc, timed_out=timed_out, cut_off=begun) from exc
        if watch.up:  # of headers that broke off, or a body of no told length, the end is all that shows
            raise wire.failed(url, TimeoutError(), timed_out=True)
        wire.accept(url, Answer.of(raw.status, raw.headers, body))
    return given, body


def gated_manager(wire: Wire, manager: urllib3.PoolManager) -> Callable[..., urllib3.HTTPResponse]:
    """A ``PoolManager.request`` of which all requests pass the gate."""
    watch = Watch()
    watched(manager, watch)
    make = manager.request

    def request(
        method: str, url: str, fields: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> urllib3.HTTPResponse:
        def sent(address: str) -> tuple[Any, Any]:
            limits = urllib3.Timeout(connect=wire.timeout_s, read=wire.timeout_s)
            response = make(
                method,
                address,
                fields=fields,
                headers=headers,
                preload_content=False,
                redirect=False,
                retries=False,
                timeout=limits,
            )
            return response, response

        given, body = exchanged(wire, watch, url, sent)
        return urllib3.HTTPResponse(body=body, status=given.status)

    return request


def _timed_out(exc: BaseException) -> bool:
    """Whether it is a timeout; urllib3 counts a refused connection among them."""
    return isinstance(exc, _TIMEOUTS) and not isinstance(exc, urllib3.exceptions.NewConnectionError)
