"""What providers could not answer, and why they were not asked."""

from __future__ import annotations

from typing import ClassVar

from mdtasks.domain.errors.base import MdtasksError


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


class TimeSpentError(HeldBackError):
    """The job's own time was over before everything was asked for."""

    code = "time_spent"


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
