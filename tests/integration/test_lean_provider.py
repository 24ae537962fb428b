"""The `lean` provider on folders made here in LEAN's format, and on a real one where LEAN_DATA_DIR names it."""

from __future__ import annotations

import os
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from mdtasks.domain.bars import Bars, from_us, validated
from mdtasks.domain.errors import BadPayloadError, NoDataError, ProviderError, UnsupportedError
from mdtasks.domain.jobs import BackfillJob, Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.flows.backfill import enqueue_jobs
from mdtasks.flows.deps import open_deps
from mdtasks.flows.ingest import run_backfill
from mdtasks.providers.base import BarsAnswer
from mdtasks.providers.lean import LeanProvider
from mdtasks.settings import Settings
from mdtasks.store.bars import read_bars, read_coverage
from mdtasks.store.reference import Instrument, add_instruments, resolve
from tests.integration.answered import answered

CALENDARS = Calendars()
NOW = datetime(2024, 6, 1, tzinfo=UTC)
AAPL = Listing("AAPL", "XNYS")
BTC = Listing("BTC-USD", "24/7", "crypto")
#: 09:30 and 15:59 in New York, $185.34 and a price with four decimals.
DAY = "34200000,1853400,1853500,1853300,1853401,1200\n57540000,1853401,1853401,1853401,1853401,7"


def window(start: str, end: str) -> TimeWindow:
    return TimeWindow.model_validate({"start": f"{start}Z", "end": f"{end}Z"})


SESSION = window("2024-01-02T14:30", "2024-01-02T21:00")


def put(root: Path, name: str, text: str) -> Path:
    path = root / f"{name}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.csv", text)
    return path


def minutes(root: Path, day: str, text: str = DAY, symbol: str = "aapl") -> Path:
    return put(root, f"equity/usa/minute/{symbol}/{day}_trade", text)


def ask(root: Path, asked: TimeWindow, listing: Listing = AAPL, interval: Interval = Interval.M1) -> BarsAnswer:
    return LeanProvider(root, CALENDARS).fetch_bars([listing], interval, asked, NOW)


def failure(root: Path, asked: TimeWindow = SESSION, listing: Listing = AAPL) -> ProviderError:
    return ask(root, asked, listing).errors[listing.symbol]


def starts(bars: Bars) -> list[str]:
    return [f"{from_us(ts):%Y-%m-%d %H:%M}" for ts in bars.ts_us]


def test_equity_minutes_are_unscaled_and_moved_from_new_york_to_utc(tmp_path: Path) -> None:
    minutes(tmp_path, "20240102")
    bars = ask(tmp_path, SESSION).bars["AAPL"]
    assert starts(bars) == ["2024-01-02 14:30", "2024-01-02 20:59"]
    assert [c.tolist() for c in bars.columns] == [
        [185.34, 185.3401],
        [185.35, 185.3401],
        [185.33, 185.3401],
        [185.3401, 185.3401],
        [1200.0, 7.0],
    ]


def test_the_clock_change_moves_the_open_in_utc(tmp_path: Path) -> None:
    minutes(tmp_path, "20240308")
    minutes(tmp_path, "20240311")
    bars = ask(tmp_path, window("2024-03-08T05:00", "2024-03-12T04:00")).bars["AAPL"]
    assert starts(bars)[::2] == ["2024-03-08 14:30", "2024-03-11 13:30"]


def test_extended_hours_come_along(tmp_path: Path) -> None:
    minutes(tmp_path, "20240102", "14400000,1,1,1,1,1\n71940000,1,1,1,1,1")
    bars = ask(tmp_path, window("2024-01-02T05:00", "2024-01-03T05:00")).bars["AAPL"]
    assert starts(bars) == ["2024-01-02 09:00", "2024-01-03 00:59"]


