"""Jobs: one shape for both ways in; what is wrong is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mdtasks import testing
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, Interval, QuotesFetchJob, Tier, TimeWindow, parse_job

SYMBOLS = st.from_regex(r"\A[A-Za-z0-9^][A-Za-z0-9._/^=:-]{0,31}\Z")
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=ZONES)  # noqa: DTZ001 - hypothesis' bounds
BASE = st.fixed_dictionaries(
    {
        "job_id": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z"),
        "priority": st.sampled_from(Tier),
        "provider_hint": st.none() | st.from_regex(r"\A[a-z][a-z0-9_]{0,31}\Z"),
    }
)


@st.composite
def windows(draw: st.DrawFn) -> TimeWindow:
    start = draw(TIMES)
    return TimeWindow(start=start, end=start + timedelta(microseconds=draw(st.integers(1, 10**13))))


@st.composite
def any_job(draw: st.DrawFn) -> BarsFetchJob | QuotesFetchJob | BackfillJob:
    base = draw(BASE)
    kind = draw(st.sampled_from([BarsFetchJob, QuotesFetchJob, BackfillJob]))
    if kind is QuotesFetchJob:
        return QuotesFetchJob(symbols=tuple(draw(st.lists(SYMBOLS, min_size=1, max_size=5))), **base)
    interval = draw(st.sampled_from(Interval))
    if kind is BackfillJob:
        return BackfillJob(symbol=draw(SYMBOLS), interval=interval, time_window=draw(windows()), **base)
    return BarsFetchJob(
        symbols=tuple(draw(st.lists(SYMBOLS, min_size=1, max_size=5))),
        interval=interval,
        time_window=draw(st.none() | windows()),
        **base,
    )


@given(any_job())
def test_a_job_survives_its_json_unchanged(job: BarsFetchJob | QuotesFetchJob | BackfillJob) -> None:
    assert parse_job(job.model_dump_json()) == job
    assert parse_job(json.loads(job.model_dump_json())) == job
    assert type(parse_job(job.model_dump_json().encode())) is type(job)


@given(TIMES, st.integers(1, 10**13))
def test_a_window_is_held_in_utc_and_means_the_same_instants(start: datetime, length_us: int) -> None:
    end = start + timedelta(microseconds=length_us)
    window = TimeWindow(start=start, end=end)
    assert (window.start, window.end) == (start, end)
    assert window.start.tzinfo is UTC
    assert window.end.tzinfo is UTC


@given(TIMES, st.integers(0, 10**13))
def test_a_window_that_does_not_start_before_it_ends_is_refused(end: datetime, length_us: int) -> None:
    with pytest.raises(ValidationError, match="must be before end"):
        TimeWindow(start=end + timedelta(microseconds=length_us), end=end)


def test_windows_an_hour_apart_on_the_wall_clock_may_be_the_same_instant() -> None:
    with pytest.raises(ValidationError, match="must be before end"):
        TimeWindow.model_validate({"start": "2024-01-02T10:00:00+01:00", "end": "2024-01-02T09:00:00Z"})


@pytest.mark.parametrize("field", ["start", "end"])
def test_a_naive_time_is_refused_in_words_that_say_so(field: str) -> None:
    document = testing.backfill_job().model_dump(mode="json")
    document["time_window"][field] = "2024-01-02T15:00:00"
    with pytest.raises(InvalidRequestError, match="is naive: add a time zone") as refused:
        parse_job(json.dumps(document))
    assert refused.value.field == f"time_window.{field}"


@pytest.mark.parametrize(
    ("number", "iso"),
    [
        (1700000000, "2023-11-14T22:13:20Z"),
        ("1700000000", "2023-11-14T22:13:20Z"),
        (1700000000.5, "2023-11-14T22:13:20Z"),
        ("20261102", "2026-11-02T14:30:00Z"),
        (1e300, "2026-11-02T14:30:00Z"),
        (True, "2026-11-02T14:30:00Z"),
    ],
)
def test_a_number_is_no_time_whatever_it_counts(number: object, iso: str) -> None:
    window = {"start": number, "end": "2026-11-03T00:00Z"}
    job: dict[str, object] = {"type": "backfill", "symbol": "A", "time_window": window}
    for data in (job, json.dumps(job)):
        with pytest.raises(
            InvalidRequestError, match=f"is a number, not a time: write ISO 8601, such as {iso}"
        ) as found:
            parse_job(data)
        assert found.value.field == "time_window.start"


def test_a_naive_datetime_object_is_refused_too() -> None:
    with pytest.raises(ValidationError, match="is naive"):
        TimeWindow(start=datetime(2024, 1, 2), end=datetime(2024, 1, 3))  # noqa: DTZ001 - the point


@pytest.mark.parametrize("document", testing.job_documents(), ids=lambda d: str(d["type"]))
def test_what_a_coordinator_pushes_is_parsed(document: dict[str, Any]) -> None:
    job = parse_job(json.dumps(document))
    assert job.type == document["type"]
    assert job.job_id


def test_a_document_with_only_what_it_must_have_gets_the_defaults() -> None:
    job = parse_job('{"type": "bars_fetch", "symbols": ["AAPL"]}')
    assert isinstance(job, BarsFetchJob)
    assert (job.priority, job.interval, job.time_window, job.provider_hint) == (Tier.T1, Interval.M1, None, None)


def test_ready_made_jobs_are_one_of_each_type_and_can_be_changed() -> None:
    assert [job.type for job in testing.jobs()] == ["bars_fetch", "quotes_fetch", "backfill"]
    assert testing.backfill_job(symbol="MSFT", priority="T2").symbol == "MSFT"
    assert testing.bars_fetch_job(interval="5m").interval is Interval.M5
    assert testing.quotes_fetch_job(provider_hint="lean").provider_hint == "lean"
    with pytest.raises(ValidationError):
        testing.backfill_job(symbols=["AAPL"])


@pytest.mark.parametrize("job", testing.jobs(), ids=lambda job: job.type)
def test_an_unknown_field_is_refused_by_its_name(job: BarsFetchJob | QuotesFetchJob | BackfillJob) -> None:
    document = job.model_dump(mode="json") | {"prioritty": "T0"}
    with pytest.raises(InvalidRequestError, match="prioritty") as refused:
        parse_job(document)
    assert refused.value.field == "prioritty"


@pytest.mark.parametrize("job", testing.jobs(), ids=lambda job: job.type)
def test_a_job_cannot_be_changed_after_it_was_made(job: BarsFetchJob | QuotesFetchJob | BackfillJob) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        job.job_id = "other"


@pytest.mark.parametrize(
    ("change", "field", "hint"),
    [
        ({"symbol": ""}, "symbol", "such as AAPL or BTC-USD"),
        ({"symbol": "A" * 33}, "symbol", "up to 32 letters"),
        ({"symbol": "AA PL"}, "symbol", "such as AAPL"),
        ({"symbol": "../AAPL"}, "symbol", "such as AAPL"),
        ({"symbol": "AAPL\n"}, "symbol", "such as AAPL"),
        ({"interval": "2m"}, "interval", "known: '1m', '5m', '15m', '1h' or '1d'"),
        ({"priority": "T3"}, "priority", "known: 'T0', 'T1' or 'T2'"),
        ({"provider_hint": "Yahoo!"}, "provider_hint", "such as files"),
        ({"job_id": ""}, "job_id", "a new one is made"),
        ({"time_window": None}, "time_window", '{"start": "2026-11-02T14:30:00Z"'),
        ({"type": "purge"}, "type", "known types: 'bars_fetch', 'quotes_fetch', 'backfill'"),
        ({"time_window": {"start": "2026-11-02T10:00"}}, "time_window.start", "or a date alone for 00:00 UTC"),
        ({"tier": "T0"}, "tier", "unknown fields are refused"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_and_what_to_write(
    change: dict[str, object], field: str, hint: str
) -> None:
    document = testing.backfill_job().model_dump(mode="json") | change
    with pytest.raises(InvalidRequestError) as refused:
        parse_job(document)
    assert refused.value.field == field
    assert hint in refused.value.hint


@pytest.mark.parametrize("count", [0, 1001])
def test_a_fetch_takes_one_to_a_thousand_symbols(count: int) -> None:
    with pytest.raises(ValidationError):
        testing.bars_fetch_job(symbols=[f"S{n}" for n in range(count)])
    assert len(testing.bars_fetch_job(symbols=[f"S{n}" for n in range(1000)]).symbols) == 1000


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"backfill"', "{}", '{"type": 1}', "\ud800"])
def test_what_is_no_job_is_refused_and_not_a_crash(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parse_job(text)
    assert refused.value.hint


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_text_at_all_does_more_than_be_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse_job(text)
