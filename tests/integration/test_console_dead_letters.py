"""The pages of dead letters over HTTP: all kinds of letters, filters, and forms that ask for what cannot be."""

from __future__ import annotations

import re
from uuid import uuid4

import httpx
import pytest

from mdtasks.domain.jobs import Tier
from mdtasks.flows import dispatch, letters
from mdtasks.flows.deps import Deps
from mdtasks.queue.letters import Reason
from mdtasks.store import letters as store
from mdtasks.store.letters import FINDING, Letter
from tests.integration.console_forms import sent
from tests.integration.web_server import asked, dies, waiting_ids

LIST = "/console/dead-letters"
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def dead(client: httpx.Client, deps: Deps) -> list[str]:
    """Three dead backfills of BTC-USD, the last one died last; two of one cause."""
    asked(client)
    ids = waiting_ids(deps.broker)
    dies(deps, ids[0])
    dies(deps, ids[1])
    dies(deps, ids[2], error_class="auth", provider="files")
    return ids


@pytest.fixture
def poison(deps: Deps) -> str:
    """The letter of a message that is no job, and says what a browser must not do."""
    letter_id = str(uuid4())
    reason = Reason("undecodable", EVIL, EVIL)
    assert letters.record(letters.Dead(letter_id, EVIL, reason, "T1"), deps) == "recorded"
    return letter_id


@pytest.fixture
def finding(deps: Deps) -> str:
    """The letter of a finding about what is stored."""
    says = f"FB cannot bear WM, which instrument 2 bears then; {'x' * 200}: `mdtasks actions withdraw FB …`"
    made = Letter("action:1:2024-03-05:name_unclear", FINDING, "", "name_unclear", says, symbol="FB")
    with deps.database.transaction() as connection:
        assert store.record(connection, made)
    return made.id


def _rows(page: httpx.Response) -> int:
    return page.text.count("data-row ")


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("", 4),
        ("tier=&symbol=&provider=&error_class=&since=&kind=", 4),
        ("kind=backfills", 3),
        ("kind=others", 1),
        ("error_class=auth&provider=files&task=mdtasks.backfill", 1),
        ("provider=-&task=-", 1),
        ("symbol=ETH-USD", 0),
        ("limit=2", 2),
    ],
)
def test_letters_are_filtered_and_blank_fields_do_not_narrow(
    client: httpx.Client, dead: list[str], poison: str, query: str, rows: int
) -> None:
    assert _rows(client.get(f"{LIST}?{query}")) == rows


def test_each_cause_leads_to_its_own_letters(client: httpx.Client, dead: list[str], poison: str) -> None:
    page = client.get(LIST).text
    links = [each.replace("&amp;", "&") for each in re.findall(r'href="(\?[^"]*)"', page)]
    assert [_rows(client.get(LIST + each)) for each in links] == [2, 1, 1]


def test_a_letter_that_is_no_job_is_shown_and_does_nothing(client: httpx.Client, poison: str) -> None:
    page = client.get(f"{LIST}/{poison}").text
    assert EVIL not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3  # message, traceback, envelope
    assert "It cannot be read as a job" in page
    assert "It cannot be sent again: it cannot be read as a job." in page
    assert f"{poison}/requeue" not in page
    assert EVIL not in client.get(LIST).text
    answer = sent(client, f"{LIST}/{poison}/requeue")
    assert (answer.status_code, "it cannot be read as a job" in answer.text) == (404, True)


def test_a_finding_is_not_offered_to_be_sent_and_shows_what_settles_it(client: httpx.Client, finding: str) -> None:
    for path in (LIST, f"{LIST}/{finding}"):
        page = client.get(path).text
        assert "<button" not in page.partition("<main")[2].replace("<button>Filter</button>", ""), path
        assert "`mdtasks actions withdraw FB …`" in page
        assert "hat each says settles it" in page or "What it says settles it" in page
    answer = sent(client, f"{LIST}/{finding}/requeue")
    assert (answer.status_code, "it is a finding about what is stored" in answer.text) == (404, True)


def test_a_plan_of_all_leaves_findings_out(client: httpx.Client, deps: Deps, dead: list[str], finding: str) -> None:
    assert client.get(LIST).text.count("Requeue…</button>") == 2  # one a cause that can be sent
    plan = sent(client, f"{LIST}/requeue").headers["location"]
    assert "Requeue 3 letters?" in client.get(plan).text
    sent(client, plan)
    assert sorted(waiting_ids(deps.broker)) == sorted(dead)
    assert _rows(client.get(LIST)) == 1


def test_a_plan_is_carried_out_once_and_tells_it_again(client: httpx.Client, deps: Deps, dead: list[str]) -> None:
    plan = sent(client, f"{LIST}/requeue", error_class="bad_payload").headers["location"]
    assert "Requeue 2 letters?" in client.get(plan).text
    for _ in range(2):
        assert sent(client, plan).headers["location"] == plan
    assert sorted(waiting_ids(deps.broker)) == sorted(dead[:2])
    page = client.get(plan).text
    assert "2 requeued." in page
    assert "2 requeued." not in client.get(plan).text  # said once


def test_what_is_over_the_room_is_told_before(
    client: httpx.Client, deps: Deps, dead: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "room", lambda _deps: dict.fromkeys(Tier, 1))
    plan = sent(client, f"{LIST}/requeue").headers["location"]
    (row,) = re.findall(r"<td>T1</td>(.*?)</tr>", client.get(plan).text, re.DOTALL)
    assert re.findall(r">(\d+)</td>", row) == ["3", "1", "2"]  # letters, room, those that will wait


def test_what_cannot_be_is_refused_with_its_reason(client: httpx.Client, dead: list[str]) -> None:
    for path, fields, status, words in (
        (f"{LIST}/requeue", {"tier": "T7"}, 422, "tier"),
        (f"{LIST}/requeue", {"teir": "T1"}, 422, "did you mean tier?"),
        (f"{LIST}/requeue/none", {}, 404, "requeue plan none"),
        (f"{LIST}/none/requeue", {}, 404, "No dead letter none"),
        (f"{LIST}/purge", {"days": "1"}, 422, "was not ticked"),
        (f"{LIST}/purge", {"days": "0", "confirmed": "yes"}, 422, "days"),
    ):
        answer = sent(client, path, **fields)
        assert (answer.status_code, words in answer.text) == (status, True), path
    assert _rows(client.get(LIST)) == 3
    sent(client, f"{LIST}/{dead[0]}/requeue")
    assert sent(client, f"{LIST}/{dead[0]}/requeue").status_code == 404
    assert "requeued" in client.get(f"{LIST}/{dead[0]}").text
