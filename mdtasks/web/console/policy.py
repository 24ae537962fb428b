"""The policy as pages: what holds and who runs it, a trial and its end, its versions and the way back to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import ConflictError, InvalidPolicyError
from mdtasks.domain.policy import Effects, Plan
from mdtasks.domain.policy.canaries import Decision
from mdtasks.domain.policy.pages import yaml_of
from mdtasks.flows import policies as flow
from mdtasks.flows import policy_canaries, policy_status
from mdtasks.flows.deps import Deps
from mdtasks.flows.policies import Asked, Reason
from mdtasks.flows.policy_facts import desk_of, policy_file
from mdtasks.flows.policy_watch import Running
from mdtasks.store.policies import Version
from mdtasks.web.console.forms import Sent, examined, refusal
from mdtasks.web.console.policy_fields import overrides, sections, text_of
from mdtasks.web.console.render import after_post, page
from mdtasks.web.looks import look
from mdtasks.web.parsing import Query, parse_query
from mdtasks.web.policies import Number

PATH: Final = "/console/policy"
#: Versions that the page lists.
_VERSIONS: Final = 50


class End(Query):
    """Why a trial is ended, and of which version: the one that was looked at."""

    reason: Reason = ""
    expect: Number


class Back(Query):
    """Why an earlier version is brought back, which one is expected to hold, and that it is meant."""

    reason: Reason = ""
    expect: Number
    confirmed: Literal["yes"] = Field()


@dataclass(frozen=True, slots=True)
class Stored:
    """What PostgreSQL tells of the policy. ``running`` is None where it cannot be followed here, and ``unfit`` why."""

    version: Version
    running: Running | None
    unfit: str
    versions: Sequence[Version]
    plan: Plan


async def show(request: Request) -> Response:
    """The policy that holds, who runs which version, what a tier tries, the quotas, the versions; a page."""
    parse_query(request, Query)
    return await _holds(request, Sent())


def show_version(request: Request) -> Response:
    """A version of the policy: what it changed, what going back to it would change, its content; a page."""
    parse_query(request, Query)
    return _version(request, Sent())


def rollback(request: Request) -> Response:
    """Bring an earlier version back: the form of its page."""
    asked, sent = examined(request, Back)
    if asked is None:
        return _version(request, sent)
    deps, now = request.state.deps, datetime.now(UTC)
    who = Asked(request.state.actor, asked.reason, asked.expect)
    try:
        outcome = flow.rollback(desk_of(deps), request.path_params["version"], who, now)
    except (ConflictError, InvalidPolicyError) as error:
        return _version(request, refusal(sent, error))
    deps.policy.refresh(now, at_once=True)
    return after_post(PATH, told(outcome))


async def promote(request: Request) -> Response:
    """Let the policy that a tier tries hold everywhere: the form of the policy's page."""
    return await _end(request, Decision.PROMOTED)


async def withdraw(request: Request) -> Response:
    """Take back the policy that a tier tries: the form of the policy's page."""
    return await _end(request, Decision.WITHDRAWN)


def told(outcome: flow.Outcome) -> str:
    """What became of a change, for people."""
    made = outcome.version
    if not outcome.changed:
        return f"Policy {made.version} has this content already: nothing was changed."
    if outcome.canary is not None:
        return f"The workers of {outcome.canary} try policy {made.version}; {made.parent} holds elsewhere."
    later = "" if outcome.announced else " Redis does not answer: processes find it within half a minute."
    return f"Policy {made.version} holds in place of {made.parent}.{later}"


async def _end(request: Request, decision: Decision) -> Response:
    asked, sent = examined(request, End)
    if asked is None:
        return await _holds(request, sent)
    deps, now = request.state.deps, datetime.now(UTC)
    who = Asked(request.state.actor, asked.reason, asked.expect)
    end = partial(policy_canaries.end, desk_of(deps), decision, who, now)
    try:
        ended = await run_in_threadpool(end)
    except ConflictError as error:
        return await _holds(request, refusal(sent, error))
    await run_in_threadpool(deps.policy.refresh, now, at_once=True)
    return after_post(PATH, f"Policy {ended.version}, tried by {ended.tier}, is {ended.decision}.")


async def _holds(request: Request, sent: Sent) -> Response:
    """The policy's page. Raises what PostgreSQL raises; without Redis it is not known who runs what."""
    deps, now = request.state.deps, datetime.now(UTC)
    desk = desk_of(deps)
    found = await look(
        deps,
        stored=partial(_read_stored, now=now),
        status=lambda _deps: policy_status.status(desk, now),
        trial=lambda _deps: policy_canaries.trial(desk, now),
    )
    stored: Stored | None = found.of("stored")
    if stored is None:
        raise found.errors["stored"]
    status: policy_status.Status | None = found.of("status")
    trial: policy_canaries.Trial | None = found.of("trial")
    settled = status is not None and all(each.state in ("current", "canary") for each in status.standings)
    values: dict[str, Any] = {
        "stored": stored,
        "sections": sections(stored.running) if stored.running else [],
        "overrides": overrides(stored.running) if stored.running else [],
        "file": policy_file(desk.settings),
        "following": status,
        "trial": trial,
        "moving": trial is not None or not settled,
        "away": next(iter({str(each): each for each in found.errors.values()}.values()), None),
    }
    return await run_in_threadpool(page, request, "policy/holds.html", status=sent.status, sent=sent, **values)


def _read_stored(deps: Deps, now: datetime) -> Stored:
    desk = desk_of(deps)
    version = flow.newest(desk)
    running, unfit = None, ""
    try:
        running = flow.show(desk, version)
    except InvalidPolicyError as error:
        unfit = error.message
    return Stored(version, running, unfit, flow.history(desk, _VERSIONS), flow.plan_of(desk, None, now))


def _version(request: Request, sent: Sent) -> Response:
    desk, now = desk_of(request.state.deps), datetime.now(UTC)
    version, holds = flow.one(desk, request.path_params["version"]), flow.newest(desk)
    before = flow.one(desk, version.parent) if version.version else None
    values: dict[str, Any] = {
        "version": version,
        "holds": holds,
        "did": flow.compare(desk, before, version, now) if before else Effects(),
        "would": flow.compare(desk, holds, version, now),
        "trial": policy_canaries.of_version(desk, version.version, now),
        "text_of": text_of,
        "content": yaml_of(flow.policy_of(version), comments=False),
    }
    return page(request, "policy/version.html", status=sent.status, sent=sent, **values)
