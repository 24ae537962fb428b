"""What the app's routes are, read off the table itself: for hints, and for the page that lists them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path with its method, and what it is for in one line."""

    method: str
    path: str
    purpose: str


def is_page(path: str) -> bool:
    """Whether a path is of the console or a runbook: for people, in HTML, changed without notice to programs."""
    return path == "/" or path.startswith(("/console", "/runbooks"))


def endpoints(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[Endpoint]:
    """Every endpoint, in the order of the table."""
    for route in routes:
        if isinstance(route, Mount):
            yield from endpoints(route.routes, prefix + route.path)
        elif isinstance(route, WebSocketRoute):
            yield Endpoint("WS", prefix + route.path_format, _purpose(route.endpoint))
        elif isinstance(route, Route):
            methods = "/".join(sorted((route.methods or set()) - {"HEAD"}))
            yield Endpoint(methods, prefix + route.path_format, _purpose(route.endpoint))


def _purpose(endpoint: Any) -> str:
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    return (endpoint.__doc__ or "").strip().partition("\n")[0]
