"""Bars over HTTP: every format has the very same bars, pages joined are the whole, and a tag changes when bars do."""

from __future__ import annotations

import base64
import csv
import io
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from mdtasks.domain.bars import Bars, from_us, to_us
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.store import bars as store_bars
from mdtasks.store.bars import BarBatch
from mdtasks.store.partitions import ensure_partitions
from mdtasks.store.reference import resolve
from tests.integration.known_earlier import known_since
from tests.integration.real_files import SOURCES, fill, real_files, span_of
from tests.integration.web_server import served

THIN = "/bars/XRP-ETH?start=2019-10-11&end=2019-10-14"
INDEX = "/bars/SPX?start=2019-11-05&end=2019-11-09"
BOTH = "/bars?symbols=XRP-ETH,SPX&start=2019-10-11&end=2019-11-09"
PRICES = ("open", "high", "low", "close", "volume")
#: The close of the index' minute bars is 16:00 in New York; the files have a row for that minute on three days.
ODD = 0.1 + 0.2


@pytest.fixture
def deps(settings: Settings, shared_data: Path, tmp_path: Path) -> Iterator[Deps]:
    """Deps with the minutes of an index and of a thin pair."""
    with real_files(settings, shared_data, tmp_path) as opened:
        for source in SOURCES:
            if source.interval is Interval.M1:
                fill(opened, source, span_of(source, source.rows(shared_data)))
        yield opened


@pytest.fixture
def client(settings: Settings, deps: Deps) -> Iterator[httpx.Client]:
    """A client of the web app on the same servers."""
    with served(settings) as found:
        yield found


def got(client: httpx.Client, path: str, **headers: str) -> httpx.Response:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def arrow(client: httpx.Client, path: str) -> pa.Table:
    return pa.ipc.open_stream(got(client, f"{path}&format=arrow").content).read_all()


def revise(deps: Deps, symbol: str, at: datetime, close: float, *, final: bool = True) -> None:
    """A write of one bar, as another answer brings it."""
    ts_us = to_us(at)
    ensure_partitions(deps.database, "bars", ts_us, ts_us)
    with deps.database.transaction() as connection:
        member = resolve(connection, [symbol])[symbol]
        made = Bars.of([ts_us], [close], [close], [close], [close], [1.0])
        batch = BarBatch(member.id, made, final_before_us=ts_us + 1 if final else ts_us)
        store_bars.write_bars(connection, Interval.M1, [batch], "files", 1)


def stored(deps: Deps, symbol: str, start: str, end: str) -> store_bars.StoredBars:
    window = TimeWindow(start=datetime.fromisoformat(f"{start}T00:00Z"), end=datetime.fromisoformat(f"{end}T00:00Z"))
    with deps.database.transaction() as connection:
        return store_bars.read_bars(connection, resolve(connection, [symbol])[symbol].id, Interval.M1, window)


