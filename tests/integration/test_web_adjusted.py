"""Adjusted bars over HTTP and from Python: as the store's own reading has them, with tags that know the actions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import httpx
import numpy as np
import pytest

import mdtasks
from mdtasks.domain.actions import PERSON, Action, Kind
from mdtasks.domain.bars import Bars, to_us
from mdtasks.domain.jobs import Interval, Tier, TimeWindow
from mdtasks.flows.action_records import tell
from mdtasks.flows.deps import Deps
from mdtasks.store.bars import BarBatch, write_bars
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import Instrument, add_instruments, current

START = datetime(2024, 3, 4, tzinfo=UTC)
DAYS = "interval=1d&start=2024-03-04&end=2024-03-09"


@pytest.fixture
def split(deps: Deps) -> Deps:
    """Five days at 100, then at 50, of a company that split two for one on the Thursday; nobody has told of it yet."""
    days = [START + timedelta(days=n) for n in range(5)]
    prices = np.array([100.0, 100.0, 100.0, 50.0, 50.0])
    bars = Bars(np.array([to_us(day) for day in days]), prices, prices, prices, prices, np.full(5, 1000.0))
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("SPLT", "XNYS", "equity", Tier.T0)])
        member = current(connection, {"SPLT"})["SPLT"]
    ensure_partitions(deps.database, "bars", to_us(days[0]), to_us(days[-1]))
    window = TimeWindow(start=days[0], end=days[-1] + timedelta(days=1))
    with deps.database.transaction() as connection:
        write_bars(connection, Interval.D1, [BarBatch(member.id, bars, to_us(window.end), [window])], "files", 1)
    return deps


def closes(client: httpx.Client, query: str) -> list[float]:
    return [bar["close"] for bar in client.get(f"/bars/SPLT?{DAYS}&{query}").json()["bars"]]


def told(deps: Deps) -> None:
    """A person says that it split."""
    tell(deps.database, [("SPLT", Action(Kind.SPLIT, date(2024, 3, 7), 2.0))], PERSON, "tests", "it did")


def test_prices_are_adjusted_by_what_is_known_and_tags_follow(split: Deps, client: httpx.Client) -> None:
    assert closes(client, "adjust=split") == [100.0, 100.0, 100.0, 50.0, 50.0]
    before = datetime.now(UTC).isoformat()
    urls = [f"/bars/SPLT?{DAYS}&adjust=split{more}" for more in ("", "&format=csv")]
    tags = [client.get(url).headers["ETag"] for url in urls]
    raw = client.get(f"/bars/SPLT?{DAYS}").headers["ETag"]
    told(split)
    assert closes(client, "adjust=split") == [50.0] * 5
    assert closes(client, "") == [100.0, 100.0, 100.0, 50.0, 50.0]
    assert closes(client, f"adjust=split&as_of={before}".replace("+", "%2B")) == [100.0, 100.0, 100.0, 50.0, 50.0]
    for url, tag in zip(urls, tags, strict=True):
        assert client.get(url, headers={"If-None-Match": tag}).status_code == 200
    assert client.get(f"/bars/SPLT?{DAYS}", headers={"If-None-Match": raw}).status_code == 304


def test_python_and_every_format_adjust_alike(split: Deps, client: httpx.Client) -> None:
    told(split)
    asked = {"start": "2024-03-04", "end": "2024-03-09", "adjust": "split", "url": str(client.base_url)}
    frame = mdtasks.bars("SPLT", "1d", **asked)
    assert frame["close"].tolist() == [50.0] * 5
    assert frame["volume"].tolist() == [2000.0] * 3 + [1000.0] * 2
    lines = client.get(f"/bars/SPLT?{DAYS}&adjust=split&format=csv").text.splitlines()
    assert [line.split(",")[4] for line in lines[1:]] == ["50.0"] * 5
