"""yfinance's session, with Yahoo's gate in it. Imported only with the SDK, which brings curl_cffi.

curl's own timeout is over all of a request, body included. The cookies and the crumb that the SDK asks for first are
not needed for charts: when they fail it goes on without, so their failure costs one timeout and not one for each step.
"""

from __future__ import annotations

from typing import Any

from curl_cffi import CurlECode, requests
from curl_cffi.requests import exceptions

from mdtasks.domain.errors import GarbledAnswerError, ProviderError, ProviderTimeoutError, RateLimitedError, VendorError
from mdtasks.providers.http import Answer
from mdtasks.providers.yfinance import YahooEmpty, YahooWire

#: Half an answer came.
_CUT_OFF = (exceptions.ChunkedEncodingError, exceptions.IncompleteRead, exceptions.ContentDecodingError)
#: Where the SDK gets its cookies, before every request unless it may keep them in a file; the session has them by then.
_COOKIES = "https://fc.yahoo.com"


class CookielessError(ConnectionError):
    """The cookies could not be had; the SDK takes it for a passing failure and goes on without."""


class YahooSession(requests.Session[Any]):
    """A browser-like session of which every request passes the gate, wherever the SDK makes it."""

    def __init__(self, wire: YahooWire) -> None:
        super().__init__(impersonate="chrome")
        self._wire = wire
        self._cookieless = False
        self._passed = False
        self._jar_filled: Any = None

    def request(self, method: Any, url: str, **options: Any) -> Any:  # type: ignore[override]
        """Make one request. Raises the ProviderError that a chart's refusal means, CookielessError for the rest."""
        if self._wire.endpoint(url.partition("?")[0]) == "bars":
            return self._asked(method, url, options, self._accept_chart)
        if self._cookieless:
            raise CookielessError("cookies failed before")
        if self._jar_filled is not None and url == _COOKIES:
            return self._jar_filled
        self._passed = False
        try:
            answer = self._asked(method, url, options, self._accept_cookies)
        except (VendorError, ProviderTimeoutError, GarbledAnswerError, RateLimitedError) as exc:
            if not self._passed:  # the gate itself said no: neither would it let a chart through
                raise
            self._cookieless = True
            raise CookielessError(str(exc)) from exc
        if url == _COOKIES:
            self._jar_filled = answer
        return answer

    def _asked(self, method: Any, url: str, options: dict[str, Any], accept: Any) -> Any:
        with self._wire.request(url):
            self._passed = True
            try:
                answer = super().request(
                    method, self._wire.address(url), **{**options, "timeout": self._wire.timeout_s}
                )
            except exceptions.RequestException as exc:
                raise self._failed(url, exc) from exc
            empty = accept(url, Answer.of(answer.status_code, dict(answer.headers), answer.content))
        if empty:  # an answer, and as such the gate has heard of it
            raise YahooEmpty
        return answer

    def _failed(self, url: str, exc: exceptions.RequestException) -> ProviderError:
        cut_off = isinstance(exc, _CUT_OFF) or exc.code == CurlECode.PARTIAL_FILE
        timed_out = isinstance(exc, exceptions.Timeout)
        reason = CurlECode(exc.code).name.lower().replace("_", " ") if exc.code else ""
        return self._wire.failed(url, exc, timed_out=timed_out, cut_off=cut_off, reason=reason)

    def _accept_chart(self, url: str, answer: Answer) -> bool:
        """Whether the chart is said to be empty; raises what else it means not to have one."""
        if self._wire.says_empty(answer):
            return True
        self._wire.accept(url, answer)
        return False

    def _accept_cookies(self, url: str, answer: Answer) -> bool:
        """Cookies come with pages that are not there, too: fc.yahoo.com answers 404."""
        if answer.status == 429 or answer.status >= 500:
            raise self._wire.refusal(self._wire.endpoint(url), answer)
        return False
