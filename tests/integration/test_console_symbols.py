"""The pages of symbols over HTTP: the list with its states, and what is said of each interval of one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.jobs import BackfillJob, Interval, Tier, TimeWindow
from mdtasks.flows import ingest, scan
from mdtasks.flows.deps import Deps
from mdtasks.store import bars as store_bars
from mdtasks.store import gaps as store_gaps
from mdtasks.store import reference
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.console_forms import words_of
from tests.integration.web_server import asked, dies, waiting_ids

LIST = "/console/symbols"
OPEN = datetime(2025, 1, 3, 14, 30, tzinfo=UTC)  # of New York, until 21:00


@pytest.fixture(autouse=True)
def listed(deps: Deps) -> None:
    """SPY in T0 and a pair with a stroke in its name."""
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("SPY", "XNYS", tier=Tier.T0), Instrument("EUR/USD", "24/7", "crypto")])


def _rows(page: httpx.Response) -> list[str]:
    return re.findall(r'data-row href="[^"]*"><strong>([^<]*)', page.text)


def _store(deps: Deps, start: datetime, closes: list[float], covered: int, *, provider: str = "simulator") -> None:
    """Minutes of SPY, final, as an answer for ``covered`` minutes."""
    close, until = np.array(closes), start + timedelta(minutes=covered)
    ts = to_us(start) + 60_000_000 * np.arange(len(closes))
    bars = Bars.of(ts, close, close + 1, close - 1, close, close)
    ensure_partitions(deps.database, "bars", to_us(start), to_us(until))
    with deps.database.transaction() as connection:
        member = reference.resolve(connection, ["SPY"])["SPY"]
        windows = [TimeWindow(start=start, end=until)]
        batch = store_bars.BarBatch(member.id, bars, to_us(until), covered=windows)
        store_bars.write_bars(connection, Interval.M1, [batch], provider, 1)


def _data(page: httpx.Response) -> dict[str, Any]:
    (found,) = re.findall(r'id="bars">(.*?)</script>', page.text)
    data: dict[str, Any] = orjson.loads(found)
    return data


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["SPY", "BTC-USD", "ETH-USD", "EUR/USD"]),
        ("search=&tier=&state=", ["SPY", "BTC-USD", "ETH-USD", "EUR/USD"]),
        ("search=usd", ["BTC-USD", "ETH-USD", "EUR/USD"]),
        ("search=eur/", ["EUR/USD"]),
        ("search=e", ["ETH-USD", "EUR/USD"]),
        ("search=%25", []),
        ("tier=T0", ["SPY"]),
        ("state=dead", ["BTC-USD"]),
        ("state=fetching", ["ETH-USD"]),
        ("state=empty", ["EUR/USD"]),
        ("state=quiet", ["SPY"]),
        ("limit=1", ["SPY"]),
    ],
)
def test_symbols_are_found_by_tier_name_and_state(
    client: httpx.Client, deps: Deps, query: str, found: list[str]
) -> None:
    _store(deps, OPEN, [1.0], 1)
    asked(client, end="2025-01-03T00:00:00Z")
    dies(deps, waiting_ids(deps.broker)[0])
    asked(client, symbol="ETH-USD", end="2025-01-03T00:00:00Z")
    assert _rows(client.get(f"{LIST}?{query}")) == found


def test_open_gaps_are_a_state_and_every_row_leads_to_its_page(client: httpx.Client, deps: Deps) -> None:
    scan.scan(store_gaps.Scope(Tier.T0, Interval.M1), deps, datetime.now(UTC), found_by=scan.ACTOR)
    assert _rows(client.get(f"{LIST}?state=gaps")) == ["SPY"]
    for path in re.findall(r'data-row href="([^"]*)"', client.get(LIST).text):
        assert client.get(path).status_code == 200, path


def test_wrong_filters_and_symbols_are_refused(client: httpx.Client) -> None:
    for path, status in (
        (f"{LIST}?tier=T7", 422),
        (f"{LIST}?search=a%00", 422),
        (f"{LIST}/NOPE", 422),
        (f"{LIST}/%00", 422),
        (f"{LIST}/SPY?interval=2m", 422),
        (f"{LIST}/SPY?sessions=1&start=2025-01-02", 422),
        (f"{LIST}/SPY?start=2999-01-01", 422),
        (f"{LIST}/SPY?window=1", 422),
    ):
        assert client.get(path).status_code == status, path


def test_every_interval_has_its_verdict_in_trading_time(client: httpx.Client, deps: Deps) -> None:
    _store(deps, OPEN - timedelta(minutes=2), [99.5, 99.75, 100.0, 101.0, 102.25], 12)
    page = client.get(f"{LIST}/SPY?start=2025-01-03&end=2025-01-04")
    said = words_of(page)
    for words in ("present 3", "no trade 7", "missing 380", "outside 2", "pending 0", "halted 0"):
        assert words in said, words
    assert "Fri 2025-01-03 14:30 to 21:00" in said
    data = _data(page)
    assert len(data["at"]) == 392  # 390 minutes of the session, and two before
    assert data["close"][:6] == [99.5, 99.75, 100.0, 101.0, 102.25, None]
    assert data["provider"][:6] == ["simulator"] * 5 + [None]
    widths = re.findall(r'<rect class="(\w+)" x="\d+" y="\d+" width="(\d+)"', page.text)
    assert widths == [("outside", "2"), ("present", "3"), ("no_trade", "7"), ("missing", "380")]
    assert "99.50" in page.text  # as many decimals as the others
    assert 'data-replay=""' in page.text  # a window with an end does not go on


def test_a_window_longer_than_a_chart_says_so(client: httpx.Client) -> None:
    page = client.get(f"{LIST}/BTC-USD?sessions=3&end=2025-01-04")
    assert "the newest 3,000 of 4,320 intervals are drawn" in words_of(page)
    assert len(_data(page)["at"]) == 3000


@pytest.mark.parametrize("interval", [*Interval])
def test_every_interval_is_shown_also_without_bars(client: httpx.Client, interval: Interval) -> None:
    page = client.get(f"{LIST}/EUR/USD?interval={interval}")
    assert page.status_code == 200
    assert "None is stored in this window." in page.text


def test_a_gap_shows_when_it_was_found_and_its_jobs(client: httpx.Client, deps: Deps) -> None:
    asked(client)
    ids = waiting_ids(deps.broker)
    dies(deps, ids[0])
    ingest.run_backfill(BackfillJob.model_construct(job_id=ids[1]), deps, "t1@here/1", datetime.now(UTC))
    page = client.get(f"{LIST}/BTC-USD?start=2025-01-02&end=2025-01-05")
    newer, older = re.findall(r"<td class=\"whole\">2025-01-.*?</tr>", page.text, re.DOTALL)[:2]
    assert "bad_payload" in newer
    assert "failed" in newer
    (letter,) = re.findall(r'href="(/console/dead-letters/[^"]+)"', newer)
    assert client.get(letter).status_code == 200
    assert "queued" in older
    assert "by no scan yet" in older
    (path,) = re.findall(r'href="(/console/backfills/[0-9a-f-]{36})"', older)
    assert client.get(path).status_code == 200
    (ask,) = re.findall(r'href="(/console/backfills/new[^"]*)"', older)
    assert "1 window is being fetched already" in words_of(client.get(ask.replace("&amp;", "&")))


def test_what_a_scan_found_is_told(client: httpx.Client, deps: Deps) -> None:
    scan.scan(store_gaps.Scope(Tier.T0, Interval.M1), deps, datetime.now(UTC), found_by="scan")
    said = words_of(client.get(f"{LIST}/SPY?sessions=2"))
    assert "by scan" in said
    assert "by no scan yet" not in said


def test_revisions_tell_what_was_and_what_is(client: httpx.Client, deps: Deps) -> None:
    _store(deps, OPEN, [100.0, 101.0], 2)
    _store(deps, OPEN, [100.0, 107.5], 2, provider="files")
    page = client.get(f"{LIST}/SPY?start=2025-01-03&end=2025-01-04")
    (row,) = re.findall(r"<tr>.*?</tr>", page.text.partition('id="revisions"')[2].partition("<tbody>")[2], re.DOTALL)
    cells = re.findall(r"<td[^>]*>(?:<[^>]*>)?([^<]*)", row)
    assert cells[:7] == ["2025-01-03 14:31", "101", "107.5", "101", "107.5", "simulator", "files"]
    assert "1 by files, 1 by simulator in the window" in words_of(page)
