"""``mdtasks.bars``: the same frame out of the store and over HTTP, and plain words where there is nothing to read."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pytest

import mdtasks
from mdtasks.domain.errors import ConfigurationError, InvalidRequestError, UnavailableError, UnknownSymbolError
from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from tests.integration.cli_calls import environment_of, work
from tests.integration.known_earlier import known_since
from tests.integration.web_server import asked, served

DAY: dict[str, Any] = {"start": "2025-01-02", "end": date(2025, 1, 4)}


@pytest.fixture
def stack(settings: Settings, deps: Deps, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """Two symbols with three days each, and this process told where they are."""
    with served(settings) as client:
        for symbol in ("BTC-USD", "ETH-USD"):
            asked(client, symbol=symbol)
        assert work(deps) == 6
        for name, value in environment_of(settings).items():
            monkeypatch.setenv(name, value)
        yield client


@pytest.mark.parametrize("over_http", [False, True])
def test_one_symbol_is_indexed_by_time(stack: httpx.Client, over_http: bool) -> None:
    frame = mdtasks.bars("BTC-USD", **DAY, **({"url": str(stack.base_url)} if over_http else {}))
    assert list(frame.columns) == ["open", "high", "low", "close", "volume", "provider", "status", "known_at"]
    assert (len(frame), frame.index.name, str(frame.index.dtype)) == (2880, "ts", "datetime64[us, UTC]")
    assert frame.index[0] == pd.Timestamp("2025-01-02T00:00Z")
    assert frame.close.dtype == "float64"


def test_both_ways_give_the_same(stack: httpx.Client, deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    known_since(deps.database)
    questions: list[dict[str, Any]] = [
        {**DAY},
        {**DAY, "session": "regular", "fill": "no_trade"},
        {"start": datetime(2025, 1, 2, 12, tzinfo=UTC), "end": pd.Timestamp("2025-01-02T14:00+01:00")},
        {**DAY, "as_of": "2020-01-01"},
    ]
    direct = [mdtasks.bars_arrow(["ETH-USD", "BTC-USD"], **each) for each in questions]
    monkeypatch.setenv("MDTASKS_URL", str(stack.base_url))
    assert [mdtasks.bars_arrow(["ETH-USD", "BTC-USD"], **each) for each in questions] == direct
    assert [len(table) for table in direct] == [5760, 5760, 120, 0]
    frame = mdtasks.bars(["ETH-USD"], **DAY)
    assert frame.index.names == ["symbol", "ts"]
    assert set(frame.index.get_level_values("symbol")) == {"ETH-USD"}


@pytest.mark.parametrize("over_http", [False, True])
def test_what_is_wrong_is_named_whichever_way_it_is_asked(stack: httpx.Client, over_http: bool) -> None:
    where = {"url": str(stack.base_url)} if over_http else {}
    with pytest.raises(UnknownSymbolError, match="did you mean BTC-USD") as unknown:
        mdtasks.bars("BTC-USB", **DAY, **where)
    assert unknown.value.hint
    for field, wrong in {"start": datetime(2025, 1, 2), "interval": "2m", "adjust": "both", "sesion": "all"}.items():  # noqa: DTZ001
        with pytest.raises(InvalidRequestError) as refused:
            mdtasks.bars("BTC-USD", **{**DAY, field: wrong}, **where)
        assert refused.value.field == field


def test_where_nothing_runs_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDTASKS_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="nothing to read from") as none:
        mdtasks.bars("AAPL")
    assert "url=" in none.value.hint
    with pytest.raises(UnavailableError, match="did not answer"):
        mdtasks.bars("AAPL", url="http://127.0.0.1:9")
    with pytest.raises(InvalidRequestError, match="no URL"):
        mdtasks.bars("AAPL", url="file:///etc")


@contextmanager
def saying(body: bytes, status: int = 200, **headers: str) -> Iterator[str]:
    """A server that always says this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_answer_that_was_cut_off_is_never_taken_for_a_shorter_one(stack: httpx.Client) -> None:
    whole = stack.get("/bars/BTC-USD?start=2025-01-02&end=2025-01-04&format=arrow").content
    with saying(whole) as url:
        assert len(mdtasks.bars("BTC-USD", url=url, **DAY)) == 2880
    empty = pa.ipc.read_schema(pa.py_buffer(whole)).serialize().size
    for kept in (0, empty, len(whole) // 2, len(whole) - 8):
        with saying(whole[:kept]) as url, pytest.raises(UnavailableError, match="did not answer whole"):
            mdtasks.bars("BTC-USD", url=url, **DAY)
    with saying(b"<html>", 404) as url, pytest.raises(UnavailableError, match="answered 404"):
        mdtasks.bars("BTC-USD", url=url)


def test_importing_the_package_imports_none_of_what_reads() -> None:
    code = "import mdtasks, sys; print({'pandas', 'pyarrow', 'celery', 'sqlalchemy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
