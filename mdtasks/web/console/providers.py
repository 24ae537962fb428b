"""Providers as pages: how each stands and stood, why one is aside, with its case; leaving one aside, and no longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Annotated, Any, Final
from urllib.parse import quote

from pydantic import Field, StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain import health
from mdtasks.domain.errors import ConflictError, InvalidRequestError
from mdtasks.domain.jobs import Interval
from mdtasks.flows import provider_reports
from mdtasks.flows import providers as flow
from mdtasks.flows.provider_reports import Record, Report
from mdtasks.web.console.charts import OVER, Chart, Frame, Over, line
from mdtasks.web.console.forms import Sent, examined, filled, refusal
from mdtasks.web.console.render import after_post, page
from mdtasks.web.console.sparkline import sparkline
from mdtasks.web.looks import look
from mdtasks.web.parsing import Query, parse_query

PATH: Final = "/console/providers"
#: A provider's states in words.
STATES: Final = {"closed": "serving", "open": "demoted", "half_open": "being probed", "paused": "paused"}
_ORDERS: Final = {"bars": "intraday bars", "eod": "daily bars", "quotes": "quotes"}
#: The parts of the score, by their names in a look, with what each weighs.
_PARTS: Final = {"latency": health.LATENCY, "errors": health.ERRORS, "completeness": health.COMPLETENESS}


class Shown(Query):
    """How far back the charts reach."""

    over: Over = "6h"


class Why(Query):
    """Why somebody resumes a provider."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""


class Reason(Why):
    """Why somebody pauses one, which must be said."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000), Field(min_length=1)]


def show(request: Request) -> Response:
    """Every provider: its state, health in its last looks, latency, errors, what may go at once; a page."""
    parse_query(request, Query)
    found = provider_reports.report(request.state.deps)
    return page(request, "providers/list.html", found=found, link=path_of, states=STATES, spark=health_line, took=_took)


async def show_one(request: Request) -> Response:
    """One provider: health over time, why it is aside, transitions with their cases, slow calls; a page."""
    asked = filled(request, Shown)
    return await _one(request, asked.over, Sent())


async def pause(request: Request) -> Response:
    """Leave a provider aside until somebody resumes it: the form of its page."""
    return await _changed(request, Reason, flow.pause)


async def resume(request: Request) -> Response:
    """Let a paused provider be asked again: the form of its page."""
    return await _changed(request, Why, flow.resume)


def path_of(name: str) -> str:
    """Where a provider's page is."""
    return f"{PATH}/{quote(name, safe='')}"


def health_line(report: Report) -> str:
    """The last looks at a provider as a small picture."""
    scores = [float(each["health_score"]) for each in report.history]
    lowest = f", lowest {min(scores):.2f}" if scores else ""
    return sparkline(scores, f"health of {report.standing.name} in its last {len(scores)} looks{lowest}")


async def _changed(request: Request, model: type[Why], change: Callable[..., flow.Change]) -> Response:
    asked, sent = examined(request, model)
    name, state = request.path_params["name"], request.state
    if asked is None:
        return await _one(request, "6h", sent)
    try:
        made = await run_in_threadpool(change, name, asked.reason, state.actor, state.deps, datetime.now(UTC))
    except (ConflictError, InvalidRequestError) as error:
        provider_reports.require_configured(name, state.deps)
        return await _one(request, "6h", refusal(sent, error))
    return after_post(path_of(name), _told(made))


def _told(made: flow.Change) -> str:
    done = {
        "paused": f"{made.provider} is paused: nobody asks it until it is resumed.",
        "resumed": f"{made.provider} is asked again; what waited for it goes out now.",
    }
    later = "" if made.in_force else " It is on record; Redis is away, and it takes force within 10 s of its return."
    return done[made.state] + later


async def _one(request: Request, over: Over, sent: Sent) -> Response:
    """The page of a provider. What a server that is away would have told is not known; the rest is shown."""
    name, deps, now = request.path_params["name"], request.state.deps, datetime.now(UTC)
    provider_reports.require_configured(name, deps)
    since = now - OVER[over]
    found = await look(
        deps,
        now=partial(provider_reports.standing_of, name),
        record=partial(provider_reports.record_of, name, since=since, now=now),
    )
    report: Report | None = found.of("now")
    record: Record | None = found.of("record")
    held = report.standing.pause if report else None
    values = {
        "name": name,
        "report": report,
        "record": record,
        "pause": record.pause if record else held,
        "others": [each for each in deps.registry.names() if each != name],
        "errors": found.errors,
        "charts_of": _charts(record, Frame("", since, now, record.step_s)) if record else [],
        "parts_of": list(_parts(report)) if report else [],
        "sample_documents": [health.as_document(each) for each in report.samples] if report else [],
        "served": list(_served(report)) if report else [],
        "over": over,
        "spans": list(OVER),
    }
    words = {"states": STATES, "took": _took, "path": path_of(name), "samples_of": _samples}
    return await run_in_threadpool(
        page, request, "providers/one.html", status=sent.status, charts=True, sent=sent, **values, **words
    )


def _took(report: Report) -> float | None:
    """The median of its newest requests, seconds."""
    return median(report.latencies_s) if report.latencies_s else None


def _parts(report: Report) -> Iterator[tuple[str, float, float]]:
    """The parts of the score: name, value, and what it weighs."""
    yield "breaker", report.standing.circuit.value_of, health.BREAKER
    for name, share in _PARTS.items():
        yield name, getattr(report.standing.parts, name), share


def _served(report: Report) -> Iterator[tuple[str, str]]:
    """What it is asked for, and what it declares."""
    told = report.capabilities
    for order, place in report.places.items():
        yield _ORDERS[order], f"no. {place} in the policy's order" if place else "not in the policy's order"
    yield "intervals", ", ".join(each.value for each in Interval if each in told.intervals) or "none"
    yield "symbols a call", f"{told.max_symbols:,}"
    yield "reaches back", f"{told.history.days:,} days" if told.history is not None else "not declared"
    yield "answers", "complete" if told.complete else "silence proves nothing"
    yield "late by", f"{told.delay_s:g} s"


def _charts(record: Record, frame: Frame) -> list[Chart]:
    """The score over time, and its parts."""
    bands = list(_aside(record))
    made = []
    for name in ("score", *_PARTS):
        own = Frame(name, frame.start, frame.end, max(frame.step_s, _LOOKS_APART_S))
        made.append(line(own, [(each["from_at"], float(each[name])) for each in record.looks], bands=bands))
    return made


#: Beat looks this often, seconds.
_LOOKS_APART_S: Final = 10.0


def _aside(record: Record) -> Iterator[tuple[datetime, datetime, str]]:
    """The stretches in which it was not asked in its turn."""
    begun: tuple[datetime, str] | None = None
    for each in record.looks:
        aside = each["state"] if each["state"] != "closed" else None
        if begun is not None and aside != begun[1]:
            yield begun[0], each["from_at"], STATES[begun[1]]
            begun = None
        if aside is not None and begun is None:
            begun = (each["from_at"], aside)
    if begun is not None:
        yield begun[0], record.looks[-1]["at"], STATES[begun[1]]


def _samples(case: Mapping[str, Any]) -> tuple[Sequence[Mapping[str, Any]], int, int]:
    """The samples of a case, how many of them are requests, and how many of those failed."""
    samples: Sequence[Mapping[str, Any]] = case.get("samples", ())
    requests = [each for each in samples if each["code"] != health.JUDGED]
    return samples, len(requests), sum(each["code"] != health.ANSWERED for each in requests)
