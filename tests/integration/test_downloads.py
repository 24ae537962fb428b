"""Downloads hold a transaction: it ends with its client, few run at a time, and memory does not grow with the bars."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pyarrow as pa
import pytest

from mdtasks.domain.bars import to_us
from mdtasks.domain.jobs import Interval
from mdtasks.domain.reading import Reading
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows.bar_formats import FORMATS, Shape
from mdtasks.flows.deps import Deps
from mdtasks.flows.reading import Shelf, opened
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import resolve
from mdtasks.web import downloads

START = datetime(2024, 1, 1, tzinfo=UTC)
PATH = "/bars/BTC-USD?start=2024-01-01&end=2025-12-31"
_FILL = """
INSERT INTO bars (instrument_id, interval, ts, open, high, low, close, volume, provider, status, attempt_id, known_at)
SELECT %(who)s, '1m', %(start)s::timestamptz + n * interval '1 minute', 1, 1, 1, n, 1, 'simulator', 'final', 1, now()
FROM generate_series(0, %(bars)s - 1) n
"""


def stored(deps: Deps, bars: int) -> None:
    """So many minutes of BTC-USD."""
    ensure_partitions(deps.database, "bars", to_us(START), to_us(START + timedelta(minutes=bars)))
    with deps.database.transaction() as connection:
        who = resolve(connection, ["BTC-USD"])["BTC-USD"].id
        connection.exec_driver_sql(_FILL, {"who": who, "start": START, "bars": bars})


def held(deps: Deps) -> int:
    """How many transactions downloads hold."""
    with deps.database.transaction() as connection:
        return int(
            connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mdtasks-web-bars'"
                " AND datname = current_database() AND xact_start IS NOT NULL"
            ).scalar_one()
        )


@contextmanager
def begun(client: httpx.Client, form: str = "csv") -> Iterator[socket.socket]:
    """A download of which only the first bytes are read."""
    with socket.socket() as speaking:
        speaking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        speaking.settimeout(20)
        speaking.connect((client.base_url.host, client.base_url.port))
        speaking.sendall(f"GET {PATH}&format={form} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert speaking.recv(12) == b"HTTP/1.1 200"
        yield speaking


def test_a_client_that_goes_away_ends_its_transaction(
    client: httpx.Client, deps: Deps, eventually: Callable[..., None]
) -> None:
    stored(deps, 200_000)
    with begun(client):
        eventually(lambda: held(deps) == 1, what="the download holds a transaction")
    eventually(lambda: held(deps) == 0, what="the transaction is over")


def test_a_client_that_stops_reading_is_cut_off_and_can_see_it(
    client: httpx.Client, deps: Deps, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(deps, 200_000)
    monkeypatch.setattr(downloads, "_STALLED_S", 0.2)
    with begun(client) as speaking:
        eventually(lambda: held(deps) == 1, what="the download holds a transaction")
        eventually(lambda: held(deps) == 0, what="the transaction is over")
        came = b""
        while part := speaking.recv(1 << 20):
            came += part
    assert len(came) < len(client.get(f"{PATH}&format=csv").content)
    assert not came.endswith(b"0\r\n\r\n")  # what ends an answer that is whole


def test_a_download_that_takes_too_long_ends(
    client: httpx.Client, deps: Deps, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(deps, 200_000)
    monkeypatch.setattr(downloads, "LONGEST_S", 0.5)
    with begun(client):
        eventually(lambda: held(deps) == 0, what="the transaction is over")


def test_few_run_at_a_time_and_nothing_else_waits_for_them(
    client: httpx.Client, deps: Deps, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(deps, 200_000)
    monkeypatch.setattr(downloads, "_WAIT_S", 0.1)
    with ExitStack() as stack:
        for _ in range(downloads.MOST):
            stack.enter_context(begun(client))
        eventually(lambda: held(deps) == downloads.MOST, what="all downloads hold a transaction")
        refused = client.get(f"{PATH}&format=arrow")
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert refused.headers["retry-after"]
        for path in ("/health", "/ready", f"{PATH}&limit=10"):
            assert client.get(path).status_code == 200
    eventually(lambda: held(deps) == 0, what="the transactions are over")
    assert client.get(f"{PATH}&format=arrow").status_code == 200


def test_an_answer_is_of_one_state_of_the_store(deps: Deps) -> None:
    stored(deps, 100_000)
    asked = Reading(("BTC-USD",), Interval.M1, AskedWindow(START, START + timedelta(days=365)))
    shelf = Shelf(deps.database, deps.calendars)
    with opened(asked, shelf, datetime.now(UTC)) as reading:
        batches = reading.batches()
        seen = len(next(batches))
        with deps.database.transaction() as connection:
            connection.exec_driver_sql("DELETE FROM bars")
        assert seen + sum(map(len, batches)) == 100_000
    with opened(asked, shelf, datetime.now(UTC)) as reading:
        assert list(reading.batches()) == []


@pytest.mark.parametrize("form", FORMATS)
def test_memory_does_not_grow_with_the_bars(form: str, deps: Deps) -> None:
    whole = 1_000_000 if form == "arrow" else 200_000
    stored(deps, whole)
    shelf = Shelf(deps.database, deps.calendars)

    def peak(bars: int) -> int:
        asked = Reading(("BTC-USD",), Interval.M1, AskedWindow(START, START + timedelta(minutes=bars)))
        rows, in_arrow = 0, 0

        def counted(batches: Iterator[object]) -> Iterator[object]:
            nonlocal rows
            for each in batches:
                rows += len(each)  # type: ignore[arg-type]
                yield each

        tracemalloc.start()
        with opened(asked, shelf, datetime.now(UTC)) as reading:
            for _ in FORMATS[form].encode(counted(reading.batches()), Shape(Interval.M1, "BTC-USD")):  # type: ignore[arg-type]
                in_arrow = max(in_arrow, pa.total_allocated_bytes())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert rows == bars
        return most + in_arrow

    peak(10_000)  # what is imported and cached once
    assert peak(whole) < 1.25 * peak(110_000)
