"""The overview over HTTP: what it shows, what it says of what is away, and that it needs nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import httpx
import orjson
import pytest
from sqlalchemy import text

from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import reconcile_once
from mdtasks.flows.providers import pause
from mdtasks.settings import Settings
from mdtasks.web.app import create_app
from mdtasks.web.endpoints import endpoints
from tests.integration.web_server import asked, dies, served, waiting_ids

AWAY = {"redis_url": "redis://127.0.0.1:1/0", "database_url": "postgresql://nobody@127.0.0.1:1/none"}
PAGES = (
    "/",
    "/console/symbols",
    "/console/backfills",
    "/console/backfills/new",
    "/console/dead-letters",
    "/console/dead-letters/purge",
    "/console/api",
    "/runbooks",
    "/runbooks/PartDown",
    "/console/providers",
    "/console/policy",
    "/console/policy/candidate",
    "/console/policy/versions/0",
)


def words_of(page: httpx.Response) -> str:
    """What a page says, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.text))


def _without(settings: Settings, *urls: str) -> Settings:
    given = Settings.model_validate({name: AWAY[name] for name in urls})
    return settings.model_copy(update={name: getattr(given, name) for name in urls})


def test_the_overview_shows_the_stack(settings: Settings, deps: Deps) -> None:
    addresses = {"flower_url": "http://127.0.0.1:5555", "prometheus_url": "http://127.0.0.1:5556"}
    known = settings.model_copy(update=addresses)
    with served(known) as client:
        asked(client)
        dies(deps, waiting_ids(deps.broker)[0])
        reconcile_once(deps, datetime.now(UTC))
        page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    shown = words_of(page)
    for words in ("1 dead letter is open", "2 of 20,000", "1 open", "lost, sent again 0", "None yet. Ask for some"):
        assert words in shown
    for link in ("/console/dead-letters", "/runbooks", "http://127.0.0.1:5555", "http://127.0.0.1:5556/alerts"):
        assert f'href="{link}"' in page.text


def test_what_nobody_does_is_named(client: httpx.Client) -> None:
    shown = words_of(client.get("/"))
    for words in (
        "Nobody watches the objectives: the monitor never looked",
        "No worker was heard of today",
        "Beat is silent",
        "The reconciler has never run",
    ):
        assert words in shown


#: A bar of 1999 under a name that is no good symbol.
_ONE_OLD_BAR = """
INSERT INTO instruments (mic) VALUES ('24/7');
INSERT INTO symbols (instrument_id, symbol) SELECT max(id), '<b>X&Y' FROM instruments;
CREATE TABLE bars_here PARTITION OF bars FOR VALUES FROM ('1999-01-01') TO ('1999-02-01');
INSERT INTO bars SELECT max(id), '1m', '1999-01-04 10:30Z', 1, 2, 0.5, 1234.5, 9, 'files', 'final', 1, now()
FROM instruments;
INSERT INTO coverage (instrument_id, interval, covered, fresh_until)
SELECT max(id), '1m', '{[1999-01-04 10:30Z,1999-01-04 10:31Z)}', '1999-01-04 10:31Z' FROM instruments
"""


