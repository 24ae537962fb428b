"""What a refused handshake means: a server that is starting is waited for, one that will not is not."""

from __future__ import annotations

from websockets.exceptions import InvalidStatus

from mdtasks.client.frames import StreamRefusedError


def refusal_of(error: InvalidStatus) -> Exception:
    """The error itself where coming again may help. Raises StreamRefusedError where it would not."""
    status = error.response.status_code
    if status in (401, 403):
        raise StreamRefusedError(
            {
                "code": "forbidden",
                "error": f"the web app refuses the stream with {status}",
                "hint": "without an API token it serves only its own machine: docs/http.md",
            }
        ) from error
    if status == 404:
        raise StreamRefusedError(
            {"code": "not_found", "error": "there is no stream at this URL", "hint": "is it the web app of mdtasks?"}
        ) from error
    return error
