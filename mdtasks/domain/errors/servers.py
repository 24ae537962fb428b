"""What the queue, the store and the broker refuse or could not do."""

from __future__ import annotations

from mdtasks.domain.errors.base import MdtasksError


class QueueFullError(MdtasksError):
    """A queue is at its cap: nothing was pushed."""

    code = "queue_full"
    http_status = 429
    exit_code = 6

    def __init__(self, queue: str, *, cap: int, depth: int) -> None:
        super().__init__(
            f"queue {queue} is full: {depth} of {cap} waiting",
            hint="enqueue through `mdtasks backfill` or POST /ops/backfill: what is over the cap waits in PostgreSQL",
        )
        self.queue = queue
        self.cap = cap
        self.depth = depth


class TooManyClientsError(MdtasksError):
    """The live stream serves as many clients as it may, in all or from one address."""

    code = "too_many_clients"
    http_status = 429

    def __init__(self, limit: int, setting: str, address: str = "") -> None:
        whose = f" from {address}" if address else ""
        super().__init__(
            f"there are {limit} clients of the live stream{whose} already",
            hint=f"follow more symbols on one connection, or set {setting}",
        )
        self.limit = limit


class UnavailableError(MdtasksError):
    """A server that mdtasks needs does not answer. Retryable: nothing was lost."""

    code = "unavailable"
    http_status = 503
    exit_code = 7


class StoreUnavailableError(UnavailableError):
    """PostgreSQL does not answer."""

    code = "store_unavailable"


class BrokerUnavailableError(UnavailableError):
    """Redis does not answer."""

    code = "broker_unavailable"


class StoreFullError(UnavailableError):
    """PostgreSQL or Redis has no room left (disk full, out of memory)."""

    code = "store_full"


class BusyError(UnavailableError):
    """As much is being done at the same time as may be. Asking again in a moment helps."""

    code = "busy"


class StaleClaimError(MdtasksError):
    """The claim this work ran under was taken over: its effects were rolled back, another attempt owns the job."""

    code = "stale_claim"
    http_status = 409


class JobsFailedError(MdtasksError):
    """Some of the jobs that somebody waited for ended in the dead letters."""

    code = "jobs_failed"
    exit_code = 8

    def __init__(self, failed: int, total: int, *, last_error: str | None) -> None:
        super().__init__(
            f"{failed} of {total} jobs failed" + (f"; the newest error: {last_error}" if last_error else ""),
            hint="`mdtasks dlq groups` says why, `mdtasks dlq requeue --all` sends them again",
        )
        self.failed = failed
