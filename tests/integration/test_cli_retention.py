"""`mdtasks retention`: what is kept for how long, what would go, and letting it go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mdtasks.domain.jobs import Interval
from mdtasks.flows.deps import Deps
from tests.integration.cli_calls import Cli
from tests.integration.retention_worlds import months, store

LONG_AGO = datetime(2020, 3, 1, tzinfo=UTC)


def test_what_would_go_is_counted_and_goes_when_it_is_told_to(cli: Cli, cli_deps: Deps) -> None:
    recent = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    for start in (LONG_AGO, recent):
        store(cli_deps.database, 1, Interval.M1, start)
        store(cli_deps.database, 1, Interval.D1, start.replace(hour=0), 1)
    shown = cli("retention")
    assert (shown.code, "bars_1m" in shown.out, "for ever" in shown.out) == (0, True, True)
    assert "nothing is too old" in cli("retention", "run").err

    assert cli("policy", "apply", "-", "--reason", "disk", stdin="retention: {bars_1m_days: 400}").code == 0
    document = cli("retention", "--dry-run", "--json").json
    (rule,) = [each for each in document["rules"] if each["subject"] == "bars_1m"]
    assert (rule["days"], rule["rows"], rule["months"]) == (400, 60, ["bars_2020_03"])
    days = {each["subject"]: each["days"] for each in document["rules"]}
    assert (days["reconciliation"], days["slo"], days["slo_whole"]) == (400, 400, 40)
    assert (rule["field"], rule["done_before"]) == ("retention.bars_1m_days", None)
    assert {each["table"] for each in document["tables"]} >= {"bars", "quotes", "job_attempts", "reconciliations"}
    assert "60" in cli("retention", "--dry-run").out

    assert cli("retention", "run", "--json").json["rows"] == {"bars": 60, "coverage": 1}
    assert set(months(cli_deps.database, Interval.D1)) == {LONG_AGO.month, recent.month}
    (rule,) = [each for each in cli("retention", "--dry-run", "--json").json["rules"] if each["subject"] == "bars_1m"]
    assert (rule["rows"], rule["done_before"]) == (0, rule["deletes_before"])
    assert rule["lost_before"] == rule["deletes_before"]


def test_a_backfill_over_the_horizon_says_from_where_on_it_asks(cli: Cli) -> None:
    cli("universe", "add", "BTC-USD", "--mic", "24/7")
    cli("policy", "apply", "-", "--reason", "disk", stdin="retention: {bars_1m_days: 30}")
    asked = cli("backfill", "BTC-USD", "--start", "2020-01-01")
    assert (asked.code, "what is older is not kept" in asked.err) == (0, True)
    refused = cli("backfill", "BTC-USD", "--start", "2020-01-01", "--end", "2020-02-01")
    assert (refused.code, "retention.bars_1m_days is 30" in refused.err) == (2, True)
