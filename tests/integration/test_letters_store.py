"""Dead letters and the jobs behind them: what a requeue merges, what a purge gives up, why a letter stays."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from mdtasks.domain.errors import NotFoundError
from mdtasks.flows.backfill import Answer, enqueue_jobs
from mdtasks.flows.deps import Deps
from mdtasks.flows.letters import Dead, record, requeue_job
from mdtasks.queue.letters import Reason
from mdtasks.store import job_reports, jobs, letters
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.test_seams import a_job, wire


@pytest.fixture
def failed(deps: Deps) -> Answer:
    """The request of a job that has failed for good, and has its letter."""
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("S1", "24/7", "crypto")])
    answer = enqueue_jobs([a_job()], "test", deps)
    fail_for_good(deps)
    return answer


def fail_for_good(deps: Deps) -> None:
    """Let the job's next attempt be its last, and bury it."""
    with deps.database.transaction() as connection:
        claim = jobs.claim(connection, "job-0", "t0@here/1", 60)
        assert claim is not None
        assert jobs.fail(connection, claim, jobs.Ending("failed", error_class="vendor_error"), None)
        letter = letters.letter_of_failed(connection, "job-0", "{}", "", "T0")
        assert letter is not None
        assert letters.record(connection, letter)


def status(deps: Deps) -> str:
    """How the job stands."""
    with deps.database.transaction() as connection:
        return jobs.statuses(connection, ["job-0"])["job-0"]


def age_letters(deps: Deps) -> None:
    """Let every letter there is be a month old."""
    with deps.database.transaction() as connection:
        connection.execute(text("UPDATE dead_letters SET died_at = now() - interval '30 d'"))


def purge(deps: Deps) -> int:
    """Purge what is older than a week."""
    with deps.database.transaction() as connection:
        before = datetime.now(UTC) - timedelta(days=7)
        found = letters.older(connection, before)
        purged = letters.purge(connection, before, "test")
    assert purged == sum(row["letters"] for row in found)
    return purged


def test_a_purge_gives_up_the_jobs_of_the_open_letters_it_deletes(deps: Deps, failed: Answer) -> None:
    age_letters(deps)
    assert (purge(deps), status(deps)) == (1, "cancelled")


def test_a_purge_of_a_requeued_letter_leaves_a_job_that_failed_again_to_its_newer_letter(
    deps: Deps, failed: Answer
) -> None:
    requeue_job("job-0", "test", deps)
    age_letters(deps)
    fail_for_good(deps)
    assert (purge(deps), status(deps)) == (1, "failed")
    assert requeue_job("job-0", "test", deps)["requeued"] == 1


def test_a_request_whose_job_is_merged_at_its_requeue_waits_for_the_job_it_merged_with(
    deps: Deps, failed: Answer
) -> None:
    enqueue_jobs([a_job(0, job_id="other")], "test", deps)
    assert requeue_job("job-0", "test", deps)["merged"] == 1
    with deps.database.transaction() as connection:
        progress = job_reports.progress(connection, failed.request_id)
    assert (progress.jobs, progress.ended) == ({"cancelled": 1, "queued": 1}, 1)


@pytest.mark.parametrize("now", ["cancelled", "done", "running"])
def test_a_letter_whose_job_is_not_failed_any_more_says_so(deps: Deps, failed: Answer, now: str) -> None:
    with deps.database.transaction() as connection:
        connection.execute(text("UPDATE backfill_jobs SET status = CAST(:now AS job_status)"), {"now": now})
    with pytest.raises(NotFoundError, match=f"its job is {now}"):
        requeue_job("job-0", "test", deps)


def test_a_letter_of_a_backfill_that_was_only_a_message_says_that_there_is_no_job(deps: Deps) -> None:
    message = Dead("letter-1", wire(a_job(5)), Reason("rejected", "no"), "T0")
    assert record(message, deps) == "recorded"
    with pytest.raises(NotFoundError, match=re.escape("there is no job job-5, only a message")):
        requeue_job("letter-1", "test", deps)


def test_the_progress_of_a_request_is_read_by_indexes(deps: Deps, failed: Answer) -> None:
    enqueue_jobs([a_job(number) for number in range(1, 3000)], "test", deps)
    with deps.database.transaction() as connection:
        connection.execute(text("ANALYZE backfill_jobs, request_jobs"))
        statement = text(f"EXPLAIN {jobs.SQL['request_progress'].text}")
        plan = "\n".join(connection.execute(statement, {"request_id": failed.request_id}).scalars())
    assert "Seq Scan on backfill_jobs" not in plan, plan
