"""Every vendor's failures as our errors: asked of each adapter through its own SDK, against the local vendors."""

from __future__ import annotations

import logging
import pickle
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from mdtasks.domain.bars import Bars, Quote
from mdtasks.domain.errors import (
    AuthError,
    BadPayloadError,
    GarbledAnswerError,
    NoDataError,
    NotEntitledError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitedError,
    RefusedRequestError,
    VendorError,
)
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.rates import Rate
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.universe import Listing
from mdtasks.providers.base import Provider
from mdtasks.providers.gate import Gate, OpenGate
from tests.vendors.configured import KEYED, SWITCHES, vendor
from tests.vendors.market import Market
from tests.vendors.server import Fault, VendorServer

CALENDARS = Calendars()
SESSION = TimeWindow(start=datetime(2024, 3, 8, 14, 30, tzinfo=UTC), end=datetime(2024, 3, 8, 21, tzinfo=UTC))
NOW = datetime(2024, 3, 12, tzinfo=UTC)
AAPL, MSFT = Listing("AAPL", "XNYS"), Listing("MSFT", "XNAS")
#: What of a path names the request for bars.
BARS = {"alpaca": "/bars", "massive": "/aggs/", "finnhub": "/candle", "yfinance": "/chart/", "databento": "get_range"}
every_vendor = pytest.mark.parametrize("name", list(SWITCHES))