def test_hour_bars_bear_the_clock_hour_that_holds_the_open(tmp_path: Path) -> None:
    put(tmp_path, "equity/usa/hour/aapl", "20240102 09:00,1,1,1,1,1\n20240102 10:00,1,1,1,1,1")
    asked = window("2024-01-02T14:00", "2024-01-02T16:00")
    bars = ask(tmp_path, asked, interval=Interval.H1).bars["AAPL"]
    assert starts(bars) == ["2024-01-02 14:00", "2024-01-02 15:00"]
    expected = CALENDARS.get("XNYS").expected(asked, Interval.H1)
    assert bars.ts_us.tolist() == expected.tolist()


def test_daily_bars_bear_the_session_date(tmp_path: Path) -> None:
    put(tmp_path, "equity/usa/daily/aapl", "20240102 00:00,1853400,1,1,1,1\n20240103 00:00,1,1,1,1,1")
    bars = ask(tmp_path, window("2024-01-02T00:00", "2024-01-04T00:00"), interval=Interval.D1).bars["AAPL"]
    assert starts(bars) == ["2024-01-02 00:00", "2024-01-03 00:00"]


def test_crypto_is_not_scaled_and_in_utc(tmp_path: Path) -> None:
    put(tmp_path, "crypto/coinbase/minute/btcusd/20240102_trade", "0,7424.91,7425,7422,7422.5,7.14319709")
    bars = ask(tmp_path, window("2024-01-02T00:00", "2024-01-03T00:00"), BTC).bars["BTC-USD"]
    assert starts(bars) == ["2024-01-02 00:00"]
    assert [c[0] for c in bars.columns] == [7424.91, 7425.0, 7422.0, 7422.5, 7.14319709]


def test_a_pair_in_two_markets_must_name_one(tmp_path: Path) -> None:
    for market, price in (("binance", "1"), ("coinbase", "2")):
        put(tmp_path, f"crypto/{market}/minute/btcusd/20240102_trade", f"0,{price},{price},{price},{price},1")
    asked = window("2024-01-02T00:00", "2024-01-03T00:00")
    assert "ask for binance:BTC-USD and coinbase:BTC-USD" in failure(tmp_path, asked, BTC).message
    named = Listing("coinbase:BTC-USD", "24/7", "crypto")
    assert ask(tmp_path, asked, named).bars[named.symbol].close.tolist() == [2.0]


def test_a_missing_day_between_others_is_named_and_not_taken_for_silence(tmp_path: Path) -> None:
    minutes(tmp_path, "20240102")
    minutes(tmp_path, "20240104")
    answer = ask(tmp_path, window("2024-01-02T14:30", "2024-01-04T21:00"))
    assert len(answer.bars["AAPL"]) == 4
    (cut,) = answer.unanswered["AAPL"]
    assert cut.window == window("2024-01-03T05:00", "2024-01-04T05:00")
    assert isinstance(cut.error, NoDataError)
    assert "aapl/20240103_trade.zip" in cut.error.message


def test_a_missing_day_alone_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    minutes(tmp_path, "20240103")
    error = failure(tmp_path)
    assert isinstance(error, NoDataError)
    assert "aapl/20240102_trade.zip" in error.message


def test_a_missing_symbol_or_folder_is_named(tmp_path: Path) -> None:
    minutes(tmp_path, "20240102", symbol="msft")
    assert f"no folder {tmp_path}/equity/usa/minute/aapl" in failure(tmp_path).message
    error = failure(tmp_path / "nowhere")
    assert isinstance(error, NoDataError)
    assert f"no folder {tmp_path}/nowhere" in error.message
    with pytest.raises(NoDataError):
        LeanProvider(tmp_path / "nowhere", CALENDARS).check()
    with pytest.raises(NoDataError, match="neither equity/usa nor crypto"):
        LeanProvider(tmp_path / "equity", CALENDARS).check()


