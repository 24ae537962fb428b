"""Plotly under the console's policy: it draws candles, and nothing inline or evaluated is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mdtasks.settings import Settings
from mdtasks.web import app
from mdtasks.web.console.render import page
from mdtasks.web.console.session import Sessions
from tests.browser.looking import Console
from tests.integration.web_server import served

_CANDLES = """
() => Plotly.newPlot(document.getElementById('main'), [{
  type: 'candlestick', x: ['2026-11-02', '2026-11-03', '2026-11-04'],
  open: [1, 2, 3], high: [3, 4, 4], low: [0, 1, 2], close: [2, 3, 2],
}], {}, { displaylogo: false, responsive: true })
"""


def _page(request: Request) -> Response:
    """A page with charts."""
    said = {"error": "a page with charts", "hint": "", "code": ""}
    return page(request, "error.html", charts=True, said=said)


@pytest.fixture
def charted(
    settings: Settings, in_browser: Callable[[httpx.Client], Console], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Console]:
    """The console with one page more, which has charts."""
    others: Any = app._routes
    added = Route("/console/charts", _page, middleware=[Middleware(Sessions)])
    monkeypatch.setattr(app, "_routes", lambda: [added, *others()])
    with served(settings) as client:
        found = in_browser(client)
        yield found
        found.close()


def test_plotly_draws_candles_under_the_policy(charted: Console) -> None:
    shown = charted.page()
    shown.goto("/console/charts")
    shown.evaluate(_CANDLES)
    expect(shown.locator("path.box")).to_have_count(6)  # three, and three in the slider below
    shown.locator(".nsewdrag").first.hover()
    expect(shown.locator(".hoverlayer")).to_contain_text("open")
    charted.picture(shown, "charts")
