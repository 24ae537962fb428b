"""Envelopes of the bulk path are Celery's own: a worker that has never heard of mdtasks runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis

from mdtasks.domain.jobs import Tier
from mdtasks.queue.app import make_app
from mdtasks.queue.enqueue import Enqueuer
from mdtasks.settings import Settings
from mdtasks.testing import backfill_job


def test_a_stock_celery_worker_consumes_what_the_bulk_path_pushed(
    settings: Settings, redis_client: redis.Redis, tmp_path: Path
) -> None:
    start = datetime(2025, 1, 2, tzinfo=UTC)
    jobs = [
        backfill_job(job_id=f"job-{n}", time_window={"start": start, "end": start + timedelta(days=n + 1)})
        for n in range(50)
    ]
    Enqueuer(make_app(settings), redis_client, settings).push_backfills(Tier.T0, jobs)
    command = [sys.executable, "-m", "celery", "-A", "stock_app", "worker", "-Q", "T0", "--pool", "solo"]
    environ = {**os.environ, "STOCK_BROKER": settings.require_redis_url()}
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=Path(__file__).parent, env=environ, stdout=log, stderr=log)
        try:
            seen = [redis_client.blpop(["stock:seen"], timeout=60) or (b"", b"") for _ in jobs]
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(30)
    assert [name for _, name in seen] == [job.job_id.encode() for job in jobs]
    assert redis_client.llen("T0") == redis_client.hlen("unacked") == 0
