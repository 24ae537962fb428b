"""Ports of 127.0.0.1: which are free, and which ones the web app and Flower get."""

from __future__ import annotations

import socket
from typing import Final

from mdtasks.domain.errors import ConflictError

#: Where the web app listens when nobody says otherwise. Not 8080: that one is mostly taken.
WEB_PORT: Final = 8642
_TRIED: Final = 50


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not count
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def any_free_port() -> int:
    """A port of 127.0.0.1 that the machine says is free."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def choose_web_port(wanted: int | None) -> int:
    """``wanted``, or where nobody asked, the default or the next free one.

    Raises ConflictError when the wanted port is taken or may not be used.
    """
    if wanted is None:
        candidates = range(WEB_PORT, WEB_PORT + 2 * _TRIED, 2)  # two each: Flower takes the next
        return next((port for port in candidates if is_free(port)), 0) or any_free_port()
    if not is_free(wanted):
        raise ConflictError(
            f"port {wanted} is taken by another program", hint=f"`mdtasks up --port {_next_free(wanted)}` would do"
        )
    return wanted


def taken_port(wanted: int | None, chosen: int) -> int | None:
    """The default port, when nobody asked for another and the web app had to move all the same."""
    return WEB_PORT if wanted is None and chosen != WEB_PORT else None


def why_moved(taken: int | None) -> str:
    """Why the web app is not where it is looked for; "" when it is."""
    return "" if taken is None else f"port {taken} is taken by another program"


def choose_flower_port(web_port: int) -> int:
    """The port after the web app's, or another free one."""
    return web_port + 1 if web_port < 65535 and is_free(web_port + 1) else any_free_port()


def _next_free(port: int) -> int:
    return next((each for each in range(port + 1, min(port + _TRIED, 65535)) if is_free(each)), 0) or any_free_port()
