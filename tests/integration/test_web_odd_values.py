"""Values that no text, no number and no time can be are refused in words, wherever they stand."""

from __future__ import annotations

import httpx
import pytest

from mdtasks.flows.deps import Deps
from tests.integration.known_earlier import known_since

HUGE = "9" * 20
WITH_A_NAME = ("bars", "gaps", "calendar", "stats/providers", "runbooks")


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"/{where}/{text}"
            for where in ("bars", "gaps", "calendar", "stats/providers", "runbooks")
            for text in ("%00", "%ff")
        ),
        *(f"/ops/backfill/{text}" for text in ("%00", "%ff%fe", "%ED%A0%80")),
        "/bars?symbols=%00",
        "/bars/a%00?format=csv",
        "/bars/BTC-USD?cursor=%F0%9F%98%80",
        "/bars/BTC-USD?cursor=WzEsMSwxLDFd",
        "/bars/BTC-USD?as_of=9999-12-31T23:59:59-10:00",
        "/bars/BTC-USD?as_of=9999-12-31T23:59:59",
        "/bars/BTC-USD?as_of=0001-01-01",
        "/actions/BTC-USD?as_of=2999-01-01",
        "/universe?as_of=2999-01-01",
        "/bars/BTC-USD?start=0001-01-01T00:00:00%2B05:00",
        "/gaps/BTC-USD?as_of=9999-12-31T23:59:59",
        "/gaps/BTC-USD?as_of=2999-01-01",
        "/gaps/BTC-USD?as_of=0001-01-01",
        f"/ops/traces/{HUGE}",
        f"/ops/traces/{HUGE}.json",
        f"/ops/policy?version={HUGE}",
    ],
)
def test_what_can_be_nothing_is_refused(path: str, client: httpx.Client) -> None:
    refused = client.get(path)
    assert refused.status_code in (404, 422), refused.text


@pytest.mark.parametrize(
    "query", ["", "&session=regular&fill=no_trade", "&fill=no_trade&as_of=2026-01-01&format=csv", "&interval=1d"]
)
def test_all_time_may_be_asked_for(query: str, client: httpx.Client, deps: Deps) -> None:
    known_since(deps.database)
    for window in ("start=0001-01-01", "end=0001-01-02"):
        assert client.get(f"/bars/BTC-USD?{window}{query}").status_code == 200


def test_what_can_be_nothing_is_not_done(client: httpx.Client) -> None:
    assert client.delete(f"/ops/calendar/overrides/{HUGE}?reason=a").status_code in (404, 422)
    for reason in ("\x00", "a\x00b"):
        assert client.post("/ops/providers/simulator/pause", json={"reason": reason}).status_code in (200, 409, 422)
    body = b'{"reason": "\\ud800"}'
    answer = client.post("/ops/providers/simulator/resume", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422)