@pytest.mark.parametrize(
    "listing",
    [Listing("VOD", "XLON"), Listing("SPX", "XNYS", "index"), Listing("../x", "XNYS"), Listing("..", "24/7")],
)
def test_what_the_folder_cannot_hold_is_refused_for_that_symbol(tmp_path: Path, listing: Listing) -> None:
    minutes(tmp_path, "20240102", symbol="vod")
    assert isinstance(failure(tmp_path, listing=listing), NoDataError)


@pytest.mark.parametrize("broken", [b"", b"PK", b"no zip at all", b"half", b"flipped"])
def test_a_corrupt_zip_fails_its_symbol_by_name_and_no_other(tmp_path: Path, broken: bytes) -> None:
    path = minutes(tmp_path, "20240102", "\n".join(f"{34_200_000 + 60_000 * n},1,2,1,{n},{n}" for n in range(390)))
    minutes(tmp_path, "20240102", symbol="msft")
    sound = path.read_bytes()
    content = {b"half": sound[: len(sound) // 2], b"flipped": sound[:200] + bytes(50) + sound[250:]}.get(broken, broken)
    path.write_bytes(content)
    answer = LeanProvider(tmp_path, CALENDARS).fetch_bars([AAPL, Listing("MSFT", "XNAS")], Interval.M1, SESSION, NOW)
    assert set(answer.bars) == {"MSFT"}
    assert isinstance(answer.errors["AAPL"], BadPayloadError)
    assert str(path) in answer.errors["AAPL"].message


def test_of_three_days_of_a_job_the_two_that_can_be_read_are_stored(settings: Settings, tmp_path: Path) -> None:
    days = ("20240102", "20240103", "20240104")
    whole = "\n".join(f"{34_200_000 + 60_000 * n},1,2,1,1,{n}" for n in range(390))
    _, garbage, _ = (minutes(tmp_path, day, whole) for day in days)
    garbage.write_bytes(b"garbage")
    asked = window("2024-01-02T14:30", "2024-01-04T21:00")
    answer = ask(tmp_path, asked)
    assert len(answer.bars["AAPL"]) == 780
    (cut,) = answer.unanswered["AAPL"]
    assert cut.window == window("2024-01-03T05:00", "2024-01-04T05:00")
    assert isinstance(cut.error, BadPayloadError)

    deps = open_deps(settings.model_copy(update={"lean_dir": tmp_path, "policy_bars": ("lean",)}))
    try:
        with deps.database.transaction() as connection:
            add_instruments(connection, [Instrument("AAPL", "XNYS")])
        job = BackfillJob(symbol="AAPL", time_window=asked)
        assert enqueue_jobs([job], "test", deps).queued == 1
        with pytest.raises(BadPayloadError, match=str(garbage)):
            run_backfill(job, deps, "t1@here/1", NOW)
        with deps.database.transaction() as connection:
            member = resolve(connection, ["AAPL"])["AAPL"]
            stored = read_bars(connection, member.id, Interval.M1, asked)
            covered = read_coverage(connection, [member.id], Interval.M1)[member.id]
        assert len(stored) == 780
        assert {span.start.day for span in covered} == {2, 4}
    finally:
        deps.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("34200000,1,1,1,1\n", "Expected 6 columns"),
        ("34200000,1,1,1,1,1\n34260000,1,x,1,1,1\n", "Row #2"),
        ("34200000,1,1,1,1,1\n,1,1,1,1,1\n", "line 2: no time"),
    ],
)
def test_a_bad_row_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = minutes(tmp_path, "20240102", text)
    error = failure(tmp_path)
    assert isinstance(error, BadPayloadError)
    assert str(path) in error.message
    assert said in error.message


def test_an_empty_day_is_a_day_without_trades(tmp_path: Path) -> None:
    minutes(tmp_path, "20240102", "")
    answer = ask(tmp_path, SESSION)
    assert len(answer.bars["AAPL"]) == 0
    assert answered(answer, "AAPL", SESSION) == [SESSION]


