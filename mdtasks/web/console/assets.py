"""What pages load: the console's own style and scripts, and Plotly's as its Python package ships it. Nothing else.

Each file is under a path that holds the digest of all of them, so browsers keep it for ever and never keep an old one.
"""

from __future__ import annotations

import gzip
import mimetypes
import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import NotFoundError
from mdtasks.web.parsing import Query, parse_query

#: The name under which pages load Plotly.
PLOTLY: Final = "plotly.js"
_MAPS_STYLE: Final = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')
#: Bytes that are not worth being compressed.
_SMALL: Final = 1000
_FOR_EVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its type, its content, and that compressed (empty where it is not worth it)."""

    media_type: str
    content: bytes
    compressed: bytes


def show(request: Request) -> Response:
    """A style or a script of the pages."""
    parse_query(request, Query)
    asset, newest = asset_of(request.path_params["name"]), request.path_params["version"] == version()
    # A page of the version before, or of the next one, while processes are replaced: served, and not kept.
    headers = {"Cache-Control": _FOR_EVER if newest else "no-store", "X-Content-Type-Options": "nosniff"}
    headers["Vary"] = "Accept-Encoding"
    if asset.compressed and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.compressed, headers=headers, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


def url_of(name: str) -> str:
    """Where a page finds a file."""
    return f"/console/static/{version()}/{name}"


def text_of(name: str) -> str:
    """A file of our own, as text."""
    return files("mdtasks.web.console").joinpath("static", name).read_text()


@cache
def version() -> str:
    """The digest of all that pages load."""
    digest = sha256()
    for name in _own():
        digest.update(name.encode() + text_of(name).encode())
    digest.update(str(_plotly().stat().st_size).encode())
    return digest.hexdigest()[:12]


@cache
def asset_of(name: str) -> Asset:
    """A file by its name. Raises NotFoundError."""
    if name == PLOTLY:
        content = _plotly().read_bytes()
    elif name in _own():
        content = text_of(name).encode()
    else:
        raise NotFoundError(f"no file {name}", hint="GET /console/api lists the endpoints")
    # 4.8 MB of script: 1.5 MB on the wire, once for each version.
    compressed = gzip.compress(content, mtime=0) if len(content) > _SMALL else b""
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Asset(media_type, content, compressed)


@cache
def maps_style() -> str:
    """The id of the style that Plotly puts into a page for its maps, unless an element has it; "" when there is none.

    The policy refuses that style, and we draw no maps: pages give the id away.
    """
    found = _MAPS_STYLE.search(asset_of(PLOTLY).content)
    return found[1].decode() if found else ""


@cache
def _own() -> tuple[str, ...]:
    return tuple(sorted(each.name for each in files("mdtasks.web.console").joinpath("static").iterdir()))


@cache
def _plotly() -> Path:
    """Plotly's script in its package, which is not imported for it."""
    found = find_spec("plotly")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
