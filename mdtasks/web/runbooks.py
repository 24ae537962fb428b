"""The runbooks as pages: where an alert's link leads."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from markdown_it import MarkdownIt
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.flows.runbooks import books
from mdtasks.web.console.render import page
from mdtasks.web.parsing import Query, parse_query

#: Links between the files are links between the pages.
_LINK: Final = re.compile(r'href="(\w+)\.md"')


async def list_runbooks(request: Request) -> Response:
    """Every alert, and its runbook."""
    parse_query(request, Query)
    return await run_in_threadpool(_list, request)


async def show_runbook(request: Request) -> Response:
    """What an alert means and what to do, for people."""
    parse_query(request, Query)
    alert = await run_in_threadpool(books.known, request.path_params["alert"])
    return page(request, "runbook.html", alert=alert, content=await run_in_threadpool(_rendered, alert))


def _list(request: Request) -> Response:
    return page(request, "runbooks.html", books=[(name, books.meaning_of(name)) for name in books.names()])


@cache
def _rendered(alert: str) -> str:
    markdown = MarkdownIt("commonmark", {"html": False})
    return _LINK.sub(r'href="/runbooks/\1"', str(markdown.render(books.text_of(alert))))
