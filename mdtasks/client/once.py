"""What the buffer keeps, once, over plain HTTP: for scripts that do not stay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from mdtasks.client.frames import Bar, IntervalComplete, StreamRefusedError, entry_of
from mdtasks.client.sync import DEFAULT_URL
from mdtasks.domain.errors import UnavailableError

_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What a stream kept. ``position``: go on from there. ``resumed``: these are the entries after the position that
    was given, each of them; otherwise the newest of each interval, in order of time.
    """

    symbol: str
    interval: str
    position: str
    resumed: bool
    entries: Sequence[Bar | IntervalComplete]


def replay(
    symbol: str,
    *,
    interval: str = "1m",
    url: str = DEFAULT_URL,
    since: str = "",
    last: int | None = None,
    wait_s: float = 0.0,
) -> Kept:
    """What the buffer keeps of a symbol since a position, or its ``last`` entries (default: all of them).

    ``wait_s``: when nothing is new since the position, wait for it, 60 s at most.
    Raises StreamRefusedError for what is wrong with the question, UnavailableError when the web app does not answer.
    """
    asked = {"interval": interval, "since": since, "last": last, "wait": wait_s or None}
    query = urlencode({name: value for name, value in asked.items() if value not in (None, "")})
    said = _fetched(f"{url.rstrip('/')}/replay/{quote(symbol)}?{query}", _PATIENCE_S + wait_s)
    entries = [entry_of(each, symbol, interval, since) for each in said["entries"]]
    return Kept(symbol, interval, said["position"], said["resumed"], entries)


def _fetched(address: str, patience_s: float) -> Any:
    if not address.startswith(("http://", "https://")):
        raise StreamRefusedError({"code": "invalid_request", "error": f"{address} is no URL of a web app"})
    try:
        with urlopen(Request(address), timeout=patience_s) as answer:  # noqa: S310 - http only
            return json.load(answer)
    except HTTPError as error:
        said = _said(error)
        if error.code >= 500:
            raise UnavailableError(str(said["error"]), hint=str(said.get("hint", ""))) from error
        raise StreamRefusedError(said) from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UnavailableError(
            f"the web app does not answer: {reason}", hint="`mdtasks status` says whether it runs, and where"
        ) from error


def _said(error: HTTPError) -> dict[str, Any]:
    try:
        said = json.load(error)
    except ValueError:
        said = None
    return (
        said
        if isinstance(said, dict) and "error" in said
        else {"code": "http", "error": f"the web app answers {error.code}"}
    )
