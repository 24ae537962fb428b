"""The gate of a provider that all processes share (``providers.gate.Gate``): its rate, its breaker, its record."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from mdtasks.domain.errors import (
    BrokerUnavailableError,
    CircuitOpenError,
    HeldBackError,
    ProviderError,
    RateSpentError,
)
from mdtasks.domain.rates import Rate, Waits
from mdtasks.observe import metrics
from mdtasks.store.health import Admission, HealthBook

log = logging.getLogger(__name__)

#: A worker waits so long for a provider's rate, seconds: before a call, and in its midst, where what it has brought so
#: far would be lost. What would take longer goes back to PostgreSQL to wait there.
PATIENCE_S: Final = 5.0
PATIENCE_WITHIN_S: Final = 30.0


class SharedGate:
    """A provider's gate. ``rates``: what its account may ask, all processes together."""

    def __init__(self, name: str, rates: Sequence[Rate], book: HealthBook) -> None:
        self.name = name
        self._rates = rates
        self._book = book
        self._insists = False
        self._probes = False
        self._patience_s = PATIENCE_S
        self._waits = Waits()

    def take_probe(self) -> bool:
        """Take the right to probe; see ``providers.gate.Gate``."""
        self._probes = self._book.take_probe(self.name)
        return self._probes

    @contextmanager
    def call(self, *, insist: bool = False) -> Iterator[Waits]:
        """Make one call inside; see ``providers.gate.Gate``."""
        self._insists, self._patience_s, self._waits = insist, PATIENCE_S, Waits()
        try:
            yield self._waits
        finally:
            self._insists = False
            self.give_up_probe()

    def give_up_probe(self) -> None:
        """Give back the right to probe; see ``providers.gate.Gate``."""
        if self._probes:
            self._probes = False
            with suppress(BrokerUnavailableError):  # it runs out by itself
                self._book.give_up_probe(self.name)

    @contextmanager
    def request(self, endpoint: str) -> Iterator[None]:
        """Make one request inside; see ``providers.gate.Gate``.

        A Redis that is away stops a provider with a rate, whose account could be locked, and no other.
        """
        asked = time.monotonic()
        try:
            self._enter(endpoint)
        finally:
            began = time.monotonic()
            self._waits.waited_s += began - asked
        self._patience_s = PATIENCE_WITHIN_S
        try:
            yield
        except ProviderError as error:
            self._tell(endpoint, time.monotonic() - began, error)
            raise
        self._tell(endpoint, time.monotonic() - began, None)

    def _enter(self, endpoint: str) -> None:
        began = time.monotonic()
        while True:
            try:
                admission = self._book.admit(self.name, self._rates, insist=self._insists)
            except BrokerUnavailableError:
                if self._rates:
                    raise
                return
            waited_s = time.monotonic() - began
            if admission.verdict in ("go", "probe"):
                self._probes = self._probes or admission.verdict == "probe"
                if self._rates:
                    metrics.PROVIDER_RATE_WAIT.labels(provider=self.name).observe(waited_s)
                return
            if admission.verdict != "wait" or waited_s + admission.wait_s > self._patience_s:
                raise self._refusal(endpoint, admission)
            time.sleep(admission.wait_s)

    def _refusal(self, endpoint: str, admission: Admission) -> HeldBackError:
        wait_s = admission.wait_s
        error: HeldBackError
        if admission.verdict == "wait":
            told = f"of {'+'.join(map(str, self._rates))} " if self._rates else ""
            error = RateSpentError(
                f"no request {told}is left for {wait_s:.1f} s", provider=self.name, retry_after_s=wait_s
            )
        elif admission.verdict == "paused":
            error = CircuitOpenError("is paused", provider=self.name)
        else:
            why = f"is left alone for {wait_s:.0f} s, for it failed"
            error = CircuitOpenError(why, provider=self.name, retry_after_s=wait_s)
        metrics.PROVIDER_REQUESTS.labels(provider=self.name, endpoint=endpoint, code=error.code).inc()
        return error

    def _tell(self, endpoint: str, latency_s: float, error: ProviderError | None) -> None:
        """Tell the outcome. What an answer brought is not lost because Redis is away."""
        code = error.code if error else "ok"
        metrics.PROVIDER_REQUESTS.labels(provider=self.name, endpoint=endpoint, code=code).inc()
        try:
            change = self._book.tell_request(self.name, endpoint, latency_s, error)
        except BrokerUnavailableError as away:
            log.warning("%s: the outcome %s of a request is not on record: %s", self.name, code, away)
            return
        if change:
            log.warning("%s is %s; `mdtasks providers %s` shows the case", self.name, change, self.name)
