"""The `files` provider on real files as they lie, and on every way a folder can be wrong."""

from __future__ import annotations

import csv
import gzip
import os
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from mdtasks.domain.bars import Bars, from_us, to_us, validated
from mdtasks.domain.errors import BadPayloadError, ConfigurationError, NoDataError, ProviderError
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import BarsAnswer
from mdtasks.providers.files import FilesProvider
from tests.integration.answered import answered

CALENDARS = Calendars()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = "time,open,high,low,close,volume"
COLUMNS = {"time": "Date", "open": "Open", "high": "High", "low": "Low", "close": "Close", "volume": "Volume"}


def window(start: str, end: str) -> TimeWindow:
    return TimeWindow.model_validate({"start": f"{start}Z", "end": f"{end}Z"})


WHOLE = window("2000-01-01T00:00", "2025-01-01T00:00")


def provider(folder: Path, *datasets: dict[str, Any], root: Path | str = ".") -> FilesProvider:
    path = folder / "map.yaml"
    path.write_text(yaml.safe_dump({"root": str(root), "datasets": list(datasets)}))
    return FilesProvider(path, CALENDARS)


def dataset(path: str = "A.csv", **changes: Any) -> dict[str, Any]:
    return {"path": path, "symbols": ["A"], "interval": "1m"} | changes


def ask(
    files: FilesProvider, symbol: str = "A", interval: Interval = Interval.M1, asked: TimeWindow = WHOLE
) -> BarsAnswer:
    return files.fetch_bars([Listing(symbol, "24/7")], interval, asked, NOW)


def failure(files: FilesProvider, asked: TimeWindow = WHOLE) -> ProviderError:
    answer = ask(files, asked=asked)
    assert not answer.bars
    return answer.errors["A"]


def starts(bars: Bars) -> list[str]:
    return [f"{from_us(ts):%Y-%m-%d %H:%M}" for ts in bars.ts_us]


def shared(data: Path, folder: Path) -> FilesProvider:
    return provider(
        folder,
        {
            "path": "mplfinance/SP500_NOV2019_IDay.csv",
            "symbols": ["SPX"],
            "interval": "1m",
            "columns": COLUMNS,
            "timezone": "America/New_York",
            "time_format": "%m/%d/%Y %H:%M",
        },
        {
            "path": "mplfinance/SP500_NOV2019_Hist.csv",
            "symbols": ["SPX"],
            "interval": "1d",
            "columns": COLUMNS,
            "time_format": "%m/%d/%Y",
        },
        {
            "path": "mplfinance/yahoofinance-{symbol}.csv",
            "symbols": {s: f"{s}-20040819-20180120" for s in ("AAPL", "GOOG")} | {"SPY": "SPY-20080101-20180101"},
            "interval": "1d",
            "columns": COLUMNS,
        },
        {"path": "crypto/{symbol}-1m.csv", "symbols": {"XRP-ETH": "XRP_ETH"}, "interval": "1m", "columns": LOWER},
        {"path": "crypto/{symbol}-5m.csv", "symbols": {"ETH-BTC": "ETH_BTC"}, "interval": "5m", "columns": LOWER},
        root=data,
    )


LOWER = {"time": "date"}

#: Symbol, interval, file, how Python reads its times, the mic, rows.
REAL = [
    ("SPX", Interval.M1, "mplfinance/SP500_NOV2019_IDay.csv", "%m/%d/%Y %H:%M", "XNYS", 1563),
    ("SPX", Interval.D1, "mplfinance/SP500_NOV2019_Hist.csv", "%m/%d/%Y", "XNYS", 20),
    ("AAPL", Interval.D1, "mplfinance/yahoofinance-AAPL-20040819-20180120.csv", "%Y-%m-%d", "XNYS", 3379),
    ("GOOG", Interval.D1, "mplfinance/yahoofinance-GOOG-20040819-20180120.csv", "%Y-%m-%d", "XNYS", 3379),
    ("SPY", Interval.D1, "mplfinance/yahoofinance-SPY-20080101-20180101.csv", "%Y-%m-%d", "XNYS", 2519),
    ("XRP-ETH", Interval.M1, "crypto/XRP_ETH-1m.csv", "%Y-%m-%dT%H:%M:%SZ", "24/7", 2469),
    ("ETH-BTC", Interval.M5, "crypto/ETH_BTC-5m.csv", "%Y-%m-%dT%H:%M:%SZ", "24/7", 5760),
]


