"""/ops/policy, /ops/validate, /ops/reload and /stats/policy: the policy, shown, judged and changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import MediaTypeError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy.canaries import Decision
from mdtasks.flows import policies as flow
from mdtasks.flows import policy_canaries, policy_status
from mdtasks.flows.deps import Deps
from mdtasks.flows.policies import Asked, Reason
from mdtasks.flows.policy_facts import Desk, desk_of, policy_file
from mdtasks.web.answers import Json
from mdtasks.web.parsing import Query, parse_query, read_body

#: What a candidate's body may say it is. A page of another site cannot send any of them unasked.
_MEDIA_TYPES: Final = ("application/json", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")

Number = Annotated[int, Field(ge=0, lt=2**63)]


class ShowQuery(Query):
    """Which version; the one that holds where none is named."""

    version: Number | None = None


class HistoryQuery(Query):
    """How many."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ReloadQuery(Query):
    """Why, which version is expected to hold, and the tier whose workers try it first, for how many seconds."""

    reason: Reason = ""
    expect: Number | None = None
    canary: Tier | None = None
    watch_s: Annotated[float, Field(ge=flow.LEAST_WATCH_S, le=flow.MOST_WATCH_S)] = flow.WATCH_S


class EndQuery(Query):
    """Why, and which version is expected to be tried."""

    reason: Reason = ""
    expect: Number | None = None


def show(request: Request) -> Response:
    """The policy that holds, or a version of it: as applied, and what the environment here sets in its place."""
    asked = parse_query(request, ShowQuery)
    desk = desk_of(request.state.deps)
    version = flow.newest(desk) if asked.version is None else flow.one(desk, asked.version)
    running = flow.show(desk, version)
    return Json(
        {
            **version.as_dict(),
            "policy": running.policy.model_dump(mode="json"),
            "stored": running.stored.model_dump(mode="json"),
            "overridden": dict(running.overridden),
            "file": policy_file(desk.settings),
        }
    )


def history(request: Request) -> Response:
    """The versions of the policy, the newest first: who, when, why."""
    asked = parse_query(request, HistoryQuery)
    found = flow.history(desk_of(request.state.deps), asked.limit)
    return Json([each.as_dict() for each in found])


async def validate(request: Request) -> Response:
    """Judge a policy, YAML or JSON in the body, or without one the file: what is wrong with it, or what it would do."""
    parse_query(request, Query)
    desk = desk_of(request.state.deps)
    data = await _candidate(request, desk)
    verdict = await run_in_threadpool(flow.validate, desk, data, datetime.now(UTC))
    return Json(verdict.as_dict())


async def reload(request: Request) -> Response:
    """Make a policy, YAML or JSON in the body, or without one the file, the one that holds."""
    asked = parse_query(request, ReloadQuery)
    deps: Deps = request.state.deps
    desk = desk_of(deps)
    data = await _candidate(request, desk)
    who = Asked(request.state.actor, asked.reason, asked.expect, asked.canary, asked.watch_s)
    outcome = await run_in_threadpool(flow.apply, desk, data, who, datetime.now(UTC))
    await run_in_threadpool(deps.policy.refresh, datetime.now(UTC), at_once=True)
    return Json(outcome.as_dict())


def canary(request: Request) -> Response:
    """The policy that the workers of a tier try, how it does so far, and what would become of it now."""
    parse_query(request, Query)
    found = policy_canaries.trial(desk_of(request.state.deps), datetime.now(UTC))
    return Json({"canary": None if found is None else found.as_dict()})


def promote(request: Request) -> Response:
    """Make the policy that a tier tries the one that holds everywhere."""
    return _end(request, Decision.PROMOTED)


def withdraw(request: Request) -> Response:
    """Take back the policy that a tier tries."""
    return _end(request, Decision.WITHDRAWN)


def _end(request: Request, decision: Decision) -> Response:
    asked = parse_query(request, EndQuery)
    desk, now = desk_of(request.state.deps), datetime.now(UTC)
    ended = policy_canaries.end(desk, decision, Asked(request.state.actor, asked.reason, asked.expect), now)
    return Json({"ok": True, **ended.as_dict()})


def status(request: Request) -> Response:
    """Which process runs which version of the policy, since when, and who is behind."""
    parse_query(request, Query)
    return Json(policy_status.status(desk_of(request.state.deps), datetime.now(UTC)).as_dict())


async def _candidate(request: Request, desk: Desk) -> bytes:
    """The body, or where there is none the policy's file. Raises MediaTypeError, BodyTooLargeError, NotFoundError."""
    body = await read_body(request)
    if not body:
        return (await run_in_threadpool(flow.read_own_file, desk))[0]
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        raise MediaTypeError(
            f"the body is {media_type or 'of no declared type'}, not a policy",
            field="body",
            hint="send `Content-Type: application/yaml` or `application/json`, or no body for the policy's file",
        )
    return body
