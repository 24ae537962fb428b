"""What people type: times, symbols, windows, and how numbers and durations are said."""

from __future__ import annotations

import argparse
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.cli import inputs
from mdtasks.cli.output import plain_lines, text_of
from mdtasks.cli.waiting import Meter, spoken, words_of
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Interval, Tier
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.windows import AskedWindow
from mdtasks.store.job_reports import Progress

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_the_values_offered_are_those_of_the_domain() -> None:
    assert tuple(Interval) == inputs.INTERVALS
    assert tuple(Tier) == inputs.TIERS


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-02", datetime(2026, 11, 2, tzinfo=UTC)),
        ("20261102", datetime(2026, 11, 2, tzinfo=UTC)),
        ("2026-11-02T14:30Z", datetime(2026, 11, 2, 14, 30, tzinfo=UTC)),
        ("2026-11-02T09:30-05:00", datetime(2026, 11, 2, 14, 30, tzinfo=UTC)),
        (" 2026-11-02 14:30:05.25+00:00 ", datetime(2026, 11, 2, 14, 30, 5, 250_000, tzinfo=UTC)),
    ],
)
def test_times_are_aware_or_dates(text: str, at: datetime) -> None:
    assert inputs.time_of(text, "start") == at


@pytest.mark.parametrize("text", ["2026-11-02T14:30", "2026-11-02 00:00", "20261102T143000"])
def test_a_naive_time_is_refused_with_a_message_that_says_so(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="is naive: it does not say in which time zone") as caught:
        inputs.time_of(text, "end")
    assert caught.value.field == "end"
    assert f"{text}Z" in caught.value.hint


@given(st.text(max_size=30))
def test_whatever_is_typed_as_a_time_is_read_or_refused(text: str) -> None:
    with suppress(InvalidRequestError):
        assert inputs.time_of(text, "start").tzinfo is UTC


@given(st.integers(0, 999_999), st.sampled_from("smhdw"))
def test_how_long_ago_never_overflows(count: int, unit: str) -> None:
    assert inputs.since_of(f"{count}{unit}", NOW) <= NOW


def test_how_long_ago_is_counted_from_now() -> None:
    assert inputs.since_of("2h", NOW) == NOW - timedelta(hours=2)
    assert inputs.since_of("3d", NOW) == NOW - timedelta(days=3)
    assert inputs.since_of("2026-11-20", NOW) == datetime(2026, 11, 20, tzinfo=UTC)


def test_symbols_are_read_once_each_in_their_order(tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("MSFT,AAPL # liquid\n\n^GSPC\tBRK.B\n")
    assert inputs.symbols_of(["AAPL", f"@{listed}", "AAPL"]) == ["AAPL", "MSFT", "^GSPC", "BRK.B"]


@pytest.mark.parametrize("word", ["", "A B", "é", "x" * 33, "\x1b[31m", "\udcff", "@", "@/no/such/file"])
def test_what_is_no_symbol_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        inputs.symbols_of([word])
    assert caught.value.field == "symbol"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequestError, match="it is not text"):
        inputs.symbols_of([f"@{tmp_path / 'binary'}"])


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "1e3", "٣", "100001", "9" * 40])
def test_a_count_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of sessions"):
        inputs.count_of("sessions")(text)


def test_a_window_of_sessions_counts_back_from_its_end() -> None:
    calendar = Calendars().get("24/7")
    asked = AskedWindow(end=datetime(2026, 11, 20, tzinfo=UTC), sessions=2)
    window = asked.on(calendar, Interval.M1, NOW)
    assert (window.start, window.end) == (datetime(2026, 11, 18, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC))


def test_a_window_never_reaches_past_now() -> None:
    asked = AskedWindow(start=NOW - timedelta(days=1), end=NOW + timedelta(days=1))
    assert asked.on(Calendars().get("24/7"), Interval.M1, NOW).end == NOW


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (AskedWindow(), "start"),
        (AskedWindow(start=NOW, sessions=1), "start"),
        (AskedWindow(start=NOW), "start"),
        (AskedWindow(start=NOW - timedelta(days=1), end=NOW - timedelta(days=2)), "end"),
        (AskedWindow(start=NOW - timedelta(days=1), end=NOW - timedelta(days=1)), "end"),
    ],
)
def test_a_window_that_is_none_is_refused(asked: AskedWindow, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked.on(Calendars().get("24/7"), Interval.M1, NOW)
    assert caught.value.field == field
    assert caught.value.hint


def test_a_meter_measures_lately_and_tells_what_is_left() -> None:
    meter = Meter()
    for second in range(31):
        meter.add(float(second), _progress(done=second, bars=100 * second))
    assert meter.bars_per_s == 100
    assert meter.left_s(_progress(done=30, bars=0)) == 70
    for second in range(31, 60):
        meter.add(float(second), _progress(done=30, bars=3000))
    assert meter.still_s(59.0) == 29
    assert meter.left_s(_progress(done=30, bars=0)) is None


def test_progress_is_said_in_few_words() -> None:
    seen = Progress("r", {"done": 98, "failed": 2}, 41_000, "boom")
    assert words_of(seen, Meter()) == ["100/100 jobs", "41,000 bars", "2 failed"]
    assert [spoken(s) for s in (8.4, 187, 7500, 360_000)] == ["8s", "3m 07s", "2h 05m", "4d 04h"]


def _progress(done: int, bars: int) -> Progress:
    return Progress("r", {"done": done, "queued": 100 - done}, bars, None)


def test_a_table_in_a_pipe_is_aligned_and_cuts_nothing() -> None:
    lines = plain_lines(("name", "count"), [("a" * 90, 5), ("b", 12_345), ("c", None)])
    assert lines[1].endswith("     5")
    assert lines[2].endswith("  12,345")
    assert lines[3].endswith("-")


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    assert text_of("two\nlines\x1b[31m\x07") == "two lines [31m "
