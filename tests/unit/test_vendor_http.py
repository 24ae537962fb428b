"""What every vendor's HTTP has in common: addresses, words, how long to wait, and no secret in any of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from mdtasks.domain.errors import ProviderError
from mdtasks.domain.rates import parse_age
from mdtasks.providers.access import Access, Plan
from mdtasks.providers.gate import OpenGate
from mdtasks.providers.http import Answer, Wire, retry_after_s
from mdtasks.settings import Settings, load_settings

SENT = "Wed, 05 Jun 2024 15:30:00 GMT"
RESET = str(int(datetime(2024, 6, 5, 15, 30, 45, tzinfo=UTC).timestamp()))


class Plain(Wire):
    provider = "plain"

    def endpoint(self, path: str) -> str:
        return "bars"

    def verify(self, endpoint: str, body: bytes) -> None:
        self.json(body)


def wire(url: str | None = None, *secrets: str) -> Plain:
    urls = {} if url is None else {"alpaca": url}
    return Plain(OpenGate(), Access.of("alpaca", Settings(vendor_urls=urls), Plan()), secrets)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "Wed, 05 Jun 2024 15:31:00 GMT", "date": SENT}, 60.0),
        ({"retry-after": "Wed, 05 Jun 2024 15:29:00 GMT", "date": SENT}, 0.0),
        ({"x-ratelimit-reset": RESET, "date": SENT}, 45.0),
        ({"retry-after": "3", "x-ratelimit-reset": RESET, "date": SENT}, 3.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9999999"}, None),
        ({}, None),
    ],
)
def test_how_long_a_429_asks_to_wait(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "forbidden."}, "forbidden."),
        ({"status": "ERROR", "error": "Unknown API Key"}, "Unknown API Key"),
        ({"detail": {"case": "bad_start", "message": "start is after end", "docs": ""}}, "start is after end"),
        ({"chart": {"result": None, "error": {"code": "Not Found", "description": "No data found"}}}, "No data found"),
        ("<html><style>p {}</style><h1>502</h1>\n<p>Bad   gateway</p></html>", "502 Bad gateway"),
        ("", ""),
        ({"count": 3}, ""),
    ],
)
def test_the_vendors_words_are_found_wherever_it_puts_them(body: object, words: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    assert wire().words(Answer.of(500, {}, text.encode())) == words


def test_words_are_short_and_without_secrets() -> None:
    answer = Answer.of(500, {}, json.dumps({"message": "k/y and k%2Fy " + "long " * 100}).encode())
    words = wire(None, "k/y").words(answer)
    assert words.startswith("*** and *** long")
    assert len(words) <= 200


def test_an_address_is_replaced_by_the_one_of_the_settings() -> None:
    assert wire().address("https://v.com/a/b?c=1") == "https://v.com/a/b?c=1"
    assert wire("http://127.0.0.1:9/x").address("https://v.com/a/b?c=1") == "http://127.0.0.1:9/x/a/b?c=1"
    assert wire("http://127.0.0.1:9").address("https://v.com") == "http://127.0.0.1:9/"


def test_what_did_not_come_is_told_by_host_and_reason_alone() -> None:
    asked = wire("http://me:hush@proxy:9")
    refused = ConnectionRefusedError(111, "Connection refused")
    outer = OSError(f"HTTPConnectionPool: /bars?token=hush ({refused!r})", refused)
    said = str(asked.failed("https://v.com/bars?token=hush", outer, timed_out=False))
    assert said == "plain: no answer from proxy:9: Connection refused"
    assert "hush" not in str(asked.failed("https://v.com/bars", outer, timed_out=True))
    assert "hush" not in str(asked.failed("https://v.com/bars", outer, timed_out=False, cut_off=True))


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 408, 418, 422, 429, 500, 504])
def test_every_status_is_an_error_of_ours(status: int) -> None:
    with pytest.raises(ProviderError, match=f"plain: HTTP {status}: no"):
        wire().accept("https://v.com/", Answer.of(status, {}, b'{"message": "no"}'))


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("90s", 90.0), ("15min", 900.0), ("1day", 86_400.0), ("none", None)]
)
def test_ages_are_read_as_written(text: str, seconds: float | None) -> None:
    assert parse_age(text) == seconds


def test_the_settings_say_what_an_account_may_have_and_its_free_plan_the_rest() -> None:
    environ = {"MDTASKS_VENDOR_DELAYS": "massive=15min", "MDTASKS_VENDOR_HISTORY": "massive=none,finnhub=1y"}
    settings, free = load_settings(environ), Plan(delay_s=60.0)
    massive, finnhub, alpaca = (Access.of(name, settings, free) for name in ("massive", "finnhub", "alpaca"))
    assert (massive.delay_s, massive.history) == (900.0, None)
    assert finnhub.history is not None
    assert (finnhub.history.days, finnhub.delay_s) == (366, 60.0)
    assert (alpaca.history, alpaca.delay_s) == (None, 60.0)