@pytest.mark.parametrize(("symbol", "interval", "name", "pattern", "mic", "rows"), REAL)
def test_real_files_are_read_to_the_last_bit_as_they_lie(
    shared_data: Path,
    tmp_path: Path,
    symbol: str,
    interval: Interval,
    name: str,
    pattern: str,
    mic: str,
    rows: int,
) -> None:
    answer = shared(shared_data, tmp_path).fetch_bars([Listing(symbol, mic)], interval, WHOLE, NOW)
    bars = answer.bars[symbol]
    with (shared_data / name).open(newline="") as file:
        lines = [{key.lower(): value for key, value in row.items()} for row in csv.DictReader(file)]
    zone = ZoneInfo("America/New_York" if interval is Interval.M1 and symbol == "SPX" else "UTC")
    truth = [
        (
            to_us(datetime.strptime(line["date"], pattern).replace(tzinfo=zone)),
            *(float(line[column]) for column in ("open", "high", "low", "close", "volume")),
        )
        for line in lines
    ]
    got = [(int(ts), *map(float, values)) for ts, *values in zip(bars.ts_us, *bars.columns, strict=True)]
    assert len(got) == rows
    assert got == truth
    assert validated(bars, WHOLE, interval)[1] == []


def test_the_row_after_the_close_is_delivered(shared_data: Path, tmp_path: Path) -> None:
    after_close = window("2019-11-05T21:00", "2019-11-05T21:01")
    answer = shared(shared_data, tmp_path).fetch_bars([Listing("SPX", "XNYS")], Interval.M1, after_close, NOW)
    assert answer.bars["SPX"].close.tolist() == [3074.75]


def test_a_thin_pair_is_answered_for_whole_though_minutes_lack_rows(shared_data: Path, tmp_path: Path) -> None:
    asked = window("2019-10-11T00:00", "2019-10-13T11:20")
    answer = shared(shared_data, tmp_path).fetch_bars([Listing("XRP-ETH", "24/7")], Interval.M1, asked, NOW)
    assert answered(answer, "XRP-ETH", asked) == [asked]


def test_beyond_its_rows_a_file_vouches_for_nothing_and_says_how_far_it_reaches(
    shared_data: Path, tmp_path: Path
) -> None:
    asked = window("2019-10-12T00:00", "2019-10-14T00:00")
    answer = shared(shared_data, tmp_path).fetch_bars([Listing("XRP-ETH", "24/7")], Interval.M1, asked, NOW)
    (cut,) = answer.unanswered["XRP-ETH"]
    assert cut.window == window("2019-10-13T11:20", "2019-10-14T00:00")
    assert "XRP_ETH-1m.csv reaches from 2019-10-11 00:00 to 2019-10-13 11:19 UTC" in cut.error.message


def test_a_hundred_windows_of_one_file_parse_it_once(shared_data: Path, tmp_path: Path) -> None:
    files = shared(shared_data, tmp_path)
    for n in range(100):
        start = datetime(2019, 10, 11, tzinfo=UTC) + timedelta(minutes=30 * n)
        asked = TimeWindow(start=start, end=start + timedelta(minutes=30))
        assert "XRP-ETH" in files.fetch_bars([Listing("XRP-ETH", "24/7")], Interval.M1, asked, NOW).bars
    assert files.cache.parses == 1


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "A.csv"
    file.write_text(f"{HEADER}\n2024-01-02T00:00Z,1,1,1,1,1\n")
    files = provider(tmp_path, dataset())
    assert ask(files).bars["A"].close.tolist() == [1.0]
    file.write_text(f"{HEADER}\n2024-01-02T00:00Z,2,2,2,2,2\n")
    os.utime(file, ns=(1, 1))  # even when the clock went back
    assert ask(files).bars["A"].close.tolist() == [2.0]


def test_what_the_cache_hands_out_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text(f"{HEADER}\n2024-01-02T00:00Z,1,1,1,1,1\n")
    bars = ask(provider(tmp_path, dataset())).bars["A"]
    with pytest.raises(ValueError, match="read-only"):
        bars.close[0] = 9.0


