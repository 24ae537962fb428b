"""mdtasks keeps a market-data store complete: tiers of symbols, capped backfill queues, dead letters, on Celery."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    app: Celery


def __getattr__(name: str) -> Any:
    """``mdtasks.app``, the Celery app that ``celery -A mdtasks`` looks for, made when it is first asked for."""
    if name == "app":
        from mdtasks.queue.app import app as celery_app

        return celery_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
