"""Requests for bars of whole listings: what lies outside a listing's life, what is too much, what is counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import Tier
from mdtasks.flows import backfill
from mdtasks.flows.backfill import Answer, BackfillRequest, enqueue_jobs, request_backfill
from mdtasks.flows.deps import Deps
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
