"""/universe and /ops/universe: the versions of the universe, shown, made, activated, made again."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import InvalidRequestError, MediaTypeError
from mdtasks.domain.jobs import Symbol, Tier, invalid_request
from mdtasks.domain.listings import Kept
from mdtasks.domain.versions import difference
from mdtasks.flows import universe as flow
from mdtasks.flows import universe_listings, universe_symbols
from mdtasks.flows.as_of import await_changes
from mdtasks.flows.deps import Deps
from mdtasks.flows.universe import Asked, Reason
from mdtasks.flows.universe_bundle import bundle_of, checked, packed
from mdtasks.store import universe as store
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, parse_query, read_body, read_document, refuse_unknown

#: Most bytes of a listing: a hundred thousand rows fit.
MAX_LISTING: Final = 16_000_000

Limit = Annotated[int, Field(ge=1, le=100_000)]
Tag = Annotated[str, Field(min_length=1, max_length=64)]


class ShowQuery(Query):
    """Which version, the one that holds where none is named; of its members the first, of one tier or of all."""

    tag: Tag | None = None
    as_of: QueryTime | None = None
    tier: Tier | None = None
    limit: Limit = 1000


class ListQuery(Query):
    """How many."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class DiffQuery(Query):
    """Which two; ``all``: also those whose rank and score alone changed."""

    old: Tag
    new: Tag
    all: bool = False


class TagQuery(Query):
    """Which version."""

    tag: Tag


class RefreshQuery(Query):
    """Whose listing; of a CSV, which is the body, the day that it tells of (today, where it does not say)."""

    source: Annotated[str, Field(min_length=1, max_length=32)]
    tag: Annotated[str, Field(max_length=64)] = ""
    as_of: date | None = None


class ActivateBody(BaseModel):
    """Which version shall hold, and why; ``force``: however many leave or go down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: Tag
    reason: Reason = ""
    force: Annotated[bool, Strict()] = False


class RenameBody(BaseModel):
    """Which symbol is another one from a day on (today, where none is said)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    old: Symbol
    new: Symbol
    on: date | None = None


def show(request: Request) -> Response:
    """A version of the universe and its members by rank: the one that holds, one by its tag, or that of a moment."""
    asked = parse_query(request, ShowQuery)
    if asked.tag is not None and asked.as_of is not None:
        raise InvalidRequestError("give tag or as_of, not both", field="as_of", hint="leave one of them out")
    if asked.as_of is not None:
        await_changes(request.state.deps.database, asked.as_of)
    with _database(request) as connection:
        version = store.chosen(connection, asked.tag, asked.as_of)
        members = store.members(connection, version.version, asked.tier, asked.limit)
        tiers = store.tier_counts(connection, version.version)
    return Json({**version.as_dict(), "tiers": tiers, "listed": [each.as_dict() for each in members]})


def versions(request: Request) -> Response:
    """The versions of the universe, the newest first."""
    asked = parse_query(request, ListQuery)
    with _database(request) as connection:
        return Json([each.as_dict() for each in store.history(connection, asked.limit)])


def history(request: Request) -> Response:
    """Which version held from when on, the newest first."""
    asked = parse_query(request, ListQuery)
    with _database(request) as connection:
        return Json([each.as_dict() for each in store.activations(connection, asked.limit)])


def diff(request: Request) -> Response:
    """What differs between two versions, by instrument."""
    asked = parse_query(request, DiffQuery)
    with _database(request) as connection:
        old, new = (store.members_of(connection, tag) for tag in (asked.old, asked.new))
        held = store.active(connection)
    moves = [move.as_dict() for move in difference(old, new) if asked.all or move.decides]
    names = {"ACTIVE": held.version_tag if held is not None else None}
    return Json({"old": names.get(asked.old, asked.old), "new": names.get(asked.new, asked.new), "moves": moves})


def symbols(request: Request) -> Response:
    """Who has borne a symbol, from when until when, and what those have borne else."""
    parse_query(request, Query)
    deps: Deps = request.state.deps
    found = universe_symbols.history(request.path_params["symbol"], deps.database)
    return Json([{name: getattr(each, name) for name in each.__slots__} for each in found])


def recompute(request: Request) -> Response:
    """Make a version again from the bytes that were kept, and say whether it is the same; changes nothing."""
    asked = parse_query(request, TagQuery)
    with _database(request) as connection:
        bundle = bundle_of(connection, store.chosen(connection, asked.tag))
    return Json(checked(bundle).as_dict())


def export(request: Request) -> Response:
    """A version with all that it is made of, as a zip that `mdtasks universe recompute --from` takes."""
    asked = parse_query(request, TagQuery)
    with _database(request) as connection:
        bundle = bundle_of(connection, store.chosen(connection, asked.tag))
    headers = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'attachment; filename="{bundle.tag}.zip"',
    }
    return Response(packed(bundle), media_type="application/zip", headers=headers)


async def refresh(request: Request) -> Response:
    """Take a listing, a CSV in the body or a provider's, and make a version of it: 201; 200 when it was there."""
    asked = parse_query(request, RefreshQuery)
    deps: Deps = request.state.deps
    now = datetime.now(UTC)
    if asked.source == "csv":
        kept = [Kept(_day(asked.as_of, now), await _csv(request))]
    elif asked.as_of is not None:
        raise InvalidRequestError("a provider says itself of which day it tells", field="as_of", hint="leave it out")
    else:
        kept = list(await run_in_threadpool(universe_listings.listing_of, asked.source, deps, now))
    made = await run_in_threadpool(flow.refresh, asked.source, kept, Asked(request.state.actor, asked.tag), deps)
    return Json(made.as_dict(), 201 if made.changed else 200)


async def activate(request: Request) -> Response:
    """Let a version hold: tiers, jobs, gaps follow in one transaction. 409 when more would leave or go down."""
    parse_query(request, Query)
    asked = await _body(request, ActivateBody)
    deps: Deps = request.state.deps
    made, version = await run_in_threadpool(
        flow.activate, asked.tag, request.state.actor, asked.reason, deps, force=asked.force
    )
    told = {} if made is None else made.as_dict()
    return Json({"ok": True, "changed": made is not None, "version_tag": version.version_tag, **told})


async def rename(request: Request) -> Response:
    """Let an instrument bear another symbol from a day on: the same one, with all its bars."""
    parse_query(request, Query)
    asked = await _body(request, RenameBody)
    deps: Deps = request.state.deps
    now = datetime.now(UTC)
    on = asked.on or now.date()
    names = (asked.old, asked.new)
    done = await run_in_threadpool(universe_symbols.rename, names, on, request.state.actor, deps.database, now)
    return Json(done.as_dict())


def _day(as_of: date | None, now: datetime) -> date:
    if as_of is not None and as_of > now.date():
        raise InvalidRequestError(f"as_of {as_of} is still to come", field="as_of", hint="the day that it tells of")
    return as_of or now.date()


async def _csv(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "text/csv":
        what = f"the body is {media_type or 'of no declared type'}, not a listing"
        raise MediaTypeError(what, field="body", hint="send it with `Content-Type: text/csv`")
    return await read_body(request, MAX_LISTING)


def _database(request: Request) -> AbstractContextManager[Connection]:
    deps: Deps = request.state.deps
    return deps.database.transaction()


Body = TypeVar("Body", bound=BaseModel)


async def _body(request: Request, model: type[Body]) -> Body:
    document = await read_document(request)
    refuse_unknown(document, model, "field")
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        raise invalid_request(exc) from exc
