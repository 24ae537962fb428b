"""Errors of pages, as pages: what is wrong and what to do, with the status that JSON would have."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.web.console.render import page

Handler = Callable[[Request, Exception], Coroutine[Any, Any, Response]]

#: What is no page, although it is below /console.
_NO_PAGES: Final = ("/console/static/", "/console/events")


def for_people(handler: Handler) -> Handler:
    """The handler, with its JSON shown as a page where a page was asked for."""

    async def shown(request: Request, error: Exception) -> Response:
        answer = await handler(request, error)
        if not _is_page(request) or answer.media_type != "application/json":
            return answer
        said = {"error": "", "hint": "", "code": "", **orjson.loads(answer.body)}
        made = await run_in_threadpool(page, request, "error.html", status=answer.status_code, said=said)
        for name in ("retry-after", "allow"):
            if name in answer.headers:
                made.headers[name] = answer.headers[name]
        return made

    return shown


def _is_page(request: Request) -> bool:
    path = request.url.path
    ours = path == "/" or (path.startswith(("/console/", "/runbooks")) and not path.startswith(_NO_PAGES))
    # Who was refused before it had a session gets JSON, as every program does.
    return ours and hasattr(request.state, "session")