def test_the_overview_shows_the_newest_bars_as_they_are(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        for statement in _ONE_OLD_BAR.split(";"):
            connection.execute(text(statement))
    page = client.get("/").text
    assert "<b>X&Y" not in page
    assert "&lt;b&gt;X&amp;Y" in page
    assert "1999-01-04 10:30" in page
    assert "1,234.5" in page


def test_the_overview_says_what_is_away(settings: Settings) -> None:
    with served(_without(settings, *AWAY)) as client:
        page = client.get("/")
    assert page.status_code == 200
    assert "Something is down" in page.text
    shown = words_of(page)
    assert shown.count("Redis cannot be used: ") == 2  # once to read, once as the name of its link
    assert "PostgreSQL cannot be used: " in shown
    assert "Not known while Redis cannot be used." in shown


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_nothing_from_elsewhere_and_allows_nothing_inline(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert not re.search(r"unsafe|https?:|\*", policy)
    assert not re.search(r"<script[^>]*>[^<]|<style|\son\w+=|\sstyle=", page.text)
    loaded = re.findall(r'(?:src|<link[^>]*href)="([^"]*)"', page.text)
    assert loaded
    for each in loaded:
        answer = client.get(each)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True), each


def test_plotly_is_served_compressed_and_kept(client: httpx.Client) -> None:
    script = re.findall(r'src="(/console/static/\w+/)', client.get("/").text)[0] + "plotly.js"
    answer = client.get(script, headers={"accept-encoding": "gzip"})
    assert (answer.headers["content-encoding"], "immutable" in answer.headers["cache-control"]) == ("gzip", True)
    assert "plotly.js v" in answer.text[:500]
    plain = client.get(script, headers={"accept-encoding": "identity"})
    assert ("content-encoding" in plain.headers, plain.text) == (False, answer.text)
    old = client.get("/console/static/0123/console.css")
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-store")
    for name in ("nothing.js", "..%2F__init__.py", "%2e%2e/routes.py"):
        assert client.get(f"/console/static/0123/{name}").status_code == 404


def test_what_is_wrong_with_a_page_is_told_on_a_page(client: httpx.Client) -> None:
    for path, status, words in (
        ("/?x=1", 422, "Unknown query parameter"),
        ("/console/nowhere", 404, "No such path /console/nowhere"),
        ("/console/dead-letters/none", 404, "No dead letter none"),
        ("/console/dead-letters?tier=T7", 422, "tier"),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
        assert words in words_of(answer), path


def test_news_come_as_events_whole_at_first(client: httpx.Client) -> None:
    with client.stream("GET", "/console/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        data = next(line for line in answer.iter_lines() if line.startswith("data: "))
    sections = orjson.loads(data.removeprefix("data: "))
    assert set(sections) == {"verdict", "tiers", "safety", "providers", "newest"}
    assert "Beat is silent" in sections["verdict"]


def test_a_page_lists_every_endpoint_with_its_purpose(client: httpx.Client) -> None:
    page = client.get("/console/api").text
    for endpoint in endpoints(create_app().routes):
        assert endpoint.purpose.endswith("."), endpoint
        assert escape(endpoint.path) in page


def test_the_overview_shows_who_is_aside_and_why(client: httpx.Client, deps: Deps) -> None:
    assert "<strong>simulator</strong>" in client.get("/").text
    assert "paused by" not in client.get("/").text
    pause("simulator", "<wrong> splits", "ann", deps, datetime.now(UTC))
    page = client.get("/").text
    assert "paused by ann: &lt;wrong&gt; splits" in page
    assert "<wrong>" not in page


def test_a_server_that_is_asked_to_stop_lets_its_listeners_go(
    settings: Settings, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    log = tmp_path / "log"
    environ = os.environ | {
        "MDTASKS_HOME": str(settings.home),
        "MDTASKS_DATABASE_URL": settings.require_database_url(),
        "MDTASKS_REDIS_URL": settings.require_redis_url(),
    }
    command = [sys.executable, "-m", "uvicorn", "mdtasks.web.app:app", "--port", "0", "--no-access-log"]
    with log.open("w") as output, subprocess.Popen(command, env=environ, stderr=output) as process:
        try:
            eventually(lambda: "running on" in log.read_text(), within_s=60, what="uvicorn is up")
            (url,) = re.findall(r"running on (\S+)", log.read_text())
            with httpx.stream("GET", f"{url}/console/events", timeout=60) as answer:
                lines = answer.iter_lines()
                next(line for line in lines if line.startswith("data: "))
                process.terminate()
                list(lines)  # the stream ends: nobody cuts it off, and nobody waits for it
            assert process.wait(60) in (0, -15)
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()
