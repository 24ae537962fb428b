"""The runbooks as pages: readable, safe, and where the links of alerts lead."""

from __future__ import annotations

import re

import httpx
import pytest

from mdtasks.flows.runbooks import books
from mdtasks.settings import Settings
from tests.integration.web_server import served


def test_every_runbook_is_a_page_and_the_list_leads_to_all(client: httpx.Client) -> None:
    listed = client.get("/runbooks")
    assert listed.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r'href="/runbooks/(\w+)"', listed.text) == books.names()
    for name in books.names():
        page = client.get(f"/runbooks/{name}")
        assert page.status_code == 200
        assert f"<h1>{name}</h1>" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for link in re.findall(r'href="(/[^"]*)"', page.text):
            assert client.get(link).status_code == 200, f"{name}: {link}"
        assert ".md" not in re.sub(r"<[^>]+>", "", page.text.replace("docs/alerts.md", ""))


def test_an_unknown_runbook_is_told_the_nearest(client: httpx.Client) -> None:
    answer = client.get("/runbooks/PartDwn")
    assert (answer.status_code, "PartDown" in answer.text) == (404, True)


@pytest.mark.parametrize("path", ["/runbooks/..%2Falerts", "/runbooks/%2e%2e%2f%2e%2e%2fREADME", "/runbooks/"])
def test_no_other_file_is_served(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_runbooks_can_be_read_while_every_server_is_away(settings: Settings) -> None:
    urls = Settings.model_validate(
        {"redis_url": "redis://127.0.0.1:1/0", "database_url": "postgresql://nobody@127.0.0.1:1/none"}
    )
    away = settings.model_copy(update={"redis_url": urls.redis_url, "database_url": urls.database_url})
    with served(away) as client:
        assert client.get("/runbooks/PartDown").status_code == 200
