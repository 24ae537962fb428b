"""Every error mdtasks raises, in one tree, with its data as attributes.

``str(error)`` is one line that says what is wrong and with which value; ``hint`` says what to do next.
``code`` is the stable, machine-readable name that the CLI prints with ``--json``, HTTP answers carry,
metrics use as a label and ``job_attempts.error_class`` stores. Driver errors (psycopg, redis, kombu) are
turned into these once, at the driver's edge, always with ``raise ... from exc``.
"""

from __future__ import annotations

import difflib
from typing import ClassVar, Final


class MdtasksError(Exception):
    """Something mdtasks refuses or could not do."""

    #: Stable name of the error: JSON, metric label, ``error_class`` in the store.
    code: ClassVar[str] = "error"
    #: HTTP status that the web app answers with.
    http_status: ClassVar[int] = 500
    #: Exit code of the command line.
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel from a worker's child to its parent by pickle; constructors here take keywords.
        return _restored, (type(self), self.args, self.__dict__)

    def as_dict(self) -> dict[str, object]:
        """The error as HTTP and ``--json`` show it: code, message, hint."""
        return {"code": self.code, "error": self.message, "hint": self.hint}


def _restored(cls: type[MdtasksError], args: tuple[object, ...], state: dict[str, object]) -> MdtasksError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


# -- what the caller asked for ---------------------------------------------------------------------


class InvalidRequestError(MdtasksError):
    """A request with a wrong value: ``field`` names it."""

    code = "invalid_request"
    http_status = 422
    exit_code = 2

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "field": self.field}


class UnknownSymbolError(InvalidRequestError):
    """A symbol that no instrument bears now."""

    code = "unknown_symbol"

    def __init__(self, symbols: list[str], *, known: list[str] | None = None) -> None:
        named = ", ".join(symbols[:5]) + (f" and {len(symbols) - 5} more" if len(symbols) > 5 else "")
        close = f"; did you mean {', '.join(known[:3])}?" if known else ""
        super().__init__(
            f"unknown symbol {named}{close}",
            field="symbol",
            hint=f"add it with `mdtasks universe add {symbols[0]} --mic XNYS`, or see `mdtasks universe list`",
        )
        self.symbols = symbols


#: What gives a process providers, for people who have none.
PROVIDER_SETTINGS: Final = (
    "MDTASKS_FILES_MAP, MDTASKS_LEAN_DIR, MDTASKS_SIMULATOR=1, MDTASKS_YFINANCE=1 or a vendor's key, such as "
    "MDTASKS_ALPACA_KEY (docs/providers.md lists them)"
)


class UnknownProviderError(InvalidRequestError):
    """A provider that does not exist or is not configured here."""

    code = "unknown_provider"

    def __init__(self, provider: str, *, configured: list[str]) -> None:
        near = difflib.get_close_matches(provider, configured, n=1)
        super().__init__(
            f"provider {provider!r} is not configured"
            + (f"; did you mean {near[0]}?" if near else "")
            + f"; configured: {', '.join(configured) or 'none'}",
            field="provider",
            hint="`mdtasks providers` lists those that there are"
            if near
            else f"to have it, set {PROVIDER_SETTINGS}, then `mdtasks doctor`",
        )
        self.provider = provider


class UnknownJobError(InvalidRequestError):
    """A message for a backfill that has no row: somebody pushed it past the enqueue. Nobody could claim it."""

    code = "unknown_job"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"there is no job {job_id}, only a message",
            field="job_id",
            hint="enqueue through `mdtasks backfill` or POST /ops/backfill: they write the row first",
        )


class NotFoundError(MdtasksError):
    """What was asked for is not there."""

    code = "not_found"
    http_status = 404
    exit_code = 3


class ConflictError(MdtasksError):
    """The thing is there, but not in a state that allows this."""

    code = "conflict"
    http_status = 409
    exit_code = 4


class InvalidPolicyError(InvalidRequestError):
    """A candidate that may not become the policy. ``errors``: each with its path, value, rule and line.

    Nothing was changed: the policy that runs goes on.
    """

    code = "invalid_policy"

    def __init__(self, errors: list[dict[str, object]], said: list[str]) -> None:
        first = f"{len(said)} errors, the first: {said[0]}" if len(said) > 1 else said[0]
        super().__init__(
            f"the policy is refused: {first}",
            field=str(errors[0]["path"]) or "policy",
            hint="nothing was changed; docs/policy.md has every field with its bounds",
        )
        self.errors = errors
        self.said = said

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "errors": self.errors}


class PolicyChangedError(ConflictError):
    """Somebody else changed the policy meanwhile; ``version`` is the newest one. This request changed nothing."""

    code = "policy_changed"

    def __init__(self, version: int, *, expected: int, by: str, at: str) -> None:
        who = f", applied by {by} on {at} UTC" if by else ""
        super().__init__(
            f"the policy is at version {version}{who}, not at {expected}: nothing was changed",
            hint="`mdtasks policy diff` shows what yours would change now; then apply it again",
        )
        self.version = version

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "policy_version": self.version}


