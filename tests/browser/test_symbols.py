"""Symbols in a real browser: the list, the candles, the live stream and the page without one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from playwright.sync_api import Page, expect
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.jobs import BackfillJob, Interval, TimeWindow
from mdtasks.flows import ingest
from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.store import bars as store_bars
from mdtasks.store import reference
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments
from mdtasks.web import app
from tests.browser.looking import Console
from tests.integration.web_server import asked, dies, served, waiting_ids

PATH = "/console/symbols/BTC-USD?interval=1m&start=2025-01-02&end=2025-01-05"


def _bars(start: datetime, prices: list[float]) -> Bars:
    close = np.array(prices)
    ts = to_us(start) + 60_000_000 * np.arange(len(prices))
    return Bars.of(ts, close - 1, close + 2, close - 2, close, close * 10)


def _store(deps: Deps, start: datetime, prices: list[float], *, provider: str = "simulator") -> None:
    """Store bars that are final, as an answer for their time."""
    window = TimeWindow(start=start, end=start + timedelta(minutes=len(prices)))
    ensure_partitions(deps.database, "bars", to_us(window.start), to_us(window.end))
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, ["BTC-USD"])["BTC-USD"]
        batch = store_bars.BarBatch(member.id, _bars(start, prices), to_us(window.end), covered=[window])
        store_bars.write_bars(connection, Interval.M1, [batch], provider, 1)


def _minutes_ago(minutes: int) -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=minutes)


def _closes(page: Page) -> list[float | None]:
    closes: list[float | None] = page.evaluate("document.getElementById('chart').data[0].close")
    return closes


@pytest.fixture
def filled(console: Console, deps: Deps) -> str:
    """Three days of BTC-USD asked for: one is stored, a bar of it revised, one job is dead, one waits. Its request."""
    request_id: str = asked(console.client)["request"]
    first, second, _ = waiting_ids(deps.broker)
    ingest.run_backfill(BackfillJob.model_construct(job_id=first), deps, "t1@here/1", datetime.now(UTC))
    dies(deps, second)
    _store(deps, datetime(2025, 1, 4, 12, tzinfo=UTC), [100.0, 101.5], provider="files")
    return request_id


def test_a_symbol_shows_candles_coverage_gaps_and_revisions(console: Console, filled: str) -> None:
    page = console.page()
    page.goto("/console/symbols")
    console.looked_at(page.url, "symbols")
    page.keyboard.press("/")
    page.keyboard.type("btc")
    page.keyboard.press("Enter")
    expect(page.locator("table tbody tr")).to_have_count(1)
    expect(page.get_by_role("row", name="BTC-USD")).to_contain_text("job dead")
    page.goto(PATH)
    assert len(page.locator("#coverage svg.strip").all()) == 3
    expect(page.locator("#coverage")).to_contain_text("missing 2,880")
    expect(page.locator("#revisions tbody tr")).to_have_count(2)
    expect(page.locator("#newest tbody tr")).to_have_count(20)
    assert len(_closes(page)) == 3000
    page.locator("#chart .nsewdrag").first.hover()
    console.looked_at(PATH, "symbol")


def test_what_is_missing_is_asked_for_from_there(console: Console, deps: Deps) -> None:
    _store(deps, datetime(2025, 1, 2, tzinfo=UTC), [100.0] * 60)
    page = console.page()
    page.goto("/console/symbols/BTC-USD?start=2025-01-02&end=2025-01-02T02:00Z")
    page.get_by_role("link", name="Backfill this…", exact=True).click()
    page.get_by_role("button", name="Ask for 1 job").click()
    expect(page.get_by_role("status")).to_have_text("1 queued.")
    expect(page.get_by_role("row", name="BTC-USD")).to_contain_text("2025-01-02 01:00 to 2025-01-02 02:00")


def test_candles_of_every_interval_and_of_none(console: Console, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("SPY", "XNYS")])
    for interval in Interval:
        page = console.page()
        page.goto(f"/console/symbols/SPY?interval={interval}")
        console.picture(page, f"symbol-none-{interval}")
        page.context.close()


@pytest.fixture
def unstreamed(
    settings: Settings, deps: Deps, in_browser: Callable[[httpx.Client], Console], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Console]:
    """The console of an app that has no live stream."""
    others: Any = app._routes
    kept = [each for each in others() if not getattr(each, "path", "").startswith("/replay/")]
    monkeypatch.setattr(app, "_routes", lambda: kept)
    with served(settings) as client:
        found = in_browser(client)
        yield found
        found.close()


def test_new_and_revised_bars_come_by_themselves_without_a_stream(unstreamed: Console, deps: Deps) -> None:
    at = _minutes_ago(30)
    _store(deps, at, [100.0, 101.0])
    page = unstreamed.page()
    page.clock.install()
    page.goto("/console/symbols/BTC-USD?sessions=2")
    before = _closes(page)
    assert [each for each in before if each is not None] == [100.0, 101.0]
    _store(deps, at, [100.0, 105.0, 106.0])
    page.clock.run_for(6000)
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("The last close is 106"))
    assert [each for each in _closes(page) if each is not None] == [100.0, 105.0, 106.0]
    expect(page.locator("#revisions tbody tr")).to_have_count(1)
    expect(page.locator("#liveness")).to_have_text("Looked at every 5 s.")


class _Stream:
    """A stand-in for the live stream: what a test puts in, every reader gets, as docs/streaming.md has it."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.refuses = False

    def tell(self, *frames: dict[str, Any]) -> None:
        """Send frames as events, at once."""
        assert self.loop is not None
        events = [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in frames]
        self.loop.call_soon_threadsafe(self.queue.put_nowait, b"".join(events))

    async def show(self, request: Request) -> Response:
        """The live stream of a symbol."""
        assert request.headers["accept"] == "text/event-stream"
        assert dict(request.query_params) == {"interval": "1m"}
        if self.refuses:
            return Response(status_code=503)
        self.loop = asyncio.get_running_loop()

        async def events() -> AsyncIterator[bytes]:
            yield b"retry: 1000\n\n"
            while (event := await self.queue.get()) is not None:
                yield event

        return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture
