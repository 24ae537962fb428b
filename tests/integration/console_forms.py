"""Forms of the console, sent as its pages send them, and what a page says."""

from __future__ import annotations

import html
import re
from typing import Any

import httpx

from mdtasks.web.console.session import COOKIE, Session, csrf_token


def sent(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    """Send a form of one of our pages."""
    if COOKIE not in client.cookies:
        client.get("/runbooks")
    return client.post(path, data={"csrf": csrf_token(Session(client.cookies[COOKIE], signed_in=True)), **fields})


def words_of(page: httpx.Response) -> str:
    """What a page says, in one line."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.text)))


def field_of(page: httpx.Response, name: str) -> str:
    """The value of a field of a form, as a browser has it."""
    found = re.search(rf'<input[^>]*name="{name}"[^>]*?value="([^"]*)"', page.text)
    assert found is not None, name
    return html.unescape(found[1])


def text_of(page: httpx.Response) -> str:
    """What stands in the page's text area, as a browser has it: without the first new line."""
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page.text, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


def hidden_fields(page: httpx.Response) -> dict[str, str]:
    """The hidden fields of a page's forms, apart from the one that shows where they come from."""
    found = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    return {name: value for name, value in found.items() if name != "csrf"}
