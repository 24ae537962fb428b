"""Looking at the console in a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
from playwright.sync_api import Browser, Page

#: Widths at which every page is looked at: a desktop's and a phone's.
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


@dataclass
class Console:
    """The console in a browser: pages of it, and what their consoles complained of."""

    browser: Browser
    client: httpx.Client
    pictures: Path
    complaints: list[str] = field(default_factory=list)
    #: Complaints that hold one of these are what the test is about.
    expected: tuple[str, ...] = ()

    def page(self, size: str = "desktop", scheme: Scheme = "light", **options: Any) -> Page:
        """A new browser of its own, at a size."""
        width, height = SIZES[size]
        context = self.browser.new_context(
            base_url=str(self.client.base_url),
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            **options,
        )
        page = context.new_page()
        page.on("console", lambda said: self._heard(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(each in text for each in self.expected):
            self.complaints.append(text)

    def looked_at(self, path: str, name: str) -> None:
        """Look at a page at every size and in both schemes: nothing runs out of it, and a picture is kept."""
        page = self.page()  # one for all, as it need not fetch twice what it keeps: charts are megabytes
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                page.goto(path)
                self.picture(page, f"{name}-{size}-{scheme}")
        page.context.close()

    def picture(self, page: Page, name: str) -> None:
        """Keep a picture of the whole page, which must not be wider than the screen."""
        page.screenshot(path=self.pictures / f"{name}.png", full_page=True)
        wide, screen = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= screen, f"{name} is {wide} pixels wide on a screen of {screen}"

    def close(self) -> None:
        """Close every page: a stream that stays open would keep the server from its end."""
        for context in self.browser.contexts:
            context.close()
