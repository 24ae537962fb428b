"""The pages of providers over HTTP: what they show while all is there or a part is away, and forms that are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from mdtasks.flows.deps import Deps
from mdtasks.flows.provider_reports import record_of
from mdtasks.flows.providers import pause, snapshot_once
from mdtasks.settings import Settings
from mdtasks.store import providers as store
from tests.integration.console_forms import field_of, sent, words_of
from tests.integration.told import NAME, demote, promote
from tests.integration.web_server import served

LIST = "/console/providers"
ONE = f"{LIST}/{NAME}"
EVIL = '"><script>alert(1)</script>'


def test_the_list_tells_who_is_aside_and_why(client: httpx.Client, deps: Deps) -> None:
    assert "It serves, in the order of the policy." in words_of(client.get(LIST))
    demote(deps.health)
    shown = words_of(client.get(LIST))
    assert "1 of 1 is not asked in turn" in shown
    assert "demoted since " in shown


def test_one_shows_its_cases_with_the_samples_that_justify_them(client: httpx.Client, deps: Deps) -> None:
    now = datetime.now(UTC)
    demote(deps.health)
    snapshot_once(deps, now - timedelta(seconds=20))
    promote(deps.health)
    snapshot_once(deps, now - timedelta(seconds=10))
    page = client.get(ONE)
    shown = words_of(page)
    for words in ("promoted", "demoted", "< 0.55 (BREAKER_DEMOTE_THRESHOLD)", "vendor_error", "requests 4 failed"):
        assert words in shown
    assert page.text.count("data-chart") == 4
    assert '"bands":[["' in page.text  # it was aside at the first of the looks


def test_looks_are_the_worst_of_each_stretch(deps: Deps) -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    snapshot_once(deps, now - timedelta(hours=7))
    snapshot_once(deps, now - timedelta(seconds=100))
    demote(deps.health)
    snapshot_once(deps, now - timedelta(seconds=90))
    found = record_of(NAME, deps, since=now - timedelta(hours=6), now=now)
    assert found.step_s == 120
    assert [(each["at"], each["state"]) for each in found.looks] == [(now - timedelta(seconds=90), "open")]
    with deps.database.transaction() as connection:
        assert len(store.looks(connection, NAME, now - timedelta(hours=8), 10.0)) == 3


def test_a_pause_and_its_end(client: httpx.Client, deps: Deps) -> None:
    done = sent(client, f"{ONE}/pause", reason=" wrong splits ")
    assert (done.status_code, done.headers["location"]) == (303, ONE)
    shown = words_of(client.get(ONE))
    assert "simulator is paused: nobody asks it until it is resumed." in shown
    assert "by 127.0.0.1: wrong splits" in shown
    assert deps.health.admit(NAME, ()).verdict == "paused"
    assert sent(client, f"{ONE}/resume", reason="").status_code == 303
    assert deps.health.admit(NAME, ()).verdict == "go"


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001, EVIL * 50])
def test_a_wrong_reason_is_told_at_its_field_and_kept(client: httpx.Client, deps: Deps, reason: str) -> None:
    page = sent(client, f"{ONE}/pause", reason=reason)
    assert page.status_code == 422
    assert 'aria-invalid="true" aria-describedby="wrong-reason"' in page.text
    assert 'id="wrong-reason"' in page.text
    assert field_of(page, "reason") == reason
    assert "<script>alert" not in page.text
    assert deps.health.admit(NAME, ()).verdict == "go"


def test_what_cannot_be_done_is_told_and_what_was_typed_stays(client: httpx.Client, deps: Deps) -> None:
    pause(NAME, "audit", "ann", deps, datetime.now(UTC))
    again = sent(client, f"{ONE}/pause", reason="me too")
    assert (again.status_code, field_of(again, "reason")) == (409, "me too")
    assert "is paused already" in words_of(again)
    sent(client, f"{ONE}/resume")
    late = sent(client, f"{ONE}/resume", reason="it is well")
    assert (late.status_code, field_of(late, "reason")) == (409, "it is well")


@pytest.mark.parametrize(
    ("path", "status"), [(f"{LIST}/simulater", 422), (f"{ONE}?over=2y", 422), (f"{ONE}?x=1", 422), (f"{LIST}?x=1", 422)]
)
def test_wrong_questions_are_refused(client: httpx.Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_forms_of_unknown_providers_and_fields_are_refused(client: httpx.Client) -> None:
    assert "did you mean simulator?" in words_of(sent(client, f"{LIST}/simulater/pause", reason="x"))
    assert sent(client, f"{ONE}/pause", reson="x").status_code == 422


@pytest.mark.parametrize("path", [f"{ONE}/pause", f"{ONE}/resume"])
def test_forms_must_be_of_a_page_of_ours(client: httpx.Client, deps: Deps, path: str) -> None:
    client.get("/runbooks")
    assert client.post(path, data={"csrf": "0" * 64, "reason": "x"}).status_code == 403
    assert deps.health.admit(NAME, ()).verdict == "go"


@pytest.mark.parametrize(
    ("away", "known", "unknown"),
    [
        ({"redis_url": "redis://127.0.0.1:1/0"}, "by ann: audit", "Some of this page is not known"),
        ({"database_url": "postgresql://nobody@127.0.0.1:1/none"}, "requests may go", "Not known while PostgreSQL"),
    ],
)
def test_what_a_part_that_is_away_would_tell_is_not_known(
    settings: Settings, deps: Deps, away: dict[str, str], known: str, unknown: str
) -> None:
    pause(NAME, "audit", "ann", deps, datetime.now(UTC))
    (name,) = away
    gone = settings.model_copy(update={name: getattr(Settings.model_validate(away), name)})
    with served(gone) as client:
        page = client.get(ONE)
        assert page.status_code == 200
        assert known in words_of(page)
        assert unknown in words_of(page)
