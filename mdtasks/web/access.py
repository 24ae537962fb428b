"""Who may speak to the web app: this machine only, or whoever bears the API token; and a log line for each change.

Without a token every request must come from this machine, to an address of this machine, under a name of it, and a
change must not come from another site's page (DNS rebinding and cross-site requests reach loopback through a browser).
With one, everything under /ops needs it; a page of another site cannot know it.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Self

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from mdtasks.domain.errors import ForbiddenError, MdtasksError, UnauthorizedError
from mdtasks.settings import Settings
from mdtasks.web.answers import refusal

log = logging.getLogger(__name__)

#: Methods that change nothing.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: Set by proxies: behind one, the address that we see is the proxy's.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_SET_A_TOKEN: Final = "set MDTASKS_API_TOKEN to serve others, or speak to http://127.0.0.1"  # noqa: S105 - advice


class LoopbackOnly:
    """Refuses, while there is no token, what is not this machine speaking to itself; always other sites' WebSockets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        why = why_not_local(scope) if token_of(scope) is None else why_not_this_site(scope)
        if not why:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(ForbiddenError(f"without an API token {why}", hint=_SET_A_TOKEN))(scope, receive, send)
        else:
            await WebSocketClose(code=1008, reason=why)(scope, receive, send)


def why_not_local(scope: Scope) -> str:
    """Why a request is not this machine speaking to itself; "" when it is."""
    client, server = scope.get("client"), scope.get("server")
    if client is None or not _is_loopback(client[0]):
        return f"only this machine is served, not {client[0] if client else 'an unknown address'}"
    if server is None or not _is_loopback(server[0]):
        return f"only loopback is served, not {server[0] if server else 'an unknown address'}"
    headers = Headers(scope=scope)
    proxied = next((name for name in _FORWARDED if name in headers), None)
    if proxied:
        return f"requests through a proxy are not served (it sent {proxied})"
    host = headers.get("host", "")
    if not _is_loopback(_host_name(host)):
        return f"only the names localhost, 127.0.0.1 and [::1] are served, not {host or 'a request without one'}"
    if scope.get("method") not in SAFE_METHODS:
        return _foreign_page(headers, host)
    return ""


def why_not_this_site(scope: Scope) -> str:
    """Why another site's page may not have this; "" when it may. Browsers keep it from reading answers, but not from
    opening WebSockets.
    """
    headers = Headers(scope=scope)
    return _foreign_page(headers, headers.get("host", "")) if scope["type"] == "websocket" else ""


def _foreign_page(headers: Mapping[str, str], host: str) -> str:
    origin = headers.get("origin")
    if origin is not None and origin.rpartition("://")[2].lower() != host.lower():
        return f"a page of {origin} may not change anything here"
    return "a page of another site may not change anything here" if from_another_site(headers) else ""


def from_another_site(headers: Mapping[str, str]) -> bool:
    """Whether the browser says that a page of another site sends this."""
    return headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def _host_name(host: str) -> str:
    """``localhost:8000`` and ``[::1]:8000`` without the port and the brackets."""
    name, bracket, _ = host.removeprefix("[").partition("]")
    return name if bracket else host.partition(":")[0]


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # A socket that serves both families names an IPv4 client ::ffff:127.0.0.1.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class TokenGuard:
    """Lets only the token's bearer through, when there is one; says in ``state["actor"]`` who it is.

    Every request that may change something leaves a log line: who, what, with which status.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["client"][0] if scope.get("client") else "unknown"
        with WriteLog(scope, client, send) as log:
            scope["state"]["actor"] = log.actor = _actor(scope, client)
            await self._app(scope, receive, log.send)


def _status_of(error: Exception) -> int:
    """The status that the error will be answered with."""
    if isinstance(error, HTTPException):
        return error.status_code
    return error.http_status if isinstance(error, MdtasksError) else 500


def _actor(scope: Scope, client: str) -> str:
    token = token_of(scope)
    if token is None:
        return client
    scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError("this needs the API token", hint="send `Authorization: Bearer $MDTASKS_API_TOKEN`")
    if not is_token(given.strip().encode("latin-1"), token):  # as headers are read here
        raise UnauthorizedError("this is not the API token", hint="send what MDTASKS_API_TOKEN says to the server")
    return "api"


def is_token(given: bytes, token: str) -> bool:
    """Whether this is the token. Digests of one length: the time it takes tells nothing, not even how long that is."""
    return hmac.compare_digest(sha256(given).digest(), sha256(token.encode()).digest())


def token_of(scope: Scope) -> str | None:
    """The API token; None where there is none."""
    settings: Settings = scope["state"]["deps"].settings
    return settings.api_token.get_secret_value() if settings.api_token is not None else None


class WriteLog:
    """The log line of a request that may change something: written where the block ends, with the answer's status."""

    def __init__(self, scope: Scope, client: str, send: Send) -> None:
        self._scope, self._client, self._send = scope, client, send
        self._started_s = time.monotonic()
        self.actor = "nobody"
        self.status = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception):
            self.status = _status_of(error)
        self._write()

    async def send(self, message: Message) -> None:
        """Send the answer on, and keep its status."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    def _write(self) -> None:
        if self._scope.get("method", "GET") in SAFE_METHODS:
            return
        # As JSON: what a client sends cannot make a line of its own.
        line = {
            "actor": self.actor,
            "client": self._client,
            "method": self._scope["method"],
            "path": self._scope["path"],
            "query": self._scope["query_string"].decode("latin-1"),
            "status": self.status,
            "took_ms": round((time.monotonic() - self._started_s) * 1000),
        }
        log.info("write %s", json.dumps(line))
