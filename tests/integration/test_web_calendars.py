"""Calendars over HTTP: shown with what was told of them, told, undone; and how far they are known."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import pytest

from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.store.reference import Instrument, add_instruments
from tests.integration.web_server import served

OVERRIDES = "/ops/calendar/overrides"
CLOSED = {"kind": "closed", "mic": "XHKG", "day": "2023-09-01", "reason": "typhoon Saola"}
DAYS = "start=2023-08-31&end=2023-09-02"


def shown(client: httpx.Client, mic: str = "XHKG", days: str = DAYS) -> list[tuple[str, str | None, int]]:
    answer = client.get(f"/calendar/{mic}?{days}")
    assert answer.status_code == 200, answer.text
    return [(each["session"], each["open"], each["minutes"]) for each in answer.json()["sessions"]]


def told(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post(OVERRIDES, json=CLOSED | changes)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_a_calendar_is_shown_with_its_zone_and_breaks(client: httpx.Client) -> None:
    document = client.get(f"/calendar/xhkg?{DAYS}").json()
    assert {name: document[name] for name in ("mic", "zone", "version", "start")} == {
        "mic": "XHKG",
        "zone": "Asia/Hong_Kong",
        "version": 0,
        "start": "2023-08-31T00:00:00Z",
    }
    assert document["sessions"][0] == {
        "session": "2023-08-31",
        "open": "2023-08-31T01:30:00Z",
        "close": "2023-08-31T08:00:00Z",
        "breaks": [{"start": "2023-08-31T04:00:00Z", "end": "2023-08-31T05:00:00Z"}],
        "minutes": 330,
        "overrides": [],
    }


def test_what_never_closes_has_a_slash_in_its_name_and_a_window_by_default(client: httpx.Client) -> None:
    assert len(shown(client, "24/7", "")) == 14 + 7 + 1


def test_what_is_told_holds_at_once_and_is_undone(client: httpx.Client, deps: Deps) -> None:
    made = told(client)
    assert made["ok"] is True
    assert (made["kind"], made["mic"], made["session"], made["actor"]) == ("closed", "XHKG", "2023-09-01", "127.0.0.1")
    assert (made["start"], made["end"]) == ("2023-09-01T01:30:00Z", "2023-09-01T08:00:00Z")
    assert shown(client)[1] == ("2023-09-01", None, 0)
    assert client.get(f"/calendar/XHKG?{DAYS}").json()["sessions"][1]["overrides"] == [
        {"id": made["id"], "kind": "closed", "reason": "typhoon Saola", "actor": "127.0.0.1"}
    ]
    assert [each["id"] for each in client.get(f"{OVERRIDES}?mic=xhkg").json()] == [made["id"]]
    assert client.get(f"{OVERRIDES}?mic=XNYS").json() == []
    undone = client.delete(f"{OVERRIDES}/{made['id']}?reason=it+traded").json()
    assert (undone["undone_by"], undone["undone_reason"]) == ("127.0.0.1", "it traded")
    assert shown(client)[1] == ("2023-09-01", "2023-09-01T01:30:00Z", 330)
    assert client.get(OVERRIDES).json() == []
    assert [each["id"] for each in client.get(f"{OVERRIDES}?all=true").json()] == [made["id"]]
    assert client.delete(f"{OVERRIDES}/{made['id']}?reason=again").status_code == 409


def test_a_halt_is_listed_by_its_symbol(client: httpx.Client) -> None:
    halt = {"kind": "halt", "symbol": "BTC-USD", "start": "2024-01-01T00:00Z", "end": "2024-01-01T01:00Z"}
    answer = client.post(OVERRIDES, json={**halt, "reason": "outage"})
    assert answer.status_code == 201
    assert [each["symbol"] for each in client.get(f"{OVERRIDES}?symbol=BTC-USD").json()] == ["BTC-USD"]
    assert client.get(f"{OVERRIDES}?symbol=ETH-USD").json() == []


def test_what_another_process_told_is_seen_by_the_next_request_after_a_second(
    client: httpx.Client, settings: Settings, eventually: Any
) -> None:
    assert shown(client)[1][2] == 330
    with served(settings) as other:
        told(other)
    eventually(lambda: shown(client)[1][2] == 0, what="the override is seen")


WRONG: tuple[tuple[dict[str, Any], int, str, str], ...] = (
    ({"mic": "XHGK"}, 422, "mic", "unknown exchange"),
    ({"day": "2023-09-02"}, 422, "day", "no session of XHKG"),
    ({"day": "soon"}, 422, "day", "date"),
    ({"kind": "shut"}, 422, "kind", "closed"),
    ({"kind": "late_open"}, 422, "time", "time is missing"),
    ({"kind": "late_open", "time": "2023-09-01T10:00"}, 422, "time", "no time zone"),
    ({"kind": "early_close", "time": "23:00"}, 422, "time", "not inside the session"),
    ({"kind": "halt"}, 422, "mic", "mic has no meaning"),
    ({"time": "10:00"}, 422, "time", "has no meaning"),
    ({"reason": " "}, 422, "reason", "reason is empty"),
    ({"reson": "typo"}, 422, "reson", "did you mean reason?"),
)


def test_what_is_wrong_is_refused_with_its_field(client: httpx.Client) -> None:
    for changes, status, field, said in WRONG:
        answer = client.post(OVERRIDES, json=CLOSED | changes)
        assert (answer.status_code, answer.json()["field"]) == (status, field), (changes, answer.text)
        assert said in answer.json()["error"], changes
    for path, status, field in (
        ("/calendar/NOWHERE", 422, "mic"),
        ("/calendar/XNYS?start=2024-01-02&end=2024-01-01", 422, "end"),
        ("/calendar/XNYS?start=1990-01-01&end=2024-01-01", 422, "start"),
        ("/calendar/XSHG?start=2026-12-01&end=2027-12-01", 422, "end"),
        (f"{OVERRIDES}?mic=XNYS&symbol=BTC-USD", 422, "symbol"),
        (f"{OVERRIDES}?symbol=NOPE", 422, "symbol"),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["field"]) == (status, field), path
    assert client.delete(f"{OVERRIDES}/1").json()["field"] == "reason"
    assert client.delete(f"{OVERRIDES}/1?reason=no").status_code == 404
    told(client)
    assert client.post(OVERRIDES, json=CLOSED).status_code == 409
    assert len(client.get(f"{OVERRIDES}?all=true").json()) == 1


def test_how_far_the_exchanges_of_the_universe_are_known_is_scraped(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("AAPL", "XNYS"), Instrument("600519", "XSHG")])
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("calendar_horizon_days")]
    days = {line.partition('"')[2].partition('"')[0]: float(line.split()[-1]) for line in lines}
    assert set(days) == {"24/7", "XNYS", "XSHG"}
    assert days["XSHG"] == pytest.approx((_horizon(deps, "XSHG") - _horizon(deps, "XNYS")) + days["XNYS"], abs=0.01)
    assert 'mdtasks_up{part="calendars"}' not in client.get("/metrics").text
    assert set(client.get("/ready").json()["parts"]) == {"broker", "redis", "postgresql"}


def _horizon(deps: Deps, mic: str) -> float:
    return deps.calendars.get(mic).horizon.timestamp() / 86400


def test_the_scrape_loads_no_library_where_years_are_kept(settings: Settings, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument("AAPL", "XNYS")])
    code = (
        "import sys\n"
        "from datetime import UTC, datetime\n"
        "from mdtasks.flows.deps import open_deps\n"
        "from mdtasks.settings import load_settings\n"
        "from mdtasks.web.calendars import read_horizons\n"
        "deps = open_deps(load_settings())\n"
        "if sys.argv[1:]: deps.watch.refresh(datetime.now(UTC))\n"
        "assert set(read_horizons(deps)) == {'24/7', 'XNYS'}\n"
        "print('exchange_calendars' in sys.modules)"
    )
    environ = {
        "MDTASKS_HOME": str(settings.home),
        "MDTASKS_DATABASE_URL": settings.require_database_url(),
        "MDTASKS_REDIS_URL": settings.require_redis_url(),
    }
    for words, loads in ((["first"], "True"), ([], "False"), (["again"], "False")):
        said = subprocess.run(
            [sys.executable, "-c", code, *words], env=environ, capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == loads
