"""The OpenAPI document is served, says of every route what it takes and answers, and the app does what it says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as tried
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mdtasks.flows.deps import Deps, open_deps
from mdtasks.settings import Settings
from mdtasks.web.app import create_app
from mdtasks.web.described import DESCRIBED
from mdtasks.web.endpoints import endpoints, is_page
from mdtasks.web.openapi import document
from tests.integration.cli_calls import work
from tests.integration.web_server import asked, dies, waiting_ids

#: Examples of each operation: those that are right must have met an answer; wrong ones take longer to be made up.
EXAMPLES: Final = {GenerationMode.POSITIVE: 12, GenerationMode.NEGATIVE: 6}
CHECKS: Final = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: What stands in the place of what was made up, more often than not: made-up symbols and ids are all unknown.
USUAL: Final[dict[str, list[Any]]] = {
    "symbol": ["BTC-USD", "ETH-USD"],
    "symbols": [["BTC-USD"], ["BTC-USD", "ETH-USD"]],
    "start": ["2025-01-02", "2025-01-03T12:00:00Z"],
    "end": ["2025-01-04", "2025-01-05T00:00:00+01:00"],
    "provider": ["simulator"],
    "version": [0],
    "dry_run": ["true"],
    "tag": ["first"],
    "old": ["first"],
    "new": ["first"],
    "source": ["csv"],
    "wait": [0],
    "since": [""],
    "ts": ["2025-01-02T12:00:00Z"],
    "as_of_from": ["2025-06-01T00:00:00Z"],
}
#: A listing of the symbols that there are, and of one to be renamed.
LISTING: Final = "symbol,mic,close,volume\nBTC-USD,24/7,100,5000\nETH-USD,24/7,10,4000\nOLD,24/7,1,10\n"
#: Bodies that are right, by path, for those that nothing made up ever fits.
BODIES: Final[dict[str, list[Any]]] = {
    "/ops/backfill": [{"symbol": "BTC-USD", "start": "2025-01-02", "end": "2025-01-04"}],
    "/ops/gaps/accept": [{"symbol": "ETH-USD", "start": "2025-01-08", "end": "2025-01-09", "reason": "a test"}],
    "/ops/calendar/overrides": [
        {"kind": "halt", "symbol": "BTC-USD", "start": "2025-01-02T10:00Z", "end": "2025-01-02T10:05Z", "reason": "a"},
        {"kind": "closed", "mic": "XHKG", "day": "2023-09-01", "reason": "typhoon"},
    ],
    "/ops/validate": [{"tiers": {}}],
    "/ops/universe/refresh": [LISTING],
    "/ops/universe/activate": [{"tag": "first"}],
    "/ops/universe/rename": [{"old": "OLD", "new": "NEW"}, {"old": "NEW", "new": "OLD"}],
}


@pytest.fixture
def known(client: httpx.Client, deps: Deps, settings: Settings) -> dict[str, list[Any]]:
    """A stack with something of everything, and by the beginning of a path what may stand in its place."""
    slow = open_deps(settings.model_copy(update={"viztracer_slow_s": 1e-9, "viztracer_slow_p95": 0}))
    made = asked(client, symbol="BTC-USD")
    work(slow)
    slow.close()
    asked(client, symbol="ETH-USD")
    dead, *waiting = waiting_ids(deps.broker)
    dies(deps, dead)
    csv = {"Content-Type": "text/csv"}
    assert client.post("/ops/universe/refresh?source=csv&tag=first", content=LISTING, headers=csv).status_code == 201
    assert client.post("/ops/universe/activate", json={"tag": "first"}).status_code == 200
    told = client.post("/ops/calendar/overrides", json={**BODIES["/ops/calendar/overrides"][0], "symbol": "ETH-USD"})
    return {
        "/bars": USUAL["symbol"],
        "/gaps": USUAL["symbol"],
        "/actions": USUAL["symbol"],
        "/replay": USUAL["symbol"],
        "/universe": USUAL["symbol"],
        "/calendar": ["24/7", "XNYS"],
        "/stats/providers": ["simulator"],
        "/ops/providers": ["simulator"],
        "/ops/backfill": [made["request"]],
        "/ops/jobs": [dead, *waiting],
        "/ops/dlq": [dead],
        "/ops/traces": [client.get("/ops/traces").json()["traces"][0]["id"]],
        "/ops/calendar": [told.json()["id"]],
    }


def operations(client: httpx.Client) -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    schema.config.update(base_url=str(client.base_url))
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        yield result.ok()


def examine(operation: Any, mode: GenerationMode, places: list[Any], drawn: random.Random) -> set[int]:
    """Ask an operation as its document allows, or does not, and hold the answers to it; their statuses."""
    seen: set[int] = set()

    def settle(values: Any, usual: dict[str, list[Any]]) -> None:
        for name in values if isinstance(values, dict) else ():
            if usual.get(name) and drawn.random() < 0.6:
                values[name] = drawn.choice(usual[name])

    @tried(
        max_examples=EXAMPLES[mode],
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def conforms(case: Any) -> None:
        settle(case.path_parameters, dict.fromkeys(case.path_parameters or (), places))
        if mode is GenerationMode.POSITIVE:
            settle(case.query, USUAL)
            if operation.path in BODIES and drawn.random() < 0.6:
                case.body = drawn.choice(BODIES[operation.path])
                case.media_type = "text/csv" if isinstance(case.body, str) else "application/json"
            if drawn.random() < 0.3:  # as most ask: with nothing that may be left out
                case.query = {
                    name: value for name, value in (case.query or {}).items() if name in ("symbols", "reason")
                }
        answer = case.call()
        seen.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    with suppress(Unsatisfiable):  # where nothing is taken nothing can be wrong
        conforms()
    return seen


# The app runs in a thread of this process, and may well use `random` while an example is drawn.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_app_answers_as_its_document_says(
    mode: GenerationMode, client: httpx.Client, known: dict[str, list[Any]]
) -> None:
    drawn = random.Random(6)  # the same each time
    wrong, unreached = [], []
    for operation in operations(client):
        places = next((values for start, values in known.items() if operation.path.startswith(start)), [])
        try:
            seen = examine(operation, mode, places, drawn)
        except Exception as error:
            wrong.append(f"{operation.label}: {error!r} {getattr(error, 'exceptions', '')}")
            continue
        if not any(status < 300 for status in seen):
            unreached.append(operation.label)
    assert not wrong, "\n\n".join(wrong)
    if mode is GenerationMode.POSITIVE:  # what never answers well was hardly tried
        # Requeued by filter; no trial is under way; what is made up is hardly a listing, and the fixture has sent one.
        elsewhere = ("/requeue/{id}", "/dlq/letters/", "/policy/canary/", "/universe/refresh")
        assert [each for each in unreached if not any(part in each for part in elsewhere)] == []


def test_every_route_is_described_and_nothing_else_is(client: httpx.Client) -> None:
    routes = create_app().routes
    made = document(routes, DESCRIBED)
    methods = {(method.upper(), path) for path, found in made["paths"].items() for method in found}
    told = [each for each in endpoints(routes) if not is_page(each.path) and each.method != "WS"]
    assert methods == {(each.method, each.path) for each in told}
    assert client.get("/openapi.json").json() == made
    for path, found in made["paths"].items():
        for operation in found.values():
            assert operation["summary"], path
    identifiers = [operation["operationId"] for found in made["paths"].values() for operation in found.values()]
    assert len(set(identifiers)) == len(identifiers)
    used = {each.query for each in DESCRIBED.values()}
    assert len(used) > 10
