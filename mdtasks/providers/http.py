"""What every vendor asked over HTTP has in common, whichever library its SDK makes requests with.

A ``Wire`` stands between an SDK's transport and the gate: it says where a request really goes, and turns what came
back, or what did not, into our errors while the gate still watches. A vendor's own wire overrides how its addresses
are named, what a sound answer holds, and what its refusals mean. Nothing that leaves here holds a secret.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlsplit

import orjson

from mdtasks.domain.errors import (
    AuthError,
    GarbledAnswerError,
    NotEntitledError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitedError,
    RefusedRequestError,
    VendorError,
)
from mdtasks.providers.access import Access
from mdtasks.providers.gate import Gate

_TAGS: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
#: Where vendors put their words, the most telling first.
_WORDS: Final = ("message", "error", "detail", "description")
_TOO_MANY: Final = 429
_ENTITY_WORDS: Final = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers (names in lower case), the whole body, decoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
        return cls(status, {name.lower(): value for name, value in headers.items()}, body)


class Wire:
    """The rules of one vendor's HTTP. Serves one thread at a time, as adapters do."""

    #: The provider's name, for errors.
    provider: ClassVar[str]
    #: Statuses of answers that hold what was asked for.
    good: ClassVar[frozenset[int]] = frozenset({200})

    def __init__(self, gate: Gate, access: Access, secrets: Sequence[str] = ()) -> None:
        self._gate = gate
        self._url = access.url
        #: One request takes at most this, seconds.
        self.timeout_s = access.timeout_s
        self._secrets = tuple(form for secret in secrets for form in _forms(secret))
        #: Where the bodies of sound answers are kept as they came; None: nowhere.
        self._kept: list[bytes] | None = None

    @contextmanager
    def keeping(self) -> Iterator[list[bytes]]:
        """The bodies of the sound answers that come meanwhile, as they came, decoded."""
        self._kept = []
        try:
            yield self._kept
        finally:
            self._kept = None

    def address(self, url: str) -> str:
        """Where the request really goes: the vendor's own address, or the one that the settings give instead."""
        if self._url is None:
            return url
        parts = urlsplit(url)
        return self._url + (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def request(self, url: str) -> AbstractContextManager[None]:
        """The gate around one request of this address. Leave it by what ``accept`` or ``failed`` raises."""
        return self._gate.request(self.endpoint(urlsplit(url).path))

    def accept(self, url: str, answer: Answer) -> None:
        """Return when the answer holds what was asked for; else raise the ProviderError that it means."""
        endpoint = self.endpoint(urlsplit(url).path)
        if answer.status not in self.good:
            raise self.refusal(endpoint, answer)
        self.verify(endpoint, answer.body)
        if self._kept is not None:
            self._kept.append(answer.body)

    def failed(
        self, url: str, exc: BaseException, *, timed_out: bool, cut_off: bool = False, reason: str = ""
    ) -> ProviderError:
        """What it means that no answer came, or half of one: to be raised from ``exc``."""
        reason = reason or _reason(exc)
        host = urlsplit(self.address(url)).netloc.rpartition("@")[2]  # a proxy's address may hold a password
        if timed_out:
            return ProviderTimeoutError(f"{host} did not answer in {self.timeout_s:g} s", provider=self.provider)
        if cut_off:
            return self.garbled(f"the answer of {host} broke off ({reason})")
        return VendorError(self.clean(f"no answer from {host}: {reason}"), provider=self.provider)

    def clean(self, text: str) -> str:
        """The text in one line, without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())

    def garbled(self, what: str) -> GarbledAnswerError:
        """The error of an answer that is not what was agreed."""
        return GarbledAnswerError(self.clean(what), provider=self.provider)

    def json(self, body: bytes) -> Any:
        """The JSON in the body. Raises GarbledAnswerError."""
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise self.garbled(f"an answer of {len(body)} bytes is no JSON: {exc}") from exc

    # -- what a vendor's own wire overrides --------------------------------------------------------

    def endpoint(self, path: str) -> str:
        """What is asked at this path, as metrics name it."""
        raise NotImplementedError

    def verify(self, endpoint: str, body: bytes) -> None:
        """Raise GarbledAnswerError for a good answer that lacks what this endpoint always gives."""
        raise NotImplementedError

    def refusal(self, endpoint: str, answer: Answer) -> ProviderError:  # noqa: ARG002 - for vendors' own wires
        """What a status other than a good one means."""
        words = self.words(answer)
        said = f"HTTP {answer.status}" + (f": {words}" if words else "")
        if answer.status == _TOO_MANY:
            return RateLimitedError(said, provider=self.provider, retry_after_s=retry_after_s(answer.headers))
        kind: type[ProviderError] = RefusedRequestError
        if answer.status < 400 or answer.status >= 500:
            kind = VendorError  # a redirect is not followed: it would carry the key elsewhere
        kinds: dict[int, type[ProviderError]] = {
            401: AuthError,
            402: NotEntitledError,
            403: NotEntitledError,
            408: ProviderTimeoutError,
        }
        return kinds.get(answer.status, kind)(said, provider=self.provider)

    def words(self, answer: Answer) -> str:
        """What the vendor says in an answer, in one short line without secrets; "" when nothing."""
        try:
            found = _said(orjson.loads(answer.body))
        except orjson.JSONDecodeError:
            found = _TAGS.sub(" ", answer.body.decode("utf-8", "replace"))
        return self.clean(found)[:_ENTITY_WORDS]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long a 429 asks to wait: Retry-After in seconds or as a date, else X-RateLimit-Reset (unix seconds).

    Dates are reckoned from the answer's own Date, so a clock that is off here does not matter. None: it does not say.
    """
    said = headers.get("retry-after", "").strip()
    reset = headers.get("x-ratelimit-reset", "").strip()
    found = _number(said)
    if found is None and said:
        found = _since(_unix_s(said), headers)
    if found is None:
        found = _since(_number(reset), headers)
    return None if found is None or not found < 86_400 else max(found, 0.0)


def causes(exc: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, outermost first; libraries keep that as a cause, a reason or an argument."""
    following: BaseException | None = exc
    while following is not None:
        yield following
        held = (following.__cause__, following.__context__, getattr(following, "reason", None), *following.args)
        following = next((each for each in held if isinstance(each, BaseException)), None)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _unix_s(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _since(at_s: float | None, headers: Mapping[str, str]) -> float | None:
    """Seconds from when the answer was sent until ``at_s`` (unix seconds)."""
    if at_s is None:
        return None
    sent_s = _unix_s(headers.get("date", ""))
    return at_s - (time.time() if sent_s is None else sent_s)


def _said(content: Any) -> str:
    """The vendor's words in a JSON answer, wherever it puts them."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        for key in _WORDS:
            if content.get(key):
                return _said(content[key])
        return next((said for said in map(_said, content.values()) if said), "") if len(content) <= 2 else ""
    return ""


def _reason(exc: BaseException) -> str:
    """The innermost cause in the system's words; never an address, which libraries put into theirs."""
    found = list(causes(exc))
    said = (each.strerror for each in reversed(found) if isinstance(each, OSError))
    return next(filter(None, said), type(found[-1]).__name__)


def _forms(secret: str) -> tuple[str, ...]:
    """A secret as it may show: plain, in an address, as the name of basic authentication."""
    basic = base64.b64encode(f"{secret}:".encode()).decode()
    return tuple(dict.fromkeys(form for form in (secret, quote(secret, safe=""), basic) if form))
