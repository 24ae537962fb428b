"""/ops/dlq: dead letters as people see and requeue them; backfills under their job's id, all others under their own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mdtasks.domain.errors import InvalidRequestError, NotFoundError
from mdtasks.domain.jobs import ProviderName, Symbol, Tier
from mdtasks.flows import letter_reports
from mdtasks.flows import letters as flow
from mdtasks.flows.deps import Deps
from mdtasks.store import job_reports, jobs, letters
from mdtasks.store.letters import LetterFilter
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, QueryTime, parse_query

ErrorClass = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,99}$")]


class _Name(Convertor[str]):
    """An id in a path: what jobs and letters are called, and none of the words that are endpoints."""

    regex = r"(?!(?:purge|requeue)(?:/|$))[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _Name())


class LetterQuery(Query):
    """Which open letters."""

    tier: Tier | None = None
    symbol: Symbol | None = None
    provider: ProviderName | None = None
    error_class: ErrorClass | None = None
    since: QueryTime | None = None

    def which(self, backfills: bool) -> LetterFilter:
        """The filter, of backfills or of all others."""
        return LetterFilter(backfills, self.tier, self.symbol, self.provider, self.error_class, self.since)


class ListQuery(LetterQuery):
    """Which open letters, and how many at most."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class RequeueQuery(LetterQuery):
    """Which letters to requeue: a filter, ``all``, or a ``plan`` made by a dry run."""

    dry_run: bool = False
    all: bool = False
    plan: UUID | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether anything narrows the set."""
        return bool(self.model_fields_set & LetterQuery.model_fields.keys())


class PurgeQuery(Query):
    """How old a letter must be to go, days; ``dry_run``: only tell what would go."""

    days: Annotated[int, Field(ge=letters.LEAST_DAYS, le=letters.MOST_DAYS)] = letters.PURGE_DAYS
    dry_run: bool = False


def letter_routes(path: str, *, backfills: bool) -> list[Route]:
    """The endpoints of the letters of backfills, or of those of all else, below ``path``."""
    of_kind = partial(partial, backfills=backfills)
    return [
        Route(path, of_kind(list_letters)),
        Route(f"{path}/purge", of_kind(purge), methods=["DELETE"]),
        Route(f"{path}/requeue", of_kind(requeue_many), methods=["POST"]),
        Route(f"{path}/requeue/{{id:name}}", of_kind(requeue_one), methods=["POST"]),
        Route(f"{path}/{{id:name}}", of_kind(show)),
    ]


def list_letters(request: Request, *, backfills: bool) -> Response:
    """Open letters by filter, newest first."""
    asked = parse_query(request, ListQuery)
    with request.state.deps.database.transaction() as connection:
        rows = letters.matching(connection, asked.which(backfills), asked.limit)
    return Json([letter_entry(row, backfills) for row in rows])


def show(request: Request, *, backfills: bool) -> Response:
    """A letter whole: payload, envelope, traceback, and its job's attempts."""
    parse_query(request, Query)
    return Json(_whole(request.path_params["id"], backfills, request.state.deps))


def requeue_one(request: Request, *, backfills: bool) -> Response:
    """Requeue one letter; 404 with the reason when there is none or it is not failed."""
    parse_query(request, Query)
    state = request.state
    return Json(_requeue_one(request.path_params["id"], backfills, state.actor, state.deps))


def requeue_many(request: Request, *, backfills: bool) -> Response:
    """Requeue by filter: dry_run=true freezes and shows the set, plan=ID carries out a frozen one."""
    asked = parse_query(request, RequeueQuery)
    return Json({"ok": True, **_requeue_many(asked, backfills, request.state.actor, request.state.deps)})


def purge(request: Request, *, backfills: bool) -> Response:
    """Delete old letters, with an audit row that says which and by whom; dry_run=true only tells what would go."""
    asked = parse_query(request, PurgeQuery)
    before = datetime.now(UTC) - timedelta(days=asked.days)
    with request.state.deps.database.transaction() as connection:
        if asked.dry_run:
            found = letters.older(connection, before, backfills)
            return Json({"purged": 0, "would_purge": sum(row["letters"] for row in found), "causes": found})
        purged = letters.purge(connection, before, request.state.actor, backfills)
    return Json({"purged": purged})