class Listener(OpenGate):
    """A gate that lets all through and keeps what it is told: (endpoint, the code of the error or "ok")."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def __call__(self, name: str, rates: tuple[Rate, ...]) -> Gate:
        return self

    @contextmanager
    def request(self, endpoint: str) -> Iterator[None]:
        try:
            yield
        except ProviderError as exc:
            self.heard.append((endpoint, exc.code))
            raise
        self.heard.append((endpoint, "ok"))


def minutes(price: float = 100.0) -> Bars:
    ts = CALENDARS.get("XNYS").expected(SESSION, Interval.M1)
    n = len(ts)
    return Bars.of(ts, [price] * n, [price + 1] * n, [price - 1] * n, [price + 0.5] * n, [float(i) for i in range(n)])


@pytest.fixture
def server() -> Iterator[VendorServer]:
    quote = Quote(datetime(2024, 3, 11, 20, tzinfo=UTC), 100.0, 2.0, 100.1, 3.0)
    bars = {("AAPL", Interval.M1): minutes(), ("MSFT", Interval.M1): minutes(400.0)}
    with VendorServer(Market(bars, {"AAPL": quote, "MSFT": quote})) as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory, unavailable_here: Callable[[str], None]) -> Path:
    """A certificate of 127.0.0.1 that nobody signed but itself, and its key, in one file."""
    if shutil.which("openssl") is None:
        unavailable_here("there is no openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command += " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    return both


def asked(provider: Provider, *listings: Listing) -> Any:
    return provider.fetch_bars(listings or [AAPL], Interval.M1, SESSION, NOW)


def failing(name: str, server: VendorServer, fault: Fault, **changes: Any) -> tuple[ProviderError, Listener]:
    """The error that the fault in the answer with the bars leads to, and what the gate heard."""
    listener = Listener()
    fault.only = fault.only or BARS[name]
    server.fail(name, fault)
    with pytest.raises(ProviderError) as failed:
        asked(vendor(name, server, CALENDARS, listener, **changes))
    assert failed.value.provider == name
    assert listener.heard[-1] == ("bars", failed.value.code)
    return failed.value, listener


@every_vendor
def test_bars_come_after_a_failure_as_if_there_had_been_none(name: str, server: VendorServer) -> None:
    provider = vendor(name, server, CALENDARS)
    server.fail(name, Fault(only=BARS[name]), Fault(status=403, body="<html>no</html>", only=BARS[name]))
    for _ in range(2):
        with pytest.raises(ProviderError):
            asked(provider)
    assert len(asked(provider).bars["AAPL"]) == 390


@every_vendor
@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_is_the_vendors_and_is_not_tried_again_here(
    name: str, status: int, server: VendorServer
) -> None:
    error, listener = failing(name, server, Fault(status=status, body="<html><h1>maintenance</h1></html>"))
    assert type(error) is VendorError
    assert error.retryable
    assert f"HTTP {status}: maintenance" in error.message
    assert [endpoint for endpoint, _ in listener.heard].count("bars") == 1
    assert len(server.asked(name, BARS[name])) == 1


@every_vendor
def test_a_429_says_how_long_to_wait_and_waits_for_nothing(name: str, server: VendorServer) -> None:
    error, _ = failing(name, server, Fault(status=429, body={"message": "slow down"}, headers={"Retry-After": "30"}))
    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s == 30.0
    assert "slow down" in error.message
    assert len(server.asked(name, BARS[name])) == 1


def test_how_long_to_wait_may_be_a_date_or_the_time_of_a_reset(server: VendorServer) -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    date, reset = format_datetime(later, usegmt=True), f"{later.timestamp():.0f}"
    for headers in ({"Retry-After": date}, {"X-RateLimit-Reset": reset}):
        error, _ = failing("alpaca", server, Fault(status=429, body={}, headers=headers))
        assert isinstance(error, RateLimitedError)
        assert error.retry_after_s is not None
        assert 60 < error.retry_after_s <= 92


@every_vendor
@pytest.mark.parametrize("kind", ["hang", "drip", "drip_headers"])
def test_a_vendor_that_hangs_or_drips_is_let_go_in_time(name: str, kind: Any, server: VendorServer) -> None:
    error, _ = failing(name, server, Fault(kind), vendor_timeout_s=0.5)
    assert type(error) is ProviderTimeoutError
    assert "did not answer in 0.5 s" in error.message
    assert server.asked(name, BARS[name])[-1].let_go.wait(10)


@every_vendor
@pytest.mark.parametrize("kind", ["truncated", "cut_off"])
def test_half_an_answer_is_garbled_and_never_an_empty_one(name: str, kind: Any, server: VendorServer) -> None:
    error, _ = failing(name, server, Fault(kind))
    assert type(error) is GarbledAnswerError
    assert (error.code, error.retryable) == ("bad_payload", True)


@every_vendor
@pytest.mark.parametrize("body", ["", "{}", "[]", "null", '"soon"', '{"status": "OK"}'])
def test_an_answer_that_lacks_what_it_must_hold_is_garbled(name: str, body: str, server: VendorServer) -> None:
    error, _ = failing(name, server, Fault(status=200, body=body))
    assert isinstance(error, BadPayloadError)
    assert error.retryable


@every_vendor
def test_a_connection_that_breaks_is_the_vendors_failure(name: str, server: VendorServer) -> None:
    # curl makes a request again by itself whose kept connection turned out to be gone.
    error, _ = failing(name, server, Fault("reset", times=2))
    assert type(error) is VendorError
    gone = vendor(name, server, CALENDARS, vendor_urls={name: "http://127.0.0.1:9"})
    with pytest.raises(VendorError, match=r"no answer from 127\.0\.0\.1:9"):
        asked(gone)


@every_vendor
def test_what_the_vendor_calls_wrong_is_not_tried_again_and_in_its_words(name: str, server: VendorServer) -> None:
    error, _ = failing(name, server, Fault(status=422, body={"message": "end must not be so"}))
    assert type(error) is RefusedRequestError
    assert not error.retryable
    assert "end must not be so" in error.message


@pytest.mark.parametrize("name", KEYED)  # Yahoo's pages of consent are redirects, and no key goes with them
def test_a_redirect_is_not_followed(name: str, server: VendorServer) -> None:
    elsewhere = server.url(name) + "/elsewhere"
    error, _ = failing(name, server, Fault(status=302, body="", headers={"Location": elsewhere}))
    assert "HTTP 302" in error.message
    assert not server.asked(name, "/elsewhere")


@pytest.mark.parametrize("name", KEYED)
def test_a_wrong_key_is_told_from_a_plan(name: str, server: VendorServer) -> None:
    secret: dict[str, Any] = {f"{name}_key": "wrong"}
    with pytest.raises(AuthError) as failed:
        asked(vendor(name, server, CALENDARS, **secret))
    assert not failed.value.retryable
    error, _ = failing(name, server, Fault(status=403, body={"message": "subscription does not include this"}))
    assert type(error) is NotEntitledError
    assert not error.retryable


def test_alpacas_403_without_telling_words_names_both_causes(server: VendorServer) -> None:
    error, _ = failing("alpaca", server, Fault(status=403, body={"message": "denied"}))
    assert isinstance(error, NotEntitledError)
    assert "the plan does not include this, or the key is wrong" in error.message


def test_payment_required_is_a_matter_of_the_plan(server: VendorServer) -> None:
    error, _ = failing("databento", server, Fault(status=402, body={"detail": "insufficient funds"}))
    assert isinstance(error, NotEntitledError)


@pytest.mark.parametrize("name", ["massive", "yfinance"])
def test_an_unknown_symbol_is_no_data_where_the_vendor_says_so(name: str, server: VendorServer) -> None:
    server.fail(name, Fault(status=404, body={"message": "no such ticker"}, only=BARS[name]))
    answer = asked(vendor(name, server, CALENDARS))
    assert isinstance(answer.errors["AAPL"], NoDataError)


@pytest.mark.parametrize("name", KEYED)
def test_no_secret_leaves_in_an_error_a_log_or_an_address(
    name: str, server: VendorServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    marker = "s3cr3t/m+rker"
    keys: dict[str, Any] = {f"{name}_key": marker} | ({"alpaca_secret": marker} if name == "alpaca" else {})
    faults = [Fault(status=s, body={"message": f"your key {marker} is bad"}) for s in (401, 403, 422, 429, 500)]
    faults += [Fault("reset"), Fault("hang"), Fault("truncated"), Fault(status=200, body="{}")]
    texts = []
    for fault in faults:
        server.fail(name, fault)
        provider = vendor(name, server, CALENDARS, vendor_timeout_s=0.3, **keys)
        with pytest.raises(ProviderError) as failed:
            asked(provider)
        error = pickle.loads(pickle.dumps(failed.value))
        texts += [repr(error), str(error), str(error.as_dict()), repr(provider), repr(vars(error))]
        texts += traceback.format_exception(failed.value)
    texts += [record.getMessage() for record in caplog.records]
    texts += [seen.target for seen in server.seen]
    texts += capfd.readouterr()
    for form in (marker, "s3cr3t%2Fm%2Brker", "czNjcjN0"):
        assert not [text for text in texts if form in text]
    assert any("your key *** is bad" in text for text in texts)


@every_vendor
def test_over_tls_bars_come_and_who_drips_is_let_go(
    name: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(variable, str(certificate))
    with VendorServer(Market({("AAPL", Interval.M1): minutes()}), tls=certificate) as server:
        assert len(asked(vendor(name, server, CALENDARS)).bars["AAPL"]) == 390
        for kind in ("hang", "drip"):
            error, _ = failing(name, server, Fault(kind), vendor_timeout_s=0.5)
            assert type(error) is ProviderTimeoutError
            assert server.asked(name, BARS[name])[-1].let_go.wait(10)


@every_vendor
def test_a_certificate_that_nobody_signed_is_not_trusted(name: str, certificate: Path) -> None:
    with VendorServer(Market(), tls=certificate) as server:
        with pytest.raises(VendorError, match=r"(?i)certificate|verification"):
            asked(vendor(name, server, CALENDARS))
        assert not server.seen
