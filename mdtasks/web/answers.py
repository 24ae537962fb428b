"""How the web app answers: JSON, and every error as one line that says what is wrong and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import MdtasksError, QueueFullError, UnauthorizedError, UnavailableError
from mdtasks.web.endpoints import Endpoint

#: Seconds after which a client may ask again when a server was away or a queue full.
_RETRY_AFTER_S: Final = "5"


class Json(Response):
    """JSON that no cache keeps and no browser takes for anything else. Times are UTC and end in Z."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            orjson.dumps(content, default=str, option=orjson.OPT_UTC_Z),
            status_code,
            {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
        )


def refusal(error: MdtasksError, status: int | None = None) -> Json:
    """The answer to a request that ended in one of our errors: ``{"ok": false, "error", "code", "hint", …}``.

    ``status``: in place of the error's own.
    """
    headers = {}
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = 'Bearer realm="mdtasks"'
    if isinstance(error, UnavailableError | QueueFullError):
        headers["Retry-After"] = _RETRY_AFTER_S
    return Json({"ok": False, **error.as_dict()}, status or error.http_status, headers)


async def on_our_error(_request: Request, error: Exception) -> Response:
    """Every MdtasksError says its own status."""
    assert isinstance(error, MdtasksError)
    return refusal(error)


async def on_disconnect(_request: Request, _error: Exception) -> Response:
    """The client went away while it sent its body: nobody reads this, and it is no fault of ours."""
    return Response(status_code=400)


async def on_unexpected(_request: Request, _error: Exception) -> Response:
    """A fault of ours: the server logs the traceback, the client does not see it."""
    hint = "a fault of mdtasks: its log has the traceback (`mdtasks logs web`)"
    return Json({"ok": False, "error": "unexpected error", "code": MdtasksError.code, "hint": hint}, 500)


def on_http_error(known: Sequence[Endpoint]) -> Callable[[Request, Exception], Any]:
    """The handler of what the router refuses; it names the nearest of the known endpoints."""
    by_path = {each.path: each for each in known}

    async def handler(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        if error.status_code == 405:
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            said = {"error": f"{request.method} is not allowed on {path}", "code": "method_not_allowed"}
            return Json({"ok": False, **said, "hint": f"allowed: {allowed}"}, 405, {"Allow": allowed})
        if error.status_code == 404:
            near = [by_path[each] for each in difflib.get_close_matches(path, by_path, n=1, cutoff=0.5)]
            hint = f"did you mean {near[0].method} {near[0].path}?" if near else "GET /console/api lists the endpoints"
            return Json({"ok": False, "error": f"no such path {path}", "code": "not_found", "hint": hint}, 404)
        said = {"error": error.detail, "code": "http", "hint": "GET /console/api lists the endpoints"}
        return Json({"ok": False, **said}, error.status_code, error.headers)

    return handler
