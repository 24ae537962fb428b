"""Signing in with the API token, and out."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.web.access import is_token, token_of
from mdtasks.web.console.render import after_post, page
from mdtasks.web.console.session import COOKIE, LOGIN, set_session, signed_cookie
from mdtasks.web.parsing import Query, parse_query


class LoginQuery(Query):
    """Where to go afterwards."""

    next: Annotated[str, Field(max_length=2000)] = "/"


async def show(request: Request) -> Response:
    """Sign in to the console with the API token, a page."""
    wanted = parse_query(request, LoginQuery).next
    if request.state.session.signed_in:
        return after_post(_own_path(wanted))
    return page(request, "login.html", next=_own_path(wanted), wrong=False)


async def sign_in(request: Request) -> Response:
    """Sign in: the form of that page."""
    form, token = request.state.form, token_of(request.scope)
    wanted = _own_path(str(form.get("next", "/")))
    if token is None:
        return after_post(wanted)
    if not is_token(str(form.get("token", "")).strip().encode(), token):
        return page(request, "login.html", status=401, next=wanted, wrong=True)
    request.state.actor = "console"
    response = after_post(wanted)
    set_session(response, signed_cookie(token, time.time()), request.url.scheme)
    return response


async def sign_out(_request: Request) -> Response:
    """Sign out of the console."""
    response = after_post(LOGIN)
    response.delete_cookie(COOKIE)
    return response


def _own_path(path: str) -> str:
    """``path`` where it is one of this app: never the address of another site."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if ours else "/"
