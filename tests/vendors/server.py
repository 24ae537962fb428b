"""Local vendors on 127.0.0.1: what they answer to each SDK, with faults on demand and a record of who asked what.

``server.url("alpaca")`` goes into MDTASKS_VENDOR_URLS. ``server.fail("alpaca", Fault("hang"))`` spoils its next answer.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.vendors.answers import VENDORS, Request, encoded
from tests.vendors.market import Market

#: answer: ``status``, ``body`` and ``headers`` as the fault says. hang: nothing ever. drip: a byte now and then, for
#: ever. drip_headers: the same before the body. truncated: half the body, as if it were all. cut_off: half the body,
#: and the connection closes before what was promised. reset: the connection is reset without an answer.
Kind = Literal["answer", "hang", "drip", "drip_headers", "truncated", "cut_off", "reset"]


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next ``times`` requests whose path holds ``only``, after the first ``skip`` of them."""

    kind: Kind = "answer"
    times: int = 1
    skip: int = 0
    only: str = ""
    status: int = 500
    body: Any = "<html><body>oops</body></html>"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Seen:
    """A request as it came. ``let_go``: set when the client gave up a request that hangs or drips, or an answer that
    it no longer waited for.
    """

    at: float
    vendor: str
    target: str
    headers: Mapping[str, str]
    let_go: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> str:
        """The path below the vendor's name."""
        return unquote(urlsplit(self.target).path)


class VendorServer:
    """All vendors on one free port, selling one market. A context manager. ``tls``: a certificate and its key."""

    def __init__(self, market: Market, *, tls: Path | None = None) -> None:
        self.market = market
        #: Every request in the order of arrival.
        self.seen: list[Seen] = []
        self._faults: dict[str, list[Fault]] = {}
        self._limits: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self.closing = threading.Event()
        #: Set once a fault that drips has begun to.
        self.dripping = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def __enter__(self) -> VendorServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def url(self, vendor: str) -> str:
        """Where a vendor is asked."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}/{vendor}"

    def fail(self, vendor: str, *faults: Fault) -> None:
        """Spoil answers to come; a fault that is used up gives way to the next."""
        with self._lock:
            self._faults.setdefault(vendor, []).extend(faults)

    def limit(self, vendor: str, calls: int, per_s: float) -> None:
        """Answer 429 to a request that is one too many in any ``per_s`` seconds."""
        self._limits[vendor] = (calls, per_s)

    def asked(self, vendor: str, part: str = "") -> list[Seen]:
        """The vendor's requests whose path holds ``part``."""
        return [each for each in self.seen if each.vendor == vendor and part in each.path]

    def most_in(self, vendor: str, per_s: float) -> int:
        """The most requests of the vendor that fell into any ``per_s`` seconds."""
        times = [each.at for each in self.asked(vendor)]
        return max((sum(at <= other < at + per_s for other in times) for at in times), default=0)

    def reply(self, seen: Seen, form: Mapping[str, str]) -> tuple[Fault | None, int, bytes]:
        """What to send: the fault to commit, if any, the status and the whole body."""
        parts = urlsplit(seen.target)
        query = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **form}
        with self._lock:
            self.seen.append(seen)
            fault = self._next(seen)
            calls, per_s = self._limits.get(seen.vendor, (0, 0.0))
            recent = [each for each in self.asked(seen.vendor) if each.at > seen.at - per_s]
        if fault is None and calls and len(recent) > calls:
            fault = Fault(status=429, body={"message": "too many requests"}, headers={"Retry-After": "1"})
        if fault is not None and fault.kind == "answer":
            return fault, fault.status, encoded(fault.body)
        status, body = VENDORS[seen.vendor](Request(unquote(parts.path), query, seen.headers), self.market)
        return fault, status, encoded(body)

    def _next(self, seen: Seen) -> Fault | None:
        for fault in self._faults.get(seen.vendor, []):
            if fault.times and fault.only in seen.path:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None


def _handler(server: VendorServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            _, vendor, below = self.path.split("/", 2)
            length = int(self.headers.get("Content-Length", 0))
            form = dict(parse_qsl(self.rfile.read(length).decode()))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(time.monotonic(), vendor, "/" + below, headers)
            fault, status, body = server.reply(seen, form)
            try:
                _send(self, seen, (fault, status, body), server)
            except OSError:  # the client went while it was answered
                self.close_connection = True
                seen.let_go.set()

        do_POST = do_GET  # noqa: N815 - the library's name

    return Handler


def _send(
    handler: BaseHTTPRequestHandler, seen: Seen, reply: tuple[Fault | None, int, bytes], server: VendorServer
) -> None:
    fault, status, body = reply
    kind = fault.kind if fault else "answer"
    if kind == "reset":
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True
        handler.connection.close()
        return
    if kind in ("hang", "drip_headers"):
        _until_let_go(handler, seen, server, b"" if kind == "hang" else b"X-Slow: 1\r\n")
        return
    sent = body[: len(body) // 2] if kind in ("truncated", "cut_off") else body
    handler.send_response(status)
    for name, value in (fault.headers if fault else {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Type", "application/json")
    promised = {"truncated": len(sent), "drip": len(body) + 10**6}.get(kind, len(body))
    handler.send_header("Content-Length", str(promised))
    handler.end_headers()
    handler.wfile.write(sent)
    if kind == "drip":
        _until_let_go(handler, seen, server, b" ")
    handler.close_connection = handler.close_connection or kind == "cut_off"


def _until_let_go(handler: BaseHTTPRequestHandler, seen: Seen, server: VendorServer, drop: bytes) -> None:
    """Send a drop now and then until the client closes; that is recorded."""
    if drop.strip():
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.connection.settimeout(0.02)
    handler.close_connection = True
    while not server.closing.is_set():
        try:
            if drop:
                handler.wfile.write(drop)
                server.dripping.set()
            if handler.connection.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    seen.let_go.set()
