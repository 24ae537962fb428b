"""How providers stood as of an instant: the same answer for ever, whatever is recorded, thinned and pruned later."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mdtasks.cli.output import json_tree
from mdtasks.domain.errors import InvalidRequestError, NotFoundError
from mdtasks.domain.health import Circuit, Parts, Pause, Standing
from mdtasks.flows.deps import Deps
from mdtasks.flows.provider_past import Stood, stood, stood_one
from mdtasks.flows.providers import forget_once, pause, resume, snapshot_once
from mdtasks.store import providers
from mdtasks.store.providers import KEPT, TOLD, Entry, Look
from tests.integration.cli_calls import Cli
from tests.integration.told import NAME, demote, promote

TEN = timedelta(seconds=10)


def clock(deps: Deps) -> datetime:
    with deps.database.transaction() as connection:
        return providers.settled_until(connection)


def digest(deps: Deps, as_of: datetime) -> str:
    found = [stood(deps.database, as_of).as_dict()]
    with contextlib.suppress(NotFoundError):
        found.append(one(deps, as_of).as_dict())
    return sha256(json.dumps(json_tree(found), sort_keys=True).encode()).hexdigest()


def one(deps: Deps, as_of: datetime) -> Stood:
    return stood_one(deps.database, as_of, NAME)


def test_an_answer_as_of_then_stays_whatever_happens_later(cli_deps: Deps) -> None:
    deps = cli_deps
    instants, hashes = [], []

    def instant() -> None:
        instants.append(clock(deps))
        hashes.append(digest(deps, instants[-1]))

    instant()
    snapshot_once(deps, datetime.now(UTC))
    instant()
    demote(deps.health)
    instant()  # decided in Redis, and not on record yet
    snapshot_once(deps, datetime.now(UTC))
    instant()
    pause(NAME, "wrong splits", "ann", deps, datetime.now(UTC))
    instant()
    snapshot_once(deps, datetime.now(UTC))
    promote(deps.health)
    snapshot_once(deps, datetime.now(UTC))
    instant()
    resume(NAME, "mended", "bob", deps, datetime.now(UTC))
    instant()
    assert [digest(deps, each) for each in instants] == hashes
    assert stood(deps.database, instants[0]).providers == []
    found = [one(deps, each) for each in instants[1:]]
    assert [each.state for each in found] == ["closed", "closed", "open", "paused", "paused", "closed"]
    assert [each.why_aside is None for each in found] == [True, True, False, False, False, True]
    assert found[3].pause is not None
    assert (found[3].pause.by, found[3].pause.reason) == ("ann", "wrong splits")
    assert "0.522 < 0.55 (BREAKER_DEMOTE_THRESHOLD)" in found[2].transitions[0].case["arithmetic"]
    assert [[each.kind for each in one.transitions] for one in found[-2:]] == [
        ["promoted", "paused"],
        ["resumed", "promoted"],
    ]
    measured = found[4].measured  # while it was paused its breaker closed
    assert measured is not None
    assert measured[2] is Circuit.CLOSED
    assert found[2].since == found[2].transitions[0].at
    assert found[2].as_dict()["policy_version"] == 0


STATES = st.sampled_from([Circuit.CLOSED, Circuit.OPEN, Circuit.HALF_OPEN])
#: How long ago: within half an hour of some days, several to ten minutes.
AGES = st.builds(
    lambda days, number: timedelta(days=days, seconds=150 * number), st.sampled_from([0, 3, 6]), st.integers(0, 12)
)
LOOKS = st.lists(st.tuples(AGES, STATES, st.sampled_from([0.2, 1.0]), st.booleans()), min_size=10, max_size=30)
CHANGES = st.lists(st.tuples(AGES, st.sampled_from(["demoted", "promoted", "paused", "resumed"])), max_size=6)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(looks=LOOKS, changes=CHANGES, ages=st.lists(AGES, min_size=1, max_size=3), old=st.booleans())
def test_thinning_and_pruning_change_no_answer_that_is_given(
    cli_deps: Deps,
    looks: list[tuple[timedelta, Circuit, float, bool]],
    changes: list[tuple[timedelta, str]],
    ages: list[timedelta],
    old: bool,
) -> None:
    deps = cli_deps
    now = clock(deps)
    back = KEPT if old else timedelta()
    with deps.database.transaction() as connection:
        connection.execute(text("TRUNCATE provider_snapshots, provider_transitions"))
        for age, circuit, latency, paused in looks:
            because = Pause("ann", "", now) if paused else None
            look = Standing(NAME, circuit, Parts(latency=latency), pause=because)
            providers.add_looks(connection, [look], now - age)
        for age, kind in changes:
            case = {"by": "ann", "reason": ""} if kind in ("paused", "resumed") else {}
            providers.add_transition(connection, Entry(NAME, now - age - back, kind, 0.2, case))
        for table in ("provider_snapshots", "provider_transitions"):
            connection.execute(text(f"UPDATE {table} SET known_at = at + interval '1 second'"))
    told = {as_of: digest(deps, as_of) for as_of in (now - age for age in ages if age < TOLD)}
    for as_of in sorted(told):
        forget_once(deps, as_of + TOLD)  # the last moment at which it is not refused
        assert digest(deps, as_of) == told[as_of]


def test_what_is_to_come_or_thinned_out_is_refused(cli_deps: Deps) -> None:
    now = clock(cli_deps)
    for as_of, words in ((now + timedelta(minutes=1), "still to come"), (now - TOLD - TEN, "whole for 7 days")):
        with pytest.raises(InvalidRequestError, match=words) as refused:
            stood(cli_deps.database, as_of)
        assert refused.value.field == "as_of"


def test_nobody_looked_then(cli_deps: Deps) -> None:
    """Who was paused is told all the same; how it stood is not made up."""
    with cli_deps.database.transaction() as connection:
        at = providers.settled_until(connection) - timedelta(hours=1)
        providers.add_transition(connection, Entry(NAME, at, "demoted", 0.3, {}))
        providers.add_transition(connection, Entry("other", at, "paused", None, {"by": "ann", "reason": "unpaid"}))
    (found,) = stood(cli_deps.database, clock(cli_deps)).providers
    assert (found.name, found.state, found.measured, found.since) == ("other", "paused", None, None)
    then = one(cli_deps, clock(cli_deps))
    assert (then.state, then.as_dict()["parts"], [each.kind for each in then.transitions]) == (None, None, ["demoted"])


def test_a_transition_that_is_newer_than_the_look_counts() -> None:
    at = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    look = Look(NAME, at, 1.0, "closed", Parts(), 7, 3)
    case = {"parts": {"latency": 0.5, "errors": 0.5, "completeness": 0.5}}
    found = Stood(NAME, [look], Entry(NAME, at + TEN, "demoted", 0.275, case))
    assert (found.state, found.since, found.why_aside) == (
        "open",
        at + TEN,
        "demoted since 2026-11-24 09:30:10Z, evidence then 0.50",
    )
    assert found.as_dict()["measured_at"] == at + TEN


def test_commands_and_http_tell_the_same(cli: Cli, cli_deps: Deps) -> None:
    snapshot_once(cli_deps, datetime.now(UTC))
    demote(cli_deps.health)
    snapshot_once(cli_deps, datetime.now(UTC))
    then = clock(cli_deps).isoformat()
    promote(cli_deps.health)
    pause(NAME, "audit", "ann", cli_deps, datetime.now(UTC))
    shown = cli("providers", "--as-of", then)
    assert shown.out.splitlines()[1].split()[:3] == [NAME, "demoted", "0.29"]
    assert shown.err.startswith(f"{NAME}: demoted since ")
    page = cli("providers", NAME, "--as-of", then).out
    assert "0.522 < 0.55 (BREAKER_DEMOTE_THRESHOLD)" in page
    assert "by ann" not in page
    told = cli("providers", "--as-of", then, "--json").json
    one = cli("providers", NAME, "--as-of", then, "--json").json
    assert one == {"as_of": told["as_of"], **told["providers"][0]}
    wrong = cli("providers", "--as-of", "2999-01-01")
    assert wrong.code == 2
    assert "still to come" in wrong.err
    assert cli("providers", "nobody", "--as-of", then).code == 3


def test_over_http_too(client: httpx.Client, deps: Deps) -> None:
    snapshot_once(deps, datetime.now(UTC))
    then = {"as_of": clock(deps).isoformat()}
    before = client.get("/stats/providers", params=then).content
    demote(deps.health)
    snapshot_once(deps, datetime.now(UTC))
    assert client.get("/stats/providers", params=then).content == before
    (found,) = client.get("/stats/providers", params=then).json()["providers"]
    assert (found["state"], found["health_score"], len(found["history"])) == ("closed", 1.0, 1)
    assert client.get(f"/stats/providers/{NAME}", params=then).json()["state"] == "closed"
    assert client.get("/stats/providers/nobody", params=then).status_code == 404
    refused = client.get("/stats/providers", params={"as_of": "2999-01-01T00:00:00Z"})
    assert (refused.status_code, refused.json()["field"]) == (422, "as_of")
