"""The web app in OpenAPI 3.1, made of its own routes, the models that its requests are parsed by, and a table of what
each answers (``described``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from pydantic import BaseModel
from starlette.routing import BaseRoute, Mount, Route

from mdtasks.web.endpoints import is_page
from mdtasks.web.parsing import Query

_REF: Final = "#/components/schemas/{model}"
_PARAMETER: Final = re.compile(r"{(\w+)(?::(\w+))?}")
#: What a place in a path may hold, by the kind that its route gives it.
_PLACES: Final[Mapping[str, dict[str, Any]]] = {
    "": {"type": "string", "pattern": r"^[^/]+$"},
    "path": {"type": "string", "minLength": 1},
    "int": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "name": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
}


#: An endpoint's function -> what is said of it.
Table = Mapping[Callable[..., Any], "Described"]
Schema = dict[str, Any]

ERROR: Final[Schema] = {
    "type": "object",
    "required": ["ok", "code", "error", "hint"],
    "properties": {
        "ok": {"const": False},
        "code": {"type": "string", "description": "stable name of the error"},
        "error": {"type": "string", "description": "what is wrong, with the value"},
        "hint": {"type": "string", "description": "what to do next"},
        "field": {"type": "string", "description": "which value is wrong"},
    },
}


@dataclass(frozen=True, slots=True)
class Described:
    """What an endpoint takes and answers.

    ``answers``: media type -> schema of the answer with ``status``, or one of those that it may have ``also``.
    ``body``: a model, or a schema, of the body in any of ``body_types``; None: it takes none. ``refusals``: statuses of
    errors beside those that every endpoint of its kind may answer; ``errors``: their schemas where they are not
    ERROR's. ``bare``: statuses without a body.
    """

    answers: Mapping[str, Schema]
    query: type[Query] = Query
    refusals: Sequence[int] = (422, 503)
    status: int = 200
    also: Sequence[int] = ()
    body: type[BaseModel] | Schema | None = None
    needs_body: bool = True
    body_types: Sequence[str] = ("application/json",)
    headers: Sequence[Schema] = ()
    bare: Mapping[int, str] = field(default_factory=dict)
    errors: Mapping[int, Schema] = field(default_factory=dict)


def document(routes: Sequence[BaseRoute], table: Table) -> dict[str, Any]:
    """The OpenAPI document of these routes. Raises KeyError for an endpoint that the table does not have."""
    paths: dict[str, dict[str, Any]] = {}
    schemas = _schemas(table)
    for path, route in _leaves(routes):
        if is_page(path):
            continue
        for method in sorted((route.methods or set()) - {"HEAD"}):
            where = paths.setdefault(_PARAMETER.sub(r"{\1}", path), {})
            where[method.lower()] = _operation(path, method, table[_function(route)], _function(route))
    return {
        "openapi": "3.1.0",
        "info": {"title": "mdtasks", "version": _version(), "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, **schemas},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _leaves(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[tuple[str, Route]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from _leaves(route.routes, prefix + route.path)
        elif isinstance(route, Route):
            yield prefix + route.path, route


def _function(route: Route) -> Callable[..., Any]:
    endpoint: Callable[..., Any] = route.endpoint
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    return endpoint


def _operation(path: str, method: str, said: Described, function: Callable[..., Any]) -> dict[str, Any]:
    guarded = path.startswith("/ops")
    summary, _, more = (function.__doc__ or "").strip().partition("\n")
    places = [
        {"name": name, "in": "path", "required": True, "schema": _PLACES[kind]}
        for name, kind in _PARAMETER.findall(path)
    ]
    # A place may hold what the router takes for another path.
    statuses = {403, *said.refusals, *([401] if guarded else []), *([404] if places else [])}
    good = (said.status, *said.also)
    answers = {str(each): {"description": HTTPStatus(each).phrase, **_content(said)} for each in good}
    answers |= {str(status): {"description": text} for status, text in said.bare.items()}
    for status in sorted(statuses):
        shown = {"schema": said.errors.get(status, {"$ref": _REF.format(model="Error")})}
        answers[str(status)] = {"description": HTTPStatus(status).phrase, "content": {"application/json": shown}}
    return {
        "operationId": _id_of(method, path),
        "summary": summary,
        **({"description": more.strip()} if more.strip() else {}),
        "parameters": [*places, *_query(said.query), *said.headers],
        **({"requestBody": _body(said)} if said.body is not None else {}),
        "responses": answers,
        **({"security": [{}, {"token": []}]} if guarded else {}),
    }


def _content(said: Described) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema} for media_type, schema in said.answers.items()}}


def _body(said: Described) -> dict[str, Any]:
    body = said.body
    model = {"$ref": _REF.format(model=body.__name__)} if isinstance(body, type) else body
    return {"required": said.needs_body, "content": {each: {"schema": model} for each in said.body_types}}


def _query(model: type[Query]) -> Iterator[dict[str, Any]]:
    """A model's fields as parameters of the query; lists stand with commas between their members."""
    schema = model.model_json_schema(ref_template=_REF)
    for name, value in schema.get("properties", {}).items():
        shown = _tidy(value)
        needed = name in schema.get("required", ())
        listed = {"style": "form", "explode": False} if shown.get("type") == "array" else {}
        yield {"name": name, "in": "query", "required": needed, "schema": shown, **listed}


def _schemas(table: Table) -> dict[str, Any]:
    """The models of bodies, and all that models of bodies and queries refer to."""
    found: dict[str, Any] = {}
    for said in table.values():
        for model in (said.query, said.body):
            if isinstance(model, type):
                schema = model.model_json_schema(ref_template=_REF)
                found |= schema.pop("$defs", {})
                found |= {model.__name__: schema} if model is said.body else {}
    return {name: _tidy(schema) for name, schema in sorted(found.items())}


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema as OpenAPI has it for parameters: what may be left out is not also null; lists count their items."""
    options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1:
        schema = {**{name: value for name, value in schema.items() if name != "anyOf"}, **options[0]}
    if schema.get("default", ...) is None:
        schema = {name: value for name, value in schema.items() if name != "default"}
    if schema.get("type") == "array":
        names = {"minLength": "minItems", "maxLength": "maxItems"}
        schema = {names.get(name, name): value for name, value in schema.items()}
    fields = {name: _tidy(field) for name, field in schema.get("properties", {}).items()}
    return {name: value for name, value in schema.items() if name != "title"} | (
        {"properties": fields} if fields else {}
    )


def _id_of(method: str, path: str) -> str:
    words = re.findall(r"\w+", _PARAMETER.sub(r"by \1", path).replace(".", " "))
    return "_".join([method.lower(), *(words or ["page"])])


def _version() -> str:
    try:
        return version("mdtasks")
    except PackageNotFoundError:  # run out of a checkout that nobody installed
        return "0"
