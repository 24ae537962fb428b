"""Ready-made valid jobs of each type, for the tests here and for yours. Plain values: no pytest, no services.

The models are what this system's own beat makes; ``job_documents`` are the same jobs as the JSON objects that an
outside rate-limit coordinator pushes. Every keyword replaces a field; what the models refuse is refused here too.

>>> from mdtasks.testing import backfill_job
>>> backfill_job(symbol="MSFT", priority="T0").priority
<Tier.T0: 'T0'>
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from mdtasks.domain.jobs import BackfillJob, BarsFetchJob, QuotesFetchJob, TimeWindow

#: A whole regular session of XNYS, Tuesday 2024-01-02, 09:30 to 16:00 in New York: 390 minutes.
SESSION: Final = TimeWindow(
    start=datetime(2024, 1, 2, 14, 30, tzinfo=UTC),
    end=datetime(2024, 1, 2, 21, 0, tzinfo=UTC),
)


def bars_fetch_job(**changes: Any) -> BarsFetchJob:
    """A live fetch of two symbols' latest minutes. Raises pydantic.ValidationError on a wrong change."""
    return BarsFetchJob.model_validate(
        {"job_id": "bars-fetch-1", "priority": "T0", "symbols": ("AAPL", "MSFT"), "interval": "1m"} | changes
    )


def quotes_fetch_job(**changes: Any) -> QuotesFetchJob:
    """A live fetch of two symbols' quotes. Raises pydantic.ValidationError on a wrong change."""
    return QuotesFetchJob.model_validate(
        {"job_id": "quotes-fetch-1", "priority": "T0", "symbols": ("AAPL", "MSFT")} | changes
    )


def backfill_job(**changes: Any) -> BackfillJob:
    """A backfill of one symbol's minutes of ``SESSION``. Raises pydantic.ValidationError on a wrong change."""
    return BackfillJob.model_validate(
        {"job_id": "backfill-1", "symbol": "AAPL", "interval": "1m", "time_window": SESSION} | changes
    )


def jobs() -> list[BarsFetchJob | QuotesFetchJob | BackfillJob]:
    """One valid job of each type."""
    return [bars_fetch_job(), quotes_fetch_job(), backfill_job()]


def job_documents() -> list[dict[str, Any]]:
    """The same jobs as an outside coordinator pushes them: JSON objects, times as ISO 8601 text, for ``json.dumps``.

    The first carries only what must be there, so defaults are met too.
    """
    sparse: dict[str, Any] = {"type": "bars_fetch", "symbols": ["AAPL", "MSFT"]}
    return [sparse, *(job.model_dump(mode="json") for job in jobs())]
