"""Requests for bars of whole listings: what lies outside a listing's life, what is too much, what is counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import BackfillJob, Tier
from mdtasks.domain.sessions import Calendars
from mdtasks.flows import backfill
from mdtasks.flows.backfill import Answer, BackfillRequest, enqueue_jobs, request_backfill
from mdtasks.flows.deps import Deps
from mdtasks.flows.ingest import Outcome, run_backfill
from mdtasks.observe import metrics
from mdtasks.store import job_reports
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.test_seams import a_job, counted

NOW = datetime(2025, 2, 1, tzinfo=UTC)


@pytest.fixture
def listed(deps: Deps) -> Deps:
    """Listings of January 2025: one from the 10th on, one until the 10th, one that ended the year before."""
    dates = {"NEW": (date(2025, 1, 10), None), "OLD": (None, date(2025, 1, 10)), "GONE": (None, date(2024, 6, 1))}
    with deps.database.transaction() as connection:
        add_instruments(
            connection, [Instrument(symbol, "24/7", "crypto", Tier.T1, *life) for symbol, life in dates.items()]
        )
    return deps


def ask(deps: Deps, *symbols: str) -> Answer:
    """A request for January."""
    asked = BackfillRequest.parse({"symbol": list(symbols), "start": "2025-01-01T00:00Z", "end": "2025-02-01T00:00Z"})
    return request_backfill(asked, "test", deps, NOW)


def test_only_the_time_in_which_an_instrument_is_listed_is_asked_for(listed: Deps) -> None:
    answer = ask(listed, "NEW", "OLD")
    assert (answer.queued, answer.covered) == (22 + 9, 0)
    with listed.database.transaction() as connection:
        new = job_reports.list_jobs(connection, symbol="NEW")
        old = job_reports.list_jobs(connection, symbol="OLD")
    assert min(job["start"] for job in new) == max(job["end"] for job in old) == datetime(2025, 1, 10, tzinfo=UTC)


def test_an_instrument_that_was_not_listed_then_lacks_nothing(listed: Deps) -> None:
    answer = ask(listed, "GONE")
    assert (answer.queued, answer.covered) == (0, 1)


def test_a_request_of_too_many_jobs_is_refused_whole_with_what_to_do(
    listed: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "MAX_JOBS", 61)
    with pytest.raises(InvalidRequestError, match="2 symbols in that window make up to 62 jobs") as refused:
        ask(listed, "NEW", "OLD")
    assert (refused.value.field, "fewer symbols" in refused.value.hint) == ("symbol", True)
    assert [counted(listed, table) for table in ("requests", "backfill_jobs")] == [0, 0]
    assert ask(listed, "NEW").queued == 22


def test_every_job_asked_for_is_counted_by_what_became_of_it(listed: Deps) -> None:
    results = ("queued", "deferred", "merged", "refused")
    before = {result: _count(result) for result in results}
    one_place = listed.settings.model_copy(update={"cap_t0": 1})
    listed = replace(listed, settings=one_place)
    enqueue_jobs([a_job(number, symbol="NEW") for number in range(3)], "test", listed)
    enqueue_jobs([a_job(0, symbol="NEW"), a_job(7, symbol="NOBODY")], "test", listed)
    assert {result: _count(result) - before[result] for result in results} == {
        "queued": 1,
        "deferred": 2,
        "merged": 1,
        "refused": 1,
    }


def _count(result: str) -> float:
    (family,) = metrics.BACKFILL_ENQUEUED.labels(tier="T0", result=result).collect()
    return family.samples[0].value


#: SPY's exchange in the week of a Friday, 2026-11-20: opens at 14:30, closes at 21:00.
_MOMENTS = [
    ("before the open", "2026-11-20T09:00:30Z", "2026-11-20T00:00Z", "2026-11-20T09:00Z"),
    ("during the session", "2026-11-20T15:30:30Z", "2026-11-20T00:00Z", "2026-11-20T15:30Z"),
    ("after the close", "2026-11-20T23:00:30Z", "2026-11-21T00:00Z", "2026-11-20T23:00Z"),
    ("on a weekend", "2026-11-22T12:00:30Z", "2026-11-22T00:00Z", "2026-11-22T12:00Z"),
]


@pytest.mark.parametrize(
    ("now", "days_end", "minutes_end"), [each[1:] for each in _MOMENTS], ids=[m[0] for m in _MOMENTS]
)
def test_a_request_that_is_repeated_is_covered(deps: Deps, now: str, days_end: str, minutes_end: str) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("SPY", "XNYS"), Instrument("BTC-USD", "24/7", "crypto")])
    at = datetime.fromisoformat(now)
    spy, btc = ({"symbol": symbol, "interval": "1d", "sessions": 30} for symbol in ("SPY", "BTC-USD"))
    for document in (spy, btc, btc | {"interval": "1m", "sessions": 1}):
        asked = BackfillRequest.parse(document)
        assert request_backfill(asked, "test", deps, at).queued
        for job in _asked_for(deps):
            assert run_backfill(job, deps, "t1@here/1", at + timedelta(seconds=150)).outcome is Outcome.DONE
        again = request_backfill(asked, "test", deps, at)
        assert (again.queued, again.merged, again.covered) == (0, 0, 1)
    calendars = deps.calendars
    assert BackfillRequest.parse(spy).window(calendars.get("XNYS"), at).end == datetime.fromisoformat(days_end)
    hours = BackfillRequest.parse(spy | {"interval": "1m"})
    assert hours.window(calendars.get("XNYS"), at).end == datetime.fromisoformat(minutes_end)


def _asked_for(deps: Deps) -> list[BackfillJob]:
    with deps.database.transaction() as connection:
        rows = job_reports.list_jobs(connection, status="queued", limit=1000)
    windows = [{"start": row["start"], "end": row["end"]} for row in rows]
    return [
        BackfillJob.model_validate(
            {"job_id": row["id"], "symbol": row["symbol"], "interval": row["interval"], "time_window": window}
        )
        for row, window in zip(rows, windows, strict=True)
    ]


def test_an_interval_that_an_early_close_ended_is_asked_for() -> None:
    xnys = Calendars().get("XNYS")  # closes at 18:00 on the day after Thanksgiving
    asked = BackfillRequest.parse({"symbol": "SPY", "interval": "1d", "start": "2026-11-27"})
    assert asked.window(xnys, datetime(2026, 11, 27, 18, tzinfo=UTC)).end == datetime(2026, 11, 28, tzinfo=UTC)


@pytest.mark.parametrize(("mic", "interval"), [("XNYS", "1d"), ("24/7", "1d"), ("24/7", "1h")])
def test_a_window_in_which_nothing_has_ended_is_refused_with_what_has(mic: str, interval: str) -> None:
    start = "2026-11-20T15:00Z" if interval == "1h" else "2026-11-20"
    asked = BackfillRequest.parse({"symbol": "SPY", "interval": interval, "start": start})
    with pytest.raises(InvalidRequestError, match="has ended since start 2026-11-20") as refused:
        asked.window(Calendars().get(mic), datetime(2026, 11, 20, 15, 30, tzinfo=UTC))
    assert (refused.value.field, "lies before 2026-11-20" in refused.value.hint) == ("start", True)


def test_the_last_sessions_are_those_that_have_ended() -> None:
    asked = BackfillRequest.parse({"symbol": "SPY", "interval": "1d", "sessions": 1})
    window = asked.window(Calendars().get("XNYS"), datetime(2026, 11, 20, 15, 30, tzinfo=UTC))
    assert (window.start, window.end) == (datetime(2026, 11, 19, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC))
