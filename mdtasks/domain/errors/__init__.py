"""Every error mdtasks raises, in one tree, with its data as attributes.

``str(error)`` is one line that says what is wrong and with which value; ``hint`` says what to do next.
``code`` is the stable, machine-readable name that the CLI prints with ``--json``, HTTP answers carry,
metrics use as a label and ``job_attempts.error_class`` stores. Driver errors (psycopg, redis, kombu) are
turned into these once, at the driver's edge, always with ``raise ... from exc``.
"""

from __future__ import annotations

from mdtasks.domain.errors.asked import (
    PROVIDER_SETTINGS,
    BodyTooLargeError,
    CanaryError,
    CannotAdjustError,
    ConfigurationError,
    ConflictError,
    Down,
    ForbiddenError,
    InvalidPolicyError,
    InvalidRequestError,
    MediaTypeError,
    NotFoundError,
    PolicyChangedError,
    StackNotRunningError,
    TooManyGoDownError,
    TooManyLeaveError,
    TooManyMoveError,
    UnauthorizedError,
    UnknownJobError,
    UnknownProviderError,
    UnknownSymbolError,
)
from mdtasks.domain.errors.base import MdtasksError
from mdtasks.domain.errors.findings import (
    ActionWithoutJumpError,
    JumpWithoutActionError,
    NameUnclearError,
    SuspectBarsError,
)
from mdtasks.domain.errors.servers import (
    BrokerUnavailableError,
    BusyError,
    JobsFailedError,
    QueueFullError,
    StaleClaimError,
    StoreFullError,
    StoreUnavailableError,
    TooManyClientsError,
    UnavailableError,
)
from mdtasks.domain.errors.vendors import (
    AuthError,
    BadBarsError,
    BadPayloadError,
    CircuitOpenError,
    GarbledAnswerError,
    HeldBackError,
    NoDataError,
    NotEntitledError,
    NotYetError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitedError,
    RateSpentError,
    RefusedRequestError,
    SilenceDoubtedError,
    TimeSpentError,
    UnsupportedError,
    VendorError,
)

__all__ = [
    "PROVIDER_SETTINGS",
    "ActionWithoutJumpError",
    "AuthError",
    "BadBarsError",
    "BadPayloadError",
    "BodyTooLargeError",
    "BrokerUnavailableError",
    "BusyError",
    "CanaryError",
    "CannotAdjustError",
    "CircuitOpenError",
    "ConfigurationError",
    "ConflictError",
    "Down",
    "ForbiddenError",
    "GarbledAnswerError",
    "HeldBackError",
    "InvalidPolicyError",
    "InvalidRequestError",
    "JobsFailedError",
    "JumpWithoutActionError",
    "MdtasksError",
    "MediaTypeError",
    "NameUnclearError",
    "NoDataError",
    "NotEntitledError",
    "NotFoundError",
    "NotYetError",
    "PolicyChangedError",
    "ProviderError",
    "ProviderTimeoutError",
    "QueueFullError",
    "RateLimitedError",
    "RateSpentError",
    "RefusedRequestError",
    "SilenceDoubtedError",
    "StackNotRunningError",
    "StaleClaimError",
    "StoreFullError",
    "StoreUnavailableError",
    "SuspectBarsError",
    "TimeSpentError",
    "TooManyClientsError",
    "TooManyGoDownError",
    "TooManyLeaveError",
    "TooManyMoveError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownJobError",
    "UnknownProviderError",
    "UnknownSymbolError",
    "UnsupportedError",
    "VendorError",
    "error_class",
    "is_retryable",
]


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
