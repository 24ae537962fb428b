"""The rules: made from the objectives, held to promtool, and every alert seen to fire and seen to be quiet."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mdtasks.domain.jobs import Tier
from mdtasks.domain.sessions import Calendars
from mdtasks.domain.slo import DAILY, INTRADAY, burn_factor, month_hours
from mdtasks.observe.rules import WEB_URL, Places, documents
from tests.queries import used

CHECKOUT = Path(__file__).resolve().parents[2]
CASES = CHECKOUT / "tests" / "prometheus"
GOOD_ALERT = re.compile(r"[A-Z][A-Za-z0-9]+")


@pytest.fixture(scope="module")
def calendars() -> Calendars:
    return Calendars()


@pytest.fixture(scope="module")
def made(calendars: Calendars) -> dict[str, str]:
    """The files as the objectives say them."""
    return documents(calendars.get("XNYS"))


@pytest.fixture(scope="session")
def promtool(unavailable_here: Callable[[str], None]) -> str:
    """Prometheus' own checker; .ci/run installs it."""
    found = shutil.which("promtool")
    if found is None:
        unavailable_here("promtool is not on the PATH; on Debian and Ubuntu: apt install prometheus")
    return str(found)


def alert_rules(text: str) -> list[dict[str, Any]]:
    """The rules of a rule file."""
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def all_cases() -> Iterator[dict[str, Any]]:
    for path in sorted(CASES.glob("*.yaml")):
        yield from yaml.safe_load(path.read_text())


def identity(rule: dict[str, Any]) -> str:
    """What tells rules apart: three of one name differ in their tier."""
    return f"{rule['alert']} {rule['labels'].get('tier', '')}".strip()


def rule_of(case: dict[str, Any], rules: list[dict[str, Any]]) -> dict[str, Any]:
    """The rule that a case is about."""
    tier = case.get("tier") or case["fires"]["labels"].get("tier")
    return next(each for each in rules if each["alert"] == case["alert"] and each["labels"].get("tier") in {None, tier})


def test_what_is_checked_in_is_what_the_objectives_say(made: dict[str, str]) -> None:
    for name, text in made.items():
        assert (CHECKOUT / "config" / "prometheus" / name).read_text() == text, "run `mdtasks slo rules`"


def test_factors_are_those_of_the_sessions(calendars: Calendars) -> None:
    always, new_york, hong_kong = (calendars.get(mic) for mic in ("24/7", "XNYS", "XHKG"))
    assert [burn_factor(always, window) for window in INTRADAY] == [14.4, 6.0, 3.0, 1.0]
    # 250 sessions of 6.5 hours and three that end at 13:00: 1616 hours in 365 days.
    assert month_hours(new_york, 2025) == pytest.approx(1616 * 30 / 365)
    assert [burn_factor(new_york, window) for window in INTRADAY] == [2.66, 1.11, 2.04, 1.0]
    assert [burn_factor(new_york, window) for window in DAILY] == [2.04, 1.0]
    assert burn_factor(hong_kong, INTRADAY[1]) == 1.1  # six hours that end at the close hold five of trading


def test_targets_calendar_and_addresses_reach_the_rules(calendars: Calendars) -> None:
    places = Places("https://md.example.org", "https://grafana.example.org")
    text = documents(calendars.get("24/7"), {Tier.T0: 0.01, Tier.T1: 0.03, Tier.T2: 0.06}, places)
    rules = alert_rules(text["rules/alerts.yml"])
    first = rules[0]
    assert first["expr"].endswith("> 0.01")
    assert first["annotations"]["runbook_url"] == "https://md.example.org/runbooks/SLOGapViolationHighT0"
    assert first["annotations"]["dashboard_url"].startswith("https://grafana.example.org/d/mdtasks-slo?viewPanel=")
    assert "https://md.example.org/slo" in first["annotations"]["description"]
    assert "> 14.4 * 0.01" in rules[1]["expr"]
    scraped = yaml.safe_load(text["prometheus.yml"])["scrape_configs"][0]
    assert (scraped["scheme"], scraped["static_configs"]) == ("https", [{"targets": ["md.example.org:443"]}])


def test_every_alert_says_what_whom_and_where(made: dict[str, str]) -> None:
    for rule in alert_rules(made["rules/alerts.yml"]):
        assert GOOD_ALERT.fullmatch(rule["alert"])
        assert rule["labels"]["severity"] in {"page", "ticket"}
        said = rule["annotations"]
        assert set(said) == {"summary", "description", "dashboard_url", "runbook_url"}
        assert said["runbook_url"] == f"{WEB_URL}/runbooks/{rule['alert']}"
        assert "$value" in said["description"] or "absent" in rule["expr"] or "== 0" in rule["expr"]
        assert f"{WEB_URL}/slo" in said["description"] or rule["alert"] == "SLOMonitorDead"
        assert len(said["summary"]) < 120


