"""What HTTP says of answers that clients keep: tags and their comparison, and what may be compressed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.requests import Request

#: Quick, and most of what there is to gain.
_LEVEL: Final = 1
_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


def is_known(request: Request, tag: str) -> bool:
    """Whether the client has the answer of this tag (``If-None-Match``; compared weakly, as RFC 9110 has it)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return given.strip() == "*" or tag in _TAG.findall(given)


def accepts_gzip(request: Request) -> bool:
    """Whether the client takes gzip."""
    weights = _weights(request, "accept-encoding")
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def preferred(request: Request, media_types: Iterable[str]) -> str | None:
    """The first of these media types that the client names with the greatest weight; None where it names none."""
    weights = _weights(request, "accept")
    named = [each for each in media_types if weights.get(each, 0.0) > 0]
    return max(named, key=lambda each: weights[each], default=None)


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes as one gzip member."""
    packer = zlib.compressobj(_LEVEL, wbits=31)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()


def _weights(request: Request, header: str) -> dict[str, float]:
    """What a header lists, in small letters, with the weight of each; one that is no number is 0."""
    found: dict[str, float] = {}
    for item in ",".join(request.headers.getlist(header)).split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            found[name] = float(weight)
        except ValueError:
            found[name] = 0.0
    return found
