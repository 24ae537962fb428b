"""Who left word, and for how long it is remembered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import redis

from mdtasks.connections import open_redis
from mdtasks.flows import presence
from mdtasks.worker.presence import Presence

NOW = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)


def test_a_worker_is_expected_for_a_day_after_its_last_word(redis_client: redis.Redis) -> None:
    presence.worker_seen(redis_client, "t0@here", NOW)
    presence.worker_seen(redis_client, "t1@here", NOW - timedelta(hours=23))
    presence.worker_seen(redis_client, "gone@here", NOW - timedelta(hours=25))
    at = NOW.timestamp()
    assert presence.workers_seen(redis_client, NOW) == {"t0@here": at, "t1@here": at - 23 * 3600}
    presence.worker_left(redis_client, "t1@here")
    assert set(presence.workers_seen(redis_client, NOW)) == {"t0@here"}


def test_word_is_left_now_and_then_and_a_redis_that_is_away_costs_nothing(
    redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    opened = []

    def connect() -> redis.Redis:
        opened.append(1)
        return redis_client

    word = Presence(connect)
    word.alive("t0@here")
    redis_client.delete(presence.WORKERS_KEY)
    word.alive("t0@here")  # a moment later: not again
    assert not redis_client.exists(presence.WORKERS_KEY)
    assert opened == [1]
    away = Presence(lambda: open_redis("redis://127.0.0.1:1/0"))
    away.alive("t1@here")
    away.left("t1@here")
    assert "t1@here could not leave word" in caplog.text
