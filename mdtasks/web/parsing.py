"""From a request to a validated value: queries and bodies, each wrong value refused with its name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from starlette.requests import HTTPConnection, Request

from mdtasks.domain.errors import BodyTooLargeError, InvalidRequestError, MediaTypeError
from mdtasks.domain.jobs import UtcDatetime, invalid_request

#: Most bytes of a request's body: 50,000 symbols fit.
MAX_BODY: Final = 1_000_000

#: ``+00:00`` in a query arrives as `` 00:00``: the plus sign of a URL is a space.
_LOST_PLUS: Final = re.compile(r"(?<=\d) (?=\d\d:?\d\d$)")


def _with_its_plus(value: object) -> object:
    return _LOST_PLUS.sub("+", value) if isinstance(value, str) and "T" in value else value


def comma_separated(value: object) -> object:
    """What a parameter lists with commas, as a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


QueryTime = Annotated[UtcDatetime, BeforeValidator(_with_its_plus)]


class Query(BaseModel):
    """The parameters that an endpoint takes; it refuses all others."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Asked = TypeVar("Asked", bound=Query)


def parse_query(request: HTTPConnection, model: type[Asked]) -> Asked:
    """The request's parameters. Raises InvalidRequestError naming the one that is unknown, doubled or wrong."""
    given = request.query_params.multi_items()
    refuse_unknown((name for name, _ in given), model, "query parameter")
    values = dict(given)
    if len(values) < len(given):
        names = [name for name, _ in given]
        doubled = next(name for name in names if names.count(name) > 1)
        raise InvalidRequestError(
            f"query parameter {doubled} is given more than once", field=doubled, hint="give it once"
        )
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise invalid_request(exc) from exc


def refuse_unknown(names: Iterable[str], model: type[BaseModel], what: str) -> None:
    """Raise InvalidRequestError for the first name that the model does not know, with the nearest that it does."""
    known = list(model.model_fields)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidRequestError(
                f"unknown {what} {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
                field=name,
                hint=f"known: {', '.join(known)}" if known else "it takes none",
            )


def has_body(request: Request) -> bool:
    """Whether the request says that a body follows."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def read_document(request: Request) -> Mapping[str, Any]:
    """The JSON object in the request's body, of which at most MAX_BODY bytes are held.

    Raises MediaTypeError, BodyTooLargeError (before the rest is read), InvalidRequestError when it is no JSON object.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise MediaTypeError(
            f"the body is {media_type or 'of no declared type'}, not JSON",
            field="body",
            hint="send a JSON object with `Content-Type: application/json`",
        )
    body = await read_body(request)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequestError(f"the body is not JSON: {exc}", field="body", hint="send a JSON object") from exc
    if not isinstance(document, dict):
        raise InvalidRequestError(
            f"the body is a JSON {_JSON_NAMES[type(document)]}, not an object", field="body", hint="send {…}"
        )
    return document


_JSON_NAMES: Final = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


async def read_body(request: Request, most: int = MAX_BODY) -> bytes:
    """The request's body. Raises BodyTooLargeError when it is over ``most`` bytes, before the rest is read."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(most)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is over {most} bytes", field="body", hint="send it in parts")
