"""`/`: the whole stack in one look. Whether all is well, and if not, what is wrong and where to go on."""

from __future__ import annotations

import re
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.web.console.providers import STATES, health_line
from mdtasks.web.console.render import page, rendered
from mdtasks.web.console.verdict import Verdict, judge
from mdtasks.web.console.view import View, read
from mdtasks.web.parsing import Query, parse_query

#: The parts of the page that are kept up to date, each a template in templates/overview/ and an element of that id.
SECTIONS: Final = ("verdict", "tiers", "safety", "providers", "newest")
#: What a clock says anew each second, and the script of the page says by itself.
_AGES: Final = re.compile(r"(<time\b[^>]*>)[^<]*")


async def show(request: Request) -> Response:
    """The overview, a page: whether all is well, tiers, dead letters, providers, policy, newest bars."""
    parse_query(request, Query)
    view = await read(request.state.deps)
    return await run_in_threadpool(page, request, "overview.html", sections=SECTIONS, **_values(view))


def fragments(view: View) -> dict[str, str]:
    """The HTML of each section."""
    values = _values(view)
    return {name: rendered(f"overview/{name}.html", **values) for name in SECTIONS}


def steady(fragment: str) -> str:
    """A fragment without what changes because time goes by: by this it is told whether there is news."""
    return _AGES.sub(r"\1", fragment)


def _values(view: View) -> dict[str, Any]:
    verdict: Verdict = judge(view)
    return {"view": view, "verdict": verdict, "spark": health_line, "provider_states": STATES}
