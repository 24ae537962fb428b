"""GET /actions/{symbol}."""

from __future__ import annotations

from datetime import date

import httpx

from mdtasks.domain.actions import Action, Kind
from mdtasks.flows.action_records import tell
from mdtasks.flows.deps import Deps
from mdtasks.store.reference import Instrument, add_instruments


def test_actions_as_they_stand_and_stood(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("BRK.B", "XNYS")])
    tell(deps.database, [("BRK.B", Action(Kind.SPLIT, date(2010, 1, 21), 49.0))], "file", "tests")
    first = client.get("/actions/BRK.B").json()
    (split,) = first["actions"]
    assert (split["kind"], split["ex_date"], split["value"], split["in_force"]) == ("split", "2010-01-21", 49.0, True)
    tell(deps.database, [("BRK.B", Action(Kind.SPLIT, date(2010, 1, 21), 50.0))], "file", "tests")
    now = client.get("/actions/BRK.B?history=true").json()
    assert ([one["value"] for one in now["actions"]], len(now["history"])) == ([50.0], 2)
    then = client.get("/actions/BRK.B", params={"as_of": split["known_at"]}).json()
    assert then["actions"] == first["actions"]
    assert then["as_of"] == split["known_at"]


def test_what_is_wrong_is_named(client: httpx.Client) -> None:
    unknown = client.get("/actions/NOPE")
    assert (unknown.status_code, unknown.json()["field"]) == (422, "symbol")
    for query, field in (("as_of=yesterday", "as_of"), ("as-of=2026-11-02", "as-of"), ("history=maybe", "history")):
        refused = client.get(f"/actions/BTC-USD?{query}")
        assert (refused.status_code, refused.json()["field"]) == (422, field)
