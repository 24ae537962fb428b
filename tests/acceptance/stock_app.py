"""A Celery app that knows nothing of mdtasks: stock transport, stock options. Run as ``celery -A stock_app worker``."""

import os
from typing import Any

import redis
from celery import Celery

app = Celery("stock", broker=os.environ["STOCK_BROKER"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name="mdtasks.backfill")  # type: ignore[untyped-decorator]
def backfill(job: dict[str, Any]) -> None:
    """Tell the test which job came."""
    redis.Redis.from_url(os.environ["STOCK_BROKER"]).rpush("stock:seen", job["job_id"])
