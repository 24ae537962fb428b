"""How an attempt ends when it did not succeed: another one later, or the end. One rule for all who may say so."""

from __future__ import annotations

import random
from typing import Final

from sqlalchemy import Connection

from mdtasks.domain.errors import HeldBackError, RateLimitedError, SilenceDoubtedError, is_retryable
from mdtasks.domain.jobs import pause_after
from mdtasks.queue.letters import Reason
from mdtasks.settings import Settings
from mdtasks.store import jobs

#: Error classes after which the job itself is at fault, however many attempts are left.
_FINAL: Final = frozenset({"time_limit", "invalid_request", "unknown_task", "undecodable"})


#: How long a job waits for a provider that somebody paused, and at least for one that is held back, seconds.
_PAUSED_S: Final = 300.0
_SOON_S: Final = 1.0
#: Those that wait for the same provider look again within so many seconds of each other.
_SPREAD_S: Final = 60.0
#: Attempts that meet the same doubtful silence before people are asked.
_DOUBTS: Final = 3


def next_pause_s(error: Exception, attempt: int, max_attempts: int, settings: Settings) -> float | None:
    """Seconds until the next attempt, or None when there is none. A provider's Retry-After is the least pause; silence
    that is doubted is asked for again after the settle delay, and at most three times.
    """
    doubted = isinstance(error, SilenceDoubtedError)
    if attempt >= (min(_DOUBTS, max_attempts) if doubted else max_attempts) or not is_retryable(error):
        return None
    wanted_s = error.retry_after_s if isinstance(error, RateLimitedError) else settings.settle_s if doubted else None
    return max(_pause_s(attempt, settings), wanted_s or 0.0)


def held_pause_s(error: HeldBackError) -> float:
    """Seconds until a job whose providers are held back looks again; a little apart, for many wait for the same one.

    One that waits for a person (a pause) is woken when the provider is let go on.
    """
    wait_s = max(error.retry_after_s or _PAUSED_S, _SOON_S)
    return wait_s + min(0.25 * wait_s, _SPREAD_S) * random.random()  # noqa: S311 - spreads load, protects nothing


def end_lost(connection: Connection, held: jobs.Held, reason: Reason, settings: Settings) -> bool:
    """End the attempt of a worker that cannot do it itself; True when the job is to be tried again."""
    final = reason.error_class in _FINAL or held.attempts >= held.max_attempts
    ending = jobs.Ending("failed" if final else "lost", error_class=reason.error_class, message=reason.message)
    jobs.fail(connection, held, ending, None if final else _pause_s(held.attempts, settings))
    return not final


def _pause_s(attempt: int, settings: Settings) -> float:
    jitter = random.random()  # noqa: S311 - spreads load, protects nothing
    return pause_after(attempt, base_s=settings.retry_base_s, max_s=settings.retry_max_s, jitter=jitter)
