"""mdtasks keeps a market-data store complete: tiers of symbols, capped backfill queues, dead letters, on Celery.

``mdtasks.bars`` reads it into a pandas DataFrame, ``mdtasks.bars_arrow`` into an Arrow table.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    from mdtasks.reading_client import bars as bars
    from mdtasks.reading_client import bars_arrow as bars_arrow

    app: Celery


def __getattr__(name: str) -> Any:
    """``mdtasks.app``, the Celery app that ``celery -A mdtasks`` looks for, and what reads bars; each is made when it
    is first asked for, so that who imports the package for something else waits for none of it.
    """
    if name == "app":
        from mdtasks.queue.app import app as celery_app

        return celery_app
    if name in ("bars", "bars_arrow"):
        from mdtasks import reading_client

        return getattr(reading_client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