def stream() -> _Stream:
    return _Stream()


@pytest.fixture
def streamed(
    settings: Settings,
    deps: Deps,
    stream: _Stream,
    in_browser: Callable[[httpx.Client], Console],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Console]:
    """The console of an app that has a live stream."""
    others: Any = app._routes
    monkeypatch.setattr(app, "_routes", lambda: [Route("/replay/{symbol:path}", stream.show), *others()])
    with served(settings) as client:
        found = in_browser(client)
        yield found
        found.close()


def _entry(at: datetime, close: float) -> dict[str, Any]:
    prices = {"open": close - 1, "high": close + 2, "low": close - 2, "close": close, "volume": close * 10}
    about = {"final": True, "provider": "simulator", "known_at": at.isoformat()}
    return {"type": "bar", "ts": at.isoformat().replace("+00:00", "Z"), **prices, **about}


def test_new_and_revised_bars_are_put_in_as_the_stream_tells_them(
    streamed: Console, stream: _Stream, deps: Deps
) -> None:
    at = _minutes_ago(30)
    _store(deps, at, [100.0, 101.0])
    page = streamed.page()
    page.goto("/console/symbols/BTC-USD?sessions=2")
    expect(page.locator("#liveness")).to_have_text("Live.")
    stream.tell({"type": "snapshot", "entries": [_entry(at, 100.0), _entry(at + timedelta(minutes=1), 101.0)]})
    _store(deps, at, [100.0, 111.0])
    stream.tell(_entry(at + timedelta(minutes=1), 111.0))
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("The last close is 111"))
    assert [each for each in _closes(page) if each is not None] == [100.0, 111.0]
    _store(deps, at, [100.0, 111.0, 112.0])
    stream.tell(_entry(at + timedelta(minutes=2), 112.0))
    # What else stands there follows.
    expect(page.locator("#revisions tbody tr")).to_have_count(1)
    expect(page.locator("#newest tbody tr")).to_have_count(3)
    assert [each for each in _closes(page) if each is not None] == [100.0, 111.0, 112.0]
    streamed.picture(page, "symbol-live")


def test_many_bars_at_once_are_drawn_together(streamed: Console, stream: _Stream, deps: Deps) -> None:
    at = _minutes_ago(200)
    _store(deps, at, [100.0])
    page = streamed.page()
    page.goto("/console/symbols/BTC-USD?sessions=2")
    expect(page.locator("#liveness")).to_have_text("Live.")
    page.evaluate("window.draws = 0; document.getElementById('chart').on('plotly_afterplot', () => { draws += 1; })")
    prices = [100.0 + minute for minute in range(101)]
    _store(deps, at, prices)
    stream.tell(*(_entry(at + timedelta(minutes=minute), price) for minute, price in enumerate(prices)))
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("The last close is 200"))
    assert page.evaluate("draws") < 50


def test_a_stream_that_is_refused_leaves_a_page_that_is_looked_at(
    streamed: Console, stream: _Stream, deps: Deps
) -> None:
    streamed.expected = ("503",)
    stream.refuses = True
    page = streamed.page()
    page.goto("/console/symbols/BTC-USD")
    expect(page.locator("#liveness")).to_have_text("Looked at every 5 s.")


def test_a_symbol_is_shown_without_scripts(console: Console, deps: Deps) -> None:
    _store(deps, datetime(2025, 1, 2, tzinfo=UTC), [100.0, 101.0])
    page = console.page(java_script_enabled=False)
    page.goto(PATH)
    expect(page.locator("#newest tbody tr")).to_have_count(2)
    expect(page.locator("#coverage svg.strip")).to_have_count(3)
    page.get_by_role("link", name="5m (none)", exact=True).click()
    expect(page.get_by_text("None is stored in this window")).to_be_visible()
    console.picture(page, "symbol-plain")
