"""Dead letters as pages: by cause, by filter, one whole; sent again after a look at what that does; purged."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.jobs import ProviderName, Symbol, Tier
from mdtasks.flows import letter_reports
from mdtasks.flows import letters as flow
from mdtasks.store import letters
from mdtasks.store.letters import LetterFilter
from mdtasks.web.console.forms import filled, parsed
from mdtasks.web.console.render import after_post, page
from mdtasks.web.deadletters import ErrorClass
from mdtasks.web.parsing import Query, QueryTime, parse_query

PATH: Final = "/console/dead-letters"
#: Stands for "none" where a filter names a provider or a task, so that it differs from no filter.
NONE: Final = "-"
#: Letters that a plan names one by one.
_NAMED: Final = 50

TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]


class Wanted(Query):
    """Which open letters; what is left blank does not narrow."""

    kind: Literal["backfills", "others"] | None = None
    tier: Tier | None = None
    symbol: Symbol | None = None
    provider: ProviderName | Literal["-"] | None = None
    error_class: ErrorClass | None = None
    task: TaskName | None = None
    since: QueryTime | None = None

    @property
    def which(self) -> LetterFilter:
        """The filter."""
        backfills = None if self.kind is None else self.kind == "backfills"
        provider = "" if self.provider == NONE else self.provider
        task = "" if self.task == NONE else self.task
        return LetterFilter(backfills, self.tier, self.symbol, provider, self.error_class, self.since, task)

    @property
    def given(self) -> dict[str, str]:
        """What narrows, as a form has it."""
        return {name: str(value) for name, value in self.model_dump(mode="json").items() if value is not None}


class Listed(Wanted):
    """Which open letters, and how many at most."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Age(Query):
    """How old a letter must be to go, days."""

    days: Annotated[int, Field(ge=letters.LEAST_DAYS, le=letters.MOST_DAYS)] = letters.PURGE_DAYS


class Purge(Age):
    """The same, and that it is meant."""

    confirmed: Literal["yes"]


def show(request: Request) -> Response:
    """Dead letters by cause and by filter, a page."""
    asked = filled(request, Listed)
    found = letter_reports.overview(asked.which, asked.limit, request.state.deps)
    narrowed = {name: value for name, value in asked.given.items() if name != "limit"}
    values: dict[str, Any] = {"found": found, "narrowed": narrowed, "tiers": list(Tier), "limit": asked.limit}
    return page(request, "letters/list.html", **values, cause=_cause, link=letter_path, finding=letters.FINDING)


def show_letter(request: Request) -> Response:
    """A dead letter whole: payload, attempts with their traces, traceback; a page."""
    parse_query(request, Query)
    found = letter_reports.whole(request.path_params["id"], request.state.deps)
    payload = None if found.payload is None else orjson.dumps(found.payload, option=orjson.OPT_INDENT_2).decode()
    values: dict[str, Any] = {"letter": found.row, "payload": payload, "history": found.history}
    never, is_finding = flow.why_never(found.row), found.row["kind"] == letters.FINDING
    return page(request, "letters/one.html", **values, never=never, is_finding=is_finding)


def requeue(request: Request) -> Response:
    """Requeue one letter: the form of its page."""
    letter_id, state = request.path_params["id"], request.state
    done = flow.requeue_job(letter_id, state.actor, state.deps)
    return after_post(letter_path(letter_id), _told(done))


def plan(request: Request) -> Response:
    """Freeze the letters that match, to be looked at before they are requeued: a form."""
    asked, state = parsed(request, Wanted), request.state
    frozen = flow.plan(asked.which, state.actor, state.deps)
    return after_post(f"{PATH}/requeue/{frozen.plan_id}")


def show_plan(request: Request) -> Response:
    """What a requeue would do, or did and how its jobs stand: a page."""
    parse_query(request, Query)
    plan_id, deps = request.path_params["plan"], request.state.deps
    frozen = flow.plan_again(plan_id, deps)
    progress = letter_reports.progress(plan_id, deps) if frozen.result is not None else None
    values: dict[str, Any] = {"plan": frozen, "progress": progress, "named": frozen.ids[:_NAMED], "link": letter_path}
    return page(request, "letters/plan.html", **values, deferred=_deferred(frozen))


def carry_out(request: Request) -> Response:
    """Requeue exactly the letters of a plan: the form of its page."""
    plan_id, state = request.path_params["plan"], request.state
    return after_post(f"{PATH}/requeue/{plan_id}", _told(flow.carry_out(plan_id, state.actor, state.deps)))


def show_purge(request: Request) -> Response:
    """What a purge of old letters would delete: a page."""
    asked = filled(request, Age)
    with request.state.deps.database.transaction() as connection:
        found = letters.older(connection, _before(asked), None)
    total, jobs = (sum(row[name] for row in found) for name in ("letters", "jobs"))
    return page(request, "letters/purge.html", found=found, days=asked.days, total=total, jobs=jobs)


def purge(request: Request) -> Response:
    """Delete old letters: the form of that page."""
    if "confirmed" not in request.state.form:
        raise InvalidRequestError("nothing was deleted: the box was not ticked", field="confirmed", hint="go back")
    asked = parsed(request, Purge)
    with request.state.deps.database.transaction() as connection:
        gone = letters.purge(connection, _before(asked), request.state.actor, None)
    return after_post(PATH, f"{gone:,} letters were deleted.")


def letter_path(letter_id: str) -> str:
    """Where a letter's page is."""
    return f"{PATH}/{quote(letter_id, safe=':')}"


def _before(asked: Age) -> datetime:
    return datetime.now(UTC) - timedelta(days=asked.days)


def _cause(group: Mapping[str, Any]) -> dict[str, str]:
    """The filter of a group."""
    return {
        "provider": group["provider"] or NONE,
        "error_class": group["error_class"],
        "task": group["task"] or NONE,
    }


def _deferred(frozen: flow.Preview) -> dict[str, int]:
    """Of each tier, how many of the set are over the room that its queue has now."""
    over = {tier: number - frozen.room.get(tier, 0) for tier, number in frozen.by_tier.items()}
    return {tier: number for tier, number in over.items() if number > 0}


def _told(done: Mapping[str, Any]) -> str:
    said = [f"{done['requeued']:,} requeued"]
    said += [f"{done[name]:,} {words}" for name, words in _OUTCOMES.items() if done.get(name)]
    return ", ".join(said) + "."


_OUTCOMES: Final = {
    "merged": "merged with jobs that ask for the same",
    "skipped": "skipped: no longer open",
    "refused": "refused: no room, or no job in it",
}