def bits(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Rows with prices as the bits of their doubles and times as microseconds; null where there is none."""
    return [
        (
            row.get("symbol"),
            _us(row["ts"]),
            *(None if row[name] in (None, "") else np.float64(row[name]).tobytes() for name in PRICES),
            row["provider"] or None,
            row["status"],
            _us(row["known_at"]),
        )
        for row in rows
    ]


def _us(value: Any) -> int | None:
    at = datetime.fromisoformat(value) if isinstance(value, str) and value else value
    return to_us(at) if at else None


@pytest.mark.parametrize("path", [THIN, INDEX, BOTH, f"{THIN}&fill=no_trade", f"{BOTH}&fill=no_trade&session=regular"])
def test_all_formats_agree_to_the_bit(path: str, client: httpx.Client) -> None:
    as_json = bits(got(client, f"{path}&limit=50000").json()["bars"])
    assert len(as_json) > 1000
    assert bits(list(csv.DictReader(io.StringIO(got(client, f"{path}&format=csv").text)))) == as_json
    assert bits(arrow(client, path).to_pylist()) == as_json
    parquet = pq.read_table(io.BytesIO(got(client, f"{path}&format=parquet").content))
    assert bits(parquet.to_pylist()) == as_json


def test_what_is_read_is_what_is_stored(client: httpx.Client, deps: Deps) -> None:
    held, table = stored(deps, "SPX", "2019-11-05", "2019-11-09"), arrow(client, INDEX)
    for name, column in zip(PRICES, held.bars.columns, strict=True):
        assert np.array_equal(table[name].to_numpy(), column)
    assert table["ts"].cast(pa.int64()).to_pylist() == held.bars.ts_us.tolist()
    assert table["known_at"].cast(pa.int64()).to_pylist() == held.known_at_us.tolist()
    assert (set(table["provider"].to_pylist()), set(table["status"].to_pylist())) == ({"files"}, {"final"})
    assert table.schema.metadata == {b"symbol": b"SPX", b"interval": b"1m"}


@tried(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    limit=st.sampled_from([1, 7, 390, 391, 1000, 2469, 50_000]),
    path=st.sampled_from([INDEX, THIN, BOTH, f"{THIN}&fill=no_trade", f"{INDEX}&session=regular"]),
)
def test_pages_joined_are_the_whole(limit: int, path: str, client: httpx.Client) -> None:
    whole = bits(arrow(client, path).to_pylist())
    pages: list[tuple[Any, ...]] = []
    link: str | None = f"{path}&limit={limit}"
    for number in itertools.count():
        if link is None or number == 12:  # of a page of one row a few will do
            break
        answer = got(client, link)
        document = answer.json()
        assert len(document["bars"]) <= limit
        pages += bits(document["bars"])
        link = answer.links["next"]["url"] if document["next_cursor"] else None
        assert (link is None) == ("next" not in answer.links)
        assert link is None or len(document["bars"]) == limit
    assert pages == (whole if link is None else whole[: len(pages)])


def test_a_cursor_is_for_its_own_question_and_pages_end_when_the_window_is_read(client: httpx.Client) -> None:
    cursor = got(client, f"{INDEX}&limit=10").json()["next_cursor"]
    for wrong in (f"{THIN}&cursor={cursor}", f"{INDEX}&session=regular&cursor={cursor}", f"{INDEX}&cursor=AAAA"):
        refused = client.get(wrong)
        assert (refused.status_code, refused.json()["field"]) == (422, "cursor")
    assert len(got(client, f"{INDEX}&limit=50000&cursor={cursor}").json()["bars"]) == 391 * 3 + 390 - 10
    for given_to_a_stream in ("limit=5", f"cursor={cursor}"):
        refused = client.get(f"{INDEX}&format=csv&{given_to_a_stream}")
        assert (refused.status_code, refused.json()["field"]) == (422, given_to_a_stream.partition("=")[0])


def test_regular_hours_leave_out_what_lies_outside_the_session(client: httpx.Client) -> None:
    ever, regular = arrow(client, INDEX), arrow(client, f"{INDEX}&session=regular")
    left_out = set(ever["ts"].to_pylist()) - set(regular["ts"].to_pylist())
    assert {f"{at:%d %H:%M}" for at in left_out} == {"05 21:00", "06 21:00", "07 21:00"}
    assert len(regular) == 4 * 390


def test_silence_is_told_where_it_is_believed_and_nowhere_else(client: httpx.Client, deps: Deps) -> None:
    plain, filled = arrow(client, THIN).to_pylist(), arrow(client, f"{THIN}&fill=no_trade").to_pylist()
    assert [row for row in filled if row["status"] != "no_trade"] == plain
    silent = [row for row in filled if row["status"] == "no_trade"]
    assert (len(plain), len(silent)) == (2469, 1091)
    empty = dict.fromkeys(("open", "high", "low", "close", "provider", "known_at"))
    assert all({name: row[name] for name in empty} == empty and row["volume"] == 0 for row in silent)
    times = [row["ts"] for row in filled]
    assert times == [times[0] + timedelta(minutes=number) for number in range(3560)]
    # The night and the hour after the close are covered too, and no silence.
    assert len(arrow(client, f"{INDEX}&fill=no_trade")) == len(arrow(client, INDEX))
    known_since(deps.database)
    assert len(arrow(client, f"{THIN}&fill=no_trade&as_of=2026-01-01")) == 0
    now = datetime.now(UTC).isoformat().replace("+", "%2B")
    assert arrow(client, f"{THIN}&fill=no_trade&as_of={now}").to_pylist() == filled


def test_a_page_of_the_past_is_the_same_bytes_each_time(client: httpx.Client) -> None:
    known = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    for asked in (INDEX, "/bars/SPX?interval=1m&sessions=3000"):  # sessions are counted back from then
        first, again = (got(client, f"{asked}&limit=10&as_of={known}") for _ in range(2))
        assert first.json()["next_cursor"]
        assert (first.content, first.headers["Link"]) == (again.content, again.headers["Link"])
        assert got(client, f"{asked}&limit=10&as_of={known}&cursor={first.json()['next_cursor']}").json()["bars"]


def test_pages_of_a_window_that_moves_are_cut_where_the_first_was(client: httpx.Client) -> None:
    before = datetime.now(UTC)
    first = got(client, "/bars/SPX?sessions=3000&interval=1m&limit=10").json()
    _, asked_us, *_ = orjson.loads(base64.urlsafe_b64decode(first["next_cursor"] + "=="))
    assert to_us(before) < asked_us <= to_us(datetime.now(UTC))


def test_as_of_gives_what_was_known_then(client: httpx.Client, deps: Deps) -> None:
    at = datetime(2019, 11, 6, 15, 0, tzinfo=UTC)
    before = arrow(client, INDEX)
    known = max(before["known_at"].to_pylist()).isoformat().replace("+00:00", "Z")
    revise(deps, "SPX", at, ODD)
    assert arrow(client, INDEX) != before
    assert arrow(client, f"{INDEX}&as_of={known}") == before
    early = client.get(f"{INDEX}&as_of=2019-11-06")  # the symbol was not known yet: that is told, not an empty answer
    assert (early.status_code, early.json()["code"], early.json()["field"]) == (404, "unknown_symbol", "symbol")
    assert "nothing was known of it then" in early.json()["hint"]
    known_since(deps.database)
    assert len(arrow(client, f"{INDEX}&as_of=2019-11-06")) == 0


def test_a_tag_changes_exactly_when_the_bars_of_its_window_do(client: httpx.Client, deps: Deps) -> None:
    at = datetime(2019, 11, 6, 15, 0, tzinfo=UTC)
    new = datetime(2019, 11, 9, 3, 0, tzinfo=UTC)
    wider = INDEX.replace("2019-11-09", "2019-11-10")
    formats = ("", "&format=csv", "&format=arrow", "&format=parquet", "&session=regular", "&fill=no_trade")
    paths = [f"{wider}{extra}" for extra in formats]

    def tags() -> list[str]:
        found = [got(client, path).headers["etag"] for path in paths]
        assert found == [client.head(path).headers["etag"] for path in paths]
        assert len(set(found)) == len(paths)
        for path, tag in zip(paths, found, strict=True):
            again = client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        return found

    seen = [tags()]
    revise(deps, "SPX", datetime(2019, 11, 12, tzinfo=UTC), 1.0)  # outside the window
    revise(deps, "XRP-ETH", at, 1.0)  # another symbol
    assert tags() == seen[0]
    steps = ((at, ODD, True), (new, 1.0, False), (new, 1.0, True), (new, 2.0, True))  # revise, add, promote, revise
    for when, close, final in steps:
        revise(deps, "SPX", when, close, final=final)
        now = tags()
        # A page of regular hours does not show what lies outside of them.
        same = {path for path, tag, before in zip(paths, now, seen[-1], strict=True) if tag == before}
        assert same == ({f"{wider}&session=regular"} if when == new else set())
        assert not set(now) & {tag for each in seen for tag in each} - set(seen[-1])
        seen.append(now)
        revise(deps, "SPX", when, close, final=final)  # the same again changes nothing
        assert tags() == seen[-1]


def test_a_page_keeps_its_tag_when_a_later_one_changes(client: httpx.Client, deps: Deps) -> None:
    first = got(client, f"{INDEX}&limit=390").headers["etag"]
    revise(deps, "SPX", datetime(2019, 11, 8, 15, 0, tzinfo=UTC), ODD)
    assert got(client, f"{INDEX}&limit=390").headers["etag"] == first
    revise(deps, "SPX", datetime(2019, 11, 5, 15, 0, tzinfo=UTC), ODD)
    assert got(client, f"{INDEX}&limit=390").headers["etag"] != first


def test_only_what_stays_true_may_be_kept(client: httpx.Client, deps: Deps) -> None:
    known_since(deps.database)
    past = "&as_of=2026-01-01"  # long before any bar was known
    kept = {
        f"{INDEX}{past}": True,
        INDEX: False,
        f"{INDEX}{past}&session=regular": False,  # people may still tell of a calendar
        f"/bars/SPX?start=2019-11-05{past}": False,  # ends now
    }
    for path, is_kept in kept.items():
        assert ("immutable" in got(client, path).headers["cache-control"]) == is_kept, path


def test_a_write_under_way_keeps_an_answer_from_being_kept(client: httpx.Client, deps: Deps) -> None:
    from mdtasks.flows.reading import Shelf, is_settled

    shelf = Shelf(deps.database, deps.calendars)
    with deps.database.transaction() as connection:
        connection.exec_driver_sql("SELECT pg_current_xact_id()")
        began = connection.exec_driver_sql("SELECT now()").scalar_one()
        assert not is_settled(shelf, began, 0)
        assert is_settled(shelf, began - timedelta(seconds=1), 0)
        assert not is_settled(shelf, began - timedelta(seconds=1), 60)
    assert is_settled(shelf, began, 0)


def test_the_format_is_named_or_negotiated_and_gzip_is_sent_to_who_takes_it(client: httpx.Client) -> None:
    for accept, kind in (("text/csv", "text/csv; charset=utf-8"), ("*/*", "application/json")):
        assert got(client, INDEX, Accept=accept).headers["content-type"] == kind
    weighed = "text/csv;q=0.5, application/vnd.apache.arrow.stream"
    assert got(client, INDEX, Accept=weighed).headers["content-type"] == "application/vnd.apache.arrow.stream"
    for name in ("json", "csv", "arrow"):
        packed, plain = (got(client, f"{INDEX}&format={name}", **{"Accept-Encoding": each}) for each in ("gzip", "x"))
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.content == plain.content
        assert packed.headers["etag"] != plain.headers["etag"]
        assert 'filename="SPX-1m.' in plain.headers["content-disposition"]
    assert "content-encoding" not in got(client, f"{INDEX}&format=parquet", **{"Accept-Encoding": "gzip"}).headers


def test_without_a_window_the_last_sessions_are_read(client: httpx.Client, deps: Deps) -> None:
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
    revise(deps, "XRP-ETH", minute, 1.0)
    document = got(client, "/bars/XRP-ETH").json()
    assert [row["close"] for row in document["bars"]] == [1.0]
    assert (document["symbol"], document["end"], document["next_cursor"]) == ("XRP-ETH", None, None)
    assert len(got(client, "/bars/XRP-ETH?sessions=1&format=csv").text.splitlines()) == 2


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/bars/SPY1", 404, "symbol"),
        ("/bars?symbols=SPX,NOPE&format=csv", 404, "symbol"),
        ("/bars", 422, "symbols"),
        ("/bars?symbols=", 422, "symbols"),
        (f"/bars?symbols={','.join(f'A{number}' for number in range(1001))}", 422, "symbols"),
        (f"{INDEX}&adjust=both", 422, "adjust"),
        (f"{INDEX}&fill=zero", 422, "fill"),
        (f"{INDEX}&session=night", 422, "session"),
        (f"{INDEX}&interval=2m", 422, "interval"),
        (f"{INDEX}&limit=50001", 422, "limit"),
        (f"{INDEX}&format=xml", 422, "format"),
        (f"{INDEX}&as_of=yesterday", 422, "as_of"),
        (f"{INDEX}&as_of=2999-01-01", 422, "as_of"),
        (f"{INDEX}&sessions=3", 422, "start"),
        ("/bars/SPX?start=2019-11-05T10:00", 422, "start"),
        ("/bars/SPX?start=2019-11-05&end=2019-11-05", 422, "end"),
        ("/bars/SPX?start=2999-01-01&format=arrow", 422, "start"),
        (f"{INDEX}&intervall=1m", 422, "intervall"),
    ],
)
def test_wrong_questions_are_refused_by_name(path: str, status: int, field: str, client: httpx.Client) -> None:
    refused = client.get(path)
    assert (refused.status_code, refused.json()["field"]) == (status, field)


def test_an_unknown_symbol_is_told_with_the_nearest(client: httpx.Client) -> None:
    assert "did you mean XRP-ETH" in client.get("/bars/XRP-ETC").json()["error"]
    assert from_us(0).tzinfo is UTC
