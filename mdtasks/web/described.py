"""What is said of each endpoint beside its code: the model its request is parsed by, what it answers, what it refuses
with. ``/openapi.json`` is made of it, and tests hold the app to it: a new endpoint needs its line here.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.reading import STATUSES
from mdtasks.flows.backfill import BackfillRequest
from mdtasks.flows.bar_formats import FORMATS
from mdtasks.flows.overrides import OverrideRequest
from mdtasks.web import (
    actions,
    backfills,
    bars,
    calendars,
    crosschecks,
    deadletters,
    gaps,
    live,
    policies,
    probes,
    provenance,
    providers,
    slo,
    traces,
    universe,
)
from mdtasks.web.answers import Json
from mdtasks.web.openapi import Described, Schema, Table, document
from mdtasks.web.parsing import Query, parse_query
from mdtasks.web.stream import plain


def show(request: Request) -> Response:
    """This app in OpenAPI 3.1, for tools that make clients or test it."""
    parse_query(request, Query)
    state = request.app.state
    if not hasattr(state, "openapi"):
        state.openapi = document(request.app.routes, DESCRIBED)
    return Json(state.openapi)


def _object(*names: str, **fields: Schema) -> dict[str, Schema]:
    """A JSON object that has these fields, of any kind or of the kind given, and maybe more."""
    properties: Schema = {**{name: {} for name in names}, **fields}
    return {_JSON: {"type": "object", "required": list(properties), "properties": properties}}


def _listed(*names: str) -> dict[str, Schema]:
    """A JSON array of such objects."""
    return {_JSON: _array(_object(*names)[_JSON])}


def _holding(name: str, *names: str) -> dict[str, Schema]:
    """A JSON object with such an array in it."""
    return _object(**{name: _listed(*names)[_JSON]})


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_JSON: Final = "application/json"
_PAGE: Final = {"text/html": {"type": "string"}}
_TEXT: Final[Schema] = {"type": "string"}
_BYTES: Final[Schema] = {"type": "string", "format": "binary"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_NUMBER: Final[Schema] = {"type": ["number", "null"]}
_OK: Final[Schema] = {"const": True}
_NAMED: Final[Schema] = {"type": ["string", "null"]}
_MAYBE_TIME: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}

#: Statuses of whoever takes a body, beside 422 and 503.
_BODY: Final = (413, 415, 422, 503)
_ALONE: Final = (422,)

_BAR: Final[Schema] = {
    "type": "object",
    "required": ["ts", "open", "high", "low", "close", "volume", "provider", "status", "known_at"],
    "properties": {
        "symbol": {**_TEXT, "description": "of many symbols only"},
        "ts": {**_TIME, "description": "start of the interval"},
        **dict.fromkeys(("open", "high", "low", "close"), _NUMBER),
        "volume": {"type": "number"},
        "provider": _NAMED,
        "status": {"enum": list(STATUSES)},
        "known_at": _MAYBE_TIME,
    },
    "additionalProperties": False,
}
_BARS: Final[dict[str, Schema]] = {
    **_object(
        interval=_TEXT,
        start=_TIME,
        end=_MAYBE_TIME,
        as_of=_MAYBE_TIME,
        session=_TEXT,
        fill=_TEXT,
        adjust=_TEXT,
        next_cursor=_NAMED,
        bars=_array(_BAR),
    ),
    **{each.media_type.partition(";")[0]: _BYTES for name, each in FORMATS.items() if name != "json"},
}
_TAGGED: Final[Schema] = {
    "name": "If-None-Match",
    "in": "header",
    "schema": {"type": "string", "pattern": '^(W/)?"[0-9a-f]{1,32}"$'},
    "description": "tags of answers that the client has",
}
_JOB: Final = ("id", "symbol", "interval", "start_ts", "end_ts", "priority", "status", "attempts", "max_attempts")
_LETTER: Final = ("id", "symbol", "interval", "start_ts", "end_ts", "priority", "last_error", "attempts", "error_class")
_OVERRIDE: Final = ("id", "kind", "reason", "start", "end")
_UNIVERSE: Final = ("version_tag", "hash", "source", "members")
_PROVIDER: Final = ("health_score", "parts", "state", "history")
_VERSION: Final = ("policy_version", "hash", "author", "reason")
_POLICY_TYPES: Final = ("application/json", "application/yaml")
_CHANGED: Final = _object("provider", "state", "by", "reason", "at", "in_force", ok=_OK)
_CANDIDATE: Final[Schema] = {"type": "object", "description": "a policy (docs/policy.md)"}

DESCRIBED: Final[Table] = {
    show: Described(_object("openapi", "info", "paths", "components"), refusals=_ALONE),
    probes.health: Described(_object(ok=_OK), refusals=()),
    probes.ready: Described(_object("parts", ok=_OK), errors={503: _object("ok", "parts")[_JSON]}),
    probes.metrics: Described({"text/plain": _TEXT}, refusals=()),
    bars.one: Described(_BARS, bars.OneQuery, headers=[_TAGGED], bare={304: "the client has it"}),
    bars.many: Described(_BARS, bars.ManyQuery, (404, 422, 503), headers=[_TAGGED], bare={304: "the client has it"}),
    live.latest_quotes: Described(
        _object(quotes=_array(_object("symbol", "ts", "bid", "ask")[_JSON])), live.QuotesQuery
    ),
    live.cadence: Described(_object("mode", "tiers")),
    providers.stats: Described(_holding("providers", *_PROVIDER), providers.ProvidersQuery),
    providers.show: Described(_object(*_PROVIDER, "transitions"), providers.ProvidersQuery, (404, 422, 503)),
    providers.pause: Described(_CHANGED, refusals=(*_BODY, 409), body=providers.Why, needs_body=False),
    providers.resume: Described(_CHANGED, refusals=(*_BODY, 409), body=providers.Why, needs_body=False),
    policies.status: Described(_object("policy_version", "hash", "behind", "processes")),
    policies.show: Described(
        _object(*_VERSION, "policy", "stored", "overridden", "file"), policies.ShowQuery, (404, 422, 503)
    ),
    policies.history: Described(_listed(*_VERSION), policies.HistoryQuery),
    policies.validate: Described(
        _object("policy_version", "changes", ok=_OK),
        refusals=(*_BODY, 404),
        body=_CANDIDATE,
        needs_body=False,
        body_types=_POLICY_TYPES,
    ),
    policies.reload: Described(
        _object("policy_version", "changed", ok=_OK),
        policies.ReloadQuery,
        (*_BODY, 404, 409),
        body=_CANDIDATE,
        needs_body=False,
        body_types=_POLICY_TYPES,
    ),
    policies.canary: Described(_object("canary")),
    policies.promote: Described(_object("policy_version", "decision", ok=_OK), policies.EndQuery, (409, 422, 503)),
    policies.withdraw: Described(_object("policy_version", "decision", ok=_OK), policies.EndQuery, (409, 422, 503)),
    actions.show: Described(_object("symbol", "as_of", "actions"), actions.ActionsQuery),
    universe.show: Described(_object(*_UNIVERSE, "tiers", "listed"), universe.ShowQuery, (404, 422, 503)),
    universe.versions: Described(_listed(*_UNIVERSE), universe.ListQuery),
    universe.history: Described(_listed("version_tag", "activated_at"), universe.ListQuery),
    universe.diff: Described(_object("old", "new", "moves"), universe.DiffQuery, (404, 422, 503)),
    universe.symbols: Described(_listed("instrument_id", "symbol", "valid_from", "valid_to", "mic", "tier")),
    universe.recompute: Described(_object("tag", "hash", "same"), universe.TagQuery, (404, 409, 422, 503)),
    universe.export: Described({"application/zip": _BYTES}, universe.TagQuery, (404, 422, 503)),
    universe.refresh: Described(
        _object(*_UNIVERSE, "changed", ok=_OK),
        universe.RefreshQuery,
        (*_BODY, 404, 409, 502),
        status=201,
        also=[200],
        body=_TEXT,
        needs_body=False,
        body_types=("text/csv",),
    ),
    universe.activate: Described(
        _object("changed", "version_tag", ok=_OK), refusals=(*_BODY, 404, 409), body=universe.ActivateBody
    ),
    universe.rename: Described(_object(ok=_OK), refusals=(*_BODY, 404, 409), body=universe.RenameBody),
    provenance.why: Described(
        _object("symbol", "interval", "start", "end", "verdict", "bar", "versions"), provenance.WhyQuery
    ),
    provenance.diff: Described(_object("symbol", "interval"), provenance.DiffQuery),
    crosschecks.show: Described(_object(), crosschecks.ReconciliationQuery),
    plain.replay: Described(
        {**_object("symbol", "interval", "position", "resumed", "entries"), "text/event-stream": _TEXT},
        plain.ReplayQuery,
    ),
    plain.asyncapi: Described({"application/yaml": {"type": "object"}}, refusals=_ALONE),
    gaps.show: Described(_object("symbol", "expected", "present", "missing", "gaps", "ledger"), gaps.GapQuery),
    gaps.accept: Described(_object("symbol", "accepted", "windows", ok=_OK), refusals=_BODY, body=gaps.Acceptance),
    calendars.show: Described(
        _object("mic", "zone", "version", "horizon", "start", "end", "sessions"), calendars.ShowQuery
    ),
    calendars.list_overrides: Described(_listed(*_OVERRIDE), calendars.ListQuery),
    calendars.tell: Described(_object(*_OVERRIDE, ok=_OK), refusals=(*_BODY, 409), status=201, body=OverrideRequest),
    calendars.undo: Described(_object(*_OVERRIDE, ok=_OK), calendars.UndoQuery, (404, 409, 422, 503)),
    slo.show: Described(_object("at", "last_run", "every_s", "objectives", "last_trouble"), slo.SloQuery),
    backfills.ask: Described(
        _object("request", "queued", "deferred", "merged", "covered", "refused", "progress", ok=_OK),
        refusals=_BODY,
        status=202,
        body=BackfillRequest,
    ),
    backfills.progress: Described(_object("request", "jobs", "total", "ended", "finished", "bars", "last_error")),
    backfills.list_jobs: Described(_listed(*_JOB), backfills.JobQuery),
    backfills.show_job: Described(_object(*_JOB, "history")),
    traces.list_traces: Described(
        _object(traces=_array(_object("id", "provider", "latency_s")[_JSON])), traces.TraceQuery
    ),
    traces.show_trace: Described(_PAGE),
    traces.raw_trace: Described(_object()),
    deadletters.stats: Described(_object("open", "backfills", "others", "letters", "in_queue", "groups")),
    deadletters.list_letters: Described(_listed(*_LETTER), deadletters.ListQuery),
    deadletters.show: Described(_object(*_LETTER, "payload", "envelope", "history")),
    deadletters.requeue_one: Described(_object("job_id", ok=_OK), refusals=(409, 422, 503)),
    deadletters.requeue_many: Described(_object(ok=_OK), deadletters.RequeueQuery, (404, 409, 422, 503)),
    deadletters.purge: Described(_object("purged"), deadletters.PurgeQuery),
}
