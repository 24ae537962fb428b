"""The newest quotes as people and programs read them: `mdtasks quotes`, ``GET /quotes``; and ``GET /stats/cadence``."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx

from mdtasks.domain.bars import Quote
from mdtasks.domain.jobs import Tier
from mdtasks.flows.deps import Deps
from mdtasks.flows.ticks import Feed, Series, tick
from mdtasks.store.partitions import ensure_ahead
from mdtasks.store.quotes import write_quotes
from mdtasks.store.reference import Instrument, add_instruments, resolve, set_tier
from tests.integration.cli_calls import Cli

AT = datetime(2026, 11, 20, 15, 30, 20, tzinfo=UTC)
QUOTE = {"ts": "2026-11-20T15:30:20Z", "bid": 99.5, "bid_size": 2.0, "ask": 100.25, "ask_size": 3.0}
NOTHING = dict.fromkeys(QUOTE)


def stored(deps: Deps) -> None:
    ensure_ahead(deps.database, AT)
    with deps.database.transaction() as connection:
        add_instruments(connection, [Instrument(name, "24/7", "crypto") for name in ("BTC-USD", "ETH-USD")])
        member = resolve(connection, ["BTC-USD"])["BTC-USD"]
        write_quotes(connection, {member.id: Quote(AT, 99.5, 2.0, 100.25, 3.0)}, "files")


def test_the_command_shows_those_that_there_are_and_names_the_others(cli: Cli, cli_deps: Deps) -> None:
    stored(cli_deps)
    shown = cli("quotes", "ETH-USD", "BTC-USD")
    assert (shown.code, "99.5" in shown.out, "ETH-USD" in shown.out) == (0, True, False)
    assert "no quotes yet of ETH-USD" in shown.err
    rows = cli("quotes", "ETH-USD", "BTC-USD", "--json").json
    assert rows == [{"symbol": "ETH-USD", **NOTHING}, {"symbol": "BTC-USD", **QUOTE}]
    wrong = cli("quotes", "BTC-US")
    assert (wrong.code, "BTC-USD" in wrong.err) == (2, True)


def test_http_answers_in_the_order_asked_for_and_refuses_what_it_does_not_know(
    client: httpx.Client, deps: Deps
) -> None:
    stored(deps)
    answer = client.get("/quotes?symbols=ETH-USD,BTC-USD")
    assert answer.json() == {"quotes": [{"symbol": "ETH-USD", **NOTHING}, {"symbol": "BTC-USD", **QUOTE}]}
    assert client.get("/quotes?symbols=BTC-USD,NOPE").status_code == 422
    assert client.get("/quotes?symbols=").json()["field"] == "symbols"
    assert client.get("/quotes").json()["field"] == "symbols"


def test_cadences_are_told_with_their_last_tick(client: httpx.Client, deps: Deps) -> None:
    with deps.database.transaction() as connection:
        set_tier(connection, ["BTC-USD"], Tier.T0, "ops")
    tick(Series(Tier.T0, Feed.QUOTES), 5, deps, AT)
    answer = client.get("/stats/cadence")
    assert answer.status_code == 200, answer.text
    tiers = answer.json()["tiers"]
    told = tiers["T0"]["quotes_l1"]
    assert (told["cadence_s"], told["symbols"], told["ticks"], told["skipped"]) == (5, 1, 1, 0)
    assert told["last_tick"] == "2026-11-20T15:30:20Z"
    assert tiers["T1"]["bars_1m"]["last_tick"] is None
    assert list(tiers["T2"]) == ["eod"]
