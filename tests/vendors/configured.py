"""The vendors' adapters as a process has them, asking the local server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdtasks.domain.sessions import Calendars
from mdtasks.providers.base import Provider
from mdtasks.providers.gate import GateFor, open_gate
from mdtasks.providers.registry import Registry
from mdtasks.settings import Settings
from tests.vendors.market import KEYS
from tests.vendors.server import VendorServer

#: What switches each vendor on, with accounts that may ask for anything.
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "alpaca": {"alpaca_key": KEYS["alpaca"], "alpaca_secret": KEYS["alpaca_secret"], "alpaca_feed": "sip"},
    "massive": {"massive_key": KEYS["massive"]},
    "finnhub": {"finnhub_key": KEYS["finnhub"], "finnhub_candles": True},
    "yfinance": {"yfinance": True},
    "databento": {"databento_key": KEYS["databento"]},
}
#: Those that take a key.
KEYED = tuple(name for name in SWITCHES if name != "yfinance")


def vendor(
    name: str,
    server: VendorServer,
    calendars: Calendars,
    gate_for: GateFor = open_gate,
    **changes: Any,
) -> Provider:
    """The provider of that name, with the settings of its switch and ``changes``."""
    given = {
        "vendor_urls": {name: server.url(name)},
        "vendor_delays": {name: 0.0},
        "vendor_history": {"massive": None},
        **SWITCHES[name],
        **changes,
    }
    return Registry(Settings(**given), calendars, gate_for).get(name)
