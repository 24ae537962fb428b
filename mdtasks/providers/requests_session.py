"""The sessions of SDKs that are built on requests, with a vendor's gate in them. Imported only with an SDK."""

from __future__ import annotations

import io
from typing import Any

import requests
import requests.adapters

from mdtasks.providers.http import Wire
from mdtasks.providers.sockets import Watch, exchanged, watched


class GatedAdapter(requests.adapters.HTTPAdapter):
    """The transport of a ``requests`` session: mounted, each of its requests passes the vendor's gate."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._watch = Watch()
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As the library does, with connections that are watched."""
        super().init_poolmanager(*args, **kwargs)
        watched(self.poolmanager, self._watch)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """As the library does, with connections that are watched."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        watched(manager, self._watch)
        return manager

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Make the request and read its answer, whatever the SDK says of streams and timeouts."""
        del args  # all of them are told by name
        options = {**kwargs, "stream": True, "timeout": self._wire.timeout_s}

        def sent(address: str) -> tuple[requests.Response, Any]:
            request.url = address
            response = super(GatedAdapter, self).send(request, **options)
            return response, response.raw

        response: requests.Response
        response, body = exchanged(self._wire, self._watch, str(request.url), sent)
        response.raw = io.BytesIO(body)  # read and decoded
        return response


def gated_session(wire: Wire, session: requests.Session | None = None) -> requests.Session:
    """A session, or the one given, of which all requests pass the gate."""
    session = session or requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, GatedAdapter(wire))
    return session