def test_intervals_that_lean_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError):
        ask(tmp_path, SESSION, interval=Interval.M5)


# -- quotes --------------------------------------------------------------------------------------------


def test_the_latest_quote_is_that_of_the_last_minute_ended(tmp_path: Path) -> None:
    rows = [
        "34200000,1,1,1,1853400,300,1,1,1,1853500,200",
        "34260000,1,1,1,1853600,,1,1,1,,",
        "34320000,1,1,1,1859900,1,1,1,1,1859999,1",
    ]
    put(tmp_path, "equity/usa/minute/aapl/20240102_quote", "\n".join(rows))
    provider = LeanProvider(tmp_path, CALENDARS)
    first = provider.fetch_quotes([AAPL], datetime(2024, 1, 2, 14, 31, 59, tzinfo=UTC))["AAPL"]
    assert (first.ts, first.bid, first.bid_size, first.ask, first.ask_size) == (
        datetime(2024, 1, 2, 14, 31, tzinfo=UTC),
        185.34,
        300.0,
        185.35,
        200.0,
    )
    one_sided = provider.fetch_quotes([AAPL], datetime(2024, 1, 2, 14, 32, tzinfo=UTC))["AAPL"]
    assert (one_sided.bid, one_sided.bid_size, one_sided.ask, one_sided.ask_size) == (185.36, None, None, None)


def test_before_the_first_minute_the_quote_of_the_day_before_stands(tmp_path: Path) -> None:
    put(tmp_path, "equity/usa/minute/aapl/20240102_quote", "57540000,1,1,1,1853400,3,1,1,1,1853500,2")
    put(tmp_path, "equity/usa/minute/aapl/20240103_quote", "34200000,1,1,1,1,3,1,1,1,2,2")
    provider = LeanProvider(tmp_path, CALENDARS)
    assert provider.fetch_quotes([AAPL], datetime(2024, 1, 3, 14, 30, tzinfo=UTC))["AAPL"].bid == 185.34
    assert provider.fetch_quotes([AAPL], datetime(2024, 1, 2, 20, 59, tzinfo=UTC)) == {}
    assert provider.fetch_quotes([AAPL], datetime(2024, 3, 1, tzinfo=UTC)) == {}


# -- a real folder, read in place ------------------------------------------------------------------------


# Such data may not be shared, so these tests exist only where somebody has it.
if "LEAN_DATA_DIR" in os.environ:
    REAL_FOLDER = Path(os.environ["LEAN_DATA_DIR"])

    def test_every_minute_file_of_a_REAL_FOLDER_is_read_without_a_bad_bar() -> None:
        paths = sorted((REAL_FOLDER / "equity" / "usa" / "minute").glob("*/*_trade.zip"))
        assert paths
        provider = LeanProvider(REAL_FOLDER, CALENDARS)
        for path in paths:
            listing = Listing(path.parent.name.upper(), "XNYS")
            day = datetime.strptime(path.name[:8], "%Y%m%d").replace(tzinfo=UTC)
            asked = TimeWindow(start=day + timedelta(hours=5), end=day + timedelta(hours=28))
            bars = provider.fetch_bars([listing], Interval.M1, asked, NOW).bars[listing.symbol]
            assert len(bars), path
            assert validated(bars, asked, Interval.M1)[1] == [], path

    def test_the_daily_file_of_a_REAL_FOLDER_has_each_session_once() -> None:
        asked = window("1998-01-02T00:00", "2021-04-01T00:00")
        bars = (
            LeanProvider(REAL_FOLDER, CALENDARS)
            .fetch_bars([Listing("SPY", "XNYS")], Interval.D1, asked, NOW)
            .bars["SPY"]
        )
        assert bars.ts_us.tolist() == CALENDARS.get("XNYS").expected(asked, Interval.D1).tolist()
        assert from_us(bars.ts_us[0]).date() == date(1998, 1, 2)
