"""`mdtasks providers`: what people and scripts read, pausing and resuming, wrong use; and who else tells of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import redis

from mdtasks.cli import output
from mdtasks.domain.errors import AuthError, VendorError
from mdtasks.domain.health import Pause, Sample
from mdtasks.flows.deps import Deps
from mdtasks.flows.providers import pause, snapshot_once
from mdtasks.flows.runbooks.findings import Finding
from mdtasks.flows.runbooks.rounds import look
from mdtasks.stack.report import providers_aside
from tests.integration.cli_calls import Cli
from tests.integration.told import NAME, demote, promote

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@pytest.fixture
def ill(cli_deps: Deps) -> Deps:
    """The provider answered for ten minutes, then failed and was demoted."""
    for number in range(57):
        cli_deps.health.tell_request(NAME, "bars", 0.2, None)
        snapshot_once(cli_deps, NOW + timedelta(seconds=10 * number))
    demote(cli_deps.health)
    for number in range(57, 60):
        snapshot_once(cli_deps, NOW + timedelta(seconds=10 * number))
    return cli_deps


def test_a_well_provider_is_a_line_without_talk(cli: Cli) -> None:
    shown = cli("providers")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[1].split() == ["simulator", "ok", "1.00", "-", "-", "-", "-"]


def test_who_is_aside_and_why_is_said_below_the_table(cli: Cli, ill: Deps) -> None:
    shown = cli("providers")
    assert shown.out.splitlines()[1].split() == [
        NAME,
        "demoted",
        "0.29",
        "█" * 19 + "▃",
        "0.20",
        "s",
        "4",
        "of",
        "60",
        "-",
    ]
    assert shown.err.splitlines()[0].startswith("simulator: demoted since ")
    pause(NAME, "wrong splits", "ann@desk", ill, NOW)
    assert " paused " in cli("providers").out
    assert "simulator: paused by ann@desk: wrong splits" in cli("providers").err


def test_the_page_of_one_shows_arithmetic_looks_and_case(cli: Cli, ill: Deps) -> None:
    shown = cli("providers", NAME).out
    for words in (
        "simulator  demoted  score 0.287",
        "breaker       0.000  x 0.45  0.000",
        "demoted when evidence < 0.55, after 3 requests or more",
        "promoted when evidence >= 0.7 and 3 answers in a row",
        "left alone for 60 s, each time longer up to 300 s",
        "09:30:00 to 09:39:50 UTC, 60 looks, lowest 0.287",
        "no. 1 for intraday bars, no. 1 for daily bars, no. 1 for quotes",
        "0.25 x latency 0.522 + 0.20 x errors 0.522 + 0.10 x completeness 0.522 = 0.287",
        "0.522 < 0.55 (BREAKER_DEMOTE_THRESHOLD)",
        "newest samples  6 of 60, the newest first; of 60 requests 4 failed",
        "vendor_error",
    ):
        assert words in shown, words
    promote(ill.health)
    snapshot_once(ill, NOW + timedelta(hours=1))
    again = cli("providers", NAME).out
    assert again.index("\npromoted  ") < again.index("\ndemoted  ")
    assert "answers in a row >= 3 (BREAKER_PROMOTE_MIN_SAMPLES)" in again
    assert "it was left alone 1 time before" in again


def test_what_a_vendor_has_beside_bars_is_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "lists its instruments" not in cli("providers", NAME).out
    monkeypatch.setenv("MDTASKS_MASSIVE_KEY", "hush")
    page = cli("providers", "massive").out
    assert "lists its instruments: `mdtasks universe refresh --source massive`" in page
    assert "corporate actions" in page
    declared = cli("providers", "massive", "--json").json["capabilities"]
    assert (declared["actions"], declared["listing"]) == (True, True)


def test_errors_are_counted_over_requests_and_not_over_judgements(cli: Cli, cli_deps: Deps) -> None:
    for error in (None, VendorError("500", provider=NAME), None):
        cli_deps.health.tell_request(NAME, "bars", 0.1, error)
    cli_deps.health.tell_answer(NAME, Sample(NOW, "bars", "answer", completeness=1.0))
    assert "  1 of 3  " in cli("providers").out
    page = cli("providers", NAME).out
    assert "newest samples  4 of 4, the newest first; of 3 requests 1 failed" in page
    assert page.count("  bars asked ") == 3
    assert page.count("  bars judged ") == 1
    found = cli("providers", NAME, "--json").json
    assert (found["errors"], found["sampled_requests"], len(found["samples"])) == ({"vendor_error": 1}, 3, 4)


def test_a_provider_that_refuses_all_without_being_ill_is_named(cli: Cli, cli_deps: Deps) -> None:
    for _ in range(3):
        cli_deps.health.tell_request(NAME, "bars", 0.1, AuthError("the key is refused", provider=NAME))
    told = "simulator: its newest requests failed, all 3 (auth 3): `mdtasks doctor` looks at its key and plan"
    assert told in cli("providers").err
    assert cli("providers", "--json").json[0]["state"] == "closed"
    cli_deps.health.tell_request(NAME, "bars", 0.1, None)
    assert "its newest requests failed" not in cli("providers").err


def test_on_a_terminal_of_eighty_columns_nothing_is_wider(cli: Cli, ill: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    ill.health.tell_answer(NAME, Sample(NOW, "bars", "answer", completeness=0.25))
    pause(NAME, "wrong splits since Monday, see the mail of their support of the twentieth", "ann@desk", ill, NOW)
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("providers",), ("providers", NAME)):
        shown = cli(*words)
        assert "\x1b[" not in shown.out  # no colour where the output is no terminal or NO_COLOR is set
        assert max(len(line) for line in shown.out.splitlines()) <= 80


def test_colour_is_for_meaning(cli: Cli, ill: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = cli("providers", NAME).out
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[31mdemoted" in cli("providers").out
    assert "\x1b[31mdemoted" in cli("providers", NAME).out
    assert "\x1b" not in plain


def test_scripts_read_what_http_answers(cli: Cli, ill: Deps) -> None:
    (found,) = cli("providers", "--json").json
    assert (found["state"], found["errors"], len(found["history"])) == ("open", {"vendor_error": 4}, 60)
    assert found["history"][0]["timestamp"] == "2026-11-24T09:30:00Z"
    one = cli("providers", NAME, "--json").json
    assert [each["kind"] for each in one["transitions"]] == ["demoted"]
    assert one["transitions"][0]["at"].endswith("Z")


def test_a_provider_is_paused_and_resumed(cli: Cli, cli_deps: Deps) -> None:
    made = cli("providers", "pause", NAME, "--reason", "wrong splits")
    assert (made.code, made.out) == (
        0,
        "simulator is paused: nobody asks it until `mdtasks providers resume simulator`\n",
    )
    assert made.err == "there is no other provider: nothing is fetched until then\n"
    assert cli_deps.health.admit(NAME, ()).verdict == "paused"
    again = cli("providers", "pause", NAME, "--reason", "again", "--json")
    assert (again.code, again.json["code"]) == (4, "conflict")
    assert "wrong splits" in again.json["error"]
    back = cli("providers", "resume", NAME, "--reason", "right again", "--json")
    assert (back.code, back.json["state"], back.json["reason"], back.json["in_force"]) == (
        0,
        "resumed",
        "right again",
        True,
    )
    assert cli("providers", "resume", NAME).code == 4
    page = cli("providers", NAME).out
    assert page.index("right again") < page.index("wrong splits")


def test_without_redis_a_pause_is_on_record(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as away:
        away.setenv("MDTASKS_REDIS_URL", "redis://127.0.0.1:1/0")
        made = cli("providers", "pause", NAME, "--reason", "wrong splits")
        assert made.code == 0
        assert "it is on record; Redis is away" in made.err
        assert cli("providers").code == 7
    assert cli("providers", "resume", NAME).code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("providers", "simulater"), 2, "did you mean simulator?"),
        (("providers", "pause", "simulater", "--reason", "x"), 2, "did you mean simulator?"),
        (("providers", "pause", NAME), 2, "--reason"),
        (("providers", "pause", NAME, "--reason", " "), 2, "reason is empty"),
        (("providers", "pause", "--reason", "x"), 2, "NAME"),
        (("providers", "pause", NAME, "--reson", "x"), 2, "did you mean --reason?"),
        (("providers", NAME, "files"), 2, "unrecognized arguments"),
        (("provider",), 2, "did you mean `mdtasks providers`?"),
    ],
)
def test_wrong_use_is_refused_by_name(cli: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    found = cli(*words)
    assert (found.code, found.out) == (code, "")
    assert said in found.err


def test_a_mistyped_name_is_told_of_names_and_an_unknown_one_of_settings(cli: Cli) -> None:
    typo = cli("providers", "pause", "simulater", "--reason", "x").err
    assert "`mdtasks providers` lists those that there are" in typo
    assert "MDTASKS_" not in typo
    assert "MDTASKS_ALPACA_KEY" in cli("providers", "alpaca").err


def test_without_any_provider_it_says_what_to_set(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDTASKS_SIMULATOR", "0")
    assert "MDTASKS_FILES_MAP" in cli("providers").err
    assert "MDTASKS_ALPACA_KEY" in cli("providers").err
    assert cli("providers", "--json").json == []


# -- who else tells of it --------------------------------------------------------------------------


def test_doctor_and_status_name_who_is_aside(cli: Cli, cli_deps: Deps) -> None:
    home = cli.settings.home
    assert providers_aside(home) == {}
    pause(NAME, "wrong splits", "ann", cli_deps, NOW)
    assert providers_aside(home) == {NAME: "paused by ann: wrong splits"}
    (check,) = [each for each in cli("doctor", "--json").json["checks"] if each["part"] == f"provider {NAME}"]
    assert check["state"] == "warn"
    assert check["found"].endswith("paused by ann: wrong splits")
    assert check["todo"] == "`mdtasks providers simulator` shows the case"


def test_status_names_no_provider_that_the_stack_does_not_have(
    cli: Cli, cli_deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli_deps.health.pause("alpaca", Pause("ann", "its contract ended", NOW))
    demote(cli_deps.health)
    assert list(providers_aside(cli.settings.home)) == [NAME]
    monkeypatch.setenv("MDTASKS_SIMULATOR", "0")
    assert providers_aside(cli.settings.home) == {}


def test_status_does_not_fail_where_redis_is_away(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDTASKS_REDIS_URL", "redis://127.0.0.1:1/0")
    assert providers_aside(cli.settings.home) == {}


def causes(deps: Deps, alert: str = "ProviderDemoted", now: datetime = NOW) -> list[str]:
    return [each.cause for each in look(alert, deps, now).findings]


def finding(deps: Deps, cause: str, now: datetime = NOW) -> Finding:
    (found,) = [each for each in look("ProviderDemoted", deps, now).findings if each.cause == cause]
    return found


def test_a_runbook_goes_by_the_case_file(cli_deps: Deps) -> None:
    demote(cli_deps.health)
    (found,) = [
        each for each in look("ProviderDemoted", cli_deps, NOW).findings if each.cause == "simulator is demoted"
    ]
    assert "its case is not on record yet" in found.evidence
    snapshot_once(cli_deps, NOW)
    (found,) = [
        each for each in look("ProviderDemoted", cli_deps, NOW).findings if each.cause == "simulator is demoted"
    ]
    assert "0.522 < 0.55 (BREAKER_DEMOTE_THRESHOLD)" in found.evidence
    assert "of its 4 requests: 4 vendor_error" in found.evidence
    assert "mdtasks providers pause simulator --reason '...'" in found.repair.words
    promote(cli_deps.health)
    assert "simulator is demoted" not in causes(cli_deps)
    snapshot_once(cli_deps, NOW)
    over = finding(cli_deps, "simulator was demoted and is well again", datetime.now(UTC))
    assert over.likelihood < 0.5
    assert {"of its 4 requests: 4 vendor_error", "left alone 1 time"} < set(over.evidence)
    assert causes(cli_deps, now=datetime.now(UTC) + timedelta(hours=7)) == []


def test_a_case_of_the_demotion_before_is_not_taken_for_this_one(cli_deps: Deps, redis_client: redis.Redis) -> None:
    demote(cli_deps.health)
    snapshot_once(cli_deps, NOW)
    since = int(redis_client.hget(f"mdtasks:provider:{NAME}", "since_us") or 0)
    redis_client.hset(f"mdtasks:provider:{NAME}", "since_us", since + 60_000_000)  # it was promoted and demoted again
    (found,) = [
        each for each in look("ProviderDemoted", cli_deps, NOW).findings if each.cause == "simulator is demoted"
    ]
    assert "its case is not on record yet" in found.evidence


def test_a_provider_that_calls_silent_what_others_have_is_said_to_lie(cli_deps: Deps) -> None:
    cli_deps.health.tell_answer(NAME, Sample(NOW, "bars", "answer", completeness=0.4, disagreement=0.3))
    demote(cli_deps.health)
    snapshot_once(cli_deps, NOW)
    (found,) = [
        each for each in look("ProviderDemoted", cli_deps, NOW).findings if each.cause == "simulator is demoted"
    ]
    assert found.evidence[-1] == "it lies: another had bars in up to 30% of the time that it called silent"


@pytest.mark.parametrize(
    ("age", "cause"),
    [
        (timedelta(hours=24), "simulator is paused"),
        (timedelta(hours=24, seconds=1), "simulator is paused, perhaps forgotten"),
    ],
)
def test_a_pause_that_was_forgotten_is_a_finding(cli_deps: Deps, age: timedelta, cause: str) -> None:
    pause(NAME, "wrong splits", "ann", cli_deps, NOW)
    for alert in ("ProviderDemoted", "SLOGapViolationHighT1"):
        assert cause in causes(cli_deps, alert, NOW + age)
    found = finding(cli_deps, cause, NOW + age)
    assert found.repair.words == "when its reason is gone: mdtasks providers resume simulator"
    assert "by ann: wrong splits" in found.evidence[0]
