"""Instruments as values: what identifies one, and what an adapter needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument as a provider's adapter knows it.

    ``mic``: the exchange (``XNYS``) or ``24/7``; ``kind``: equity, index or crypto.
    """

    symbol: str
    mic: str
    kind: str = "equity"