def stats(request: Request) -> Response:
    """How many letters are open, since when, and by which cause; ``others`` (and ``letters``): of all but backfills.

    ``in_queue``: those on their way to the record; null while Redis is away.
    """
    parse_query(request, Query)
    deps: Deps = request.state.deps
    with deps.database.transaction() as connection:
        counts = letters.stats(connection)
        groups = letters.groups(connection)
    others = counts["open"] - counts["backfills"]
    return Json(
        {**counts, "others": others, "letters": others, "in_queue": letter_reports.in_queue(deps), "groups": groups}
    )


def letter_entry(row: Mapping[str, Any], backfills: bool) -> dict[str, Any]:
    """A letter as lists show it. A backfill's ``id`` is its job's, as users know it; ``letter`` is the record's."""
    return {
        "id": row["job_id"] if backfills else row["id"],
        "symbol": row["symbol"],
        "interval": row["interval"],
        "start_ts": row["start"],
        "end_ts": row["end"],
        "priority": row["tier"],
        "last_error": row["message"],
        "updated_at": row["updated_at"],
        "attempts": row["attempts"],
        "provider": row["provider"],
        "error_class": row["error_class"],
        "died_at": row["died_at"],
        "kind": row["kind"],
        "task": row["task"],
        "queue": row["queue"],
        "letter": row["id"],
        "job_id": row["job_id"],
    }


def _whole(letter_or_job_id: str, backfills: bool, deps: Deps) -> dict[str, Any]:
    found = letter_reports.whole(letter_or_job_id, deps)
    row = found.row
    _refuse_other_kind(row, backfills)
    said = {name: row[name] for name in ("state", "requeued_by", "traceback", "envelope")}
    return {**letter_entry(row, backfills), **said, "payload": found.payload, "history": found.history}


def _requeue_one(letter_or_job_id: str, backfills: bool, actor: str, deps: Deps) -> dict[str, Any]:
    with deps.database.transaction() as connection:
        try:
            row = letters.one(connection, letter_or_job_id)
        except NotFoundError:
            if jobs.statuses(connection, [letter_or_job_id]):  # a better reason
                status = job_reports.one_job(connection, letter_or_job_id)["status"]
                raise NotFoundError(
                    f"{letter_or_job_id} is not failed: it is {status}", hint=f"GET /ops/jobs/{letter_or_job_id}"
                ) from None
            raise
    _refuse_other_kind(row, backfills)
    return flow.requeue_job(letter_or_job_id, actor, deps)


def _refuse_other_kind(row: Mapping[str, Any], backfills: bool) -> None:
    if (row["kind"] == "backfill") != backfills:
        kind, path = ("a backfill", "backfills") if row["kind"] == "backfill" else (f"a {row['kind']}", "letters")
        raise NotFoundError(f"{row['id']} is the letter of {kind}", hint=f"it is under /ops/dlq/{path}")


def _requeue_many(asked: RequeueQuery, backfills: bool, actor: str, deps: Deps) -> dict[str, Any]:
    if asked.plan is not None:
        if asked.model_fields_set != {"plan"}:
            raise InvalidRequestError(
                "a plan is carried out as it was frozen: give no filter with it", field="plan", hint="give plan alone"
            )
        return flow.carry_out(str(asked.plan), actor, deps)
    if asked.all and asked.is_filtered:
        raise InvalidRequestError(
            "all=true and a filter contradict each other", field="all", hint="leave one of them out"
        )
    if not (asked.dry_run or asked.all or asked.is_filtered):
        raise InvalidRequestError(
            "without a filter this would requeue every dead letter",
            field="all",
            hint="narrow it (tier, symbol, provider, error_class, since), or say all=true; dry_run=true shows the set",
        )
    frozen = flow.plan(asked.which(backfills), actor, deps)
    return frozen.as_dict() if asked.dry_run else flow.carry_out(frozen.plan_id, actor, deps)