def test_the_names_people_know_stay(made: dict[str, str]) -> None:
    rules = {rule["alert"]: rule for rule in alert_rules(made["rules/alerts.yml"])}
    assert (rules["SLOGapViolationHighT0"]["expr"][-7:], rules["SLOGapViolationHighT0"]["for"]) == ("> 0.005", "5m")
    assert (rules["BackfillQueueTooDeep"]["expr"][-7:], rules["BackfillQueueTooDeep"]["for"]) == ("> 10000", "10m")
    assert (rules["BackfillOldestTooOld"]["expr"][-5:], rules["BackfillOldestTooOld"]["for"]) == ("> 900", "10m")


def test_every_alert_has_a_case_that_fires_and_one_that_does_not(made: dict[str, str]) -> None:
    rules = alert_rules(made["rules/alerts.yml"])
    shown: dict[str, set[str]] = {}
    for case in all_cases():
        shown.setdefault(identity(rule_of(case, rules)), set()).update({"fires", "quiet"} & case.keys())
    assert shown == {identity(rule): {"fires", "quiet"} for rule in rules}


def test_promtool_takes_the_files(promtool: str, made: dict[str, str], tmp_path: Path) -> None:
    _write(made, tmp_path)
    for what, path in (("config", "prometheus.yml"), ("rules", "rules/recording.yml"), ("rules", "rules/alerts.yml")):
        done = subprocess.run(
            [promtool, "check", what, tmp_path / path], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "FAILED" not in done.stdout + done.stderr


def test_alerts_fire_and_are_quiet(promtool: str, made: dict[str, str], tmp_path: Path) -> None:
    """Every case: the alert with exactly these labels and words, or none of its name.

    Each alert is evaluated beside those of its name and the records they ask for: with all rules, minute by minute over
    a month, most of the time would go into what nobody looks at.
    """
    rules = alert_rules(made["rules/alerts.yml"])
    records = alert_rules(made["rules/recording.yml"])
    cases: dict[str, list[dict[str, Any]]] = {}
    for case in all_cases():
        cases.setdefault(case["alert"], []).append(case)
    for name, of_name in cases.items():
        asked = [rule for rule in rules if rule["alert"] == name]
        _write_yaml(tmp_path / f"{name}.rules.yml", {"groups": [{"name": name, "rules": _needed(asked, records)}]})
        document = {
            "rule_files": [f"{name}.rules.yml"],
            "evaluation_interval": "1m",
            "tests": [test for case in of_name for test in _promtool_tests(case, rule_of(case, rules))],
        }
        _write_yaml(tmp_path / f"{name}.yml", document)
    argv = [promtool, "test", "rules", *(f"{name}.yml" for name in cases)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def _needed(asked: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules, after the records that they ask for, and those ask for, in the order of the file."""
    needed = asked
    while True:
        metrics = {each.metric for rule in needed for each in used(rule["expr"])}
        more = [record for record in records if record["record"] in metrics]
        if len(more) + len(asked) == len(needed):
            return needed
        needed = [*more, *asked]


def _write_yaml(path: Path, document: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def _write(made: dict[str, str], folder: Path) -> None:
    (folder / "rules").mkdir()
    for name, text in made.items():
        (folder / name).write_text(text)


def _promtool_tests(case: dict[str, Any], rule: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield _promtool_test(case["alert"], case["fires"], [_expected(rule, case["fires"])])
    yield _promtool_test(case["alert"], case["quiet"], [])


def _promtool_test(alert: str, case: dict[str, Any], expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": f"{alert}: {case.get('why', 'fires')}",
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
        "alert_rule_test": [{"eval_time": case["at"], "alertname": alert, "exp_alerts": expected}],
    }


def _expected(rule: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    labels = {**rule["labels"], **case["labels"]}
    said = {name: _filled(text, labels) for name, text in rule["annotations"].items()}
    said |= {name: case[name].replace("{web}", WEB_URL) for name in ("summary", "description") if name in case}
    assert not any("{{" in text for text in said.values()), f"give the words of {rule['alert']}: {said}"
    return {"exp_labels": labels, "exp_annotations": said}


def _filled(text: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), text)
