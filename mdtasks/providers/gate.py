"""The gate before a vendor, as an adapter sees it: every request to the vendor passes it, one by one.

An adapter's call may make many requests (pages), so limit, breaker, timing and counting sit here and not around the
call. Whoever makes the request gives the gate a ``ProviderError`` when it failed; the gate asks for the right to make
it before, and tells of its outcome after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from mdtasks.domain.rates import Rate, Waits


class Gate(Protocol):
    """What stands between an adapter and its vendor. Instances serve one thread at a time, as adapters do."""

    def request(self, endpoint: str) -> AbstractContextManager[None]:
        """Make one request inside; ``endpoint`` names what is asked (``bars``, ``quotes``) in metrics and samples.

        Waits for the vendor's rate, not for long. Raises a HeldBackError when that would take too long or the vendor
        is left aside: nothing was asked then. A ProviderError that leaves the block is the request's outcome; any
        other exception is a fault of ours and says nothing of the vendor.
        """
        ...

    def call(self, *, insist: bool = False) -> AbstractContextManager[Waits]:
        """Make one call of the adapter inside, of as many requests as it takes; yields how long those waited.

        ``insist``: they pass although the vendor is left aside, for every other one is too.
        """
        ...

    def take_probe(self) -> bool:
        """Take the right to probe a vendor that is left aside and whose time has come; the next ``call`` uses it."""
        ...

    def give_up_probe(self) -> None:
        """Give back the right to probe, where it was taken and no call used it. Idempotent."""
        ...


class OpenGate:
    """A gate that lets everything through and tells nobody: for a provider that is tried by itself."""

    @contextmanager
    def request(self, endpoint: str) -> Iterator[None]:  # noqa: ARG002 - the protocol's signature
        """Make one request inside."""
        yield

    @contextmanager
    def call(self, *, insist: bool = False) -> Iterator[Waits]:  # noqa: ARG002
        """Make one call inside."""
        yield Waits()

    def take_probe(self) -> bool:
        """There is nothing to probe."""
        return False

    def give_up_probe(self) -> None:
        """Nothing was taken."""


#: The gate that an adapter's requests pass, by the provider's name and what its account may ask.
GateFor = Callable[[str, tuple[Rate, ...]], Gate]


def open_gate(_name: str, _rates: tuple[Rate, ...]) -> Gate:
    """An OpenGate, whoever asks."""
    return OpenGate()
