"""What tests tell of a provider, as a gate would."""

from __future__ import annotations

from mdtasks.domain.errors import VendorError
from mdtasks.store.health import HealthBook

NAME = "simulator"


def demote(book: HealthBook, name: str = NAME) -> None:
    """Let it fail until it is demoted."""
    while not book.tell_request(name, "bars", 0.1, VendorError("HTTP 503", provider=name)):
        pass


def promote(book: HealthBook, name: str = NAME) -> None:
    """Let it answer, as those who insist may ask it, until it is promoted."""
    while not book.tell_request(name, "bars", 0.1, None):
        pass
