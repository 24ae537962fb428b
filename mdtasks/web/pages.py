"""Pages for people: a template, the one style, and the policy that lets a browser apply it and load nothing at all."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Final

from starlette.responses import HTMLResponse

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page(template: str, values: Mapping[str, str]) -> HTMLResponse:
    """The page of a template file with these values, which are HTML already."""
    style, policy = _style()
    content = _template(template).substitute(values, style=style)
    return HTMLResponse(content, headers={**_HEADERS, "Content-Security-Policy": policy})


@cache
def _template(name: str) -> Template:
    return Template(files("mdtasks.web").joinpath(name).read_text())


@cache
def _style() -> tuple[str, str]:
    style = files("mdtasks.web").joinpath("landing.css").read_text()
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return style, policy