class UnauthorizedError(MdtasksError):
    """A request over HTTP that needs the API token and bears none, or a wrong one."""

    code = "unauthorized"
    http_status = 401


class ForbiddenError(MdtasksError):
    """A request over HTTP that comes from where it may not: another machine without a token, another site's page."""

    code = "forbidden"
    http_status = 403


class BodyTooLargeError(InvalidRequestError):
    """A request's body over the limit; it was not read to its end."""

    code = "body_too_large"
    http_status = 413


class MediaTypeError(InvalidRequestError):
    """A request's body that does not say it is JSON."""

    code = "media_type"
    http_status = 415


class ConfigurationError(MdtasksError):
    """A setting that is missing, unknown or wrong: ``name`` is its environment variable."""

    code = "configuration"
    exit_code = 2

    def __init__(self, message: str, *, name: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


class StackNotRunningError(ConfigurationError):
    """No stack runs in this home and no URL of one was given."""

    code = "stack_not_running"
    exit_code = 5

    def __init__(self, home: str) -> None:
        super().__init__(
            f"no mdtasks stack runs in {home}",
            name="MDTASKS_HOME",
            hint="start one with `mdtasks up`, or point --home (or MDTASKS_DATABASE_URL and MDTASKS_REDIS_URL) at one",
        )
        self.home = home


# -- queue, store, broker --------------------------------------------------------------------------


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


# -- providers -------------------------------------------------------------------------------------


class ProviderError(MdtasksError):
    """A provider could not answer. ``retryable`` tells whether asking again later may help."""

    code = "provider_error"
    http_status = 502
    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, provider: str, hint: str = "") -> None:
        super().__init__(f"{provider}: {message}", hint=hint)
        self.provider = provider


class RateLimitedError(ProviderError):
    """The provider said to slow down (HTTP 429). Backpressure, not ill health."""

    code = "rate_limited"

    def __init__(self, message: str, *, provider: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, provider=provider)
        self.retry_after_s = retry_after_s


class HeldBackError(ProviderError):
    """The provider was not asked: we hold back. Says nothing of it, and costs no attempt."""

    code = "held_back"

    def __init__(self, message: str, *, provider: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, provider=provider, hint=f"`mdtasks providers {provider}` says since when and why")
        self.retry_after_s = retry_after_s


class CircuitOpenError(HeldBackError):
    """The provider is left aside, for it failed of late or somebody paused it."""

    code = "circuit_open"


class RateSpentError(HeldBackError):
    """The account's rate has nothing left for a while."""

    code = "rate_spent"


class NotYetError(HeldBackError):
    """The account may have data of this time only later."""

    code = "not_yet"

    def __init__(self, message: str, *, provider: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, provider=provider, retry_after_s=retry_after_s)
        self.hint = "MDTASKS_VENDOR_DELAYS says how old bars must be for the account"


class VendorError(ProviderError):
    """The provider failed on its side (HTTP 5xx, connection refused)."""

    code = "vendor_error"


class ProviderTimeoutError(ProviderError):
    """The provider did not answer in time."""

    code = "timeout"


class BadPayloadError(ProviderError):
    """The provider's answer cannot be read: truncated, corrupt, not the agreed format."""

    code = "bad_payload"
    retryable = False


class GarbledAnswerError(BadPayloadError):
    """An answer that came over the network cut off or as something else; asked again, it may come whole."""

    retryable = True


class BadBarsError(ProviderError):
    """Bars of an answer broke a rule and were quarantined: their time stays open. A later answer may be right."""

    code = "bad_bars"


class SilenceDoubtedError(ProviderError):
    """No bars came where the symbol's own trading makes that near impossible: a hole, until a second source agrees."""

    code = "silence_doubted"


class NoDataError(ProviderError):
    """The provider has no source for this symbol or time (a missing folder or file)."""

    code = "no_data"
    retryable = False


class AuthError(ProviderError):
    """The provider does not accept our key."""

    code = "auth"
    retryable = False


class NotEntitledError(ProviderError):
    """The account's plan does not include this."""

    code = "not_entitled"
    retryable = False


class RefusedRequestError(ProviderError):
    """The provider calls the request itself wrong (HTTP 400, 422), in its own words; again, it would say the same."""

    code = "refused"
    retryable = False


class UnsupportedError(ProviderError):
    """The provider does not declare this capability (interval, quotes, history)."""

    code = "unsupported"
    retryable = False


def is_retryable(error: BaseException) -> bool:
    """Whether another attempt may help: yes for what a server or a vendor may get over, and for what we do not know.

    A job that is wrong, a vendor that refuses and an answer that cannot be read will be no better next time.
    """
    if isinstance(error, ProviderError):
        return error.retryable
    return isinstance(error, UnavailableError) or not isinstance(error, MdtasksError)


def error_class(error: BaseException) -> str:
    """The stable name of an error for the record: our ``code``, else the exception's class."""
    return error.code if isinstance(error, MdtasksError) else type(error).__name__
