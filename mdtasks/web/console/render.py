"""From a template and values to a page, with the policy that lets a browser load our own files and nothing else."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mdtasks.web.console import assets, layout
from mdtasks.web.console.session import COOKIE_RULES, csrf_token
from mdtasks.web.console.words import FILTERS

#: What a page says once, after a form: in a cookie until the next page.
_FLASH: Final = "mdtasks_flash"
_LONGEST_FLASH: Final = 600

HEADERS: Final = {
    "Cache-Control": "no-store",
    # Not "no-referrer": browsers would then call the origin of our own forms "null".
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_templates: Final = Environment(
    loader=PackageLoader("mdtasks.web.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(FILTERS)
_templates.globals.update(asset=assets.url_of, maps_style=assets.maps_style)


def digest(content: str) -> str:
    """How a policy names a style or script that stands in the page itself."""
    return f"'sha256-{base64.b64encode(sha256(content.encode()).digest()).decode()}'"


def policy(*, styles: str = "'self'", scripts: str = "'self'", frames: str = "frame-ancestors 'none'") -> str:
    """The Content-Security-Policy of a page: nothing inline, nothing evaluated, nothing from elsewhere."""
    rules = (
        "default-src 'none'",
        f"script-src {scripts}",
        f"style-src {styles}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        frames,
    )
    return "; ".join(filter(None, rules))


def rendered(template: str, **values: Any) -> str:
    """A template with values, escaped; without what belongs to a request."""
    return _templates.get_template(template).render(**values)


def page(request: Request, template: str, *, status: int = 200, charts: bool = False, **values: Any) -> HTMLResponse:
    """The page of a template. ``charts``: with Plotly at hand."""
    session, settings = request.state.session, request.state.deps.settings
    flash = request.cookies.get(_FLASH, "")
    content = rendered(
        template,
        navigation=list(layout.navigation(settings)),
        here=layout.here(request.url.path),
        csrf=csrf_token(session),
        may_sign_out=session.signed_in and settings.api_token is not None,
        flash=unquote(flash),
        charts=charts,
        inline=False,
        **values,
    )
    # All that Plotly puts into the page as style is an empty element, which it fills by script.
    styles = f"'self' {digest('')}" if charts else "'self'"
    headers = {**HEADERS, "Content-Security-Policy": policy(styles=styles)}
    response = HTMLResponse(content, status, headers)
    if flash:
        response.delete_cookie(_FLASH)
    return response


def after_post(path: str, told: str = "") -> Response:
    """Go to a page, so that reloading it does not send a form again; it says there once what became of it."""
    response = RedirectResponse(path, status_code=303, headers={"Cache-Control": "no-store"})
    if told:
        response.set_cookie(_FLASH, quote(told[:_LONGEST_FLASH]), max_age=60, **COOKIE_RULES)
    return response
