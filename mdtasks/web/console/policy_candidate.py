"""A policy that is to be: written, judged line by line, held against the one that holds, and applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import ConflictError, InvalidPolicyError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy import Plan, Wrong
from mdtasks.domain.policy.pages import yaml_of
from mdtasks.flows import policies as flow
from mdtasks.flows.policies import Asked, Reason, Verdict
from mdtasks.flows.policy_facts import Desk, desk_of
from mdtasks.web.console.forms import Sent, examined, filled, refusal
from mdtasks.web.console.policy import PATH, told
from mdtasks.web.console.policy_fields import text_of
from mdtasks.web.console.render import after_post, page
from mdtasks.web.parsing import Query
from mdtasks.web.policies import Number

#: Characters of a wrong line that are shown beside what is wrong with it.
_SHOWN: Final = 80


class Begin(Query):
    """What a new candidate begins as: the policy that holds, a version of it, or the policy's file."""

    version: Number | None = None
    start: Literal["file"] | None = None


class Candidate(Query):
    """A candidate with how it is to be applied.

    ``expect``: the version that was shown beside it. ``judged``: digest of the text whose effects were shown, or "".
    """

    text: str = ""
    reason: Reason = ""
    canary: Tier | None = None
    watch_s: Annotated[float, Field(ge=flow.LEAST_WATCH_S, le=flow.MOST_WATCH_S)] = flow.WATCH_S
    expect: Number
    judged: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a candidate, and the line on which it is."""

    wrong: Wrong
    line: str


def show(request: Request) -> Response:
    """A new policy to be written, beginning with the one that holds; a page."""
    asked = filled(request, Begin)
    desk = desk_of(request.state.deps)
    return _page(request, Sent({"text": _beginning(desk, asked)}), None)


def judge(request: Request) -> Response:
    """Judge a policy, changing nothing: what is wrong with it, or what it would change and do. The form of its page."""
    _, sent = examined(request, Candidate)
    return _page(request, sent, _verdict(request, sent))


def apply(request: Request) -> Response:
    """Make a policy the one that holds, or let a tier try it: the form of its page."""
    asked, sent = examined(request, Candidate)
    deps, now = request.state.deps, datetime.now(UTC)
    if asked is None:
        return _page(request, sent, _verdict(request, sent))
    who = Asked(request.state.actor, asked.reason, asked.expect, asked.canary, asked.watch_s)
    try:
        _require_judged(asked)
        outcome = flow.apply(desk_of(deps), asked.text, who, now)
    except InvalidPolicyError:
        return _page(request, sent, _verdict(request, sent))
    except ConflictError as error:
        return _page(request, refusal(sent, error), _verdict(request, sent))
    deps.policy.refresh(now, at_once=True)
    return after_post(PATH, told(outcome))


def _require_judged(asked: Candidate) -> None:
    """Raises ConflictError where the text is not the one whose effects were shown."""
    if asked.judged != _digest(asked.text):
        raise ConflictError(
            "this is not the text that was checked: nothing was changed",
            hint="see below what it would do, then apply it",
        )


def _beginning(desk: Desk, asked: Begin) -> str:
    """Raises NotFoundError, InvalidRequestError where the file cannot be read, InvalidPolicyError."""
    if asked.start == "file":
        return flow.read_own_file(desk)[0].decode("utf-8", "replace")
    version = flow.newest(desk) if asked.version is None else flow.one(desk, asked.version)
    return yaml_of(flow.show(desk, version).stored, comments=False)


def _verdict(request: Request, sent: Sent) -> Verdict:
    return flow.validate(desk_of(request.state.deps), sent.get("text"), datetime.now(UTC))


def _page(request: Request, sent: Sent, verdict: Verdict | None) -> Response:
    """The page of a candidate, with everything that was typed. It expects from now on the version that it shows."""
    holds = verdict.base if verdict else flow.newest(desk_of(request.state.deps))
    seen = sent.get("expect")
    wrongs = verdict.wrongs if verdict else ()
    values: dict[str, Any] = {
        "sent": sent,
        "verdict": verdict,
        "holds": holds,
        "moved": seen.isdecimal() and int(seen) != holds.version and sent.refused is None,
        "findings": _findings(sent.get("text"), wrongs),
        "judged": _digest(sent.get("text")) if verdict and verdict.policy else "",
        "plan": _plan(request, sent, verdict),
        "tiers": list(Tier),
        "watch": (flow.LEAST_WATCH_S, flow.WATCH_S, flow.MOST_WATCH_S),
        "text_of": text_of,
    }
    status = 422 if wrongs and sent.refused is None else sent.status
    return page(request, "policy/candidate.html", status=status, **values)


def _plan(request: Request, sent: Sent, verdict: Verdict | None) -> Plan | None:
    """What providers would have to serve; also of a candidate whose only fault is that it does not fit."""
    if verdict is None or verdict.policy is not None:
        return verdict.plan if verdict else None
    try:
        return flow.plan_of(desk_of(request.state.deps), sent.get("text"), datetime.now(UTC))
    except InvalidPolicyError:
        return None


def _findings(text: str, wrongs: Sequence[Wrong]) -> list[Finding]:
    lines = dict(enumerate(text.split("\n"), start=1))
    return [
        Finding(each, lines.get(each.line or 0, "").strip()[:_SHOWN])
        for each in sorted(wrongs, key=lambda each: each.line or 0)
    ]


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()
