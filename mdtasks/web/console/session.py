"""Who uses the console, and that a form comes from it.

A browser gets a cookie that scripts cannot read and other sites' pages do not send. With an API token, signing in
makes that a cookie signed with the token: no process has to remember it, every process knows it, and another token
ends it. Each form carries a digest of the cookie, which only a page of ours can know.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from starlette.datastructures import Headers, ImmutableMultiDict, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mdtasks.domain.errors import ForbiddenError, InvalidRequestError, MediaTypeError, UnauthorizedError
from mdtasks.web.access import SAFE_METHODS, WriteLog, from_another_site, token_of
from mdtasks.web.parsing import read_body

COOKIE: Final = "mdtasks_session"
#: The rules of every cookie of ours.
COOKIE_RULES: Final[dict[str, Any]] = {"httponly": True, "samesite": "strict", "path": "/"}
#: The field of a form that shows where it comes from.
CSRF_FIELD: Final = "csrf"
#: Who signed in stays so for this long, seconds.
LASTS_S: Final = 12 * 3600
LOGIN: Final = "/console/login"

_ANONYMOUS: Final = re.compile(r"a\.[A-Za-z0-9_-]{43}")
_SIGNED: Final = re.compile(r"s\.(\d{1,12})\.([A-Za-z0-9_-]{22})\.([0-9a-f]{64})")
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Session:
    """A browser: its cookie, whether it may use the console, and whether it has that cookie already."""

    cookie: str
    signed_in: bool
    known: bool = True


def csrf_token(session: Session) -> str:
    """What a form of this browser carries."""
    return hmac.new(session.cookie.encode(), b"mdtasks form", sha256).hexdigest()


def signed_cookie(token: str, now_s: float) -> str:
    """The cookie of a browser that has shown the token."""
    body = f"s.{int(now_s) + LASTS_S}.{secrets.token_urlsafe(16)}"
    return f"{body}.{_signature(body, token)}"


def session_of(cookie: str, token: str | None, now_s: float) -> Session:
    """The session of a request: of its cookie, or a new one where that is none of ours or has run out."""
    if token is not None and (found := _SIGNED.fullmatch(cookie)):
        body, _, signature = cookie.rpartition(".")
        if hmac.compare_digest(signature, _signature(body, token)) and int(found[1]) > now_s:
            return Session(cookie, signed_in=True)
    if _ANONYMOUS.fullmatch(cookie):
        return Session(cookie, signed_in=token is None)
    return Session(f"a.{secrets.token_urlsafe(32)}", signed_in=token is None, known=False)


def _signature(body: str, token: str) -> str:
    key = hmac.new(token.encode(), b"mdtasks console", sha256).digest()
    return hmac.new(key, body.encode(), sha256).hexdigest()


def set_session(response: Response, cookie: str, scheme: str) -> None:
    """Let the browser have this session's cookie."""
    response.set_cookie(COOKIE, cookie, secure=scheme == "https", **COOKIE_RULES)


class Sessions:
    """Gives each request its ``state.session`` and ``state.actor``; of a POST the checked form, as ``state.form``.

    ``closed``: only those who signed in get on, others are asked to.
    """

    def __init__(self, app: ASGIApp, *, closed: bool = True) -> None:
        self._app = app
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token, client = token_of(scope), scope["client"][0] if scope.get("client") else "unknown"
        cookies = cookie_parser(Headers(scope=scope).get("cookie", ""))
        session = session_of(cookies.get(COOKIE, ""), token, time.time())
        log = WriteLog(scope, client, send)
        if session.signed_in:
            log.actor = client if token is None else "console"
        scope["state"].update(session=session, actor=log.actor)

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and not session.known:
                _keep(MutableHeaders(scope=message), session, scope["scheme"])
            await log.send(message)

        with log:
            await self._admit(session, Request(scope, receive), send_with_cookie)
            log.actor = scope["state"]["actor"]  # another one where somebody signed in

    async def _admit(self, session: Session, request: Request, send: Send) -> None:
        unsafe = request.method not in SAFE_METHODS
        if self._closed and not session.signed_in:
            if unsafe or "text/html" not in request.headers.get("accept", "text/html"):
                raise UnauthorizedError("you are not signed in, or no longer", hint=f"sign in: {LOGIN}")
            here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            await RedirectResponse(f"{LOGIN}?next={quote(here, safe='')}", 303)(request.scope, request.receive, send)
            return
        if unsafe:
            request.state.form = await _checked_form(request, session)
        await self._app(request.scope, request.receive, send)


def _keep(headers: MutableHeaders, session: Session, scheme: str) -> None:
    if COOKIE in headers.get("set-cookie", ""):  # the endpoint has given it another one
        return
    made = Response()
    set_session(made, session.cookie, scheme)
    headers.append("set-cookie", made.headers["set-cookie"])


async def _checked_form(request: Request, session: Session) -> ImmutableMultiDict[str, str]:
    """The fields of a form that comes from one of our pages. Raises ForbiddenError for any other."""
    if from_another_site(request.headers):
        raise ForbiddenError("a page of another site may not change anything here", hint="use the console's own forms")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise MediaTypeError(f"a form is {_FORM}, not {media_type or 'of no declared type'}", field="body")
    body = await read_body(request)
    try:
        fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=5000)
    except ValueError as exc:
        raise InvalidRequestError("the form has over 5,000 fields", field="body", hint="send fewer at a time") from exc
    form = ImmutableMultiDict(fields)
    if not hmac.compare_digest(str(form.get(CSRF_FIELD, "")).encode(), csrf_token(session).encode()):
        raise ForbiddenError("this form is not of a page that you have now", hint="go back, reload it, send it again")
    return ImmutableMultiDict([each for each in fields if each[0] != CSRF_FIELD])
