"""Where the pages of symbols are; apart from them, so that every page can link there."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, urlencode

SYMBOLS: Final = "/console/symbols"


def symbol_path(symbol: str, **asked: Any) -> str:
    """Where a symbol's page is; ``asked``: which interval and window, those that are None left out."""
    given = {name: value for name, value in asked.items() if value is not None}
    return f"{SYMBOLS}/{quote(symbol, safe='/:=')}" + (f"?{urlencode(given)}" if given else "")
