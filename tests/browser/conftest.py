"""A real Chromium before the console. Whatever its console complains of, fails the test; pictures are kept as proof.

Debian's Chromium is driven; Playwright brings none. The pictures lie in ``.cache/console`` (``MDTASKS_TEST_PICTURES``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from tests.browser.looking import Console
from tests.integration.web_server import opened, served

_PICTURES = Path(__file__).resolve().parents[2] / ".cache" / "console"


# Not for the session: while Playwright runs, no other test of this process may run an event loop.
@pytest.fixture(scope="module")
def chromium(unavailable_here: Callable[[str], None]) -> Iterator[Browser]:
    """Debian's Chromium, running: its headless shell where there is one, which draws the same and starts sooner."""
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if found is None:
        unavailable_here("chromium is not on the PATH; on Debian: apt install chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """Deps beside the web app's own, with two instruments that always trade."""
    with opened(settings) as found:
        yield found


@pytest.fixture
def in_browser(chromium: Browser) -> Iterator[Callable[[httpx.Client], Console]]:
    """Makes a Console of a client of a server; what any of them complained of fails the test."""
    pictures = Path(os.environ.get("MDTASKS_TEST_PICTURES", _PICTURES))
    pictures.mkdir(parents=True, exist_ok=True)
    made: list[Console] = []

    def make(client: httpx.Client) -> Console:
        made.append(Console(chromium, client, pictures))
        return made[-1]

    yield make
    assert [each for console in made for each in console.complaints] == []


@pytest.fixture
def console(settings: Settings, deps: Deps, in_browser: Callable[[httpx.Client], Console]) -> Iterator[Console]:
    """The console of an app on the test's own servers, without a token."""
    with served(settings) as client:
        found = in_browser(client)
        yield found
        found.close()