@pytest.mark.parametrize(
    ("time", "options"),
    [
        ("2024-01-02T14:30:00Z", {}),
        ("2024-01-02T09:30:00-05:00", {}),
        ("2024-01-02 14:30", {}),
        ("2024-01-02 09:30", {"timezone": "America/New_York"}),
        ("01/02/2024 9:30", {"timezone": "America/New_York", "time_format": "%m/%d/%Y %H:%M"}),
        ("1704205800", {"time_format": "epoch_s"}),
        ("1704205800000", {"time_format": "epoch_ms"}),
        ("2024-01-02 14:31", {"label": "end"}),
        ("2024-01-02 09:31", {"label": "end", "timezone": "America/New_York"}),
    ],
)
def test_each_way_to_write_a_time_is_the_same_instant(tmp_path: Path, time: str, options: dict[str, Any]) -> None:
    (tmp_path / "A.csv").write_text(f"{HEADER}\n{time},1,1,1,1,1\n")
    assert starts(ask(provider(tmp_path, dataset(**options))).bars["A"]) == ["2024-01-02 14:30"]


def test_date_and_time_in_two_columns_and_no_header(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text("20240102;09:30;1;3;0.5;2\n20240102;09:31;2;4;1.5;3\n")
    columns = {"time": [0, 1], "open": 2, "high": 3, "low": 4, "close": 5, "volume": None}
    files = provider(
        tmp_path,
        dataset(columns=columns, header=False, delimiter=";", time_format="%Y%m%d %H:%M", timezone="America/New_York"),
    )
    bars = ask(files).bars["A"]
    assert starts(bars) == ["2024-01-02 14:30", "2024-01-02 14:31"]
    assert [c.tolist() for c in bars.columns] == [[1, 2], [3, 4], [0.5, 1.5], [2, 3], [0, 0]]


@pytest.mark.parametrize("value", ["2024-01-02", "2024-01-02 16:00", "2024-01-02T05:00:00Z"])
def test_a_daily_bar_bears_its_session_date_however_its_time_is_written(tmp_path: Path, value: str) -> None:
    (tmp_path / "A.csv").write_text(f"{HEADER}\n{value},1,1,1,1,1\n")
    files = provider(tmp_path, dataset(interval="1d", timezone="America/New_York"))
    assert starts(ask(files, interval=Interval.D1).bars["A"]) == ["2024-01-02 00:00"]


@pytest.mark.parametrize(
    ("scale", "written", "price"), [(10_000, 6448001, 644.8001), (100, 110, 1.1), (0.001, 3, 3000.0)]
)
def test_scaled_prices_are_the_nearest_doubles(tmp_path: Path, scale: float, written: int, price: float) -> None:
    row = ",".join([str(written)] * 4)
    (tmp_path / "A.csv").write_text(f"{HEADER}\n2024-01-02T00:00Z,{row},7\n")
    bars = ask(provider(tmp_path, dataset(price_scale=scale))).bars["A"]
    assert (bars.open[0], bars.volume[0]) == (price, 7.0)


def test_rows_in_any_order_come_in_time_order(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text(f"{HEADER}\n2024-01-02T00:01Z,2,2,2,2,2\n2024-01-02T00:00Z,1,1,1,1,1\n")
    assert ask(provider(tmp_path, dataset())).bars["A"].close.tolist() == [1.0, 2.0]


# -- changes of clocks ---------------------------------------------------------------------------------


def fallback_rows(*clocks: str) -> str:
    """Rows of the morning of 2024-11-03 in New York, when 01:00 to 02:00 comes twice."""
    return "\n".join([HEADER, *(f"2024-11-03 {clock},1,1,1,1,1" for clock in clocks)]) + "\n"


def test_a_time_that_comes_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text(fallback_rows("00:59", "01:00"))
    error = failure(provider(tmp_path, dataset(timezone="America/New_York")))
    assert isinstance(error, BadPayloadError)
    assert "A.csv, line 3: 2024-11-03 01:00:00 exists twice in America/New_York" in error.message


@pytest.mark.parametrize(
    ("rule", "clocks", "expected"),
    [
        ("first", ["01:30"], ["05:30"]),
        ("second", ["01:30"], ["06:30"]),
        ("infer", ["01:30", "01:59", "01:00", "01:30", "02:00"], ["05:30", "05:59", "06:00", "06:30", "07:00"]),
    ],
)
def test_a_time_that_comes_twice_is_read_as_told(
    tmp_path: Path, rule: str, clocks: list[str], expected: list[str]
) -> None:
    (tmp_path / "A.csv").write_text(fallback_rows(*clocks))
    bars = ask(provider(tmp_path, dataset(timezone="America/New_York", ambiguous=rule))).bars["A"]
    assert starts(bars) == [f"2024-11-03 {clock}" for clock in expected]


def test_what_cannot_be_inferred_is_refused(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text(fallback_rows("01:30", "01:40"))
    error = failure(provider(tmp_path, dataset(timezone="America/New_York", ambiguous="infer")))
    assert "exists twice" in error.message


def test_a_time_that_was_skipped_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text(f"{HEADER}\n2024-03-10 01:59,1,1,1,1,1\n2024-03-10 02:30,1,1,1,1,1\n")
    error = failure(provider(tmp_path, dataset(timezone="America/New_York", ambiguous="first")))
    assert "A.csv, line 3: 2024-03-10 02:30:00 does not exist in America/New_York" in error.message


# -- files per day, files declared incomplete ----------------------------------------------------------


def day_files(folder: Path, *days: str) -> FilesProvider:
    (folder / "AAA").mkdir(exist_ok=True)
    for day in days:
        (folder / "AAA" / f"{day.replace('-', '')}.csv").write_text(
            f"{HEADER}\n{day} 09:30,1,1,1,1,1\n{day} 15:59,1,1,1,1,1\n"
        )
    return provider(
        folder,
        dataset("{symbol}/{date:%Y%m%d}.csv", symbols={"A": "AAA"}, timezone="America/New_York"),
    )


def test_a_day_file_vouches_for_its_day_and_a_missing_one_is_named(tmp_path: Path) -> None:
    asked = window("2024-01-02T14:30", "2024-01-05T21:00")
    answer = ask(day_files(tmp_path, "2024-01-02", "2024-01-03", "2024-01-05"), asked=asked)
    assert len(answer.bars["A"]) == 6
    (cut,) = answer.unanswered["A"]
    assert cut.window == window("2024-01-04T05:00", "2024-01-05T05:00")
    assert f"no file {tmp_path}/AAA/20240104.csv" in cut.error.message


def test_a_day_file_written_before_its_day_was_over_knows_nothing_of_the_rest(tmp_path: Path) -> None:
    files = day_files(tmp_path, "2024-01-02")
    noon = datetime(2024, 1, 2, 17, tzinfo=UTC).timestamp()
    path = tmp_path / "AAA" / "20240102.csv"
    path.write_text(f"{HEADER}\n2024-01-02 09:30,1,1,1,1,1\n")
    os.utime(path, (noon, noon))
    asked = window("2024-01-02T14:30", "2024-01-02T21:00")
    answer = ask(files, asked=asked)
    assert answered(answer, "A", asked) == [window("2024-01-02T14:30", "2024-01-02T17:00")]


def test_no_file_for_the_whole_window_is_an_error_of_the_symbol(tmp_path: Path) -> None:
    error = failure(day_files(tmp_path, "2024-01-02"), window("2024-01-04T14:30", "2024-01-04T21:00"))
    assert isinstance(error, NoDataError)
    assert "20240104.csv" in error.message


def test_a_month_file_vouches_for_its_month(tmp_path: Path) -> None:
    (tmp_path / "A-202401.csv").write_text(f"{HEADER}\n2024-01-10 00:00,1,1,1,1,1\n")
    asked = window("2023-12-31T00:00", "2024-02-02T00:00")
    answer = ask(provider(tmp_path, dataset("{symbol}-{date:%Y%m}.csv")), asked=asked)
    assert answered(answer, "A", asked) == [window("2024-01-01T00:00", "2024-02-01T00:00")]


def test_an_end_label_at_midnight_is_found_in_the_next_days_file(tmp_path: Path) -> None:
    (tmp_path / "A-20240102.csv").write_text(f"{HEADER}\n2024-01-02 23:59,1,1,1,1,1\n")
    (tmp_path / "A-20240103.csv").write_text(f"{HEADER}\n2024-01-03 00:00,2,2,2,2,2\n")
    files = provider(tmp_path, dataset("{symbol}-{date:%Y%m%d}.csv", label="end"))
    bars = ask(files, asked=window("2024-01-02T00:00", "2024-01-03T00:00")).bars["A"]
    assert starts(bars) == ["2024-01-02 23:58", "2024-01-02 23:59"]


def test_of_an_incomplete_dataset_only_the_bars_themselves_are_answered_for(tmp_path: Path) -> None:
    rows = [f"2024-01-02T00:{minute:02}Z,1,1,1,1,1" for minute in (0, 1, 2, 5, 6)]
    (tmp_path / "A.csv").write_text("\n".join([HEADER, *rows]))
    asked = window("2024-01-02T00:00", "2024-01-02T00:10")
    answer = ask(provider(tmp_path, dataset(complete=False)), asked=asked)
    assert answered(answer, "A", asked) == [
        window("2024-01-02T00:00", "2024-01-02T00:03"),
        window("2024-01-02T00:05", "2024-01-02T00:07"),
    ]


def test_two_datasets_of_one_symbol_are_joined(tmp_path: Path) -> None:
    for year in (2022, 2023):
        (tmp_path / f"{year}.csv").write_text(f"{HEADER}\n{year}-01-03,{year},{year},{year},{year},1\n")
    files = provider(tmp_path, dataset("2023.csv", interval="1d"), dataset("2022.csv", interval="1d"))
    answer = ask(files, interval=Interval.D1, asked=window("2022-01-03T00:00", "2023-01-04T00:00"))
    assert answer.bars["A"].close.tolist() == [2022.0, 2023.0]
    (cut,) = answer.unanswered["A"]
    assert cut.window == window("2022-01-04T00:00", "2023-01-03T00:00")


# -- what is wrong, named ------------------------------------------------------------------------------

BAD_CSV = [
    (b"", "is empty"),
    (b"time,open,high,low,close\n2024-01-02T00:00Z,1,1,1,1\n", "no column 'volume'"),
    (b"time,Open,high,low,close,volume\n", "no column 'open'; did you mean Open"),
    (f"{HEADER}\n2024-01-02T00:00Z,1,1,1,1,1\n2024-01-02T00:01Z,1,1\n".encode(), "Row #3"),
    (f"{HEADER}\n2024-01-02T00:00Z,1,1,1,x,1\n".encode(), "Row #2"),
    (f"{HEADER}\n2024-01-02T00:00,1,1,1,1,1\nyesterday,1,1,1,1,1\n".encode(), "line 3: no readable time"),
    (f"{HEADER}\n2024-01-02T00:00,1,1,1,1,1\n,1,1,1,1,1\n".encode(), "line 3: no readable time"),
    (f"{HEADER}\n1704205800,1,1,1,1,1\n".encode(), "time is a number"),
    (b"\x00\x01\xff\xfe" * 100, "A.csv"),
]


@pytest.mark.parametrize(("content", "said"), BAD_CSV, ids=[said for _, said in BAD_CSV])
def test_a_bad_csv_fails_its_symbol_and_says_where(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "A.csv").write_bytes(content)
    error = failure(provider(tmp_path, dataset()))
    assert isinstance(error, BadPayloadError)
    assert str(tmp_path / "A.csv") in error.message
    assert said in error.message


def test_corrupt_containers_fail_with_the_files_name(tmp_path: Path) -> None:
    text = f"{HEADER}\n" + "\n".join(f"2024-01-02T{h:02}:{m:02}Z,1,1,1,1,{h * m}" for h in range(24) for m in range(60))
    (tmp_path / "A.csv.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "A.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A.csv", text)
    times = pa.array([datetime(2024, 1, 2, h, m) for h in range(24) for m in range(60)], pa.timestamp("us"))  # noqa: DTZ001
    names = ("open", "high", "low", "close", "volume")
    pa.parquet.write_table(pa.table({"time": times} | dict.fromkeys(names, np.ones(1440))), tmp_path / "A.parquet")
    for name in ("A.csv.gz", "A.zip", "A.parquet"):
        path = tmp_path / name
        sound = path.read_bytes()
        assert len(ask(provider(tmp_path, dataset(name))).bars["A"]) == 1440
        for broken in (sound[: len(sound) // 2], sound[:10], b"", sound[:60] + bytes(40) + sound[100:]):
            path.write_bytes(broken)
            error = failure(provider(tmp_path, dataset(name)))
            assert isinstance(error, BadPayloadError), (name, error)
            assert str(path) in error.message


def test_one_bad_file_leaves_the_other_symbols_alone(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text("nonsense")
    (tmp_path / "B.csv").write_text(f"{HEADER}\n2024-01-02T00:00Z,1,1,1,1,1\n")
    files = provider(tmp_path, dataset("{symbol}.csv", symbols=["A", "B"]))
    answer = files.fetch_bars([Listing("A", "24/7"), Listing("B", "24/7")], Interval.M1, WHOLE, NOW)
    assert set(answer.bars) == {"B"}
    assert set(answer.errors) == {"A"}


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    files = provider(tmp_path, dataset(), root="nowhere")
    error = failure(files)
    assert isinstance(error, NoDataError)
    assert str(tmp_path / "nowhere" / "A.csv") in error.message
    with pytest.raises(NoDataError, match="no folder"):
        files.check()


def test_any_symbol_may_be_asked_for_but_never_a_file_outside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.csv").write_text(f"{HEADER}\n2024-01-02T00:00Z,1,1,1,1,1\n")
    (tmp_path / "root" / "B.csv").write_text(f"{HEADER}\n2024-01-02T00:00Z,1,1,1,1,1\n")
    files = provider(tmp_path, dataset("{symbol}.csv", symbols="*"), root="root")
    assert len(ask(files, "B").bars["B"]) == 1
    assert isinstance(ask(files, "../secret").errors["../secret"], NoDataError)


WRONG_MAPPINGS = [
    ("datasets: [{path: a, symbols: [A], interval: 1m, colums: {}}]", "datasets.0.colums; did you mean columns?"),
    ("rot: .\ndatasets: []", "unknown key rot; did you mean root?"),
    (
        "datasets: [{path: a, symbols: [A], interval: 1m, columns: {tme: x}}]",
        "datasets.0.columns.tme; did you mean time?",
    ),
    ("datasets: [{path: a, symbols: [A], interval: 2m}]", "datasets.0.interval"),
    ("datasets: [{path: a, symbols: [NO], interval: 1m}]", "False is not text to YAML; put it in quotes"),
    ("datasets: [{path: a, symbols: [A], interval: 1m, timezone: New_York}]", "no time zone 'New_York'"),
    ("datasets: [{path: 'a{day}', symbols: [A], interval: 1m}]", "{day} is not known"),
    ("datasets: [{path: a, symbols: [A, B], interval: 1m}]", "needs {symbol} in the path"),
    ("datasets: [{path: a, symbols: [A], interval: 1d, label: end}]", "label: a daily row"),
    ("datasets: [{path: a, symbols: [A], interval: 1m, time_format: epochs}]", "did you mean epoch_s?"),
    ("datasets: [{path: a, path: b, symbols: [A], interval: 1m}]", "key 'path' given twice"),
    ("datasets: [{path: a, symbols: [A], interval: 1m, columns: {time: 0}}]", "header: false"),
    ("datasets: []", "datasets"),
    ("- a", "is not a mapping"),
    ("", "is not a mapping"),
    ("a: [", "map.yaml"),
]


@pytest.mark.parametrize(("text", "said"), WRONG_MAPPINGS, ids=[said for _, said in WRONG_MAPPINGS])
def test_a_wrong_mapping_is_refused_with_its_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        FilesProvider(path, CALENDARS)
    assert str(path) in refused.value.message
    assert said in refused.value.message
    assert refused.value.name == "MDTASKS_FILES_MAP"


def test_a_mapping_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: No such file"):
        FilesProvider(tmp_path / "none.yaml", CALENDARS)


def test_one_bad_file_of_several_leaves_the_bars_of_the_others(tmp_path: Path) -> None:
    for day in (2, 3, 4):
        (tmp_path / f"A-{day:02}.csv").write_text(f"{HEADER}\n2024-01-{day:02}T00:00Z,1,1,1,1,1\n")
    bad = tmp_path / "A-03.csv"
    bad.write_text(f"{HEADER}\nnonsense\n")
    answer = ask(
        provider(tmp_path, dataset("{symbol}-{date:%d}.csv")), asked=window("2024-01-02T00:00", "2024-01-05T00:00")
    )
    assert starts(answer.bars["A"]) == ["2024-01-02 00:00", "2024-01-04 00:00"]
    (cut,) = answer.unanswered["A"]
    assert cut.window == window("2024-01-03T00:00", "2024-01-04T00:00")
    assert isinstance(cut.error, BadPayloadError)
    assert str(bad) in cut.error.message


def test_a_bad_file_may_hold_what_another_of_the_same_time_lacks(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(f"{HEADER}\n2024-01-02T00:00Z,1,1,1,1,1\n2024-01-02T00:02Z,1,1,1,1,1\n")
    (tmp_path / "bad.csv").write_text(f"{HEADER}\nnonsense\n")
    asked = window("2024-01-02T00:00", "2024-01-02T00:04")
    answer = ask(provider(tmp_path, dataset("good.csv"), dataset("bad.csv")), asked=asked)
    assert starts(answer.bars["A"]) == ["2024-01-02 00:00", "2024-01-02 00:02"]
    assert answered(answer, "A", asked) == [
        window("2024-01-02T00:00", "2024-01-02T00:01"),
        window("2024-01-02T00:02", "2024-01-02T00:03"),
    ]
    assert all(isinstance(cut.error, BadPayloadError) for cut in answer.unanswered["A"])
